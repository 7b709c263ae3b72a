//! How PostgreSQL prints numbers, dates and bytes, and how callers write days and moments: a leaf that stages share without
//! calling one another. Decoding prints what reaches a file as text, encoding prints typed values in CSV and NDJSON.

pub(crate) mod datetime;
pub(crate) mod exact;
pub(crate) mod float;
pub(crate) mod key;
pub(crate) mod moment;
pub(crate) mod number;
pub(crate) mod ordinal;
pub(crate) mod relation;
