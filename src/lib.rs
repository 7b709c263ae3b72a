//! Outhaul: parallel, partitioned bulk export from PostgreSQL and ClickHouse to Parquet, CSV and NDJSON.
//!
//! A relation is split into partitions, all read under **one snapshot** by a pool of readers; each partition is encoded
//! and uploaded as its own objects; the run is committed by **one manifest**, written last.
//!
//! # The flow, in reading order
//! ```text
//!  source ──> encode ──> store ──> commit
//! plan+read    bytes     parts    manifest          export/ runs them; cli/ and service/ ask it to
//! ```
//! - [`config`]: raw settings (as written) become typed ones (as used). `config/options.rs` has one row for each option:
//!   flag, variable, key, parser, help. `config/default.toml` is the only home of the options' defaults. `config/connection`
//!   reads `--from`, and so chooses the source.
//! - [`source`]: a request becomes a plan: disjoint, covering partitions and one column plan per column; a partition becomes
//!   bounded Arrow batches. PostgreSQL: locks, then snapshot, then planning, then COPY on a lent socket. ClickHouse:
//!   named parts, whose rows are counted, then `ArrowStream` over HTTP.
//! - [`encode`]: batches become the bytes of a part. Synchronous, on rayon, without IO.
//! - [`store`]: bytes become staged objects and receipts, or go into a stream. The only user of `object_store`.
//! - [`commit`]: receipts become the manifest, the parts become visible, and a commit that died is recovered.
//! - [`describe`]: how other engines read an export: DDL, the manifests of Redshift and of symlinks. Pure.
//! - [`verify`]: whether a destination still is what its manifest says.
//! - [`export`]: the coordinator, one event loop that owns all state, and the worker: one partition, one receipt. Beside
//!   them what outlives a process: the record of a run, `resume`, `keep`, and what dead runs leave for the next one or
//!   for `clean`.
//! - [`service`]: HTTP: a request becomes an export whose bytes are the response, and a record of how it ended. The only
//!   user of `axum`.
//! - [`cli`]: what a person types and sees; exit codes.
//! - [`model`]: the ground: what the rooms hand one another. Passive types, which import no room.
//! - `base`: what all of these stand on: the way to rayon, large buffers kept from partition to partition, numbers, dates
//!   and bytes as PostgreSQL prints them, logs and metric names, the switches of tests, and the bounds that are no options:
//!   of memory (`base/memory.rs`), of attempts and their pauses (`base/retry.rs`).
//!
//! # The path of a byte
//! ```text
//! socket        async     2 MiB of COPY messages, read once              source/postgres/copy
//!   frame       rayon     where each field of some rows lies             source/postgres/frame
//!   decode        "       each column of these rows into its vector      source/postgres/decode
//! batches       async     up to four at a time change hands              source/postgres/copy, export/worker/rows
//!   tally       rayon     NULLs, least and greatest, for the manifest    encode/tally
//!   encode        "       text into a block, or values into pages        encode/text, encode/chunk
//!   compress      "       a page, or a frame of text                     encode/chunk/pages, encode/compress
//! part          async     chunks of an upload, or of a local file        store/writer
//! ```
//! A page of Parquet takes its values straight from the batches: places in a dictionary, differences of integers, or texts as
//! one piece.
//!
//! The seams: [`source::Source`] with the [`source::Reading`] that it begins, [`encode::Encoder`], and `object_store`. What a
//! second source looks like is in `tests/it/second_source/`.
//!
//! # Rooms
//! Each room names only rooms that stand below it. All of them may name `model` and `base`, and `model` may name `base`;
//! a test holds this drawing against the code.
//!
//! ```text
//! cli       ──> service config export verify describe commit source store
//! service   ──> config export commit encode source store
//! config    ──> export source store
//! export    ──> verify describe commit encode source store
//! verify    ──> commit store
//! describe  ──> commit store
//! commit    ──> store
//! encode    ──>
//! source    ──>
//! store     ──>
//! model     ──>
//! base      ──>
//! ```
//!
//! # Invariants
//! - **I1 Visibility**: until a run commits nothing of it is visible under `data/`; drop, error, cancel and crash
//!   publish nothing.
//! - **I2 Commit**: the manifest is written once, from receipts only, and read back; then `data/` holds exactly the parts
//!   it names.
//! - **I3 Count**: rows read = rows encoded = rows in receipts = rows in the manifest.
//! - **I4 Coverage**: the partitions of a plan are disjoint and cover every row, NULL keys included, whatever the
//!   statistics said. Together they give what the one statement that a person would have typed gives; what cannot be split
//!   so is read as one partition.
//! - **I5 Consistency is declared, and kept**: a source says what its reads have in common, the manifest records it, and a
//!   promise that breaks ends the run. PostgreSQL in copy mode: every read happens in one exported snapshot, on one server,
//!   with everything locked before the snapshot was taken, or compared with it under a lock that is held while reading;
//!   `now()` is one moment. Foreign tables have no part in it, which the manifest says.
//! - **I6 Memory** is bounded by the formula in `base::memory`; it grows neither with rows nor with a slow destination or
//!   client. A process with several runs admits them by it (`base::budget`).
//! - **I7 Truncation** is recorded, exact and deterministic; never silent, never called complete.
//! - **I8 Purity**: planning's arithmetic, `encode`, the COPY framer and object naming do no IO and never await.
//! - **I9 Secrets** never appear in logs, errors, journals, manifests, metrics or panics; row values only where asked for.
//! - **I10 One path**: every front end, format and partition goes through the same plan, worker and encoder.
//! - **I11 A bounded guest**: what a run takes of its source is stated before it starts and kept: connections, the age of
//!   the snapshot, and never more than a quarter of the server's lock table.
//! - **I12 Records outlive versions**: whatever a run leaves at its destination (`run.json`, receipts, uploads) is a format
//!   of its own; the next release can always clean it, and resume it or say why not.
//!
//! # Glossary
//! - **run**: one execution under one snapshot. **export**: one relation, one manifest.
//! - **partition**: a slice of the relation decided before reading; the unit of retry, receipt and resume.
//! - **batch**: a bounded Arrow `RecordBatch`. **part**: one object; a partition makes one, or several as it rolls.
//! - **receipt**: proof that all parts of a partition are uploaded, not yet visible.
//! - **attempt**: the nth try of a partition, with a random id in its objects' names.
//! - **owner**: the run that writes at a destination; its **epoch** rises each time the destination changes hands.
//! - **journal**: what a run notes at its destination before it does it. A **dead** run is one whose journal is open and
//!   whose owner has gone; it is **settled** when it is finished or removed.
//! - **keeper**: a session that does nothing but hold the run's snapshot, inside the run or beyond it.
//! - **cap**: a row limit; **tier**: a named cap. **complete, truncated, failed, cancelled** are four different things.

pub(crate) mod base;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod cli;
pub mod commit;
pub mod config;
pub mod describe;
pub mod encode;
pub mod export;
pub mod model;
#[cfg(test)]
mod regressions;
pub mod service;
pub mod source;
pub mod store;
pub mod verify;
