// Streams rows of `outhaul serve` in browsers and Node, and says truthfully how a stream ended. No dependencies.
//
// A body that ends is no proof: some browsers, proxies and versions of Node show a cut body as a whole one. So each stream
// is held against its receipt (GET /v1/exports/{id}), or against the end record where there is no receipt: status, rows
// and CRC-64/NVME must agree with what came, or the iteration throws.

const SILENCE_MS = 300_000;
const RECEIPT_MS = 20_000;
const RECEIPT_INTERVAL_MS = 250;
const END_RECORD_BYTES_MAX = 16_384;
// Between two attempts to hear of a job.
const EVENTS_AGAIN_MS = [500, 2_000, 5_000, 10_000];
const JOB_ENDS = ['complete', 'truncated', 'failed', 'cancelled', 'expired'];
const END_RECORD = new TextEncoder().encode('{"$end":');
const [LINE_FEED, QUOTE] = [10, 34];

/** Why there are no rows, or why those that came are not all. */
export class ExportError extends Error {
  constructor(code, message, more = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'ExportError';
    this.code = code;
    this.status = more.status ?? null;
    this.detail = more.detail ?? null;
    this.requestId = more.requestId ?? null;
    this.retryAfter = more.retryAfter ?? null;
    this.rows = more.rows ?? 0;
  }
}

/**
 * Rows in chunks: `{kind: 'rows', rows}`, before them `{kind: 'header', line}` for CSV, at the end
 * `{kind: 'truncated', actualRows, maxRows}` where a cap cut rows off. Leaving the loop cancels the query.
 */
export async function* exportRows(options) {
  const csv = options.format === 'csv';
  const read = options.parse === 'json' && !csv ? JSON.parse : (line) => line;
  const lines = new Lines(csv);
  let header = csv;
  const stream = verified(options);
  try {
    for (;;) {
      const { done, value } = await stream.next();
      if (done) {
        if (value.status === 'truncated') yield { kind: 'truncated', actualRows: value.rows, maxRows: value.maxRows };
        return;
      }
      const rows = lines.take(value.data);
      if (header && rows.length > 0) {
        header = false;
        yield { kind: 'header', line: rows.shift() };
      }
      if (rows.length > 0) yield { kind: 'rows', rows: rows.map(read) };
    }
  } finally {
    await stream.return();
  }
}

/** All rows as a file: `{blob, status, rows, bytes, maxRows, truncated}`. It rejects rather than give a part. */
export async function exportRowsToBlob(options) {
  const stream = verified(options);
  const pieces = [];
  for (;;) {
    const { done, value } = await stream.next();
    if (done) {
      const type = options.format === 'csv' ? 'text/csv;charset=utf-8' : 'application/x-ndjson';
      return { blob: new Blob(pieces, { type }), truncated: value.status === 'truncated', ...value };
    }
    pieces.push(value.data);
  }
}

/**
 * The rows as bytes, each piece of whole rows: what has been taken when the stream breaks ends with a row. Returns what
 * exportRowsToBlob gives, without the blob.
 */
export async function* exportBytes(options) {
  const stream = verified(options);
  let held = [];
  try {
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return { truncated: value.status === 'truncated', ...value };
      const { data, whole } = value;
      if (whole === 0) {
        held.push(data);
        continue;
      }
      const piece = joined([...held, data.subarray(0, whole)]);
      held = whole < data.length ? [data.subarray(whole)] : [];
      yield piece;
    }
  } finally {
    await stream.return();
  }
}

/** Where the caller may send statements of ClickHouse: `{sources, credentials}`. */
export async function listSources(options) {
  return told(options, '/v1/clickhouse');
}

/**
 * What a database answers a statement, as it writes it: bytes, the first piece once they begin. Returns `{bytes}` once it is
 * proved that they are all; an ExportError has how many had come. Leaving the loop ends the statement at the database.
 */
export async function* statementBytes(options) {
  const { source, statement, user, password = '', signal, onProgress } = options;
  const [stop, end] = linked(signal);
  const headers = user === undefined ? {} : { 'x-outhaul-database-authorization': `Basic ${base64(`${user}:${password}`)}` };
  try {
    const path = `/v1/clickhouse/${encodeURIComponent(source)}/export`;
    const response = await answered(options, stop, path, { body: { statement }, headers });
    const [id, reader, crc] = [response.headers.get('x-outhaul-export-id'), response.body.getReader(), new Crc64()];
    let bytes = 0;
    for (;;) {
      let piece;
      try {
        piece = await within(options, stop, () => reader.read());
      } catch (error) {
        signal?.throwIfAborted();
        throw Object.assign(await explained(options, id, { rows: 0 }, error), { bytes });
      }
      if (piece.done) break;
      crc.update(piece.value);
      bytes += piece.value.length;
      onProgress?.({ bytes });
      yield piece.value;
    }
    const { receipt, refusal } = await receiptOf(options, id);
    signal?.throwIfAborted();
    const wrong = statementFault(receipt, refusal, bytes, crc.text());
    if (wrong !== null) throw Object.assign(wrong, { bytes });
    return { bytes };
  } finally {
    end();
  }
}

/** Why bytes that ended well are not all of an answer; null where the service says that they are. */
function statementFault(receipt, refusal, bytes, crc) {
  if (receipt?.status === 'failed' || receipt?.status === 'cancelled') return failed(receipt, { rows: 0 });
  if (receipt?.status !== 'complete') return unproven('nothing proves that the answer is whole', refusal, 0);
  if (receipt.bytes === bytes && receipt.crc64nvme === crc) return null;
  return new ExportError('verification', `the service sent ${receipt.bytes} bytes, and ${bytes} came, or others`);
}

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

/** What the caller may ask for: `{datasets}`. */
export async function listDatasets(options) {
  return told(options, '/v1/datasets');
}

/** How many rows a query would give: `{rows, kind, max_rows, will_truncate, estimated_minutes}`. */
export async function estimateRows(options) {
  const path = `/v1/query/${encodeURIComponent(options.dataset)}/estimate`;
  return told(options, path, { body: question(options) });
}

/** The buckets of an analysis. A number that would lose digits is a text, where the browser tells how it was written. */
export async function analyze(options) {
  const { dataset, analysis, where, dateRange } = options;
  const path = `/v1/analyze/${encodeURIComponent(dataset)}/${encodeURIComponent(analysis)}`;
  const exact = (_, value, context) =>
    typeof value === 'number' && context?.source !== undefined && String(value) !== context.source ? context.source : value;
  return told(options, path, { body: { where, date_range: dateRange } }, exact);
}

/** Queues an export of a dataset, or of a bucket, and gives its job. */
export async function startExport(options) {
  const { dataset, analysis, bucketKey, compression, idempotencyKey } = options;
  const body = { dataset, mode: 'background', compression, ...question(options) };
  if (bucketKey !== undefined) Object.assign(body, { analysis, bucket_key: bucketKey, where: undefined, date_range: undefined });
  const headers = idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey };
  return told(options, '/v1/exports', { body, headers });
}

/** The caller's jobs, the newest first: `{exports, next}`; `cursor` is the `next` of the page before. */
export async function listExports(options) {
  const asked = Object.entries({ cursor: options.cursor, limit: options.limit }).filter(([, value]) => value !== undefined);
  const query = asked.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
  return told(options, `/v1/exports${query && `?${query}`}`);
}

/** A job, or the receipt of a stream. */
export async function readExport(options) {
  return told(options, `/v1/exports/${encodeURIComponent(options.id)}`);
}

/** The files of a job that is ready: `{parts: [{url, rows, bytes, crc64nvme}]}` and more. */
export async function listFiles(options) {
  return told(options, `/v1/exports/${encodeURIComponent(options.id)}/manifest`);
}

/** Cancels a job; one that has ended loses its files and links. */
export async function removeExport(options) {
  await told(options, `/v1/exports/${encodeURIComponent(options.id)}`, { method: 'DELETE' });
}

/**
 * What becomes of a job, until it has ended: one object each time. Not by EventSource, which cannot send a key; a
 * connection that breaks goes on where it was.
 */
export async function* exportEvents(options) {
  const path = `/v1/exports/${encodeURIComponent(options.id)}/events`;
  let [last, failures] = [null, 0];
  for (;;) {
    const [stop, end] = linked(options.signal);
    try {
      const headers = { accept: 'text/event-stream', ...(last === null ? {} : { 'last-event-id': last }) };
      const response = await answered(options, stop, path, { headers });
      // The end was heard already.
      if (response.status === 204) return;
      const reader = response.body.getReader();
      // The service sends a comment now and then, so that a silent connection is a dead one.
      for await (const event of eventsOf(() => within(options, stop, () => reader.read()))) {
        [last, failures] = [event.id ?? last, 0];
        yield event.data;
        if (JOB_ENDS.includes(event.data.status)) return;
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      // A refusal stays one; a proxy that is restarted does not.
      if (error instanceof ExportError && error.status !== null && error.status < 500 && error.status !== 429) throw error;
      if (failures + 1 >= EVENTS_AGAIN_MS.length) throw error;
    } finally {
      end();
    }
    failures = Math.min(failures + 1, EVENTS_AGAIN_MS.length);
    await new Promise((resolve) => setTimeout(resolve, EVENTS_AGAIN_MS[failures - 1]));
  }
}

/** Events as they come: `{id, data}`. */
async function* eventsOf(read) {
  const decoder = new TextDecoder();
  let rest = '';
  let event = { id: null, data: [] };
  for (;;) {
    const { done, value } = await read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^(id|data): ?(.*)$/.exec(line) ?? [];
      if (field === 'id') event.id = text;
      else if (field === 'data') event.data.push(text);
      else if (line === '') {
        if (event.data.length > 0) yield { id: event.id, data: JSON.parse(event.data.join('\n')) };
        event = { id: null, data: [] };
      }
    }
  }
}

/** The bytes of the rows, without the end record; returns what is true of the whole once that is proved. */
async function* verified(options) {
  const { signal, onProgress } = options;
  const [stop, end] = linked(signal);
  try {
    const response = await asked(options, stop);
    const id = response.headers.get('x-outhaul-export-id');
    const promised = options.format !== 'csv' && response.headers.get('x-outhaul-export-end-record') === 'true';
    const seen = new Seen(options.format === 'csv', promised);
    const reader = response.body.getReader();
    for (;;) {
      let piece;
      try {
        piece = await within(options, stop, () => reader.read());
      } catch (error) {
        signal?.throwIfAborted();
        throw await explained(options, id, seen, error);
      }
      const data = piece.done ? seen.finish() : seen.take(piece.value);
      if (data.length > 0) {
        onProgress?.({ rows: Math.max(seen.rows, 0), bytes: seen.bytes });
        yield { data, whole: seen.whole };
      }
      if (piece.done) break;
    }
    const { receipt, refusal } = await receiptOf(options, id);
    signal?.throwIfAborted();
    return judged(seen, promised, receipt, refusal);
  } finally {
    end();
  }
}

async function asked(options, stop) {
  const { dataset, analysis, bucketKey, allowEmpty, format = 'ndjson' } = options;
  const name = encodeURIComponent;
  const body = { ...question(options), allow_empty: allowEmpty };
  let path = `/v1/query/${name(dataset)}/export`;
  if (bucketKey !== undefined) {
    path = `/v1/analyze/${name(dataset)}/${name(analysis)}/rows/export`;
    body.bucket_key = bucketKey;
  }
  if (format === 'ndjson') body.end_record = true;
  const response = await answered(options, stop, path, { body });
  const [type, wanted] = [response.headers.get('content-type') ?? '', format === 'csv' ? 'text/csv' : 'application/x-ndjson'];
  if (!type.startsWith(wanted)) throw new ExportError('not_rows', `the answer is ${type || 'of no type'} and not ${wanted}`);
  return response;
}

const question = ({ format = 'ndjson', columns, where, dateRange, orderBy }) =>
  ({ format, columns, where, date_range: dateRange, order_by: orderBy });

/** What a small answer says, as JSON. */
async function told(options, path, asked, exact) {
  const [stop, end] = linked(options.signal);
  try {
    const response = await answered(options, stop, path, asked);
    const text = await within(options, stop, () => response.text());
    return text === '' ? null : JSON.parse(text, exact);
  } finally {
    end();
  }
}

/** The answer to a request, which is none that refuses. A key that is not taken is asked for once more, where it is a function. */
async function answered(options, stop, path, asked = {}) {
  let refusal = null;
  for (;;) {
    const { apiKey } = options;
    const key = typeof apiKey === 'function' ? await apiKey(refusal) : apiKey;
    if (refusal !== null && !key) throw refusal;
    const response = await within(options, stop, () => fetched(options, stop, path, key, asked));
    if (response.ok) return response;
    const again = response.status === 401 && refusal === null && typeof apiKey === 'function';
    refusal = await within(options, stop, () => refused(response));
    if (!again) throw refusal;
  }
}

async function fetched(options, stop, path, key, { method, body, headers }) {
  const fetching = options.fetch ?? globalThis.fetch.bind(globalThis);
  const json = body === undefined ? {} : { 'content-type': 'application/json' };
  try {
    return await fetching(`${String(options.url ?? '').replace(/\/+$/, '')}${path}`, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}), ...json, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: stop.signal,
      cache: 'no-store',
      redirect: 'error',
    });
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new ExportError('unreachable', 'the service cannot be reached', { cause: error });
  }
}

/** `application/problem+json` as an error. */
async function refused(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // A page of something before the service.
  }
  const message = problem.message ?? `the service, or what stands before it, answered ${response.status}`;
  const seconds = Number.parseInt(response.headers.get('retry-after') ?? '', 10);
  return new ExportError(problem.code ?? 'http_error', message, {
    status: response.status,
    detail: problem.detail,
    requestId: problem.request_id,
    retryAfter: Number.isNaN(seconds) ? null : seconds,
  });
}

/** What ends a request for whatever reason, a caller who leaves or a service that is silent, and what ends that. */
function linked(signal) {
  signal?.throwIfAborted();
  const stop = new AbortController();
  const abort = () => stop.abort(signal.reason);
  signal?.addEventListener('abort', abort, { once: true });
  const end = () => {
    signal?.removeEventListener('abort', abort);
    stop.abort();
  };
  return [stop, end];
}

/** What the service does before it is taken for dead. */
async function within({ silenceMs = SILENCE_MS }, stop, work) {
  const timer = setTimeout(() => stop.abort(new ExportError('silent', 'the service sends nothing any more')), silenceMs);
  try {
    return await work();
  } catch (error) {
    // Not every fetch hands the reason on.
    throw stop.signal.reason instanceof ExportError ? stop.signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}

/** Of a stream that broke, what the service knows of it. */
async function explained(options, id, seen, cause) {
  const { receipt } = await receiptOf(options, id);
  options.signal?.throwIfAborted();
  if (receipt?.status === 'failed' || receipt?.status === 'cancelled') return failed(receipt, seen);
  const rows = Math.max(seen.rows, 0);
  return cause instanceof ExportError ? Object.assign(cause, { rows }) : new ExportError('broken_stream', 'the stream broke off', { rows, cause });
}

function failed(receipt, seen) {
  const { code = 'stream_failed', message = `the stream was ${receipt.status}` } = receipt.error ?? {};
  return new ExportError(code, message, { rows: Math.max(seen.rows, 0) });
}

/** `receipt` once the stream has ended there too, null where it cannot be had; `refusal` where the service gives none. */
async function receiptOf(options, id) {
  if (id === null) return { receipt: null, refusal: null };
  const deadline = Date.now() + (options.receiptMs ?? RECEIPT_MS);
  for (;;) {
    let receipt = null;
    try {
      receipt = await readExport({ ...options, id, silenceMs: Math.max(deadline - Date.now(), RECEIPT_INTERVAL_MS) });
    } catch (error) {
      // Whether the caller left is looked at where this returns.
      if ([401, 403, 404].includes(error.status)) return { receipt: null, refusal: error };
    }
    const settled = receipt !== null && receipt.status !== 'streaming';
    if (settled || Date.now() >= deadline || options.signal?.aborted) return { receipt, refusal: null };
    await new Promise((resolve) => setTimeout(resolve, RECEIPT_INTERVAL_MS));
  }
}

/** No proof; where the key is not taken any more, that is why. */
function unproven(message, refusal, rows) {
  if (refusal === null || refusal.status === 404) return new ExportError('unproven', message, { rows, cause: refusal ?? undefined });
  return Object.assign(refusal, { rows });
}

/** All that was said of the stream must agree with what came, and something must have been said. */
function judged(seen, promised, receipt, refusal) {
  const { rows, bytes } = seen;
  if (receipt?.status === 'failed' || receipt?.status === 'cancelled') throw failed(receipt, seen);
  const cut = (what) => new ExportError('broken_stream', `the stream is cut: ${what}`, { rows });
  if (promised && seen.end === null) throw cut('the end record that was promised is missing');
  if (!seen.endsWhole) throw cut('the last row is not whole');
  const said = [receipt?.status === 'streaming' ? null : receipt, seen.end].filter((end) => end !== null);
  if (said.length === 0) throw unproven('nothing proves that the rows are all', refusal, rows);
  const crc = seen.crc.text();
  for (const end of said) {
    const wrong = (what) => new ExportError('verification', what, { rows });
    if (end.status !== 'complete' && end.status !== 'truncated') throw wrong(`the stream ended as ${end.status}`);
    if (end.rows !== rows) throw wrong(`the service counts ${end.rows} rows, and ${rows} came`);
    if (end.crc64nvme && end.crc64nvme !== crc) throw wrong('the service has another checksum than what came');
  }
  return { status: said[0].status, rows, bytes, maxRows: said[0].max_rows ?? null };
}

/** What came: rows, bytes, checksum, and the end record taken out of it. */
class Seen {
  rows = 0;
  bytes = 0;
  end = null;
  endsWhole = true;
  /** So many bytes of what came last belong to rows that have ended. */
  whole = 0;
  crc = new Crc64();
  #csv;
  #sifts;
  #quoted = false;
  #inRow = false;
  #held = [];

  constructor(csv, sifts) {
    this.#csv = csv;
    this.#sifts = sifts;
    // The header is no row.
    if (csv) this.rows = -1;
  }

  take(piece) {
    return this.#count(this.#sifts ? this.#sift(piece) : piece);
  }

  /** What was held back and is no end record. */
  finish() {
    const held = joined(this.#held);
    this.#held = [];
    if (held.at(-1) === LINE_FEED) {
      try {
        this.end = JSON.parse(new TextDecoder().decode(held)).$end ?? null;
      } catch {
        // A row that begins like an end record.
      }
    }
    const data = this.end === null ? this.#count(held) : held.subarray(0, 0);
    if (this.#csv && this.rows < 0) this.endsWhole = false;
    this.rows = Math.max(this.rows, 0);
    return data;
  }

  /** Holds back a line that may be the end record, until something follows it. */
  #sift(piece) {
    const data = [];
    const release = () => data.push(...this.#held.splice(0));
    // Only the last line can be it, whole or as far as it came.
    const start = piece.length < 2 ? 0 : piece.lastIndexOf(LINE_FEED, piece.length - 2) + 1;
    if (start > 0 || (piece.length > 0 && this.#held.at(-1)?.at(-1) === LINE_FEED)) release();
    if (start > 0) {
      data.push(piece.subarray(0, start));
      this.#inRow = false;
    }
    const line = piece.subarray(start);
    if (this.#inRow) {
      data.push(line);
    } else {
      this.#held.push(line);
      const held = joined(this.#held);
      if (held.length > END_RECORD_BYTES_MAX || END_RECORD.some((byte, at) => at < held.length && held[at] !== byte)) {
        release();
        this.#inRow = true;
      }
    }
    if (line.at(-1) === LINE_FEED) this.#inRow = false;
    return joined(data);
  }

  #count(data) {
    this.crc.update(data);
    this.bytes += data.length;
    this.whole = 0;
    for (let at = 0; at < data.length; at += 1) {
      const byte = data[at];
      if (byte === QUOTE && this.#csv) this.#quoted = !this.#quoted;
      else if (byte === LINE_FEED && !this.#quoted) [this.rows, this.whole] = [this.rows + 1, at + 1];
    }
    if (data.length > 0) this.endsWhole = data.at(-1) === LINE_FEED && !this.#quoted;
    return data;
  }
}

/** Bytes as lines; a line of CSV may have line breaks between quotes. */
class Lines {
  #csv;
  #quoted = false;
  #rest = '';
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(csv) {
    this.#csv = csv;
  }

  take(data) {
    const from = this.#rest.length;
    const text = this.#rest + this.#decoder.decode(data, { stream: true });
    const lines = [];
    let start = 0;
    for (let at = from; at < text.length; at += 1) {
      if (this.#csv) {
        if (text[at] === '"') this.#quoted = !this.#quoted;
        if (text[at] !== '\n' || this.#quoted) continue;
      } else {
        at = text.indexOf('\n', at);
        if (at < 0) break;
      }
      lines.push(text.slice(start, this.#csv && text[at - 1] === '\r' ? at - 1 : at));
      start = at + 1;
    }
    this.#rest = text.slice(start);
    return lines;
  }
}

function joined(pieces) {
  if (pieces.length === 1) return pieces[0];
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** CRC-64/NVME in halves of 32 bits. */
class Crc64 {
  static #tables = null;
  #high = 0xffffffff;
  #low = 0xffffffff;

  static #made() {
    const [high, low] = [new Uint32Array(256), new Uint32Array(256)];
    for (let byte = 0; byte < 256; byte += 1) {
      let [upper, lower] = [0, byte];
      for (let bit = 0; bit < 8; bit += 1) {
        const odd = lower & 1;
        lower = ((lower >>> 1) | (upper << 31)) >>> 0;
        upper >>>= 1;
        if (odd) {
          upper ^= 0x9a6c9329;
          lower ^= 0xac4bc9b5;
        }
      }
      [high[byte], low[byte]] = [upper, lower];
    }
    return [high, low];
  }

  update(data) {
    const [tableHigh, tableLow] = (Crc64.#tables ??= Crc64.#made());
    let [high, low] = [this.#high, this.#low];
    for (let at = 0; at < data.length; at += 1) {
      const index = (low ^ data[at]) & 0xff;
      low = ((low >>> 8) | (high << 24)) ^ tableLow[index];
      high = (high >>> 8) ^ tableHigh[index];
    }
    [this.#high, this.#low] = [high, low];
  }

  /** Base64 of the eight bytes, the highest first, as receipts have it. */
  text() {
    const bytes = [~this.#high, ~this.#low].flatMap((half) => [24, 16, 8, 0].map((shift) => (half >>> shift) & 0xff));
    return btoa(String.fromCharCode(...bytes));
  }
}
