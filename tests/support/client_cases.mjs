// What client.js makes of each behaviour of a service, as JSON; the same in Node and in a browser.

/** Runs through a stream: rows by their number, the first and the last, and how it ended. */
async function walked(client, options) {
  const seen = { rows: 0, first: null, last: null, header: null, end: null, error: null, progress: 0 };
  try {
    for await (const chunk of client.exportRows({ ...options, onProgress: ({ rows }) => (seen.progress = rows) })) {
      if (chunk.kind === 'rows') {
        seen.rows += chunk.rows.length;
        seen.first ??= chunk.rows[0];
        seen.last = chunk.rows.at(-1);
      } else if (chunk.kind === 'header') {
        seen.header = chunk.line;
      } else {
        seen.end = chunk;
      }
    }
  } catch (error) {
    seen.error = { name: error.name, code: error.code ?? null, message: error.message, retryAfter: error.retryAfter ?? null, rows: error.rows ?? null, status: error.status ?? null };
  }
  return seen;
}

export async function run(client, { url, key, cases }) {
  const results = {};
  for (const [name, more] of Object.entries(cases)) {
    const { abortAfter, leaveAfter, blob, wrongKey, renewed, ...rest } = more;
    const stop = new AbortController();
    const options = { url, apiKey: wrongKey ? 'wrong' : key, signal: stop.signal, ...rest };
    const keys = [];
    if (renewed) options.apiKey = (refusal) => (keys.push(refusal?.code ?? null), refusal === null ? key : Promise.resolve(key));
    if (abortAfter !== undefined) setTimeout(() => stop.abort(), abortAfter);
    if (blob) {
      try {
        const { blob: file, ...facts } = await client.exportRowsToBlob(options);
        results[name] = { ...facts, size: file.size, type: file.type, start: (await file.text()).slice(0, 20) };
      } catch (error) {
        results[name] = { error: { name: error.name, code: error.code ?? null } };
      }
    } else if (leaveAfter !== undefined) {
      let chunks = 0;
      for await (const chunk of client.exportRows(options)) {
        chunks += chunk.rows.length > 0 ? 1 : 0;
        if (chunks >= leaveAfter) break;
      }
      results[name] = { chunks };
    } else {
      results[name] = { ...await walked(client, options), keys };
    }
  }
  return results;
}
