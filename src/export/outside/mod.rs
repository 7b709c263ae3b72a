//! A run whose partitions other processes read: it is planned, held and committed by one process, and each partition is
//! read by a worker elsewhere, which leaves its receipt in the journal. The journal is the truth; whatever the two say to
//! each other by way of whoever started them only makes the run quicker.
//!
//! The exports of a job wait for workers together: `meeting` says when all are planned, and `posted` is what stands at the
//! job's root then.

mod deal;
mod fence;
pub(super) mod find;
mod gather;
pub(super) mod meeting;
pub(super) mod posted;
pub mod work;

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender};

pub use deal::{Indexed, partitions, shard};
pub(super) use fence::Fence;
pub(super) use gather::gather;
pub(super) use meeting::Meeting;
pub use work::{WorkError, WorkerWord};

use crate::model::{ExportErrorKind, Invitation, ReadyLine};

/// That the partitions of a run are read by other processes, and by which line the run and whoever starts them talk.
/// Without one they share the journal alone.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    line: Option<Arc<EngineLine>>,
    /// Where it is one of several exports: these, and its place among them.
    among: Option<(Arc<Meeting>, usize)>,
}

/// Both directions of the line.
#[derive(Debug)]
struct EngineLine {
    told: Sender<ReadyLine>,
    heard: Mutex<Receiver<EngineWord>>,
}

/// What whoever starts the workers says to the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineWord {
    /// A worker has told of a receipt: the journal is worth a look.
    Receipt {
        /// Of which export of a job; of any unless given.
        export: Option<u32>,
    },
    /// A partition cannot be read by any worker.
    Failed {
        /// Of which export of a job; of all of them unless given.
        export: Option<u32>,
        /// The class of the worker's error.
        kind: ExportErrorKind,
        /// The error.
        message: String,
    },
    /// Workers could not be invited.
    Uninvited {
        /// The class of the error.
        kind: ExportErrorKind,
        /// The error.
        message: String,
    },
    /// Nobody says anything any more: whoever started the workers is gone.
    Gone,
}

impl Outside {
    /// With a line: what is ready goes to `told`, and what comes from `heard` is heeded. A closed `heard` says nothing.
    pub fn with_line(told: Sender<ReadyLine>, heard: Receiver<EngineWord>) -> Self {
        Self { line: Some(Arc::new(EngineLine { told, heard: Mutex::new(heard) })), among: None }
    }

    /// The same as one of several exports that share the line.
    pub(super) fn among(&self, meeting: &Arc<Meeting>, place: usize) -> Self {
        Self { line: self.line.clone(), among: Some((Arc::clone(meeting), place)) }
    }

    /// How many exports wait for workers.
    fn exports(&self) -> usize {
        self.among.as_ref().map_or(1, |(meeting, _)| meeting.waiting())
    }

    async fn invite(&self, invitation: Invitation) {
        match (&self.among, &self.line) {
            (Some((meeting, place)), _) => meeting.answer(*place, Some(invitation)),
            // Nobody listens: the owner record says the same.
            (None, Some(line)) => drop(line.told.send(ReadyLine::One(invitation)).await),
            (None, None) => {}
        }
    }

    /// Says that it needs no workers any more, or never did.
    pub(super) fn needs_nobody(&self) {
        if let Some((meeting, place)) = &self.among {
            meeting.answer(*place, None);
        }
    }

    /// The next word; never one where there is no line. `seen` are the receipts that were heeded.
    ///
    /// # Cancel safety
    /// No word is lost.
    async fn hear(&self, seen: &mut u64) -> EngineWord {
        if let Some((meeting, place)) = &self.among {
            return meeting.hear(*place, seen).await;
        }
        let word = match &self.line {
            Some(line) => line.heard.lock().await.recv().await,
            None => None,
        };
        match word {
            Some(word) => word,
            None => std::future::pending().await,
        }
    }
}
