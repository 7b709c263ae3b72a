//! A value as SQL.

use super::error::ScopeError;
use super::moment::written;
use super::type_name::SqlType;
use crate::source::postgres::session;

/// `'…'::type`, whatever is in `text`: it means the same whether the server takes backslashes in strings for themselves or
/// not.
///
/// # Errors
/// A NUL, a type that is none, and a date or time that is not written in digits.
pub(crate) fn literal(text: &str, type_name: &str) -> Result<String, ScopeError> {
    of_type(text, &SqlType::parse(type_name)?)
}

/// The same of a type that is known.
pub(super) fn of_type(text: &str, sql_type: &SqlType) -> Result<String, ScopeError> {
    if text.contains('\0') {
        return Err(ScopeError::Nul);
    }
    let text = written(text, sql_type.family).ok_or(ScopeError::Moment(sql_type.family.example()))?;
    // One with backslashes begins with a space and an E.
    Ok(format!("{}::{}", session::literal(&text).trim_start(), sql_type.sql))
}
