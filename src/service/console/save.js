// Saves a stream to the file that a person has picked. The stream is written by whole rows as it comes, into a file beside
// the picked one, which takes its place when it is closed.
import { ExportError, exportBytes } from './client.js';

const WRITES_TO_FILES = 'Large export requires Chrome/Edge over HTTPS';

/** Why this browser cannot save a stream; empty where it can. */
export const whyUnable = () =>
  globalThis.isSecureContext && typeof globalThis.showSaveFilePicker === 'function' ? '' : WRITES_TO_FILES;

/** What the browser is asked for at the click. */
export function pickerOptions(dataset, format) {
  const day = new Date().toISOString().slice(0, 10);
  const [type, ending] = format === 'csv' ? ['text/csv', '.csv'] : ['application/x-ndjson', '.ndjson'];
  return {
    suggestedName: `${dataset.replace(/[^\w.-]+/g, '_')}-${day}${ending}`,
    types: [{ description: format.toUpperCase(), accept: { [type]: [ending] } }],
  };
}

/**
 * Saves the rows, and gives `{outcome, rows, bytes, maxRows, error, left}`:
 *
 * - `saved`, `truncated`: the file is whole, or as far as a cap lets it.
 * - `incomplete`: the stream broke, or is not proved; the file has the complete rows that had come.
 * - `refused`, `cancelled`, `unwritten`: nothing is saved; `left` says what is left of the file.
 */
export async function saveRows(handle, options) {
  const old = await sizeOf(handle);
  const file = { handle, writable: null };
  try {
    return await written(file, options);
  } catch (error) {
    return kept(file, old, options.signal, error);
  }
}

async function written(file, options) {
  const stream = exportBytes(options);
  try {
    for (;;) {
      const { done, value } = await stream.next();
      file.writable ??= await file.handle.createWritable();
      if (done) {
        await file.writable.close();
        const { truncated, ...facts } = value;
        return { outcome: truncated ? 'truncated' : 'saved', ...facts };
      }
      await file.writable.write(value);
    }
  } finally {
    await stream.return();
  }
}

/** What becomes of the file after an error. */
async function kept(file, old, signal, error) {
  const cancelled = signal.aborted;
  if (!cancelled && error instanceof ExportError && error.rows > 0 && file.writable !== null) {
    try {
      await file.writable.close();
      return { outcome: 'incomplete', rows: error.rows, error };
    } catch (unwritten) {
      return { outcome: 'unwritten', error: unwritten, left: await discarded(file, old) };
    }
  }
  const left = await discarded(file, old);
  if (cancelled) return { outcome: 'cancelled', left };
  return { outcome: error instanceof ExportError ? 'refused' : 'unwritten', error, left };
}

/**
 * `old`: the picked file is as it was. `removed`, `empty`: it is no more, or has nothing in it. Browsers empty a file at
 * the pick, so that what it had before is known to nobody.
 */
async function discarded(file, old) {
  try {
    await file.writable?.abort();
  } catch {
    // It was closed, or broke by itself.
  }
  if (old > 0) return 'old';
  try {
    await file.handle.remove();
    return 'removed';
  } catch {
    return 'empty';
  }
}

async function sizeOf(handle) {
  try {
    return (await handle.getFile()).size;
  } catch {
    return 0;
  }
}
