//! What can go wrong at the destination.

/// The class of a destination error, which decides exit code and retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// The address or an option is wrong (exit 2).
    Configuration,
    /// Credentials are missing, wrong or not allowed to do it (exit 20).
    Authentication,
    /// The store did not answer, or answered with a passing error until retries were used up (exit 21).
    Unavailable,
    /// Somebody else's manifest or run is there (exit 22).
    Taken,
    /// No space, no quota (exit 23).
    Full,
    /// Something that must be there is not.
    Missing,
}

/// An error of the store layer: what was being done, to which object.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}")]
pub struct StoreError {
    /// What was being done, as a verb that its object follows: `writing`, `reading`, `publishing`.
    pub operation: &'static str,
    /// The object's URL, without credentials.
    pub object: String,
    /// The class.
    pub fault: StoreFault,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
