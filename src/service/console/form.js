// The form of an export: what a person may choose, and what was chosen.

export const at = (id) => document.getElementById(id);

/** An element with its text or children; no text is ever read as HTML. */
export function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 20 });
export const counted = (count, noun) => `${number.format(count)} ${noun}${count === 1 ? '' : 's'}`;

export function sized(bytes) {
  const step = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 4);
  const size = bytes / 1_000 ** step;
  return `${size.toFixed(step === 0 || size >= 100 ? 0 : 1)} ${['bytes', 'kB', 'MB', 'GB', 'TB'][step]}`;
}

const OPERATORS = [
  ['=', 'is'], ['!=', 'is not'], ['<', 'is less than'], ['<=', 'is at most'], ['>', 'is more than'], ['>=', 'is at least'],
  ['between', 'is between'], ['in', 'is one of'], ['like', 'is like'], ['is null', 'is empty'], ['is not null', 'is not empty'],
];
const FIELDS = { between: 2, 'is null': 0, 'is not null': 0 };
const NOTES = { in: 'Values, with commas between them', like: 'Pattern: % is any text, _ any character' };

export class Form {
  #datasets = [];
  #bucket = null;
  #changed;
  #filters = 0;

  /** `changed` is called after each change of what was chosen. */
  constructor(changed) {
    this.#changed = changed;
    at('export').addEventListener('submit', (event) => event.preventDefault());
    at('dataset').addEventListener('change', () => this.#showDataset());
    for (const [id, checked] of [['all-columns', true], ['no-columns', false]]) {
      at(id).addEventListener('click', () => {
        for (const box of this.#boxes()) box.checked = checked;
        changed();
      });
    }
    at('add-filter').addEventListener('click', () => this.#addFilter());
    at('all-rows').addEventListener('click', () => {
      this.choose(null);
      at('show-groups').focus();
    });
    at('export').addEventListener('input', ({ target }) => target.id === 'dataset' || target.id === 'analysis' || changed());
  }

  show(datasets) {
    this.#datasets = datasets;
    at('dataset').replaceChildren(...datasets.map(({ name }) => made('option', { value: name }, name)));
    this.#showDataset();
  }

  /** Leaves nothing of whoever signed out. */
  clear() {
    this.#datasets = [];
    this.#bucket = null;
    at('export').reset();
    for (const id of ['dataset', 'column-list', 'filters', 'analysis', 'bucket-list', 'order', 'groups-said', 'bucket-name']) {
      at(id).replaceChildren();
    }
  }

  get dataset() {
    return this.#datasets.find(({ name }) => name === at('dataset').value);
  }

  get format() {
    return document.querySelector('input[name=format]:checked').value;
  }

  /** What the chosen bucket is called, and its count where the analysis counts; null where none is chosen. */
  get bucket() {
    return this.#bucket;
  }

  label(name) {
    return this.dataset.columns.find((column) => column.name === name)?.label ?? name;
  }

  /** What client.js is asked for. */
  get query() {
    const [column, direction] = JSON.parse(at('order').value || '[]');
    return {
      dataset: this.dataset.name,
      columns: this.#boxes().filter(({ checked }) => checked).map(({ value }) => value),
      orderBy: column === undefined ? undefined : [{ column, direction }],
      format: this.format,
      ...(this.#bucket === null ? this.scope : { analysis: this.#bucket.analysis, bucketKey: this.#bucket.key }),
    };
  }

  /** Which rows the filters choose. */
  get scope() {
    const [from, to] = [at('from').value || undefined, at('to').value || undefined];
    const filters = [...at('filters').children].map((row) => this.#filter(row));
    const dates = this.dataset.date_column !== null && (from ?? to) !== undefined;
    return { where: filters.length > 0 ? filters : undefined, dateRange: dates ? { from, to } : undefined };
  }

  /** What still has to be chosen; empty where nothing has. */
  get missing() {
    if (!this.#boxes().some(({ checked }) => checked)) return 'Choose at least one column.';
    if (this.#bucket === null && !this.dataset.query) return 'Choose a group first: this dataset is opened by its analyses alone.';
    return this.missingInFilters;
  }

  get missingInFilters() {
    const empty = [...at('filters').children].find((row) => [...row.querySelectorAll('input')].some(({ value }) => value === ''));
    return empty === undefined || this.#bucket !== null ? '' : `Give the filter on ${this.label(empty.querySelector('select').value)} its value, or remove it.`;
  }

  /** Takes a bucket, whose rows the filters of its question have chosen already; null takes all rows again. */
  choose(bucket) {
    this.#bucket = bucket;
    at('bucket').hidden = bucket === null;
    at('bucket-name').textContent = bucket?.name ?? '';
    at('scope').disabled = bucket !== null;
    for (const row of at('bucket-list').querySelectorAll('tbody tr')) {
      row.ariaCurrent = bucket !== null && row === bucket.row ? 'true' : null;
    }
    this.#changed();
  }

  #boxes() {
    return [...at('column-list').querySelectorAll('input')];
  }

  #showDataset() {
    const { columns, analyses, date_column: dates, query } = this.dataset;
    const box = ({ name, label }) => made('label', {}, made('input', { type: 'checkbox', value: name, checked: true }), label ?? name);
    at('column-list').replaceChildren(...columns.map(box));
    at('filters').replaceChildren();
    at('add-filter').hidden = !columns.some(({ filter }) => filter);
    at('dates').hidden = dates === null;
    at('dates-of').textContent = dates === null ? '' : `by ${this.label(dates)}, both days included`;
    at('scope').hidden = dates === null && at('add-filter').hidden;
    at('analysis').replaceChildren(...analyses.map(({ name }) => made('option', { value: name }, name.replaceAll('_', ' '))));
    at('groups').hidden = analyses.length === 0;
    at('bucket-list').hidden = true;
    at('bucket-list').replaceChildren();
    at('groups-said').textContent = query || analyses.length === 0 ? '' : 'The rows of this dataset are opened by groups.';
    const orders = columns.filter(({ sort }) => sort).flatMap(({ name, label }) => [
      made('option', { value: JSON.stringify([name, 'asc']) }, `${label ?? name}, upwards`),
      made('option', { value: JSON.stringify([name, 'desc']) }, `${label ?? name}, downwards`),
    ]);
    at('ordering').hidden = orders.length === 0;
    at('order').replaceChildren(made('option', { value: '' }, 'the key'), ...orders);
    this.choose(null);
  }

  #addFilter() {
    this.#filters += 1;
    const nth = this.#filters;
    const options = (pairs) => pairs.map(([value, text]) => made('option', { value }, text));
    const column = made('select', { ariaLabel: `Column of filter ${nth}` });
    column.append(...options(this.dataset.columns.filter(({ filter }) => filter).map(({ name, label }) => [name, label ?? name])));
    const operator = made('select', { ariaLabel: `Comparison of filter ${nth}` });
    operator.append(...options(OPERATORS));
    const fields = made('span', { className: 'tools' });
    const remove = made('button', { type: 'button', ariaLabel: `Remove filter ${nth}` }, 'Remove');
    const row = made('div', { className: 'filter', role: 'group', ariaLabel: `Filter ${nth}` }, column, operator, fields, remove);
    const show = () => {
      const field = (_, i) => made('input', { ariaLabel: `${i === 0 ? 'Value' : 'Second value'} of filter ${nth}`, title: NOTES[operator.value] ?? '', placeholder: NOTES[operator.value] ?? '' });
      fields.replaceChildren(...Array.from({ length: FIELDS[operator.value] ?? 1 }, field));
    };
    operator.addEventListener('change', () => {
      show();
      this.#changed();
    });
    remove.addEventListener('click', () => {
      row.remove();
      at('add-filter').focus();
      this.#changed();
    });
    show();
    at('filters').append(row);
    column.focus();
    this.#changed();
  }

  #filter(row) {
    const [column, op] = [...row.querySelectorAll('select')].map(({ value }) => value);
    const texts = [...row.querySelectorAll('input')].map(({ value }) => value);
    if (op === 'in') return { column, op, values: texts[0].split(',').map((text) => text.trimStart()) };
    if (texts.length === 2) return { column, op, values: texts };
    return texts.length === 1 ? { column, op, value: texts[0] } : { column, op };
  }
}

/** Shows the buckets of an analysis; `chosen` takes one of them. */
export function showBuckets(form, analysis, { buckets, truncated }, chosen) {
  const { dimensions, measures } = form.dataset.analyses.find(({ name }) => name === analysis);
  const measured = (name) => {
    const [, kind, column] = /^(count|sum|avg|min|max)_?(.*)$/.exec(name);
    return column === '' ? 'Rows' : `${{ sum: 'Sum', avg: 'Mean', min: 'Least', max: 'Greatest' }[kind]} of ${form.label(column)}`;
  };
  const figure = (value) => (typeof value === 'string' && !/^-?\d+(\.\d+)?$/.test(value) ? value : value === null ? '' : number.format(value));
  const shown = (value) => (value === null ? '(none)' : typeof value === 'object' ? JSON.stringify(value) : String(value));
  const head = made('tr', {},
    ...dimensions.map((name) => made('th', { scope: 'col' }, form.label(name))),
    ...measures.map((name) => made('th', { scope: 'col', className: 'number' }, measured(name))),
    made('th', { scope: 'col' }, 'Rows behind it'));
  const line = (bucket) => {
    const values = dimensions.map((name) => shown(bucket.dimensions[name]));
    const name = dimensions.map((dimension, i) => `${form.label(dimension)} = ${values[i]}`).join(', ');
    const button = made('button', { type: 'button', ariaLabel: `Choose the rows of ${name}` }, 'Choose');
    const row = made('tr', {},
      ...values.map((value) => made('td', {}, value)),
      ...measures.map((measure) => made('td', { className: 'number' }, figure(bucket.measures[measure]))),
      made('td', {}, button));
    const rows = Number(bucket.measures.count ?? Number.NaN);
    button.addEventListener('click', () => chosen({ analysis, key: bucket.bucket_key, name, rows: Number.isNaN(rows) ? null : rows, row }));
    return row;
  };
  at('bucket-list').replaceChildren(made('table', {}, made('thead', {}, head), made('tbody', {}, ...buckets.map(line))));
  at('bucket-list').hidden = buckets.length === 0;
  at('groups-said').textContent = buckets.length === 0 ? 'No data matches your filters.'
    : truncated ? `The first ${counted(buckets.length, 'group')}; there are more.` : `${counted(buckets.length, 'group')}.`;
}
