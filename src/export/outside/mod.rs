//! A run whose partitions other processes read: it is planned, held and committed by one process, and each partition is
//! read by a worker elsewhere, which leaves its receipt in the journal. The journal is the truth; whatever the two say to
//! each other by way of whoever started them only makes the run quicker.

mod deal;
mod fence;
mod gather;
pub mod work;

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender};

pub use deal::{Indexed, shard};
pub(super) use fence::Fence;
pub(super) use gather::gather;

use crate::model::{ExportErrorKind, Invitation};

/// That the partitions of a run are read by other processes, and by which line the run and whoever starts them talk.
/// Without one they share the journal alone.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    line: Option<Arc<EngineLine>>,
}

/// Both directions of the line.
#[derive(Debug)]
struct EngineLine {
    told: Sender<Invitation>,
    heard: Mutex<Receiver<EngineWord>>,
}

/// What whoever starts the workers says to the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineWord {
    /// A worker has told of a receipt: the journal is worth a look.
    Receipt,
    /// A partition cannot be read by any worker.
    Failed {
        /// The class of the worker's error.
        kind: ExportErrorKind,
        /// The error.
        message: String,
    },
    /// Nobody says anything any more: whoever started the workers is gone.
    Gone,
}

impl Outside {
    /// With a line: the invitation goes to `told`, and what comes from `heard` is heeded. A closed `heard` says nothing.
    pub fn with_line(told: Sender<Invitation>, heard: Receiver<EngineWord>) -> Self {
        Self { line: Some(Arc::new(EngineLine { told, heard: Mutex::new(heard) })) }
    }

    async fn invite(&self, invitation: Invitation) {
        if let Some(line) = &self.line {
            // Nobody listens: the owner record says the same.
            let _ = line.told.send(invitation).await;
        }
    }

    /// The next word; never one where there is no line.
    ///
    /// # Cancel safety
    /// No word is lost.
    async fn hear(&self) -> EngineWord {
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
