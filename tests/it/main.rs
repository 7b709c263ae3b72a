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
mod commit;
mod export;
mod front;
mod harness;
mod relations;
mod shape;
mod store;
mod tidy;
mod verify;
