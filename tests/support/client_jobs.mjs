// The calls of client.js on the background exports of a service: `node client_jobs.mjs CLIENT`. CLIENT_TEST has {url}.
import { readFileSync } from 'node:fs';

// Node 18 takes no file for a module whose name does not say so.
const client = await import(`data:text/javascript;base64,${readFileSync(process.argv[2]).toString('base64')}`);
const service = { url: JSON.parse(process.env.CLIENT_TEST).url, apiKey: 'whole' };
const query = { dataset: 'orders', columns: ['id'], where: [{ column: 'id', op: 'is not null' }] };
const codeOf = (promise) => promise.then(() => null, ({ code, status }) => [code, status]);

const seen = {};
seen.datasets = (await client.listDatasets(service)).datasets.map(({ name }) => name);
seen.estimate = await client.estimateRows({ ...service, ...query });

const asked = { ...service, ...query, format: 'csv', compression: 'gzip', idempotencyKey: 'once' };
const { id } = await client.startExport(asked);
seen.same = (await client.startExport(asked)).id === id;
seen.reused = await codeOf(client.startExport({ ...asked, format: 'ndjson' }));
seen.events = [];
for await (const event of client.exportEvents({ ...service, id })) seen.events.push(event);
seen.job = await client.readExport({ ...service, id });
seen.files = await client.listFiles({ ...service, id });
const link = new URL(seen.job.download_url, service.url);
seen.link = await fetch(link).then(({ status }) => status);

// Cancelled while it runs: whoever follows it is told.
const slow = await client.startExport({ ...service, dataset: 'slow', columns: ['id', 'slept'] });
seen.followed = [];
for await (const event of client.exportEvents({ ...service, id: slow.id })) {
  seen.followed.push(event.status);
  if (event.status === 'running' && seen.followed.filter((status) => status === 'running').length === 1) await client.removeExport({ ...service, id: slow.id });
}
// Who leaves is not told that it has failed.
const gone = await client.startExport({ ...service, dataset: 'slow', columns: ['id', 'slept'] });
for await (const event of client.exportEvents({ ...service, id: gone.id })) if (event.status !== 'final') break;
await client.removeExport({ ...service, id: gone.id });

seen.pages = [];
let cursor;
do {
  const page = await client.listExports({ ...service, cursor, limit: 2 });
  seen.pages.push(page.exports.map((job) => [gone.id, slow.id, id].indexOf(job.id)));
  cursor = page.next ?? undefined;
} while (cursor !== undefined && seen.pages.length < 5);

await client.removeExport({ ...service, id });
seen.removed = [(await client.readExport({ ...service, id })).status, await fetch(link).then(({ status }) => status), await codeOf(client.listFiles({ ...service, id }))];
seen.none = await codeOf(client.readExport({ ...service, id: 'nothing' }));
process.stdout.write(`${JSON.stringify(seen)}\n`);
