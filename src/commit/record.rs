//! What a commit notes before it does anything, and by what a single file of its own is told from another one.

use serde::{Deserialize, Serialize};

use super::model::PartEntry;
use crate::store::{Destination, ObjectFacts, StoreError};

/// What a commit is about to do, in the run's journal before it does anything: by it whoever finds the run dead finishes
/// the commit or takes it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommitRecord {
    /// Of the manifest.
    pub(crate) nonce: String,
    /// The parts that become visible.
    pub(crate) parts: Vec<String>,
    /// The parts that are removed once the manifest stands.
    pub(crate) replaced: Vec<String>,
    /// The one part of a single file. Of a record without it nobody knows what stood at the key before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) single: Option<SingleRecord>,
}

/// A single file that is about to be published. The names of parts are of one attempt; its key may be that of somebody
/// else's file, which stays where the run does not come to replace it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SingleRecord {
    bytes: u64,
    crc64nvme: u64,
    /// The stamp of what stood at the key ([`ObjectFacts::stamp`]); `None` where nothing did.
    pub(super) before: Option<String>,
}

impl CommitRecord {
    /// Whether an object that is found at `path` is one that the commit made visible, and not what stood there before.
    pub(crate) fn may_have_made(&self, path: &str, there: &ObjectFacts) -> bool {
        self.single.as_ref().is_none_or(|single| single.is(there) || !self.parts.iter().any(|part| part == path))
    }
}

impl SingleRecord {
    /// Looks at the key of a single file that is not published yet.
    pub(super) async fn look(destination: &Destination, part: &PartEntry) -> Result<Self, StoreError> {
        let there = destination.head(&part.path).await?;
        Ok(Self { bytes: part.bytes, crc64nvme: part.crc64nvme, before: there.map(|facts| facts.stamp) })
    }

    /// Whether it is of this part.
    pub(super) fn is_of(&self, part: &PartEntry) -> bool {
        (self.bytes, self.crc64nvme) == (part.bytes, part.crc64nvme)
    }

    /// Whether the object that stands at the key is this one.
    pub(super) fn is(&self, there: &ObjectFacts) -> bool {
        there.fits(self.bytes, self.crc64nvme) && there.is_after(self.before.as_deref())
    }
}
