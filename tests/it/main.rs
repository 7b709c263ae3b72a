//! The integration tests: one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test fails by panicking, and has no users outside"
)]

#[path = "../support/mod.rs"]
mod support;

mod caps;
mod export;
mod harness;
mod relations;
mod store;
mod tidy;
