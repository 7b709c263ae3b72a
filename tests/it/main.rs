//! The integration tests: one binary.
#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking, and has no users outside")]

mod store;
