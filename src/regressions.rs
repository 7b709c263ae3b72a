//! Where the property tests keep the cases that failed.

use proptest::test_runner::{Config, FileFailurePersistence};

/// A configuration that keeps what failed beside the test, in a file of its name that ends in `.regressions`, and tries
/// it first from then on. The default would keep it in a folder at the top of the repository.
pub(crate) fn kept() -> Config {
    let beside = FileFailurePersistence::WithSource("regressions");
    Config { failure_persistence: Some(Box::new(beside)), ..Config::default() }
}
