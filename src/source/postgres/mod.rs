//! Reading PostgreSQL 14 and later. The only user of `tokio_postgres`.

#[cfg_attr(not(test), expect(dead_code, reason = "until the reader drives it"))]
mod decode;
pub mod error;
#[cfg_attr(not(test), expect(dead_code, reason = "until the reader drives it"))]
mod frame;
pub mod settings;

pub use settings::{ConnectSettings, Secret, SslMode};
