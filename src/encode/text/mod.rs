//! Values as PostgreSQL prints them: what CSV, NDJSON and the manifest's extremes share.

pub(crate) mod cells;
pub(crate) mod datetime;
pub(crate) mod float;
pub(crate) mod json;
pub(crate) mod number;

pub(crate) use cells::{Cells, Values};
