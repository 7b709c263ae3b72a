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

export interface ServiceOptions {
  /** The service's address without `/v1`; the page's own origin unless given. */
  url?: string;
  /**
   * A function gives the key of each request, and may give a newer one than before. Where the service does not take it (401),
   * the function is called once more, with that refusal; no key then leaves it at that.
   */
  apiKey?: string | ((refusal: ExportError | null) => string | null | Promise<string | null>);
  /** More headers, such as `x-outhaul-tenant` from a trusted backend. */
  headers?: Record<string, string>;
  /** Aborting it cancels the query. */
  signal?: AbortSignal;
  /** Milliseconds without a byte after which a service is taken for dead; 300,000 unless given. */
  silenceMs?: number;
  fetch?: typeof fetch;
}

/** Which rows of a dataset. */
export interface Scope {
  dataset: string;
  where?: Filter[];
  /** Days, both inclusive. */
  dateRange?: { from?: string; to?: string };
}

export interface Query extends Scope {
  columns?: string[];
  orderBy?: { column: string; direction?: 'asc' | 'desc' }[];
  /** With `bucketKey`: the rows of one bucket of an analysis. */
  analysis?: string;
  bucketKey?: string;
}

export interface ExportOptions extends ServiceOptions, Query {
  /** `ndjson` unless given. */
  format?: 'ndjson' | 'csv';
  /** No rows are an answer, and not the error `no_data`. */
  allowEmpty?: boolean;
  onProgress?: (progress: Progress) => void;
  /** Milliseconds for which the receipt is waited for; 20,000 unless given. */
  receiptMs?: number;
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

export interface Exported extends Progress {
  status: 'complete' | 'truncated';
  truncated: boolean;
  maxRows: number | null;
}

export interface ExportedBlob extends Exported {
  blob: Blob;
}

export function exportRowsToBlob(options: ExportOptions): Promise<ExportedBlob>;

/** The rows as bytes, each piece of whole rows; what it returns is true of all of them. */
export function exportBytes(options: ExportOptions): AsyncGenerator<Uint8Array, Exported, void>;

/** Where the caller may send statements of ClickHouse, and whether each comes with a user of the database. */
export function listSources(options: ServiceOptions): Promise<{ sources: string[]; credentials: 'caller' | 'source' }>;

/** What a database answers a statement, as it writes it. Returns once it is proved that all of it came. */
export function statementBytes(
  options: Omit<ServiceOptions, 'onProgress'> & {
    source: string;
    statement: string;
    user?: string;
    password?: string;
    onProgress?: (progress: { bytes: number }) => void;
  },
): AsyncGenerator<Uint8Array, { bytes: number }, void>;

export interface Dataset {
  name: string;
  /** Whether its rows can be asked for; an analysis may be granted alone. */
  query: boolean;
  formats: ('ndjson' | 'csv')[];
  max_rows: number | null;
  date_column: string | null;
  columns: { name: string; label: string | null; filter: boolean; sort: boolean }[];
  analyses: { name: string; dimensions: string[]; measures: string[] }[];
}

export function listDatasets(options: ServiceOptions): Promise<{ datasets: Dataset[] }>;

export interface Estimate {
  rows: number;
  kind: 'exact' | 'at_least' | 'estimate';
  max_rows: number | null;
  /** Null where it is not known. */
  will_truncate: boolean | null;
  estimated_minutes: number;
}

export function estimateRows(options: ServiceOptions & Query): Promise<Estimate>;

/** A number that would lose digits is a text, where the browser tells how it was written. */
export interface Bucket {
  dimensions: Record<string, unknown>;
  measures: Record<string, number | string | null>;
  bucket_key: string;
}

export function analyze(
  options: ServiceOptions & Scope & { analysis: string },
): Promise<{ buckets: Bucket[]; truncated: boolean }>;

/** A background export. */
export interface Job {
  id: string;
  dataset: string;
  format: 'ndjson' | 'csv' | 'parquet';
  compression: string;
  status: 'queued' | 'running' | 'cancelling' | 'complete' | 'truncated' | 'failed' | 'cancelled' | 'expired';
  mode: string;
  attempt: number;
  estimated_rows: number | null;
  estimated_minutes: number | null;
  /** Of this attempt, so that it may go back. */
  processed_rows: number;
  /** Once it is known. */
  rows: number | null;
  max_rows: number | null;
  /** Whether a cap cut rows off. */
  truncated: boolean;
  bytes: number;
  parts: number;
  created_at: string;
  started_at: string | null;
  completed_at: string | null;
  expires_at: string | null;
  /** A path, or a whole address where the service knows its own; it opens without a key. */
  download_url: string | null;
  requested_by: string | null;
  error: { code: string; message: string } | null;
}

/** Queues an export. The same `idempotencyKey` with the same request gives the same job. */
export function startExport(
  options: ServiceOptions &
    Query & {
      format?: 'ndjson' | 'csv' | 'parquet';
      compression?: string;
      idempotencyKey?: string;
    },
): Promise<Job>;

/** The newest first; `cursor` is the `next` of the page before. */
export function listExports(options: ServiceOptions & { cursor?: string; limit?: number }): Promise<{ exports: Job[]; next: string | null }>;

/** What became of a stream; `kind` tells it from a job. */
export interface Receipt {
  id: string;
  kind: 'stream';
  dataset: string;
  /** `source`: as the database wrote it. */
  format: 'ndjson' | 'csv' | 'source';
  status: 'streaming' | 'complete' | 'truncated' | 'failed' | 'cancelled';
  rows: number | null;
  truncated: boolean;
  max_rows: number | null;
  crc64nvme: string | null;
  bytes: number | null;
  started_at: string;
  finished_at: string | null;
  error: { code: string; message: string } | null;
  notes: string[];
}

/** A job by its id, or the receipt of a stream by the one of that. */
export function readExport(options: ServiceOptions & { id: string }): Promise<Job | Receipt>;

/** The files of a job that is ready, each with a link that opens without a key. */
export function listFiles(
  options: ServiceOptions & { id: string },
): Promise<{
  status: 'complete' | 'truncated';
  rows: number | null;
  bytes: number;
  download_url: string | null;
  columns: { name: string; type: string; nullable: boolean }[];
  parts: { url: string; rows: number | null; bytes: number; crc64nvme: string; sha256: string | null; header_bytes: number }[];
}>;

/** Cancels a job; one that has ended loses its files and links. */
export function removeExport(options: ServiceOptions & { id: string }): Promise<void>;

/** How far a job is, until it has ended. */
export type JobEvent = Pick<Job, 'status' | 'attempt' | 'processed_rows' | 'bytes' | 'parts'> & {
  /** Null where nobody knows how many rows there will be. */
  percent: number | null;
  eta_seconds: number | null;
};

/** Goes on where it was when its connection breaks. */
export function exportEvents(options: ServiceOptions & { id: string }): AsyncGenerator<JobEvent, void, void>;

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
  /** Bytes of a statement's answer that had come. */
  bytes?: number;
}
