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
mod pace;
mod parts;
mod per_partition;
mod plan;
mod prepare;
mod profile;
mod reading;
mod recount;
mod scope;
mod served;
mod served_rows;
pub(crate) mod settings;
mod source;
mod steady;
mod typed_settings;
mod types;
mod unreached;
pub(crate) mod verbatim;

pub use source::ClickHouse;
