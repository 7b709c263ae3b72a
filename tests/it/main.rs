//! The integration tests: one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test fails by panicking, and has no users outside"
)]

#[path = "../support/mod.rs"]
mod support;

mod export;
mod harness;
mod readme;
mod servers;
mod store;
mod tidy;
