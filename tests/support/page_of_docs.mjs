// The page of config/service.md, served from an origin of its own, in Chromium: a click downloads the file. CLIENT_TEST has
// {html, port, folder, key}; the file's text goes to standard output as JSON.
import { createServer } from 'node:http';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { withChromium } from './chromium.mjs';

const { html, port, folder, key } = JSON.parse(process.env.CLIENT_TEST);
const server = createServer((_, response) => response.setHeader('content-type', 'text/html').end(html));
await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
const text = await withChromium(async (chromium) => {
  const page = await chromium.page(`http://127.0.0.1:${port}/`, { before: `globalThis.prompt = () => ${JSON.stringify(key)};` });
  await page.send('Page.setDownloadBehavior', { behavior: 'allow', downloadPath: folder });
  await page.until("document.querySelector('button').onclick !== null");
  await page.click('button');
  const file = join(folder, 'orders.csv');
  // Chromium reserves the name with an empty file before the whole one takes its place.
  const isWhole = () => statSync(file, { throwIfNoEntry: false })?.size > 0;
  for (let tries = 0; tries < 1000 && !isWhole(); tries += 1) await new Promise((resolve) => setTimeout(resolve, 20));
  if (page.wrong.length > 0) throw new Error(page.wrong.join('\n'));
  return readFileSync(file, 'utf8');
});
server.close();
process.stdout.write(`${JSON.stringify({ text })}\n`);
