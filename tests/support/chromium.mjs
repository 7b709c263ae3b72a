// A Chromium of its own, driven over its pipe and without a library: clicks and keys come from it as from a person.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const WAIT_MS = 20_000;
const CLOSE_MS = 3_000;

/** Starts a browser, gives it to `work`, and ends it. To it `outhaul.test` is this machine, by a name that is not of loopback. */
export async function withChromium(work) {
  const profile = mkdtempSync(join(tmpdir(), 'outhaul-chromium-'));
  const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking', '--host-resolver-rules=MAP outhaul.test 127.0.0.1', '--remote-debugging-pipe', `--user-data-dir=${profile}`, 'about:blank'];
  const browser = spawn('chromium', flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const gone = new Promise((resolve) => browser.on('exit', resolve));
  const chromium = new Chromium(browser, gone);
  const killed = () => browser.kill('SIGKILL');
  try {
    return await work(chromium);
  } finally {
    const late = setTimeout(killed, CLOSE_MS);
    chromium.send('Browser.close').catch(killed);
    await gone;
    clearTimeout(late);
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

class Chromium {
  #to;
  #waiting = new Map();
  #listeners = [];
  #number = 0;
  #ended;

  constructor(browser, gone) {
    this.#to = browser.stdio[3];
    let rest = '';
    browser.stdio[4].setEncoding('utf8');
    browser.stdio[4].on('data', (text) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop();
      for (const message of messages.map((one) => JSON.parse(one))) {
        if (message.id !== undefined) this.#waiting.get(message.id)?.(message);
        else for (const listener of this.#listeners) listener(message);
      }
    });
    this.#ended = gone.then((code) => Promise.reject(new Error(`chromium ended (${code})`)));
    this.#ended.catch(() => {});
  }

  async send(method, params = {}, sessionId = undefined) {
    this.#number += 1;
    const id = this.#number;
    const answered = new Promise((resolve) => this.#waiting.set(id, resolve));
    this.#to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    const answer = await Promise.race([answered, this.#ended]);
    this.#waiting.delete(id);
    if (answer.error) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result;
  }

  /** A page with a storage of its own; `before` runs in it before the page's own scripts. */
  async page(url, { before = '', media = {}, size = null } = {}) {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page((method, params) => this.send(method, params, sessionId));
    this.#listeners.push((message) => message.sessionId === sessionId && page.heard(message));
    await page.send('Page.enable');
    await page.send('Runtime.enable');
    await page.send('Log.enable');
    if (before !== '') await page.send('Page.addScriptToEvaluateOnNewDocument', { source: before });
    const features = Object.entries(media).map(([name, value]) => ({ name, value }));
    if (features.length > 0) await page.send('Emulation.setEmulatedMedia', { features });
    if (size !== null) await page.send('Emulation.setDeviceMetricsOverride', { ...size, deviceScaleFactor: 1, mobile: size.width < 600 });
    const loaded = page.event('Page.loadEventFired');
    await page.send('Page.navigate', { url });
    await Promise.race([loaded, this.#ended]);
    page.close = () => this.send('Target.disposeBrowserContext', { browserContextId });
    return page;
  }
}

class Page {
  /** What the console of the browser shows as wrong: exceptions, violations of the policy. */
  wrong = [];
  #once = [];

  constructor(send) {
    this.send = send;
  }

  heard({ method, params }) {
    if (method === 'Runtime.exceptionThrown') this.wrong.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    // Answers that refuse are part of some tests.
    if (method === 'Log.entryAdded' && params.entry.level === 'error' && params.entry.source !== 'network') this.wrong.push(params.entry.text);
    if (method === 'Page.javascriptDialogOpening') void this.send('Page.handleJavaScriptDialog', { accept: true });
    for (const one of this.#once.filter((wanted) => wanted.method === method)) one.resolve(params);
    this.#once = this.#once.filter((wanted) => wanted.method !== method);
  }

  event(method) {
    return new Promise((resolve) => this.#once.push({ method, resolve }));
  }

  /** The value of an expression, awaited in the page. */
  async value(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression: `(async () => JSON.stringify(await (${expression})))()`, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value === undefined ? undefined : JSON.parse(result.value);
  }

  /** Waits until an expression is true, and gives its value. */
  async until(expression) {
    const end = Date.now() + WAIT_MS;
    for (;;) {
      const found = await this.value(expression);
      if (found) return found;
      if (Date.now() > end) throw new Error(`not within ${WAIT_MS} ms: ${expression}; the page says ${JSON.stringify(await this.value('document.body.innerText'))}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  text(id) {
    return this.value(`document.getElementById(${JSON.stringify(id)}).textContent`);
  }

  /** A click in the middle of an element, wherever it is. The page may move under the mouse: a click that missed is repeated. */
  async click(selector) {
    const wanted = JSON.stringify(selector);
    for (let tries = 0; tries < 10; tries += 1) {
      const found = await this.value(`(() => { const found = document.querySelector(${wanted}); if (!found) return null; found.scrollIntoView({ block: 'center' }); window.clicked = false; document.addEventListener('click', ({ target }) => { window.clicked = document.querySelector(${wanted})?.contains(target) ?? false; }, { capture: true, once: true }); const { x, y, width, height } = found.getBoundingClientRect(); return width > 0 && { x: x + width / 2, y: y + height / 2 }; })()`);
      if (!found) throw new Error(`nothing to click: ${selector}`);
      for (const type of ['mousePressed', 'mouseReleased']) {
        await this.send('Input.dispatchMouseEvent', { type, ...found, button: 'left', clickCount: 1 });
      }
      // A page that the click left behind knows nothing of it.
      if (await this.value('window.clicked !== false')) return;
    }
    throw new Error(`whatever is clicked, it is not ${selector}`);
  }

  async type(text) {
    await this.send('Input.insertText', { text });
  }

  async press(key, modifiers = 0) {
    const codes = { Enter: 13, Tab: 9, Escape: 27, ' ': 32, ArrowDown: 40, ArrowUp: 38 };
    const text = { Enter: '\r', ' ': ' ' }[key];
    const event = { key, code: key === ' ' ? 'Space' : key, windowsVirtualKeyCode: codes[key], modifiers };
    await this.send('Input.dispatchKeyEvent', { type: text ? 'keyDown' : 'rawKeyDown', text, ...event });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  }

  async shot(file) {
    const { data } = await this.send('Page.captureScreenshot', { captureBeyondViewport: true, format: 'png' });
    writeFileSync(file, Buffer.from(data, 'base64'));
  }
}
