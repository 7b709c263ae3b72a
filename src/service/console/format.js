// Finds the format in which a statement of ClickHouse asks for its answer: `… [SETTINGS …] FORMAT name [SETTINGS …] [;]`.
// It runs within a click, before the file is picked, so that it waits for nothing; the answer itself says what it is.

/** The format of a statement without one. */
const USUAL = 'TabSeparatedWithNames';

// By families: extension and type of the file, and the names of its formats.
const FAMILIES = [
  ['csv', 'text/csv', /^CSV(WithNames(AndTypes)?)?$/i],
  ['tsv', 'text/tab-separated-values', /^((TabSeparated|TSV)(Raw)?|Raw)(WithNames(AndTypes)?)?$/i],
  ['jsonl', 'application/x-ndjson', /^(JSONLines|NDJSON|JSONL|JSON(Strings)?EachRow(WithProgress)?|JSONCompact(Strings)?EachRow(WithNames(AndTypes)?|WithProgress)?)$/i],
  ['json', 'application/json', /^(JSON(Compact)?(Strings)?|JSONColumns(WithMetadata)?|JSONCompactColumns|JSONObjectEachRow|Pretty(JSONEachRow|JSONLines|NDJSON))$/i],
  ['geojson', 'application/geo+json', /^GeoJSON$/i],
  ['parquet', 'application/vnd.apache.parquet', /^Parquet$/i],
  ['orc', 'application/octet-stream', /^ORC$/i],
  ['avro', 'application/octet-stream', /^Avro(Confluent)?$/i],
  ['arrow', 'application/vnd.apache.arrow.file', /^Arrow$/i],
  ['arrows', 'application/vnd.apache.arrow.stream', /^ArrowStream$/i],
  ['native', 'application/octet-stream', /^Native$/i],
  ['rowbinary', 'application/octet-stream', /^RowBinary(WithNames(AndTypes)?)?$/i],
  ['bin', 'application/octet-stream', /^(Buffers|RawBLOB)$/i],
  ['bson', 'application/octet-stream', /^BSONEachRow$/i],
  ['msgpack', 'application/octet-stream', /^MsgPack$/i],
  ['npy', 'application/octet-stream', /^Npy$/i],
  ['pb', 'application/octet-stream', /^Protobuf(List|Single)?$/i],
  ['png', 'image/png', /^PNG$/i],
  ['tskv', 'text/plain', /^TSKV$/i],
  ['xml', 'application/xml', /^XML$/i],
  ['md', 'text/markdown', /^(Markdown|MD)$/i],
  ['sql', 'application/sql', /^SQLInsert$/i],
];
const REFUSED = /^(Null|MySQLWire|PostgreSQLWire|ODBCDriver2)$/i;

// One token each; what no one of them takes is not well-formed.
const TOKEN = new RegExp([
  '(?<space>[\\s\\u00a0]+|--[^\\n]*|#(?=[ !])[^\\n]*|/\\*[^]*?\\*/)',
  "(?<string>'(?:[^'\\\\]|\\\\[^]|'')*')",
  '(?<quoted>`(?:[^`\\\\]|\\\\[^]|``)*`|"(?:[^"\\\\]|\\\\[^]|"")*")',
  '(?<heredoc>\\$(?<tag>\\w*)\\$[^]*?\\$\\k<tag>\\$)',
  '(?<number>\\d[\\w.]*(?:(?<=[\\d.][eE])[+-]\\d+)?)',
  '(?<word>[\\p{L}_][\\w$]*)',
  '(?<opens>[([{])',
  '(?<closes>[)\\]}])',
  '(?<sign>[^\\s\'"`$\\p{L}\\p{N}_\\u0000])',
].join('|'), 'uy');
const PAIRS = { '(': ')', '[': ']', '{': '}' };

/** The tokens outside of brackets; what brackets hold is one token. Null where the text is not well-formed. */
function tokens(sql) {
  const found = [];
  const open = [];
  for (let at = 0; at < sql.length;) {
    // A comment or a quotation without an end is no sign.
    if (sql.startsWith('/*', at) && !sql.includes('*/', at + 2)) return null;
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(sql);
    if (match === null) return null;
    const { groups } = match;
    at += match[0].length;
    if (groups.space !== undefined) continue;
    if (groups.closes !== undefined && PAIRS[open.pop()] !== match[0]) return null;
    if (open.length === 0) found.push({ kind: Object.keys(groups).find((kind) => groups[kind] !== undefined), text: match[0] });
    if (groups.opens !== undefined) open.push(match[0]);
  }
  return open.length === 0 ? found : null;
}

const isWord = (token, word) => token?.kind === 'word' && token.text.toUpperCase() === word;
const isSign = (token, sign) => token?.kind === 'sign' && token.text === sign;

/** Whether these tokens are `SETTINGS name = value, …`, or none at all. */
function areSettings(rest) {
  if (rest.length === 0) return true;
  if (!isWord(rest[0], 'SETTINGS')) return false;
  const pairs = [[]];
  for (const token of rest.slice(1)) {
    if (isSign(token, ',')) pairs.push([]);
    else pairs.at(-1).push(token);
  }
  return pairs.every((pair) => {
    const equals = pair.findIndex((token) => isSign(token, '='));
    const value = pair.slice(equals + 1).filter((token) => token.kind !== 'closes');
    const signed = value.length === 2 && (isSign(value[0], '-') || isSign(value[0], '+'));
    return equals > 0 && (value.length === 1 || signed);
  });
}

const unquoted = ({ kind, text }) => (kind === 'quoted' ? text.slice(1, -1) : text);

/** The name behind FORMAT, as it is written; null where there is none, or where the statement is not well-formed. */
export function trailingFormat(sql) {
  const all = tokens(sql);
  if (all === null) return null;
  while (isSign(all.at(-1), ';')) all.pop();
  const at = all.findIndex((token, index) => {
    const name = all[index + 1];
    if (index === 0 || !isWord(token, 'FORMAT') || !['word', 'quoted'].includes(name?.kind)) return false;
    return !isSign(all[index - 1], '.') && areSettings(all.slice(index + 2));
  });
  if (at === -1 || all.slice(0, at).some((token) => isSign(token, ';'))) return null;
  const second = at > 2 && isWord(all[at - 2], 'FORMAT') && ['word', 'quoted'].includes(all[at - 1].kind);
  return second ? null : unquoted(all[at + 1]);
}

/** Whether there is a statement at all: something besides spaces, comments and semicolons. */
export function isBlank(sql) {
  const all = tokens(sql);
  return all !== null && all.every((token) => isSign(token, ';'));
}

/** What a file in a format is: `{format, ending, type, refused}`. */
export function fileOf(sql) {
  const format = trailingFormat(sql) ?? USUAL;
  const [ending, type] = FAMILIES.find(([, , names]) => names.test(format)) ?? ['txt', 'text/plain'];
  return { format, ending, type, refused: REFUSED.test(format) };
}
