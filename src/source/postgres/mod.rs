//! Reading PostgreSQL 14 and later. The only user of `tokio_postgres`.

pub mod error;
pub mod settings;

pub use settings::{ConnectSettings, Secret, SslMode};
