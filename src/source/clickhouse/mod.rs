//! ClickHouse, over HTTP.

mod body;
pub(crate) mod coding;
mod columns;
mod convert;
mod decode;
mod describe;
pub(crate) mod error;
pub(crate) mod formats;
pub(crate) mod frame;
pub(crate) mod http;
mod kept_prefix;
mod key_ranges;
pub(crate) mod kill;
pub(crate) mod lexer;
mod listing;
mod mapping;
mod names;
mod parts;
mod plan;
mod prepare;
mod reading;
mod recount;
pub(crate) mod settings;
mod source;
mod steady;
mod types;
mod unreached;
pub(crate) mod verbatim;

pub use source::ClickHouse;
