// What the calls of client.js ask for, and what they make of the answers: `node client_calls.mjs CLIENT`, without a service.
import { readFileSync } from 'node:fs';

// Node 18 takes no file for a module whose name does not say so.
const client = await import(`data:text/javascript;base64,${readFileSync(process.argv[2]).toString('base64')}`);

const json = (body, status = 200) => new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json' } });

/** A fetch that gives these answers one after the other, and what it was asked. */
function answering(...answers) {
  const asked = [];
  const fetch = async (url, { method, headers, body, signal }) => {
    asked.push({ url, method, body: body === undefined ? null : JSON.parse(body), last: headers['last-event-id'] ?? null, idempotency: headers['idempotency-key'] ?? null, key: headers.authorization });
    const answer = answers.shift();
    return typeof answer === 'function' ? answer(signal) : answer;
  };
  return { asked, options: { url: 'http://service/', apiKey: 'k', fetch } };
}

/** An event stream in pieces that end anywhere; it breaks behind them or ends. */
function events(pieces, breaks) {
  const body = new ReadableStream({
    pull(controller) {
      // An error would take what nobody has read yet with it.
      if (pieces.length > 0) controller.enqueue(new TextEncoder().encode(pieces.shift()));
      else if (breaks) controller.error(new TypeError('network error'));
      else controller.close();
    },
  }, { highWaterMark: 0 });
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
}

async function heard(options) {
  const seen = [];
  try {
    for await (const event of client.exportEvents({ ...options, id: 'j 1' })) seen.push(event);
  } catch (error) {
    seen.push(error.name === 'AbortError' ? error.name : error.code);
  }
  return seen;
}

const results = {};
const query = { dataset: 'a/b', columns: ['x'], where: [{ column: 'x', op: 'is null' }], dateRange: { from: '2026-01-01' } };

let fake = answering(json({ datasets: [] }), json({ rows: 3 }), json({ id: 'j1' }), json({ id: 'j2' }), json({ exports: [], next: null }), json({ id: 'j 1' }), json({ parts: [] }), new Response(null, { status: 204 }));
await client.listDatasets(fake.options);
results.estimate = await client.estimateRows({ ...fake.options, ...query });
await client.startExport({ ...fake.options, ...query, format: 'parquet', compression: 'zstd', idempotencyKey: 'once' });
await client.startExport({ ...fake.options, ...query, analysis: 'by_x', bucketKey: 'b' });
await client.listExports({ ...fake.options, cursor: 'a b' });
await client.readExport({ ...fake.options, id: 'j 1' });
await client.listFiles({ ...fake.options, id: 'j 1' });
await client.removeExport({ ...fake.options, id: 'j 1' });
results.asked = fake.asked;

// A sum keeps its digits where the engine tells how a number was written, which Node 20 does not.
fake = answering(new Response('{"buckets":[{"dimensions":{"x":null},"measures":{"count":2,"sum_x":12345678901234567.25},"bucket_key":"b"}],"truncated":false}'));
results.sum = String((await client.analyze({ ...fake.options, ...query, analysis: 'by_x' })).buckets[0].measures.sum_x);
results.analyzed = fake.asked[0];

// Broken off within an event, then refused for a moment, then to its end; comments and fields that nobody knows are left out.
fake = answering(
  events([': hello\n\nid: 1\nevent: progress\ndata: {"status":"run', 'ning","processed_rows":1}\r\n\r\nid: 2\ndata: {"status":', '"running"}\n'], true),
  json({ code: 'busy' }, 503),
  events(['id: 2\ndata: {"status":"running","processed_rows":2}\n\nid: 3\ndata: {"status":"complete"}\n\nid: 4\ndata: {"status":"running"}\n\n'], false),
);
results.events = await heard(fake.options);
results.last = fake.asked.map(({ last }) => last);
fake = answering(events(['id: 5\ndata: {"status":"running"}\n\n'], false), new Response(null, { status: 204 }));
results.known = await heard(fake.options);
fake = answering(
  (signal) => new Response(new ReadableStream({ start(controller) {
    controller.enqueue(new TextEncoder().encode('id: 1\ndata: {"status":"running","processed_rows":1}\n\n'));
    signal.addEventListener('abort', () => controller.error(signal.reason));
  } }), { headers: { 'content-type': 'text/event-stream' } }),
  events(['id: 2\ndata: {"status":"complete"}\n\n'], false),
);
results.silent = await heard({ ...fake.options, silenceMs: 100 });
results.silent_last = fake.asked.map(({ last }) => last);
fake = answering(json({ code: 'export_not_found', message: 'none' }, 404));
results.gone = await heard(fake.options);
const stop = new AbortController();
fake = answering((signal) => new Promise((_, reject) => {
  signal.addEventListener('abort', () => reject(signal.reason));
  setTimeout(() => stop.abort(), 20);
}));
results.aborted = await heard({ ...fake.options, signal: stop.signal });
process.stdout.write(`${JSON.stringify(results)}\n`);
