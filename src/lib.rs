//! Outhaul: parallel, partitioned bulk export from PostgreSQL.
//!
//! ```text
//!  plan ──> source ──> encode ──> store ──> manifest
//!   what      read      bytes     parts      commit          export/ runs them; cli/ asks it to
//! ```

pub mod cli;
pub mod config;
pub mod cpu;
pub mod encode;
pub mod export;
pub(crate) mod failpoint;
pub mod limits;
pub mod manifest;
pub mod plan;
pub mod source;
pub mod store;
