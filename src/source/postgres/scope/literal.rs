//! A value as SQL.

use super::error::ScopeError;
use super::type_name::{Family, SqlType};
use crate::source::postgres::session;

/// Words that a date or a time may have among its digits.
const WORDS: [&str; 6] = ["t", "z", "utc", "bc", "ad", "infinity"];

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
    let moment = matches!(sql_type.family, Family::Date | Family::Timestamp | Family::TimestampTz | Family::Time);
    if moment && !is_written_out(text) {
        return Err(ScopeError::Moment);
    }
    // One with backslashes begins with a space and an E.
    Ok(format!("{}::{}", session::literal(text).trim_start(), sql_type.sql))
}

/// Whether a date or time has no word that means another moment each time, or another zone on each server.
fn is_written_out(text: &str) -> bool {
    let words = text.split(|character: char| !character.is_alphabetic()).filter(|word| !word.is_empty());
    let known = |word: &str| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known));
    text.chars().any(|character| character.is_ascii_alphanumeric()) && words.into_iter().all(known)
}
