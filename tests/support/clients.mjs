// Runs client_cases.mjs in this Node, or in a Chromium that it starts: `node clients.mjs node|chromium|hook`. What to run
// stands in CLIENT_TEST as JSON, or in the file that CLIENT_TEST_FILE names; the results go to standard output.
import { readFileSync } from 'node:fs';
import { withChromium } from './chromium.mjs';

const asked = JSON.parse(process.env.CLIENT_TEST ?? readFileSync(process.env.CLIENT_TEST_FILE, 'utf8'));
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

/** Loads the page, and evaluates the cases in it. */
async function inChromium() {
  const { cases_text: text, ...given } = asked;
  const cases = `import(${JSON.stringify(`data:text/javascript;base64,${Buffer.from(text).toString('base64')}`)})`;
  return withChromium(async (chromium) => {
    const page = await chromium.page(`${asked.url}${asked.page}`);
    return page.value(`(await ${cases}).run(await import('/client.js'), ${JSON.stringify(given)})`);
  });
}
