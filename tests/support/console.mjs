// What a person does on the console page, in a real Chromium: `node console.mjs streams|sessions|looks|jobs|background|walk`. Where stands in
// CONSOLE_TEST as JSON; what was seen goes to standard output.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { withChromium } from './chromium.mjs';

const asked = JSON.parse(process.env.CONSOLE_TEST);

// No driver can answer the browser's own picker. This one demands a click as that does, and gives a real file of the page's
// private folder. A request can be refused or cut as well.
const PICKER = `{
  const state = globalThis.driven = { picks: 0, asked: [], inClick: false, name: 'rows', dismiss: false, deny: 0, denies: /[/]export$/, cut: false, alter: false, hold: false };
  addEventListener('click', () => { state.inClick = true; state.requestsAtClick = state.asked.length; setTimeout(() => { state.inClick = false; }, 0); }, true);
  globalThis.showSaveFilePicker = async (options) => {
    if (!navigator.userActivation.isActive) throw new DOMException('Must be handling a user gesture to show a file picker.', 'SecurityError');
    state.picks += 1;
    state.picked = { options, inClick: state.inClick, requests: state.asked.length - state.requestsAtClick };
    if (state.dismiss) throw new DOMException('The user aborted a request.', 'AbortError');
    return (await navigator.storage.getDirectory()).getFileHandle(state.name, { create: true });
  };
  const fetching = globalThis.fetch;
  globalThis.fetch = async (url, options) => {
    state.asked.push(new URL(url, location).pathname);
    if (state.deny > 0 && state.denies.test(String(url))) {
      state.deny -= 1;
      return new Response(JSON.stringify({ code: 'unauthorized', message: 'a valid API key is wanted' }), { status: 401 });
    }
    if (state.hold && String(url).includes('/v1/analyze/')) {
      // It comes however late, and whether it is still wanted or not.
      const held = await fetching(url, { ...options, signal: undefined });
      await new Promise((resolve) => { state.release = resolve; });
      return held;
    }
    const response = await fetching(url, options);
    if (state.alter && String(url).endsWith('/export')) {
      const other = new TransformStream({ transform: (piece, controller) => controller.enqueue(piece.map((byte) => (byte === 108 ? 76 : byte))) });
      return new Response(response.body.pipeThrough(other), { status: response.status, headers: response.headers });
    }
    if (!state.cut || !String(url).endsWith('/export')) return response;
    const cut = new TransformStream({ transform(piece, controller) {
      // Behind the first line of a value of two lines: not a row, though it looks like one.
      const text = new TextDecoder().decode(piece);
      const end = new TextEncoder().encode(text.slice(0, text.lastIndexOf('"two\\n') + 5)).length;
      controller.enqueue(piece.subarray(0, end));
      controller.error(new TypeError('network error'));
    } });
    return new Response(response.body.pipeThrough(cut), { status: response.status, headers: response.headers });
  };
}`;

// A service of jobs within the page, so that each state of one can be had when it is wanted.
const JOBS = `{
  const state = driven;
  Object.assign(state, { jobs: [{ id: 'job0', dataset: 'orders', format: 'csv', status: 'truncated', mode: 'background', attempt: 1, processed_rows: 5500, bytes: 900, parts: 1, created_at: '2026-11-29T09:00:00Z', expires_at: '2026-11-29T09:30:00Z', download_url: 'https://x.test/p/v1/exports/job0/download?sig=y', error: null }], streams: new Map(), posted: [], has: true });
  const answer = (body, status = 200) => new Response(JSON.stringify(body), { status });
  const fetching = globalThis.fetch;
  state.push = (id, event) => state.streams.get(id)?.enqueue(new TextEncoder().encode('data: ' + JSON.stringify(event) + '\\n\\n'));
  state.end = (id, change) => {
    Object.assign(state.jobs.find((job) => job.id === id), change);
    state.push(id, { status: change.status });
    state.streams.get(id)?.close();
    state.streams.delete(id);
  };
  globalThis.fetch = async (url, options = {}) => {
    const [, id, events] = /[/]v1[/]exports(?:[/]([^/?]+))?([/]events)?(?:[/]manifest)?(?:[?].*)?$/.exec(String(url)) ?? [null, null];
    if (!String(url).includes('/v1/exports')) return fetching(url, options);
    if (!state.has) return answer({ code: 'not_found', message: 'there is no such endpoint' }, 404);
    if (options.method === 'POST') {
      const asked = JSON.parse(options.body);
      state.posted.push({ ...asked, key: options.headers['idempotency-key'] });
      const job = { id: 'job' + state.posted.length, dataset: asked.dataset, format: asked.format, status: 'queued', mode: 'background', attempt: 0, estimated_rows: 6000, processed_rows: null, bytes: null, parts: null, created_at: '2026-11-29T10:0' + state.posted.length + ':00Z', expires_at: null, download_url: null, error: null };
      state.jobs.unshift(job);
      return answer(job, 202);
    }
    if (String(url).endsWith('/manifest')) return answer({ parts: [{ url: '/v1/exports/' + id + '/parts/0?sig=a', bytes: 4000000 }, { url: '/v1/exports/' + id + '/parts/1?sig=b', bytes: 6000000 }] });
    if (events) return new Response(new ReadableStream({ start(stream) { state.streams.set(id, stream); } }));
    const job = state.jobs.find((one) => one.id === id);
    if (options.method === 'DELETE') {
      job.status = job.status === 'running' ? 'cancelling' : 'expired';
      job.download_url = null;
      return new Response(null, { status: 204 });
    }
    return String(url).includes('cursor=') ? answer({ exports: [{ ...state.jobs.at(-1), id: 'older', created_at: '2026-11-01T10:00:00Z', status: 'failed', download_url: null, error: { code: 'source_unavailable', message: 'the database cannot be reached' } }], next: null }) : answer({ exports: state.jobs, next: state.jobs.length > 0 ? 'n' : null });
  };
}`;

const FILE = (name) => `(async () => { try { const file = await (await (await navigator.storage.getDirectory()).getFileHandle(${JSON.stringify(name)})).getFile(); return await file.text(); } catch (error) { return error.name; } })()`;

async function signedIn(chromium, key, options = {}) {
  const page = await chromium.page(`${asked.url}/`, { before: PICKER, ...options });
  await page.until(`document.activeElement?.id === 'key'`);
  await page.type(key);
  await page.press('Enter');
  await page.until(`!document.getElementById('export').hidden && document.getElementById('dataset').options.length > 0`);
  return page;
}

const choose = (page, id, value) =>
  page.value(`(() => { const field = document.getElementById('${id}'); field.value = ${JSON.stringify(value)}; field.dispatchEvent(new Event('change', { bubbles: true })); field.dispatchEvent(new Event('input', { bubbles: true })); return field.value; })()`);
const estimated = (page) => page.until(`document.getElementById('estimate').textContent`);
const ended = async (page) => {
  await page.until(`document.getElementById('running').hidden && (document.getElementById('result').textContent || document.getElementById('problem').textContent)`);
  return { result: await page.text('result'), problem: await page.text('problem') };
};
const saveAs = async (page, name) => {
  await page.value(`driven.name = ${JSON.stringify(name)}`);
  await page.click('#save');
};

/** Saving, in all its endings. */
async function streams(chromium) {
  const seen = {};
  let page = await chromium.page(`${asked.url}/`, { before: PICKER });
  await page.until(`document.activeElement?.id === 'key'`);
  await page.type('wrong');
  await page.press('Enter');
  seen.wrong_key = await page.until(`document.getElementById('sign-in-problem').textContent`);
  await page.close();

  page = await signedIn(chromium, 'whole');
  seen.kept = await page.value(`({ local: localStorage.length, session: sessionStorage.length, cookies: document.cookie, document: document.documentElement.outerHTML.includes('whole'), field: document.getElementById('key').value })`);
  seen.datasets = await page.value(`[...document.getElementById('dataset').options].map(({ value }) => value)`);
  await choose(page, 'dataset', 'orders');
  seen.labels = await page.value(`[...document.querySelectorAll('#column-list label')].map(({ innerText }) => innerText.trim())`);
  seen.estimate = await estimated(page);

  await page.value(`(() => { for (const [id, day] of [['from', '2026-01-02'], ['to', '2026-01-03']]) { document.getElementById(id).value = day; document.getElementById(id).dispatchEvent(new Event('input', { bubbles: true })); } document.getElementById('estimate').textContent = ''; })()`);
  seen.dated = [await page.text('dates-of'), await estimated(page)];
  await page.value(`(document.getElementById('from').value = '', document.getElementById('to').value = '')`);

  // With a filter and without two columns.
  await page.click('#column-list input[value=status]');
  await page.click('#column-list input[value=placed]');
  await page.click('#add-filter');
  await page.value(`(() => { const [column, op] = document.querySelectorAll('.filter select'); column.value = 'id'; op.value = '<='; op.dispatchEvent(new Event('change', { bubbles: true })); })()`);
  seen.unfinished = [await page.value(`document.getElementById('save').getAttribute('aria-disabled')`), await page.text('save-why')];
  await page.click('.filter input');
  await page.type('3');
  seen.filtered = await estimated(page);
  await saveAs(page, 'filtered');
  seen.saved = { ...await ended(page), file: await page.value(FILE('filtered')), picked: await page.value('driven.picked') };

  // Nothing is there: the file that was made for it goes.
  await page.value(`document.querySelector('.filter input').value = '-1'`);
  await saveAs(page, 'nothing');
  seen.nothing = { ...await ended(page), file: await page.value(FILE('nothing')) };

  // Dismissed: as if nothing had been.
  await page.value(`(driven.dismiss = true, driven.asked.length = 0)`);
  await page.click('#save');
  await page.until(`driven.picks === 3 && document.getElementById('save').getAttribute('aria-disabled') === 'false'`);
  seen.dismissed = [await page.text('result'), await page.text('problem'), await page.value(`driven.asked.filter((path) => path.endsWith('/export')).length`)];
  await page.value(`driven.dismiss = false`);
  await page.click('.filter button');

  // The key is taken no more: signing in comes after the pick, and the export goes on.
  await page.value(`driven.deny = 1`);
  await saveAs(page, 'renewed');
  await page.until(`document.getElementById('sign-in').open`);
  await page.type('whole');
  await page.press('Enter');
  seen.renewed = { ...await ended(page), size: (await page.value(FILE('renewed'))).length };
  await page.value(`driven.deny = 1`);
  await saveAs(page, 'given-up');
  await page.until(`document.getElementById('sign-in').open`);
  await page.press('Escape');
  seen.given_up = { ...await ended(page), file: await page.value(FILE('given-up')) };

  // Broken off within a row, and by the service.
  await page.value(`driven.cut = true`);
  await page.click('#column-list input[value=id]');
  await saveAs(page, 'cut');
  seen.cut = { ...await ended(page), file: await page.value(FILE('cut')) };
  await page.value(`driven.cut = false`);
  await choose(page, 'dataset', 'broken');
  await page.click('input[value=ndjson]');
  await saveAs(page, 'broken');
  seen.broken = { ...await ended(page), file: await page.value(FILE('broken')) };

  // Cancelled: a new file goes, and an old one is as it was.
  await choose(page, 'dataset', 'slow');
  await page.value(`(async () => { const handle = await (await navigator.storage.getDirectory()).getFileHandle('old', { create: true }); const file = await handle.createWritable(); await file.write('what was there'); await file.close(); })()`);
  for (const name of ['new', 'old']) {
    await saveAs(page, name);
    await page.until(`!document.getElementById('running').hidden && !document.getElementById('figures').textContent.startsWith('0 rows')`);
    seen.disabled = [await page.value(`document.getElementById('save').getAttribute('aria-disabled')`), await page.text('save-why')];
    const picks = await page.value('driven.picks');
    await page.click('#save');
    seen.second = [await page.value('driven.picks') - picks, await page.text('problem')];
    seen.figures = await page.text('figures');
    if (asked.shots && name === 'new') await page.shot(join(asked.shots, 'running.png'));
    await page.click('#cancel');
    seen[`cancelled ${name}`] = { ...await ended(page), file: await page.value(FILE(name)) };
  }
  seen.wrong = page.wrong;
  await page.close();

  // A bucket's rows, where the rows of the dataset itself are not granted.
  page = await signedIn(chromium, 'drill');
  await choose(page, 'dataset', 'orders');
  seen.only_groups = await page.text('save-why');
  await page.click('#show-groups');
  seen.groups = await page.until(`!document.getElementById('bucket-list').hidden && [...document.querySelectorAll('#bucket-list tr')].map((row) => [...row.children].map(({ textContent }) => textContent))`);
  await page.click('#bucket-list tbody tr:nth-child(2) button');
  seen.bucket = [await page.text('bucket-name'), await estimated(page)];
  if (asked.shots) await page.shot(join(asked.shots, 'groups.png'));
  await saveAs(page, 'bucket');
  seen.bucket_saved = { ...await ended(page), file: await page.value(FILE('bucket')) };
  await page.click('#all-rows');
  const shown = `!document.getElementById('bucket-list').hidden`;
  seen.stale = [await page.value(shown)];
  await page.click('#add-filter');
  seen.stale.push(await page.value(shown));
  seen.wrong.push(...page.wrong);
  await page.close();

  page = await signedIn(chromium, 'capped');
  await choose(page, 'dataset', 'orders');
  seen.cap = await estimated(page);
  await saveAs(page, 'capped');
  seen.capped = await ended(page);
  await page.close();

  // A browser that cannot write to files says so at the button, and the button does nothing.
  page = await signedIn(chromium, 'whole', { before: `${PICKER}; delete globalThis.showSaveFilePicker;` });
  seen.elsewhere = await page.value(`({ disabled: document.getElementById('save').getAttribute('aria-disabled'), why: document.getElementById(document.getElementById('save').getAttribute('aria-describedby')).textContent })`);
  await page.value(`driven.asked.length = 0`);
  await page.click('#save');
  seen.elsewhere.problem = await page.until(`document.getElementById('problem').textContent`);
  seen.elsewhere.asked = await page.value(`driven.asked.filter((path) => path.endsWith('/export')).length`);
  await page.close();
  return seen;
}

/** What belongs to one session and one dataset, and keys that are not taken any more. */
async function sessions(chromium) {
  const seen = {};
  const groups = `[document.getElementById('groups-said').textContent, document.querySelectorAll('#bucket-list tr').length]`;
  const signIn = async (key) => {
    await page.until(`document.getElementById('sign-in').open`);
    await page.type(key);
    await page.press('Enter');
    await page.until(`!document.getElementById('sign-in').open`);
  };
  const late = async () => {
    await page.value(`driven.release()`);
    await page.value(`new Promise((resolve) => setTimeout(resolve, 200))`);
    return page.value(groups);
  };
  const count = async () => {
    await page.value(`(driven.hold = true, driven.release = null)`);
    await page.click('#show-groups');
    await page.until(`driven.release !== null`);
  };
  const page = await signedIn(chromium, 'whole');
  await choose(page, 'dataset', 'orders');
  await count();
  await choose(page, 'dataset', 'broken');
  seen.other_dataset = await late();
  await choose(page, 'dataset', 'orders');
  await count();
  await page.click('#column-list input[value=note]');
  await late();
  seen.other_columns = await page.until(`document.querySelectorAll('#bucket-list tr').length`);
  await page.value(`(document.getElementById('from').value = '2026-01-02', document.getElementById('from').dispatchEvent(new Event('input', { bubbles: true })))`);
  seen.other_days = await page.value(`document.getElementById('bucket-list').hidden`);
  await count();
  await page.click('#sign');
  seen.left = [await page.value(groups), await page.value(`document.getElementById('from').value + document.getElementById('dataset').options.length`)];
  await page.click('#sign');
  await signIn('other');
  await page.until(`!document.getElementById('export').hidden && document.getElementById('dataset').options.length > 0`);
  await choose(page, 'dataset', 'orders');
  seen.other_tenant = [...await late(), await page.value(`document.getElementById('from').value`)];
  await page.value(`driven.hold = false`);
  await page.click('#sign');
  await page.click('#sign');
  await signIn('whole');
  await page.until(`!document.getElementById('export').hidden && document.getElementById('dataset').options.length > 0`);
  await choose(page, 'dataset', 'orders');

  // A key that is taken no more is asked for again by what a person has just asked for.
  await page.value(`(driven.deny = 1, driven.denies = /by_status$/)`);
  await page.click('#show-groups');
  seen.asked_again = await page.until(`document.getElementById('sign-in').open && document.getElementById('sign-in-problem').textContent`);
  await signIn('whole');
  seen.groups = await page.until(`!document.getElementById('bucket-list').hidden && document.querySelectorAll('#bucket-list tr').length`);
  await page.value(`(driven.deny = 1, driven.denies = /[/]estimate$/)`);
  await page.click('#column-list input[value=note]');
  seen.estimate = await page.until(`document.getElementById('estimate').textContent.includes('not known') && document.getElementById('estimate').textContent`);
  // Also behind the last row: the rows are there, and only their receipt is asked for with the new key.
  await page.value(`(driven.deny = 1, driven.denies = /[/]v1[/]exports[/]\\w+$/, driven.asked.length = 0)`);
  await saveAs(page, 'proved');
  await signIn('whole');
  seen.proved = { ...await ended(page), asked: await page.value(`driven.asked.filter((path) => path.endsWith('/export')).length`) };

  // Other bytes than the service sent are not called whole.
  await page.value(`driven.alter = true`);
  await page.click('#column-list input[value=note]');
  await saveAs(page, 'altered');
  seen.altered = await ended(page);
  seen.wrong = page.wrong;
  await page.close();
  return seen;
}

/** Barriers, by axe, in each look and state. */
async function looks(chromium) {
  const axe = readFileSync(asked.axe, 'utf8');
  const seen = { violations: {} };
  const sizes = { wide: { width: 1_100, height: 900 }, phone: { width: 360, height: 740 } };
  for (const [name, scheme, size] of [['light', 'light', 'wide'], ['dark', 'dark', 'wide'], ['phone', 'light', 'phone']]) {
    const options = { media: { 'prefers-color-scheme': scheme }, size: sizes[size] };
    const page = await chromium.page(asked.url, { before: PICKER, ...options });
    await page.until(`document.activeElement?.id === 'key'`);
    await page.send('Runtime.evaluate', { expression: axe });
    const check = async (state) => {
      const found = await page.value(`axe.run().then(({ violations }) => violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html, failureSummary }) => html + ' ' + failureSummary).join(' | ')))`);
      seen.violations[`${name} ${state}`] = found;
      if (asked.shots) await page.shot(join(asked.shots, `${name}-${state}.png`));
      const wider = await page.value(`document.documentElement.scrollWidth - document.documentElement.clientWidth`);
      if (wider > 0) found.push(`${wider} pixels too wide`);
    };
    await check('sign-in');
    // By keys alone.
    await page.type('capped');
    await page.press('Enter');
    await page.until(`document.activeElement?.id === 'dataset'`);
    await choose(page, 'dataset', 'orders');
    await estimated(page);
    await page.value(`document.getElementById('add-filter').focus()`);
    await page.press('Enter');
    await check('form');
    await page.value(`document.querySelector('.filter button').focus()`);
    await page.press(' ');
    await page.value(`document.getElementById('show-groups').focus()`);
    await page.press('Enter');
    await page.until(`!document.getElementById('bucket-list').hidden`);
    await page.value(`document.querySelector('#bucket-list button').focus()`);
    await page.press('Enter');
    await estimated(page);
    await page.value(`document.getElementById('save').focus()`);
    await page.press('Enter');
    const { result, problem } = await ended(page);
    seen[`${name} saved`] = result || problem;
    await check('saved');
    seen.focus = await page.value(`document.activeElement.id`);
    // Each control can be reached by Tab, and is called something.
    if (name === 'phone') {
      await page.value(`document.activeElement.blur()`);
      const reached = [];
      for (let i = 0; i < 80; i += 1) {
        await page.press('Tab');
        const id = await page.value(`document.activeElement.id || document.activeElement.ariaLabel || document.activeElement.value || document.activeElement.tagName`);
        if (reached.includes(id) && id === reached[0]) break;
        reached.push(id);
      }
      seen.reached = reached;
    }
    (seen.wrong ??= []).push(...page.wrong);
    await page.close();
  }
  return seen;
}

/** The list of background exports. */
async function jobs(chromium) {
  const seen = {};
  const item = (id) => `(() => { const item = document.getElementById('job-${id}'); return item && { title: item.querySelector('h3').textContent, state: item.querySelector('.state').textContent, note: item.querySelector('.why').textContent, bar: item.querySelector('progress').hidden ? null : item.querySelector('progress').value, links: [...item.querySelectorAll('a')].map(({ href }) => href.replace(location.origin, '')), buttons: [...item.querySelectorAll('button')].map(({ textContent }) => textContent) }; })()`;
  const until = async (id, condition) => {
    await page.until(`(${item(id)})?.state.includes(${JSON.stringify(condition)})`);
    return page.value(item(id));
  };
  let page = await signedIn(chromium, 'whole', { before: `${PICKER}; ${JOBS}; driven.has = false;` });
  seen.none = await page.value(`[document.getElementById('jobs').hidden, document.getElementById('queue').hidden, document.getElementById('parquet').hidden]`);
  await page.close();

  // Also where no file can be written.
  page = await signedIn(chromium, 'whole', { before: `${PICKER}; ${JOBS}; delete globalThis.showSaveFilePicker;`, size: { width: 360, height: 740 } });
  await choose(page, 'dataset', 'orders');
  seen.before = await until('job0', 'Ready');
  await page.click('input[value=parquet]');
  await page.click('#queue');
  seen.queued = await until('job1', 'Waiting');
  seen.said = await page.text('result');
  await page.click('#queue');
  await until('job2', 'Waiting');
  seen.posted = await page.value('driven.posted');
  seen.order = await page.value(`[...document.querySelectorAll('#job-list li')].map(({ id }) => id)`);
  await page.until(`driven.streams.has('job1')`);
  await page.value(`driven.push('job1', { status: 'running', processed_rows: 1500, bytes: 2500000, parts: 1, percent: 25, eta_seconds: 90 })`);
  seen.running = await until('job1', 'Running');
  await page.value(`driven.end('job1', { status: 'complete', processed_rows: 6000, bytes: 10000000, parts: 2, expires_at: new Date(Date.now() + 23.5 * 3600 * 1000).toISOString(), download_url: '/v1/exports/job1/download?sig=x' })`);
  seen.ready = await until('job1', 'Ready');
  seen.announced = await page.text('result');
  await page.click('#job-job1 .actions button');
  await page.until(`document.querySelector('#job-job1 .files li')`);
  seen.files = await page.value(`[[...document.querySelectorAll('#job-job1 .files li')].map(({ innerText }) => innerText), document.activeElement.href.replace(location.origin, '')]`);
  await page.click('input[value=csv]');
  await page.click('#queue');
  await until('job3', 'Waiting');
  await page.until(`driven.streams.has('job3')`);
  await page.value(`driven.end('job3', { status: 'complete', processed_rows: 6000, expires_at: null, download_url: '/v1/exports/job3/download?sig=x' })`);
  seen.joined = await until('job3', 'Ready');
  await page.click('#more-jobs');
  seen.older = await until('older', 'Failed');
  seen.more = await page.value(`document.getElementById('more-jobs').hidden`);
  await page.send('Runtime.evaluate', { expression: readFileSync(asked.axe, 'utf8') });
  seen.violations = await page.value(`axe.run().then(({ violations }) => violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html).join(' | ')))`);
  if (asked.shots) await page.shot(join(asked.shots, 'jobs.png'));
  await page.click('#job-job2 button');
  await page.value(`driven.jobs.find(({ id }) => id === 'job2').status = 'cancelled'`);
  seen.cancelled = await until('job2', 'Cancelled');
  await page.click('#job-job1 .actions button:last-child');
  seen.deleted = await until('job1', 'Expired');
  await page.click('#sign');
  seen.left = await page.value(`[document.getElementById('jobs').hidden, document.getElementById('job-list').children.length]`);
  seen.wrong = page.wrong;
  await page.close();
  return seen;
}

// What is shown of the newest job but `age`.
const shownJob = (age = 0) => `(() => { const item = document.querySelectorAll('#job-list > li')[${age}]; return item && { id: item.id, state: item.querySelector('.state').textContent, note: item.querySelector('.why').textContent, bar: item.querySelector('progress').hidden ? null : item.querySelector('progress').value, link: item.querySelector('a')?.href ?? null, buttons: [...item.querySelectorAll('button')].map(({ textContent }) => textContent) }; })()`;
const newestIs = async (page, condition) => {
  await page.until(`(${shownJob()})?.state.startsWith(${JSON.stringify(condition)})`);
  return page.value(shownJob());
};
/** Queues what the form says, and waits until its job stands in front. */
const queue = async (page) => {
  const before = await page.value(`document.querySelectorAll('#job-list > li').length`);
  await page.click('#queue');
  await page.until(`document.querySelectorAll('#job-list > li').length > ${before}`);
};
const downloaded = async (page, folder, ending) => {
  for (let tries = 0; tries < 1_500; tries += 1) {
    const name = existsSync(folder) && readdirSync(folder).find((file) => file.endsWith(ending));
    // Chromium reserves the name with an empty file before the whole one takes its place.
    const text = name && readFileSync(join(folder, name), 'utf8');
    if (text) return text;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`no ${ending} is downloaded; the page says ${await page.value('document.body.innerText')}`);
};

/** Background exports of the service itself. */
async function background(chromium) {
  const seen = {};
  const { folder } = asked.more;
  let page = await signedIn(chromium, 'whole');
  await page.send('Page.setDownloadBehavior', { behavior: 'allow', downloadPath: folder });
  await choose(page, 'dataset', 'orders');
  await queue(page);
  seen.said = await page.text('result');
  seen.ready = await newestIs(page, 'Ready');
  await page.click('#job-list > li a');
  seen.file = await downloaded(page, folder, '.csv');
  seen.again = await page.value(`fetch(document.querySelector('#job-list > li a').href).then(({ status }) => status)`);

  // One that takes its time is watched, and cancelled.
  await choose(page, 'dataset', 'slow');
  await queue(page);
  await page.until(`(${shownJob()})?.state.includes(' rows of about ')`);
  seen.running = await page.value(shownJob());
  if (asked.shots) await page.shot(join(asked.shots, 'background-running.png'));
  await page.click('#job-list > li .actions button');
  seen.cancelled = await newestIs(page, 'Cancelled');

  // One that fails says why.
  await choose(page, 'dataset', 'broken');
  await queue(page);
  seen.failed = await newestIs(page, 'Failed');

  await choose(page, 'dataset', 'orders');
  await page.click('input[value=parquet]');
  await queue(page);
  seen.parquet = await newestIs(page, 'Ready');
  await page.click('#job-list > li .actions button');
  await page.until(`document.querySelector('#job-list > li .files a')`);
  seen.magic = await page.value(`(async () => { const answer = await fetch(document.querySelector('#job-list > li .files a').href); return [answer.status, (await answer.text()).slice(0, 4)]; })()`);

  // Deleted, it says that it is gone, and so does its link.
  const { id, link } = await page.value(shownJob(3));
  await page.click(`#${id} .actions button`);
  await page.until(`document.querySelector('#${id} .state').textContent.startsWith('Expired')`);
  seen.deleted = await page.value(`(async () => { const answer = await fetch(${JSON.stringify(link)}); return [answer.status, (await answer.json()).code, (${shownJob(3)}).link, (${shownJob(3)}).note]; })()`);
  seen.wrong = page.wrong;
  await page.close();

  // Whoever comes later sees the same; so does no other tenant.
  const sizes = { wide: { width: 1_100, height: 900 }, phone: { width: 360, height: 740 } };
  for (const [name, scheme, size] of [['light', 'light', 'wide'], ['dark', 'dark', 'wide'], ['phone', 'light', 'phone']]) {
    page = await signedIn(chromium, 'whole', { media: { 'prefers-color-scheme': scheme }, size: sizes[size] });
    await page.until(`document.querySelectorAll('#job-list > li').length === 4`);
    seen.states = await page.value(`[...document.querySelectorAll('#job-list .state')].map(({ textContent }) => textContent.split(' · ')[0])`);
    await page.send('Runtime.evaluate', { expression: readFileSync(asked.axe, 'utf8') });
    seen[name] = await page.value(`axe.run().then(({ violations }) => violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html).join(' | ')))`);
    const wider = await page.value(`document.documentElement.scrollWidth - document.documentElement.clientWidth`);
    if (wider > 0) seen[name].push(`${wider} pixels too wide`);
    if (asked.shots) await page.shot(join(asked.shots, `background-${name}.png`));
    seen.wrong.push(...page.wrong);
    await page.close();
  }
  page = await signedIn(chromium, 'other');
  await page.until(`document.getElementById('jobs-said').textContent !== ''`);
  seen.other = [await page.text('jobs-said'), await page.value(`document.querySelectorAll('#job-list > li').length`)];
  await page.close();
  return seen;
}

/** As config/service.md says it. */
async function walk(chromium) {
  const page = await signedIn(chromium, asked.more.api_keys.free);
  const seen = { labels: await page.value(`[...document.querySelectorAll('#column-list label')].map(({ innerText }) => innerText.trim())`), estimate: await estimated(page) };
  await saveAs(page, 'capped');
  seen.capped = await ended(page);
  seen.capped.lines = (await page.value(FILE('capped'))).trimEnd().split('\r\n').length;
  await page.click('#show-groups');
  await page.until(`!document.getElementById('bucket-list').hidden`);
  await page.click('#bucket-list tbody button');
  await saveAs(page, 'group');
  seen.group = await ended(page);
  await page.click('#sign');
  await page.close();
  // Slowly enough that one can cancel.
  const all = await signedIn(chromium, asked.more.api_keys.enterprise);
  await all.send('Network.enable');
  await all.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: 100_000, uploadThroughput: -1 });
  await saveAs(all, 'cancelled');
  await all.until(`!document.getElementById('running').hidden`);
  await all.press('Enter');
  seen.cancelled = { ...await ended(all), file: await all.value(FILE('cancelled')) };
  // The same in the background: two run, the third waits and is cancelled, and the first is downloaded by its link.
  await all.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await all.send('Page.setDownloadBehavior', { behavior: 'allow', downloadPath: asked.more.folder });
  for (let i = 0; i < 3; i += 1) await queue(all);
  await all.click('#job-list > li .actions button');
  seen.waited = await newestIs(all, 'Cancelled');
  await all.until(`(${shownJob(2)})?.state.startsWith('Ready')`);
  seen.ready = await all.value(shownJob(2));
  await all.click('#job-list > li:nth-child(3) a');
  seen.downloaded = (await downloaded(all, asked.more.folder, '.csv')).trimEnd().split('\r\n').length;
  seen.wrong = [...page.wrong, ...all.wrong];
  await all.close();
  return seen;
}

const scenarios = { streams, sessions, looks, jobs, background, walk };
const results = await withChromium((chromium) => scenarios[process.argv[2]](chromium));
process.stdout.write(`${JSON.stringify(results)}\n`);
