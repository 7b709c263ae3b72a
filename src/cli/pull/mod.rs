//! What `outhaul pull` is made of, in the order of its work: what is asked for, the key, the rows as they come, the file
//! that they go to, and what the service says of how the stream ended.

pub(super) mod ask;
pub(super) mod file;
pub(super) mod flags;
pub(super) mod key;
pub(super) mod refusal;
pub(super) mod rows;
pub(super) mod truth;
