// The console of statements: a person writes one, and its whole answer goes to the file that he picks, as the database
// writes it.
import { ExportError, listSources, statementBytes } from './client.js';
import { at, made, sized } from './form.js';
import { fileOf, isBlank } from './format.js';
import { whyUnable } from './save.js';

const SHOWN_EVERY_MS = 200;

const INCOMPLETE = 'The file has what came before, and is incomplete.';

/** What is said of an error of the service: its own words, then those of the database. */
const sentence = (error) => [error.message, error.detail].filter(Boolean).join(': ');

export class Statements {
  #api;
  #busy;
  #told;
  #credentials = 'caller';
  #run = null;

  /** `api` gives where the service is; `busy` says why nothing can be saved now, or nothing; `told` hears of each begin and end. */
  constructor(api, busy, told) {
    this.#api = api;
    this.#busy = busy;
    this.#told = told;
    at('sql-form').addEventListener('submit', (event) => event.preventDefault());
    at('sql').addEventListener('input', () => this.changed());
    at('sql-save').addEventListener('click', () => this.#clicked());
    at('sql-cancel').addEventListener('click', () => this.#run?.stop.abort());
  }

  get running() {
    return this.#run !== null;
  }

  /** Shows the console to who may use it. */
  async start() {
    const { sources, credentials } = await listSources(this.#api());
    this.#credentials = credentials;
    at('sql-source').replaceChildren(...sources.map((name) => made('option', { value: name, textContent: name })));
    at('sql-user-fields').hidden = credentials !== 'caller';
    at('statements').hidden = sources.length === 0;
    this.changed();
    return sources.length > 0;
  }

  /** Who signs out leaves neither his statement nor his password. */
  stop() {
    this.#run?.stop.abort();
    for (const id of ['sql', 'sql-user', 'sql-password']) at(id).value = '';
    at('statements').hidden = true;
    this.#say('');
  }

  changed() {
    const why = this.#whyNot();
    at('sql-save').setAttribute('aria-disabled', String(why !== ''));
    at('sql-why').textContent = why;
  }

  #whyNot() {
    if (whyUnable() !== '') return whyUnable();
    if (this.running) return 'One export at a time: this one has to end first.';
    if (isBlank(at('sql').value)) return 'Nothing to export';
    return this.#busy();
  }

  #say(text, problem = false) {
    at('sql-result').textContent = problem ? '' : text;
    at('sql-problem').textContent = problem ? text : '';
  }

  #clicked() {
    // Nothing is waited for before the picker: the browser shows it only while it knows of the click.
    const why = this.#whyNot();
    if (why !== '') return this.#say(why, true);
    const statement = at('sql').value;
    const { format, ending, type, refused } = fileOf(statement);
    if (refused) return this.#say(`Export failed: a file cannot be in the format ${format}. Choose another.`, true);
    const asked = { ...this.#api(), source: at('sql-source').value, statement };
    if (this.#credentials === 'caller') Object.assign(asked, { user: at('sql-user').value, password: at('sql-password').value });
    const stamp = new Date().toISOString().slice(0, 19).replace(/\D/g, '');
    const options = {
      suggestedName: `${asked.source}-${stamp}.${ending}`,
      types: [{ description: format, accept: { [type]: [`.${ending}`] } }],
    };
    this.#run = { stop: new AbortController() };
    let picking;
    try {
      picking = globalThis.showSaveFilePicker(options);
    } catch (error) {
      picking = Promise.reject(error);
    }
    void this.#save(picking, asked, this.#run.stop.signal);
  }

  async #save(picking, asked, signal) {
    this.#say('');
    this.#told();
    try {
      let handle;
      try {
        handle = await picking;
      } catch (error) {
        // Who closes the picker wants nothing.
        if (error.name !== 'AbortError') this.#say(`Save dialog failed: ${error.message}`, true);
        return;
      }
      this.#show();
      await this.#written(handle, asked, signal);
    } finally {
      this.#run = null;
      const focused = at('sql-running').contains(document.activeElement);
      at('sql-running').hidden = true;
      if (focused) at('sql-save').focus();
      this.#told();
    }
  }

  /** Writes what comes. However it ends, the file has nothing but bytes of the answer. */
  async #written(handle, asked, signal) {
    const file = { writable: null, bytes: 0 };
    const answer = statementBytes({ ...asked, signal });
    try {
      for (;;) {
        const { done, value } = await answer.next();
        file.writable ??= await handle.createWritable();
        if (done) break;
        await file.writable.write(value);
        file.bytes += value.length;
        this.#figures(file.bytes);
      }
      await file.writable.close();
      this.#say('Export complete');
    } catch (error) {
      await this.#broken(handle, file, signal, error);
    } finally {
      await answer.return();
    }
  }

  async #broken(handle, file, signal, error) {
    // Refused before its first byte, or never written: there is nothing to keep.
    if (file.bytes === 0) {
      await this.#discarded(handle, file);
      if (signal.aborted) return this.#say('Export cancelled; nothing is saved.');
      return this.#say(`Export failed: ${sentence(error)}`, true);
    }
    try {
      await file.writable.close();
    } catch (unwritten) {
      return this.#say(`Export failed: ${unwritten.message}`, true);
    }
    if (signal.aborted) return this.#say(`Export cancelled after ${sized(file.bytes)}. ${INCOMPLETE}`, true);
    if (!(error instanceof ExportError)) return this.#say(`Export failed: ${error.message}. ${INCOMPLETE}`, true);
    return this.#say(`Export incomplete: server error mid-stream: ${sentence(error)}. ${INCOMPLETE}`, true);
  }

  /** The picker has made the file that is not to be. One that had something in it is left as the browser leaves it. */
  async #discarded(handle, file) {
    try {
      await file.writable?.abort();
      if ((await handle.getFile()).size === 0) await handle.remove?.();
    } catch {
      // It is gone, or the browser does not remove files.
    }
  }

  #show() {
    at('sql-running').hidden = false;
    this.#run.began = Date.now();
    this.#run.shown = 0;
    this.#figures(0);
    at('sql-cancel').focus();
  }

  #figures(bytes) {
    const now = Date.now();
    if (this.#run === null || now - this.#run.shown < SHOWN_EVERY_MS) return;
    this.#run.shown = now;
    const seconds = Math.floor((now - this.#run.began) / 1_000);
    at('sql-figures').textContent = `${sized(bytes)} · ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
  }
}
