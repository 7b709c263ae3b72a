//! Stage 4, STORE: encoded bytes become parts at the destination, staged until commit. The only user of `object_store`.

mod address;
mod aws_credentials;
mod aws_profile;
mod aws_region;
mod buckets;
pub(crate) mod checksums;
mod chunks;
mod connect;
mod credential_words;
mod destination;
pub(crate) mod direct;
pub mod error;
mod facts;
#[cfg(test)]
pub(crate) mod fault_store;
pub(crate) mod folder;
pub(crate) mod journal;
mod local;
mod local_removal;
mod local_sink;
mod name;
mod object_options;
mod open_uploads;
pub(crate) mod owner;
mod ready;
mod receipt_file;
mod remote;
mod remote_sink;
pub(crate) mod stream;
mod temporary;
mod writer;

pub(crate) use address::{canonical_url, check_address, check_scheme, local_path, shown};
pub(crate) use chunks::{UPLOAD_CHUNK_BYTES_MAX, UPLOAD_CHUNK_BYTES_MIN};
pub(crate) use credential_words::credentials_by;
pub use destination::Destination;
pub use error::StoreError;
pub use facts::{CreateOutcome, ObjectFacts, ReplaceOutcome, Small, StoreOptions, Version};
pub(crate) use folder::{folder_path, folders_fit};
pub use journal::{AttemptSeed, Journal, UploadRecord, WorkerFailure};
pub(crate) use journal::{DISCARDS_AT_ONCE, unreadable};
pub use name::PartName;
pub(crate) use object_options::check_objects;
pub use owner::{Claim, OwnerRecord, Take};
pub(crate) use writer::ABORT_GRACE;
pub use writer::PartWriter;
