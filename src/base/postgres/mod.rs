//! Connecting to PostgreSQL by libpq's rules: several hosts, TLS, passwords of files and commands, dead networks. Sources
//! read over such connections, and a state store that several processes share writes over them.

pub(crate) mod canceller;
mod candidate;
mod certificate;
pub(crate) mod connector;
pub(in crate::base) mod keepalive;
pub(crate) mod low_water;
pub(crate) mod password;
pub(crate) mod settings;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod untrusted;

pub(crate) use canceller::cancels_sent;
pub(crate) use candidate::{NotReached, UnreachedReason};
