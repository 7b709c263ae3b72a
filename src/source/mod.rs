//! Stage 2, READ: a partition of the plan becomes bounded Arrow batches.

pub mod error;
pub mod postgres;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::model::{Partition, Plan, SourceCost};

pub use error::{Retry, SourceError, SourceFault};

/// Rows of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The rows.
    pub rows: RecordBatch,
    /// For each column how many of its values a policy changed on their way; empty where none did.
    pub changed: Box<[u64]>,
    /// Whether a row beyond the cap came behind them, where the plan reads one to see whether there is one. It is in no
    /// batch.
    pub beyond_cap: bool,
}

/// The batches of one partition, in order. Dropping it ends the read: the session behind it is closed, never reused
/// half-read.
pub type BatchStream = BoxStream<'static, Result<Batch, SourceError>>;

/// Something rows are read from. One value is one run: one snapshot, one set of locks.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Opens one partition of `plan` for reading.
    ///
    /// The columns of each batch are the plan's columns in the plan's order, each with its carrier's Arrow type. The
    /// stream ends with `None` only after the server confirmed the number of rows sent, and that equals the rows in
    /// the batches and the one beyond the cap.
    ///
    /// # Cancel safety
    /// Dropping the future or the stream closes the session; no other partition notices.
    fn open(&self, plan: Arc<Plan>, partition: Partition) -> BoxFuture<'_, Result<BatchStream, SourceError>>;

    /// Guards what all reads rest on (locks and snapshot), for as long as it is polled; resolves only when they are
    /// lost.
    fn guard(&self) -> BoxFuture<'_, SourceError>;

    /// Says whether what was read is what the run began with. Asked when all partitions are read, before the commit.
    ///
    /// # Errors
    /// Some rows may be of another meaning than the others: none is to be published.
    fn unchanged(&self) -> BoxFuture<'_, Result<(), SourceError>> {
        std::future::ready(Ok(())).boxed()
    }

    /// The ids under which others can import its snapshot now; none where nobody can.
    fn held(&self) -> BoxFuture<'_, Vec<String>> {
        std::future::ready(Vec::new()).boxed()
    }

    /// What reading has cost so far, the blocks apart: these are the plan's.
    fn cost(&self) -> SourceCost {
        SourceCost::default()
    }
}
