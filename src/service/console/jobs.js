// The list of background exports: how far each is, its links, and what can be done with it.
import { exportEvents, listExports, listFiles, removeExport } from './client.js';
import { at, counted, made, sized } from './form.js';

// A browser has six connections to a service of HTTP/1.1, and a stream wants one.
const FOLLOWED_MAX = 2;
const [AGAIN_MS, AGAIN_LATER_MS] = [5_000, 30_000];
const LIVE = ['queued', 'running', 'cancelling'];
const NAMES = {
  queued: 'Waiting', running: 'Running', cancelling: 'Being cancelled', complete: 'Ready', truncated: 'Ready, cut off by your limit',
  failed: 'Failed', cancelled: 'Cancelled', expired: 'Expired',
};

export class Jobs {
  #jobs = new Map();
  #followed = new Map();
  #api;
  #said;
  #stopped = new AbortController();
  #timer = null;
  #next = null;

  /** `api` is what all requests have; `said` tells the person something. */
  constructor(api, said) {
    this.#api = api;
    // Nobody hears of the jobs of whoever has signed out.
    this.#said = (text) => this.#stopped.signal.aborted || said(text);
  }

  /** Whether the service has background exports; shows those that there are. */
  async start() {
    try {
      const { exports, next } = await listExports(this.#options);
      this.#next = next;
      this.#take(exports);
    } catch (error) {
      if ([404, 405, 501].includes(error.status)) return false;
      at('jobs-said').textContent = `The list cannot be had: ${error.message}.`;
    }
    if (this.#stopped.signal.aborted) return false;
    at('jobs').hidden = false;
    at('more-jobs').hidden = this.#next === null;
    at('more-jobs').onclick = () => this.#more();
    this.#poll();
    return true;
  }

  stop() {
    this.#stopped.abort();
    clearTimeout(this.#timer);
    at('job-list').replaceChildren();
    at('jobs').hidden = true;
  }

  /** A job that has just been queued. */
  add(job) {
    this.#take([job]);
    clearTimeout(this.#timer);
    this.#poll();
  }

  get #options() {
    return { ...this.#api(), signal: this.#stopped.signal };
  }

  async #more() {
    try {
      const { exports, next } = await listExports({ ...this.#options, cursor: this.#next });
      this.#next = next;
      at('more-jobs').hidden = next === null;
      this.#take(exports);
    } catch (error) {
      this.#said(`The list cannot be had: ${error.message}.`);
    }
  }

  /** The list itself is asked for now and then: what no events tell comes by it. */
  #poll() {
    const live = [...this.#jobs.values()].some(({ status }) => LIVE.includes(status));
    const timer = setTimeout(async () => {
      try {
        if (!document.hidden) this.#take((await listExports(this.#options)).exports);
        at('jobs-said').textContent = this.#jobs.size === 0 ? 'There are none.' : '';
      } catch (error) {
        if (!this.#stopped.signal.aborted) at('jobs-said').textContent = `The list is not fresh: ${error.message}.`;
      }
      if (this.#timer === timer && !this.#stopped.signal.aborted) this.#poll();
    }, live ? AGAIN_MS : AGAIN_LATER_MS);
    this.#timer = timer;
    at('jobs-said').textContent = this.#jobs.size === 0 ? 'There are none.' : '';
  }

  #take(jobs) {
    if (this.#stopped.signal.aborted) return;
    for (const job of jobs) {
      const known = this.#jobs.get(job.id);
      this.#jobs.set(job.id, { ...known, ...job });
      if (known !== undefined && LIVE.includes(known.status) && !LIVE.includes(job.status)) this.#said(`${title(job)}: ${NAMES[job.status]}.`);
    }
    const newest = [...this.#jobs.values()].sort((one, other) => new Date(other.created_at) - new Date(one.created_at) || other.created_at.localeCompare(one.created_at));
    for (const [place, job] of newest.entries()) this.#show(job, place);
    const wanted = newest.filter(({ status }) => LIVE.includes(status)).reverse();
    for (const { id } of wanted) if (this.#followed.size < FOLLOWED_MAX) this.#follow(id);
  }

  async #follow(id) {
    if (this.#followed.has(id)) return;
    this.#followed.set(id, true);
    try {
      for await (const event of exportEvents({ ...this.#options, id })) {
        // How it ended has more to it than an event says.
        if (LIVE.includes(event.status)) this.#take([{ ...event, id, created_at: this.#jobs.get(id).created_at }]);
      }
      this.#take((await listExports(this.#options)).exports);
    } catch {
      // The list goes on telling of it.
    } finally {
      this.#followed.delete(id);
    }
  }

  #show(job, place) {
    const list = at('job-list');
    const id = `job-${job.id}`;
    let item = document.getElementById(id);
    if (item === null) {
      item = made('li', { id }, made('h3'), made('p', { className: 'state' }), made('progress', { max: 100, ariaLabel: 'Progress' }), made('p', { className: 'why' }), made('ul', { className: 'files', hidden: true }), made('p', { className: 'actions' }));
    }
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
    const [heading, state, bar, note, files, actions] = item.children;
    text(heading, title(job));
    text(state, stateOf(job));
    bar.hidden = job.status !== 'running' || typeof job.percent !== 'number';
    if (!bar.hidden) bar.value = job.percent;
    text(note, noteOf(job));
    note.hidden = note.textContent === '';
    const wanted = `${job.status} ${linkOf(job)}`;
    if (actions.dataset.of === wanted) return;
    actions.dataset.of = wanted;
    files.replaceChildren();
    files.hidden = true;
    actions.replaceChildren(...this.#actions(job, files));
    actions.hidden = actions.children.length === 0;
  }

  #actions(job, files) {
    const found = [];
    const link = linkOf(job);
    if (link !== null && job.format !== 'parquet') found.push(this.#link(link, `Download ${title(job)}`, 'Download'));
    if (link !== null && job.format === 'parquet') {
      // Its files are not to be joined into one.
      const button = made('button', { type: 'button', ariaLabel: `Files of ${title(job)}` }, 'Files');
      button.addEventListener('click', () => this.#files(job, files));
      found.push(button);
    }
    const cancels = job.status === 'queued' || job.status === 'running';
    if (cancels || ['complete', 'truncated'].includes(job.status)) {
      const what = cancels ? 'Cancel' : 'Delete';
      const button = made('button', { type: 'button', ariaLabel: `${what} ${title(job)}` }, what);
      button.addEventListener('click', () => this.#remove(job, cancels));
      found.push(button);
    }
    return found;
  }

  #link(link, ariaLabel, label) {
    // A path is one below the page's, whatever a proxy has put in front of both.
    const href = new URL(link.replace(/^\/(?!\/)/, ''), this.#api().url).href;
    return made('a', { href, download: '', ariaLabel }, label);
  }

  async #files(job, list) {
    try {
      const { parts } = await listFiles({ ...this.#options, id: job.id });
      const line = ({ url, bytes }, i) => made('li', {}, this.#link(url, `Download file ${i + 1} of ${title(job)}`, `File ${i + 1}`), ` · ${sized(bytes)}`);
      list.replaceChildren(...parts.map(line));
      list.hidden = false;
      list.querySelector('a')?.focus();
    } catch (error) {
      this.#said(`${title(job)}: ${error.message}.`);
    }
  }

  async #remove(job, cancels) {
    if (!cancels && !confirm('Delete the files? All links to them stop working at once.')) return;
    try {
      await removeExport({ ...this.#options, id: job.id });
      this.#said(cancels ? `${title(job)} is being cancelled.` : `${title(job)} is deleted.`);
      this.#take((await listExports(this.#options)).exports);
    } catch (error) {
      this.#said(error.status === 409 ? 'It is just being finished: wait a moment.' : `${title(job)}: ${error.message}.`);
    }
  }
}

/** Changes only what has changed: a screen reader is not told the same again. */
function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const moment = new Intl.DateTimeFormat('en', { dateStyle: 'medium', timeStyle: 'short' });
const FORMATS = { csv: 'CSV', ndjson: 'NDJSON', parquet: 'Parquet' };
const title = (job) => [job.dataset, FORMATS[job.format], moment.format(new Date(job.created_at))].filter(Boolean).join(', ');

const leftOf = (job) => (new Date(job.expires_at) - Date.now()) / 1_000;
/** The link while it works; null where there is none. */
const linkOf = (job) => (job.download_url && !(job.expires_at && leftOf(job) <= 0) ? job.download_url : null);

function stateOf(job) {
  const rows = job.processed_rows > 0 ? [counted(job.processed_rows, 'row')] : [];
  if (job.status === 'running' && job.estimated_rows > 0) rows.push(`${rows.length > 0 ? 'of ' : ''}about ${counted(job.estimated_rows, 'row')}`);
  const more = [rows.join(' '), job.bytes > 0 ? sized(job.bytes) : '', job.parts > 1 ? counted(job.parts, 'file') : ''];
  if (job.status === 'running' && typeof job.eta_seconds === 'number') more.push(`${lasting(job.eta_seconds)} left`);
  const facts = LIVE.includes(job.status) || job.download_url ? more.filter((fact) => fact !== '') : [];
  return [NAMES[job.status] ?? job.status, ...facts].join(' · ');
}

function noteOf(job) {
  if (job.status === 'failed') return job.error?.message ?? '';
  if (job.status === 'expired') return 'Its files are removed.';
  if (job.status === 'running' && job.attempt > 1) return `Attempt ${job.attempt}`;
  if (!job.download_url || !job.expires_at) return '';
  return linkOf(job) === null ? 'The link works no more.' : `The link works for ${lasting(leftOf(job))} more.`;
}

function lasting(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return counted(Math.ceil(seconds), 'second');
  if (minutes < 60) return counted(minutes, 'minute');
  return minutes < 48 * 60 ? counted(Math.floor(minutes / 60), 'hour') : counted(Math.floor(minutes / 1_440), 'day');
}
