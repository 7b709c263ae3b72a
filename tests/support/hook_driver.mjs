// Drives use-export-rows.js with the least of React that it needs, which stands beside it as the module `react`.
import { render, unmount } from 'react';
import { useExportRows } from './use-export-rows.js';

const settled = async (view, states) => {
  for (let i = 0; i < 400 && !states.includes(view().state); i += 1) await new Promise((resolve) => setTimeout(resolve, 10));
  const { state, rows, bytes, error } = view();
  return { state, rows, bytes, error: error === null ? null : error.code };
};

export async function drive({ url, key }) {
  const results = {};
  const mounted = (dataset) => render(() => useExportRows({ url, apiKey: key, dataset, columns: ['id'] }));
  let view = mounted('complete');
  results.before = view().state;
  const answer = view().start();
  results.at_once = view().state;
  results.blob = (await answer).blob.size;
  results.complete = await settled(view, ['done']);
  view = mounted('truncated');
  view().start();
  results.truncated = await settled(view, ['truncated']);
  view = mounted('cut-close');
  results.nothing = await view().start();
  results.cut = await settled(view, ['error']);
  view = mounted('stall');
  view().start();
  await new Promise((resolve) => setTimeout(resolve, 100));
  view().cancel();
  results.cancelled = await settled(view, ['cancelled']);
  // Starting again gives the older run up, and what it says is not shown.
  view = mounted('stall');
  view().start();
  await new Promise((resolve) => setTimeout(resolve, 50));
  view().start({ dataset: 'complete' });
  results.again = await settled(view, ['done', 'cancelled', 'error']);
  // Unmounting cancels, and nothing is shown afterwards.
  view = mounted('stall');
  const left = view().start();
  await new Promise((resolve) => setTimeout(resolve, 50));
  unmount(view);
  results.left = [await left, view().state];
  return results;
}
