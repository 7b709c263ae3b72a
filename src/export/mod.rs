//! The coordinator: one event loop owns all state of a run; a worker turns one partition into one receipt.

pub mod against;
mod announce;
pub mod clean;
mod company;
pub(crate) mod coordinator;
mod crew;
pub mod error;
mod finish;
mod hold;
mod identity;
pub mod job;
pub mod job_record;
pub mod job_resume;
pub mod keep;
mod leftovers;
pub(crate) mod mark;
mod outlet;
pub mod outside;
mod part;
mod patience;
pub(crate) mod place;
mod planned;
mod protect_key;
mod protect_names;
mod receipts;
pub(crate) mod record;
pub mod request;
pub mod resume;
mod revive;
mod run;
pub mod show;
#[cfg(test)]
mod simulation;
mod since;
mod state;
mod strangers;
mod stream;
mod together;
pub(crate) mod worker;

pub use against::{CountMode, SourceCheck, against_source};
pub use error::ExportError;
pub use request::ExportRequest;
pub use run::{plan, run};
pub use stream::{Streamed, stream, stream_told};
