// The console of statements, in a real Chromium: `node statements.mjs pretended|looks|real`. Where stands in CONSOLE_TEST as
// JSON; what was seen goes to standard output.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { withChromium } from './chromium.mjs';

const asked = JSON.parse(process.env.CONSOLE_TEST);

// A picker that demands a click, as the browser's own does, and gives a real file of the page's private folder.
const PICKER = `{
  const state = globalThis.driven = { picks: 0, asked: [], name: 'file', fails: null, inClick: false };
  addEventListener('click', () => { state.inClick = true; state.before = state.asked.length; setTimeout(() => { state.inClick = false; }, 0); }, true);
  globalThis.showSaveFilePicker = async (options) => {
    if (!navigator.userActivation.isActive) throw new DOMException('no click', 'SecurityError');
    state.picks += 1;
    state.picked = { options, inClick: state.inClick, requests: state.asked.length - state.before };
    if (state.fails) throw new DOMException(state.fails[1], state.fails[0]);
    return (await navigator.storage.getDirectory()).getFileHandle(state.name, { create: true });
  };
  const fetching = globalThis.fetch;
  globalThis.fetch = (url, options) => { state.asked.push(new URL(url, location).pathname); return fetching(url, options); };
}`;

// A service that takes statements, within the page: each way in which one can end is had when it is wanted.
const SERVICE = `{
  const state = driven;
  Object.assign(state, { sources: ['lake', 'warehouse'], credentials: 'caller', sent: [], answer: ['a\\tb\\n', '1\\t2\\n'], ends: 'whole', receipt: {}, refuses: null, aborted: 0 });
  const json = (body, status = 200) => new Response(JSON.stringify(body), { status });
  const fetching = globalThis.fetch;
  globalThis.fetch = async (url, options = {}) => {
    const { pathname } = new URL(url, location);
    if (pathname === '/v1/clickhouse') return json({ sources: state.sources, credentials: state.credentials });
    if (pathname === '/v1/exports/e1') return json({ id: 'e1', kind: 'stream', ...state.receipt });
    if (!pathname.startsWith('/v1/clickhouse/')) return fetching(url, options);
    state.asked.push(pathname);
    const headers = Object.fromEntries(new Headers(options.headers));
    state.sent.push({ pathname, statement: JSON.parse(options.body).statement, as: headers['x-outhaul-database-authorization'] ?? null });
    if (state.refuses) return json(state.refuses, state.refuses.status);
    const text = new TextEncoder();
    const body = new ReadableStream({
      async start(stream) {
        options.signal.addEventListener('abort', () => { state.aborted += 1; try { stream.error(options.signal.reason); } catch {} });
        for (const piece of state.answer) { stream.enqueue(text.encode(piece)); await new Promise((resolve) => setTimeout(resolve, 30)); }
        if (state.ends === 'whole') stream.close();
        if (state.ends === 'cut') stream.error(new TypeError('network error'));
      },
    });
    return new Response(body, { headers: { 'x-outhaul-export-id': 'e1' } });
  };
}`;

const FILE = (name) => `(async () => { try { const file = await (await (await navigator.storage.getDirectory()).getFileHandle(${JSON.stringify(name)})).getFile(); return await file.text(); } catch (error) { return error.name; } })()`;

async function signedIn(chromium, key, options, url = asked.url) {
  const page = await chromium.page(`${url}/`, options);
  await page.until(`document.activeElement?.id === 'key'`);
  await page.type(key);
  await page.press('Enter');
  await page.until(`!document.getElementById('sign-in').open`);
  return page;
}

const write = (page, sql) =>
  page.value(`(() => { const field = document.getElementById('sql'); field.value = ${JSON.stringify(sql)}; field.dispatchEvent(new Event('input', { bubbles: true })); })()`);
const ended = async (page) => {
  await page.until(`document.getElementById('sql-running').hidden && (document.getElementById('sql-result').textContent || document.getElementById('sql-problem').textContent)`);
  return { result: await page.text('sql-result'), problem: await page.text('sql-problem') };
};
const clear = (page) => page.value(`document.getElementById('sql-result').textContent = document.getElementById('sql-problem').textContent = ''`);
const CRC = { whole: '8smmv7GXZX4=' };

async function exported(page, name, changes = {}) {
  await clear(page);
  await page.value(`Object.assign(driven, ${JSON.stringify({ name, fails: null, refuses: null, ends: 'whole', receipt: { status: 'complete', bytes: 8, crc64nvme: CRC.whole }, ...changes })})`);
  await page.click('#sql-save');
  return { ...await ended(page), file: await page.value(FILE(name)), picked: await page.value('driven.picked') };
}

async function pretended(chromium) {
  const seen = {};
  const page = await signedIn(chromium, 'whole', { before: `${PICKER}; ${SERVICE}` });
  await page.until(`!document.getElementById('statements').hidden`);
  const { cases, formats } = asked.more;
  seen.lexed = await page.value(`(async () => { const { trailingFormat } = await import('./format.js'); return ${JSON.stringify(cases)}.filter(({ sql, format }) => trailingFormat(sql) !== format).map(({ sql }) => [sql, trailingFormat(sql)]); })()`);
  seen.files = await page.value(`(async () => { const { fileOf } = await import('./format.js'); const as = (name) => { const { format, ending, type, refused } = fileOf('SELECT 1 FORMAT ' + name); return format === name && (refused ? null : [ending, type]); }; return Object.entries(${JSON.stringify(formats)}).filter(([name, file]) => JSON.stringify(as(name)) !== JSON.stringify(file)); })()`);
  seen.usual = await page.value(`import('./format.js').then(({ fileOf }) => fileOf('SELECT 1'))`);

  seen.sources = await page.value(`[...document.getElementById('sql-source').options].map(({ value }) => value)`);
  seen.label = await page.text('sql-save');
  seen.blank = [await page.value(`document.getElementById('sql-save').getAttribute('aria-disabled')`), await page.text('sql-why')];
  await page.click('#sql-save');
  seen.nothing = [await page.text('sql-problem'), await page.value('driven.picks')];

  for (const [id, text] of [['sql-user', 'anna'], ['sql-password', 's3:cret ü']]) {
    await page.click(`#${id}`);
    await page.type(text);
  }
  await write(page, "SELECT ' FORMAT XML ' AS a FORMAT CSVWithNames -- all");
  seen.whole = await exported(page, 'whole');
  seen.sent = await page.value('driven.sent.at(-1)');
  await write(page, 'SELECT 1');
  seen.failed_dialog = await exported(page, 'dialog', { fails: ['SecurityError', 'Cross origin sub frames'] });
  await page.value(`driven.fails = ['AbortError', 'dismissed']`);
  await clear(page);
  await page.click('#sql-save');
  await page.until(`document.getElementById('sql-save').getAttribute('aria-disabled') === 'false'`);
  seen.dismissed = [await page.text('sql-result'), await page.text('sql-problem')];
  seen.refused = await exported(page, 'refused', { refuses: { status: 502, code: 'source_rejected', message: 'the database rejected the query', detail: 'Code: 62. Syntax error' } });
  const failed = { status: 'failed', error: { code: 'source_rejected', message: 'Code: 395. Value passed to throwIf' } };
  seen.broken = await exported(page, 'broken', { ends: 'cut', receipt: failed });
  // A proxy may make a clean end of it.
  seen.repaired = await exported(page, 'repaired', { receipt: failed });
  seen.short = await exported(page, 'short', { receipt: { status: 'complete', bytes: 9, crc64nvme: CRC.whole } });
  seen.altered = await exported(page, 'altered', { receipt: { status: 'complete', bytes: 8, crc64nvme: 'AAAAAAAAAAA=' } });
  await write(page, 'SELECT 1 FORMAT Null');
  seen.no_file = await exported(page, 'null');

  await write(page, 'SELECT 1');
  await clear(page);
  await page.value(`Object.assign(driven, { name: 'cancelled', ends: 'never', aborted: 0 })`);
  await page.click('#sql-save');
  await page.until(`!document.getElementById('sql-running').hidden && document.activeElement.id === 'sql-cancel'`);
  await new Promise((resolve) => setTimeout(resolve, 150));
  seen.meanwhile = [await page.value(`document.getElementById('save').getAttribute('aria-disabled')`), await page.text('save-why')];
  await page.press('Enter');
  seen.cancelled = { ...await ended(page), file: await page.value(FILE('cancelled')), aborted: await page.value('driven.aborted'), focus: await page.value('document.activeElement.id') };
  await page.click('#sign');
  seen.left = await page.value(`[document.getElementById('statements').hidden, ...['sql', 'sql-user', 'sql-password'].map((id) => document.getElementById(id).value)]`);
  seen.wrong = page.wrong;
  await page.close();

  const elsewhere = await signedIn(chromium, 'whole', { before: `${PICKER}; ${SERVICE}; delete globalThis.showSaveFilePicker; driven.credentials = 'source';` });
  await elsewhere.until(`!document.getElementById('statements').hidden`);
  await write(elsewhere, 'SELECT 1');
  await elsewhere.click('#sql-save');
  seen.elsewhere = [await elsewhere.value(`document.getElementById('sql-save').getAttribute('aria-disabled')`), await elsewhere.text('sql-why'), await elsewhere.text('sql-problem'), await elsewhere.value('driven.sent.length'), await elsewhere.value(`document.getElementById('sql-user-fields').hidden`)];
  await elsewhere.close();

  // The service itself says that this caller has none.
  const nobody = await signedIn(chromium, 'whole', { before: PICKER });
  await nobody.until(`!document.getElementById('export').hidden`);
  seen.nobody = await nobody.value(`document.getElementById('statements').hidden`);
  await nobody.close();
  return seen;
}

/** Barriers, by axe, in each look. */
async function looks(chromium) {
  const seen = { violations: {} };
  const sizes = { wide: { width: 1_100, height: 900 }, phone: { width: 360, height: 740 } };
  for (const [name, scheme, size] of [['light', 'light', 'wide'], ['dark', 'dark', 'wide'], ['phone', 'light', 'phone']]) {
    const page = await signedIn(chromium, 'whole', { before: `${PICKER}; ${SERVICE}`, media: { 'prefers-color-scheme': scheme }, size: sizes[size] });
    await page.until(`!document.getElementById('statements').hidden`);
    await page.send('Runtime.evaluate', { expression: readFileSync(asked.axe, 'utf8') });
    const check = async (state) => {
      const found = await page.value(`axe.run().then(({ violations }) => violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html, failureSummary }) => html + ' ' + failureSummary).join(' | ')))`);
      if (asked.shots) await page.shot(join(asked.shots, `statements-${name}-${state}.png`));
      const wider = await page.value(`document.documentElement.scrollWidth - document.documentElement.clientWidth`);
      if (wider > 0) found.push(`${wider} pixels too wide`);
      seen.violations[`${name} ${state}`] = found;
    };
    await check('empty');
    await write(page, 'SELECT *\nFROM events\nWHERE day >= today() - 7\nFORMAT Parquet');
    const receipt = { status: 'failed', error: { code: 'x', message: `Code: 241. DB::Exception: Memory limit exceeded: ${'x'.repeat(120)}` } };
    await exported(page, 'looks', { ends: 'cut', receipt });
    await check('incomplete');
    await page.value(`Object.assign(driven, { ends: 'never' })`);
    await clear(page);
    await page.click('#sql-save');
    await page.until(`!document.getElementById('sql-running').hidden`);
    await check('running');
    (seen.wrong ??= []).push(...page.wrong);
    await page.close();
  }
  return seen;
}

/** Statements that go to a real server. */
async function real(chromium) {
  const { user, password, statements, endless, fails, wrong } = asked.more;
  const seen = { files: [] };
  const page = await signedIn(chromium, 'ops', { before: PICKER });
  await page.until(`!document.getElementById('statements').hidden`);
  for (const [id, text] of [['sql-user', user], ['sql-password', password]]) {
    await page.click(`#${id}`);
    await page.type(text);
  }
  const save = async (sql, name) => {
    await write(page, sql);
    await clear(page);
    await page.value(`driven.name = ${JSON.stringify(name)}`);
    await page.click('#sql-save');
  };
  for (const [at, sql] of statements.entries()) {
    await save(sql, `file${at}`);
    const said = await ended(page);
    const file = await page.value(`(async () => { const bytes = await (await (await (await navigator.storage.getDirectory()).getFileHandle('file${at}')).getFile()).arrayBuffer(); const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)); return { size: bytes.byteLength, sha256: [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('') }; })()`);
    seen.files.push({ ...said, ...file });
  }
  await save(wrong, 'wrong');
  seen.wrong = await ended(page);
  await save(fails, 'fails');
  seen.fails = { ...await ended(page), ...await page.value(`(${FILE('fails')}).then((text) => { const rows = text.split('\\n'); const last = rows.pop(); return { rows: rows.length, foreign: rows.filter((row, at) => row !== at + ',0').slice(0, 3).concat((rows.length + ',0').startsWith(last) ? [] : [last]) }; })`) };
  await save(endless, 'endless');
  // The figures of the export before stand there until this one begins.
  await page.until(`!document.getElementById('sql-running').hidden && /[MG]B/.test(document.getElementById('sql-figures').textContent)`);
  await page.click('#sql-cancel');
  seen.cancelled = (await ended(page)).problem;
  seen.errors = page.wrong;
  await page.close();

  // Plain HTTP from elsewhere: there the browser itself has no picker.
  const plain = await signedIn(chromium, 'ops', {}, asked.url.replace('127.0.0.1', 'outhaul.test'));
  await plain.until(`!document.getElementById('statements').hidden`);
  await write(plain, 'SELECT 1');
  await plain.click('#sql-save');
  seen.plain = [await plain.value('globalThis.isSecureContext'), await plain.value('typeof globalThis.showSaveFilePicker'), await plain.value(`document.getElementById('sql-save').getAttribute('aria-disabled')`), await plain.text('sql-why'), await plain.text('sql-problem')];
  await plain.close();
  return seen;
}

const scenarios = { pretended, looks, real };
const results = await withChromium((chromium) => scenarios[process.argv[2]](chromium));
process.stdout.write(`${JSON.stringify(results)}\n`);
