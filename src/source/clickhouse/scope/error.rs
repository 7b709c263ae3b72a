//! Why a caller's rows cannot be told.

use crate::source::{SourceError, SourceFault};

/// What cannot become SQL. No message has the caller's value in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChScopeError {
    /// What follows it could be read otherwise.
    #[error("a value has a NUL character in it")]
    Nul,
    /// A value that its column cannot have.
    #[error("a value is no {0}, or is beyond what one holds")]
    Value(&'static str),
    /// A decimal with more digits than its column has.
    #[error("a value is no number, or has more digits than fit before and behind the point ({whole} and {fraction})")]
    Digits {
        /// Digits before the point.
        whole: u8,
        /// Digits behind it.
        fraction: u8,
    },
    /// A moment that is not written out, or is beyond what the server knows.
    #[error("a date or a time must be written as in 2026-01-31 or 2026-01-31T12:00:00Z, of the years 1900 to 2299")]
    Moment,
    /// An end of a range of days.
    #[error("a day must be written as YYYY-MM-DD")]
    Day,
    /// Days of something else.
    #[error("column {0:?} has no days: it is neither a date nor a time")]
    NoDays(String),
    /// A range of days without an end.
    #[error("a range of dates needs a first or a last day")]
    NoRange,
    /// Values that nobody can write as one text.
    #[error("rows are not chosen by column {column:?}, whose values are of type {type_name}")]
    NotChosen {
        /// The column.
        column: String,
        /// Its type.
        type_name: String,
    },
    /// What is not a number is neither more nor less than another.
    #[error("nan is neither less nor more than another number")]
    NotOrdered,
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
    /// The type of the tenant.
    #[error("{0:?} is no type of ClickHouse that a tenant can have: String, UInt64, Int64, UUID, Date")]
    TenantType(String),
    /// The operator's own SQL.
    #[error("{0}")]
    Text(String),
}

impl From<ChScopeError> for SourceError {
    fn from(error: ChScopeError) -> Self {
        Self::new(SourceFault::Usage, error.to_string())
    }
}
