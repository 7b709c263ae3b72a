//! Reading PostgreSQL 14 and later. The only user of `tokio_postgres`.

pub mod error;
pub mod prepare;
pub(crate) mod session;
pub mod settings;
mod bounds;
pub mod catalog;
pub(crate) mod connect;
mod snapshot;
mod sql;
mod stream;
mod tls;

pub use settings::{ConnectSettings, Secret, SslMode};
