//! ClickHouse, over HTTP.

pub(crate) mod coding;
pub(crate) mod error;
pub(crate) mod formats;
pub(crate) mod frame;
pub(crate) mod http;
pub(crate) mod kill;
pub(crate) mod lexer;
pub(crate) mod settings;
