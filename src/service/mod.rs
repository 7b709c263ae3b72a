//! The HTTP service: rows of declared datasets for callers who name no SQL.

#[cfg_attr(not(test), expect(dead_code, reason = "the service that keeps its records here is being built"))]
pub(crate) mod state;
