// Runs client_cases.mjs in this Node, or in a Chromium that it starts: `node clients.mjs node|chromium|hook`. What to run
// stands in CLIENT_TEST as JSON; the results go to standard output. Chromium is driven by its pipe, without a library.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const asked = JSON.parse(process.env.CLIENT_TEST);
const [where] = process.argv.slice(2);
const results = where === 'chromium' ? await inChromium() : where === 'hook' ? await inHook() : await inNode();
process.stdout.write(`${JSON.stringify(results)}\n`);

async function inNode() {
  const [client, cases] = [await import(asked.client), await import(asked.cases_file)];
  return cases.run(client, asked);
}

async function inHook() {
  const { drive } = await import(asked.hook);
  return drive(asked);
}

async function inChromium() {
  const profile = mkdtempSync(join(tmpdir(), 'outhaul-chromium-'));
  const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking', '--remote-debugging-pipe', `--user-data-dir=${profile}`, 'about:blank'];
  const browser = spawn('chromium', flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const gone = new Promise((resolve) => browser.on('exit', resolve));
  try {
    return await evaluated(browser, gone);
  } finally {
    browser.kill('SIGKILL');
    await gone;
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

/** Loads the page, and evaluates the cases in it. */
async function evaluated(browser, gone) {
  const [to, from] = [browser.stdio[3], browser.stdio[4]];
  const waiting = new Map();
  const events = [];
  let [rest, number] = ['', 0];
  from.setEncoding('utf8');
  from.on('data', (text) => {
    const messages = (rest + text).split('\0');
    rest = messages.pop();
    for (const message of messages.map((one) => JSON.parse(one))) {
      if (message.id === undefined) for (const event of events.filter((one) => one.method === message.method)) event.resolve(message.params);
      else waiting.get(message.id)?.(message);
    }
  });
  const ended = gone.then((code) => Promise.reject(new Error(`chromium ended (${code})`)));
  ended.catch(() => {});
  const send = async (method, params = {}, sessionId = undefined) => {
    number += 1;
    const id = number;
    const answered = new Promise((resolve) => waiting.set(id, resolve));
    to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    const answer = await Promise.race([answered, ended]);
    if (answer.error) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result;
  };
  const { targetInfos } = await send('Target.getTargets');
  const { targetId } = targetInfos.find(({ type }) => type === 'page');
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
  await send('Page.enable', {}, sessionId);
  const loaded = new Promise((resolve) => events.push({ method: 'Page.loadEventFired', resolve }));
  await send('Page.navigate', { url: `${asked.url}${asked.page}` }, sessionId);
  await Promise.race([loaded, ended]);
  const { cases_text: text, ...given } = asked;
  const cases = `import(${JSON.stringify(`data:text/javascript;base64,${Buffer.from(text).toString('base64')}`)})`;
  const expression = `(async () => JSON.stringify(await (await ${cases}).run(await import('/client.js'), ${JSON.stringify(given)})))()`;
  const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, awaitPromise: true }, sessionId);
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return JSON.parse(result.value);
}
