//! Why a caller's rows cannot be told.

use crate::source::postgres::plan::PlanError;
use crate::source::{SourceError, SourceFault};

/// What cannot become SQL. No message has the caller's value in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScopeError {
    /// No text of PostgreSQL holds one.
    #[error("a value has a NUL character in it")]
    Nul,
    /// A type that is none.
    #[error("{0:?} is not the name of a type")]
    TypeName(String),
    /// A date or a time that is not written out, or has more in it than its type: `now` would be another moment on each page,
    /// and of a moment a date would be its day.
    #[error("{0}")]
    Moment(&'static str),
    /// A word that the server reads by its clock, within a value.
    #[error(
        "column {0:?} holds dates or times: write them in digits, since now or today is another moment on each page"
    )]
    Clock(String),
    /// An end of a range of days.
    #[error("a day must be written as YYYY-MM-DD")]
    Day,
    /// Days of something else.
    #[error("column {0:?} has no days: it is neither a date nor a timestamp")]
    NoDays(String),
    /// A range of days without an end.
    #[error("a range of dates needs a first or a last day")]
    NoRange,
    /// A pattern that takes too long, or is too long.
    #[error("a pattern may have {characters} characters and {wildcards} of the sign %", characters = super::predicate::LIKE_CHARACTERS_MAX, wildcards = super::predicate::LIKE_WILDCARDS_MAX)]
    Pattern,
    /// A pattern that ends in the middle of an escape.
    #[error("a pattern ends with a backslash that stands alone")]
    OpenPattern,
    /// Nobody's rows.
    #[error("there is no tenant, and so nobody whose rows could be read")]
    NoTenant,
    /// A condition that is the same for all tenants.
    #[error("the tenant's condition has no {{tenant}} outside of quotes and comments")]
    NoPlaceholder,
    /// The operator's own SQL.
    #[error(transparent)]
    Text(#[from] PlanError),
}

impl From<ScopeError> for SourceError {
    fn from(error: ScopeError) -> Self {
        match error {
            ScopeError::Text(error) => error.into(),
            other => Self::new(SourceFault::Usage, other.to_string()),
        }
    }
}
