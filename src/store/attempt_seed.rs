//! The ids of attempts, from which an object's name alone tells whose it is.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::base::retry;

/// From where one process of the run has its attempt ids, so that an object's name alone tells whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptSeed(u64);

/// The format of `epochs/<epoch>.json`, and of the seed in a plan.
#[derive(Serialize, Deserialize)]
struct SeedFile {
    seed: u64,
}

impl Serialize for AttemptSeed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        SeedFile { seed: self.0 }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for AttemptSeed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        SeedFile::deserialize(from).map(|file| Self(file.seed))
    }
}

impl AttemptSeed {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The seed that [`AttemptSeed::to_hex`] wrote; `None` for any other text.
    pub fn from_hex(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().map(Self)
    }

    /// The seed as text: a number of 64 bits does not survive every reader of JSON.
    pub fn to_hex(self) -> String {
        format!("{:016x}", self.0)
    }

    /// The id of a partition's nth attempt, counted from 0.
    pub fn attempt(self, partition: u32, nth: u32) -> u32 {
        let mut hash = Sha256::new();
        hash.update(self.0.to_be_bytes());
        hash.update(partition.to_be_bytes());
        hash.update(nth.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }

    /// Whether an attempt at a partition is one of this process's.
    pub fn made(self, partition: u32, attempt: u32) -> bool {
        (0..retry::ATTEMPT_NUMBERS).any(|nth| self.attempt(partition, nth) == attempt)
    }
}
