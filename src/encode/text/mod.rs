//! Values as PostgreSQL prints them: what CSV, NDJSON and the manifest's extremes share.

pub(crate) mod block;
pub(crate) mod cells;
pub(crate) mod json;

pub(crate) use crate::base::text::{datetime, exact, float, number};
pub(crate) use block::{BLOCK_ROWS, Block, Blocks, Quick, Spelling};
pub(crate) use cells::{CellValues, Cells};
