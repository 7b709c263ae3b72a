// The hook in a real React, under its strict mode, which mounts each component twice: what the page shows in each state.

/** React's own files, which are made for `require`. */
function modulesOf(texts) {
  const loaded = {};
  const load = (name) => {
    if (loaded[name] === undefined) {
      loaded[name] = { exports: {} };
      const body = new Function('module', 'exports', 'require', 'process', texts[name]);
      body(loaded[name], loaded[name].exports, load, { env: { NODE_ENV: 'development' } });
    }
    return loaded[name].exports;
  };
  return load;
}

const imported = (text) => import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })));

export async function run(_client, { url, keys, texts }) {
  const complaints = [];
  console.error = (...words) => complaints.push(words.map(String).join(' '));
  const load = modulesOf(texts);
  const React = (globalThis.loadedReact = load('react'));
  const hook = (await (await fetch(`${url}/use-export-rows.js`)).text())
    .replace(/import \{(.*)\} from 'react';/, 'const {$1} = globalThis.loadedReact;')
    .replace("'./client.js'", `'${url}/client.js'`);
  const { useExportRows } = await imported(hook);
  const place = document.body.appendChild(document.createElement('div'));
  let latest = null;
  const Export = ({ apiKey, format }) => {
    latest = useExportRows({ url, apiKey, dataset: 'orders', columns: ['id', 'note'], format });
    return React.createElement('output', null, `${latest.state} ${latest.rows} ${latest.error?.code ?? ''}`.trim());
  };
  const root = load('react-dom/client').createRoot(place);
  const show = (props) => root.render(React.createElement(React.StrictMode, null, React.createElement(Export, props)));
  const shown = async (wanted) => {
    for (let tries = 0; tries < 1000; tries += 1) {
      if (place.textContent.startsWith(wanted)) return place.textContent;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`${wanted} is not shown: ${place.textContent}; ${complaints.join('; ')}`);
  };
  const equal = (found, wanted) => {
    if (found !== wanted) throw new Error(`${found} is shown, and not ${wanted}`);
  };
  for (const format of ['ndjson', 'csv']) {
    show({ apiKey: keys.enterprise, format });
    if (format === 'ndjson') equal(await shown('idle'), 'idle 0');
    await new Promise((resolve) => setTimeout(resolve, 50));
    const { rows } = await latest.start();
    equal(await shown('done'), `done ${rows}`);
    latest.start();
    await shown('streaming');
    latest.cancel();
    await shown('cancelled');
  }
  show({ apiKey: 'nobody', format: 'csv' });
  await new Promise((resolve) => setTimeout(resolve, 50));
  equal(await latest.start(), null);
  equal(await shown('error'), 'error 0 unauthorized');
  show({ apiKey: keys.enterprise, format: 'csv' });
  await new Promise((resolve) => setTimeout(resolve, 50));
  const left = latest.start();
  await shown('streaming');
  root.unmount();
  equal(await left, null);
  if (complaints.length > 0) throw new Error(complaints.join('\n'));
  return { react: React.version, complaints };
}
