//! Reading PostgreSQL 14 and later. The only user of `tokio_postgres`.

mod bounds;
mod candidate;
pub mod catalog;
mod certificate;
mod closed;
pub(crate) mod connect;
mod copy;
pub(crate) mod decode;
mod describe;
pub mod error;
pub(crate) mod frame;
mod keepalive;
pub mod kept;
mod keyset;
pub(crate) mod low_water;
mod order;
mod pace;
mod password;
pub mod prepare;
mod reader;
mod recount;
pub(crate) mod session;
pub mod settings;
mod silence;
pub mod snapshot;
mod sql;
mod statement;
mod stream;
mod tls;
mod types;
mod watch;

pub(crate) use connect::cancels_sent;
pub use prepare::Planning;
pub use reader::PostgresSource;
pub use recount::{Counted, Exported, Recount};
pub use settings::{ConnectSettings, Password, Secret, SslMode};
