// The page: sign in, choose, see what will come of it, and export.
import { analyze, estimateRows, listDatasets, startExport } from './client.js';
import { Form, at, counted, showBuckets, sized } from './form.js';
import { Jobs } from './jobs.js';
import { pickerOptions, saveRows, whyUnable } from './save.js';
import { Statements } from './statement.js';

const ESTIMATE_AFTER_MS = 350;
const SPOKEN_EVERY_MS = 5_000;
const SHOWN_EVERY_MS = 200;

// The key is here, and nowhere else in the browser.
let key = null;
let jobs = null;
let running = null;
let estimate = null;
let grouped = '';
let asking = new AbortController();
let counting = null;
// Ends with the sign-out: what is still being asked for belongs to whoever asked.
let session = new AbortController();

const api = () => ({ url: new URL('.', document.baseURI).href, apiKey: key, signal: session.signal });
const form = new Form(changed);
const ONE_AT_A_TIME = 'One export at a time: this one has to end first.';
const statements = new Statements(api, () => (running === null ? '' : ONE_AT_A_TIME), () => showButtons());

// What is said last is the only thing that stands there.
function say(text, problem = false) {
  at('result').textContent = problem ? '' : text;
  at('problem').textContent = problem ? text : '';
}
const NOT_TAKEN = 'The service does not take the key any more. Sign in again';
const sentence = (error) => (error.status === 401 ? NOT_TAKEN : [error.message, error.detail].filter(Boolean).join(': '));
/** The key for what a person has just asked for: one that is not taken any more is asked for again. */
const asker = (then) => ({ ...api(), apiKey: (refusal) => (refusal === null ? key : signIn(`${NOT_TAKEN}, and ${then}.`)) });

// ---- Sign in

let signedIn = null;

/** Resolves to the key, or to null where the person has none now. */
function signIn(why = '') {
  at('sign-in-problem').textContent = why;
  at('key').value = '';
  if (!at('sign-in').open) at('sign-in').showModal();
  signedIn ??= Promise.withResolvers();
  return signedIn.promise;
}

at('sign-in-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const given = at('key').value.trim();
  try {
    const { datasets } = await listDatasets({ ...api(), apiKey: given });
    const renewed = key !== null;
    key = given;
    at('sign-in').close();
    // A key that only takes the place of one that is not taken any more leaves what was chosen.
    if (!renewed) await entered(datasets);
  } catch (error) {
    at('sign-in-problem').textContent = error.status === 401 ? 'The service does not take this key.' : sentence(error);
    at('key').select();
  }
});
at('not-now').addEventListener('click', () => at('sign-in').close());
at('sign-in').addEventListener('close', () => {
  // Nothing of a key stays in the document.
  const typed = at('key').value;
  at('key').value = '';
  signedIn?.resolve(typed !== '' && typed.trim() === key ? key : null);
  signedIn = null;
});
at('sign').addEventListener('click', () => {
  if (key === null) return void signIn();
  if (running !== null || statements.running) return say('An export is being saved: cancel it first.', true);
  statements.stop();
  key = null;
  session.abort();
  session = new AbortController();
  asking.abort();
  hideGroups();
  jobs?.stop();
  jobs = null;
  form.clear();
  at('estimate').textContent = '';
  at('sign').textContent = 'Sign in';
  at('export').hidden = true;
  say('');
});

async function entered(datasets) {
  const { signal } = session;
  at('sign').textContent = 'Sign out';
  at('export').hidden = datasets.length === 0;
  const writes = await statements.start().catch(() => false);
  if (signal.aborted) return;
  say(datasets.length === 0 && !writes ? 'This key opens no dataset.' : '');
  jobs = new Jobs(api, (text) => say(text));
  const has = await jobs.start();
  if (signal.aborted) return;
  at('queue').hidden = !has;
  at('parquet').hidden = !has;
  if (datasets.length === 0) return;
  form.show(datasets);
  at('dataset').focus();
}

// ---- Before the click

/** Why the rows cannot be saved now; empty where they can. */
function whyNot() {
  if (whyUnable() !== '') return whyUnable();
  if (form.format === 'parquet') return 'Parquet is written in the background.';
  return running === null && !statements.running ? form.missing : ONE_AT_A_TIME;
}

function changed() {
  showButtons();
  asking.abort();
  asking = new AbortController();
  estimate = null;
  const { bucket } = form;
  // Groups are of the filters under which they were counted.
  if (bucket === null && JSON.stringify(form.scope) !== grouped) hideGroups();
  if (form.missing !== '') return void (at('estimate').textContent = '');
  if (bucket !== null) return showEstimate(bucket.rows === null ? null : { rows: bucket.rows, kind: 'exact' });
  const { signal } = asking;
  setTimeout(() => signal.aborted || fetchEstimate(signal), ESTIMATE_AFTER_MS);
}

function showButtons() {
  statements.changed();
  // Who has no dataset has no form.
  if (at('export').hidden) return;
  for (const [id, why] of [['save', whyNot()], ['queue', form.missing]]) {
    at(id).setAttribute('aria-disabled', String(why !== ''));
    at(`${id}-why`).textContent = at(id).hidden || (id === 'queue' && why === whyNot()) ? '' : why;
  }
}

async function fetchEstimate(signal) {
  try {
    const format = form.format === 'parquet' ? 'ndjson' : form.format;
    showEstimate(await estimateRows({ ...api(), ...form.query, format, signal }));
  } catch (error) {
    if (!signal.aborted) at('estimate').textContent = `How many rows there are is not known: ${sentence(error)}.`;
  }
}

/** Says how many rows there are, and what the cap will do. */
function showEstimate(found) {
  const limit = form.dataset.max_rows;
  estimate = found;
  const cut = limit === null ? false : found?.will_truncate ?? (found?.kind === 'exact' ? found.rows > limit : null);
  const said = [];
  if (found !== null) {
    if (found.rows === 0 && found.kind === 'exact') return void (at('estimate').textContent = 'No data matches your filters.');
    // A count that has passed the limit stops there.
    const more = found.kind === 'at_least' && cut === true;
    said.push(more ? `More than ${counted(limit, 'row')}.` : `${{ exact: '', at_least: 'At least ', estimate: 'About ' }[found.kind]}${counted(found.rows, 'row')}.`);
  }
  if (cut === true) said.push(`Your limit is ${counted(limit, 'row')}: the file will end after the first ${counted(limit, 'row')}.`);
  if (cut === null) said.push(`If there are more than ${counted(limit, 'row')}, which is your limit, the file will end there.`);
  if (found?.estimated_minutes > 1) said.push(`That takes about ${counted(found.estimated_minutes, 'minute')}.`);
  at('estimate').textContent = said.join(' ');
}

at('show-groups').addEventListener('click', async () => {
  const analysis = at('analysis').value;
  form.choose(null);
  if (form.missingInFilters !== '') return void (at('groups-said').textContent = form.missingInFilters);
  const { scope } = form;
  hideGroups();
  const run = counting = new AbortController();
  const { signal } = run;
  grouped = JSON.stringify(scope);
  at('bucket-list').hidden = true;
  at('groups-said').textContent = 'Counting…';
  try {
    const found = await analyze({ ...asker('the groups are counted'), dataset: form.dataset.name, analysis, ...scope, signal });
    if (signal.aborted) return;
    if (JSON.stringify(scope) !== JSON.stringify(form.scope)) return void (at('groups-said').textContent = '');
    showBuckets(form, analysis, found, (bucket) => form.choose(bucket));
  } catch (error) {
    if (!signal.aborted) at('groups-said').textContent = `${sentence(error)}.`;
  } finally {
    if (counting === run) counting = null;
  }
});
at('analysis').addEventListener('change', () => {
  hideGroups();
  form.choose(null);
});
// The form's own listener comes first, and says what is true of the groups of another dataset.
at('dataset').addEventListener('change', () => counting?.abort());
function hideGroups() {
  if (at('bucket-list').hidden && counting === null) return;
  counting?.abort();
  counting = null;
  at('bucket-list').hidden = true;
  at('groups-said').textContent = '';
}

// ---- The click

at('save').addEventListener('click', () => {
  // Nothing is waited for before the picker: the browser shows it only while it knows of the click.
  const why = whyNot();
  if (why !== '') return say(why, true);
  const query = form.query;
  running = new AbortController();
  let picking;
  try {
    picking = globalThis.showSaveFilePicker(pickerOptions(query.dataset, query.format));
  } catch (error) {
    picking = Promise.reject(error);
  }
  void save(picking, query, running);
});

async function save(picking, query, run) {
  say('');
  showButtons();
  let view = null;
  try {
    const handle = await picking;
    view = new Running(estimate, form.dataset.max_rows);
    const options = { ...asker('the export goes on'), ...query, signal: run.signal, onProgress: (progress) => view.show(progress) };
    const result = await saveRows(handle, options);
    say(told(result, view), !['saved', 'truncated', 'cancelled'].includes(result.outcome));
  } catch (error) {
    // Who closes the picker wants nothing.
    if (error.name !== 'AbortError') say(`The browser lets no file be picked: ${error.message}`, true);
  } finally {
    running = null;
    view?.end();
    showButtons();
  }
}

at('cancel').addEventListener('click', () => running?.abort());
addEventListener('beforeunload', (event) => (running !== null || statements.running) && event.preventDefault());

const LEFT = {
  old: ' The file that you chose is as it was.',
  removed: ' If the file that you chose had been there before, what was in it is lost: the browser empties a file when it is chosen.',
  empty: ' The file that you chose is empty now, and what was in it before is lost: the browser empties a file when it is chosen.',
};

/** The one sentence that is true of what was saved. */
function told({ outcome, rows, bytes, maxRows, error, left }, view) {
  const incomplete = error && `Export incomplete: ${sentence(error)}.`;
  switch (outcome) {
    case 'saved': return `Saved ${counted(rows, 'row')}, ${sized(bytes)}, in ${view.elapsed === '0:00' ? 'less than a second' : view.elapsed}.`;
    case 'truncated': return `Saved the first ${counted(rows, 'row')}, ${sized(bytes)}. The file is cut off there: your limit is ${counted(maxRows ?? rows, 'row')}, and there are more.`;
    case 'incomplete': return `${incomplete} ${keptOf(error, rows)}`;
    case 'cancelled': return `Cancelled; nothing is saved.${LEFT[left]}`;
    case 'refused': return `${sentence(error)}. Nothing is saved.${left === 'removed' ? '' : LEFT[left]}`;
    default: return `${incomplete} Nothing is saved.${LEFT[left]}`;
  }
}

/** What is in a file whose stream is not known to be whole. */
function keptOf({ code }, rows) {
  if (code === 'verification') return `The file has ${counted(rows, 'row')}, and something in them is not what the service sent: do not use it.`;
  return `The file has the first ${counted(rows, 'row')}, each of them whole.`;
}

/** How far an export is. */
class Running {
  #began = Date.now();
  #progress = { rows: 0, bytes: 0 };
  #shown = 0;
  #spoken = Date.now();
  #timer = setInterval(() => this.#draw(), 1_000);

  constructor(expected, limit) {
    const rows = expected?.kind === 'at_least' || !expected ? limit : Math.min(expected.rows, limit ?? expected.rows);
    at('bar').removeAttribute('value');
    at('bar').max = rows || 1;
    this.known = Boolean(rows);
    at('running').hidden = false;
    this.#draw();
    at('cancel').focus();
  }

  get elapsed() {
    const seconds = Math.floor((Date.now() - this.#began) / 1_000);
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
  }

  show(progress) {
    this.#progress = progress;
    if (Date.now() - this.#shown >= SHOWN_EVERY_MS) this.#draw();
  }

  end() {
    clearInterval(this.#timer);
    const focused = at('running').contains(document.activeElement);
    at('running').hidden = true;
    if (focused) at('save').focus();
    at('spoken').textContent = '';
  }

  #draw() {
    const { rows, bytes } = this.#progress;
    this.#shown = Date.now();
    at('figures').textContent = `${counted(rows, 'row')} · ${sized(bytes)} · ${this.elapsed}`;
    if (this.known && rows > 0) at('bar').value = Math.min(rows, at('bar').max);
    if (this.#shown - this.#spoken < SPOKEN_EVERY_MS) return;
    this.#spoken = this.#shown;
    at('spoken').textContent = `${counted(rows, 'row')} so far`;
  }
}

// ---- In the background

at('queue').addEventListener('click', async () => {
  if (form.missing !== '') return say(form.missing, true);
  const random = [...crypto.getRandomValues(new Uint8Array(16))];
  const idempotencyKey = random.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const { signal } = session;
  try {
    const job = await startExport({ ...asker('the export is queued'), ...form.query, idempotencyKey });
    if (signal.aborted) return;
    jobs.add(job);
    say('The export is queued. It goes on when this page is closed; its link will stand below.');
  } catch (error) {
    if (!signal.aborted) say(`${sentence(error)}.`, true);
  }
});

void signIn();
