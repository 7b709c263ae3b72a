//! Which rows a caller may have, as SQL of ClickHouse: the one place where a caller's values become part of a statement.
//! Each value is read here, by the type of its column, and becomes a literal of exactly that type. The server's own casts do
//! not serve: `CAST('300' AS UInt8)` is 44 there, and would be the rows of somebody else.
//!
//! Pure: nothing here does IO or awaits.

pub(super) mod aggregate;
mod error;
mod literal;
mod moment;
mod predicate;

pub(super) use predicate::{predicate, trial, without_rows};

/// Whether rows can be chosen by the values of a type.
pub(super) fn is_comparable(type_name: &str) -> bool {
    literal::ScopeType::parse(type_name).is_some_and(|of| of.is_scalar())
}

#[cfg(test)]
mod tests;
