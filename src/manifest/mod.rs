//! Stage 5, COMMIT: receipts become one manifest, written once, last, and read back (invariant I2).

pub mod model;
