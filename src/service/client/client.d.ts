/** A filter: `value` for one, `values` for `in` and `between`, neither for `is null` and `is not null`. */
export interface Filter {
  column: string;
  op: '=' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'between' | 'is null' | 'is not null' | 'like';
  value?: string | number | boolean;
  values?: (string | number | boolean)[];
}

export interface Progress {
  rows: number;
  bytes: number;
}

export interface ExportOptions {
  /** The service's address without `/v1`; the page's own origin unless given. */
  url?: string;
  apiKey?: string;
  /** More headers, such as `x-outhaul-tenant` from a trusted backend. */
  headers?: Record<string, string>;
  dataset: string;
  /** With `bucketKey`: the rows of one bucket of an analysis. */
  analysis?: string;
  bucketKey?: string;
  /** `ndjson` unless given. */
  format?: 'ndjson' | 'csv';
  columns?: string[];
  where?: Filter[];
  /** Days, both inclusive. */
  dateRange?: { from?: string; to?: string };
  orderBy?: { column: string; direction?: 'asc' | 'desc' }[];
  /** No rows are an answer, and not the error `no_data`. */
  allowEmpty?: boolean;
  /** Aborting it cancels the query. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** Milliseconds without a byte after which a service is taken for dead; 300,000 unless given. */
  silenceMs?: number;
  /** Milliseconds for which the receipt is waited for; 20,000 unless given. */
  receiptMs?: number;
  fetch?: typeof fetch;
}

export type RawChunk = { kind: 'rows'; rows: string[] };
export type ParsedChunk<Row> = { kind: 'rows'; rows: Row[] };
/** The header line of CSV, before all rows. */
export type Header = { kind: 'header'; line: string };
/** The last of a stream that a cap cut off. */
export type Truncated = { kind: 'truncated'; actualRows: number; maxRows: number | null };

/**
 * Rows as they are written, a text each: `JSON.parse` loses digits of `bigint` and `numeric`. `parse: 'json'` parses
 * them all the same.
 */
export function exportRows<Row>(
  options: ExportOptions & { parse: 'json'; format?: 'ndjson' },
): AsyncGenerator<ParsedChunk<Row> | Truncated, void, void>;
export function exportRows(
  options: ExportOptions & { parse?: 'lines' },
): AsyncGenerator<RawChunk | Header | Truncated, void, void>;

export interface ExportedBlob extends Progress {
  blob: Blob;
  status: 'complete' | 'truncated';
  truncated: boolean;
  maxRows: number | null;
}

export function exportRowsToBlob(options: ExportOptions): Promise<ExportedBlob>;

/**
 * `code` is the service's own, or `unreachable`, `http_error`, `not_rows`, `broken_stream`, `silent`, `verification`,
 * `unproven`. A caller's abort is no ExportError but the signal's reason.
 */
export class ExportError extends Error {
  code: string;
  status: number | null;
  detail: string | null;
  requestId: string | null;
  retryAfter: number | null;
  /** Rows that had come. */
  rows: number;
}
