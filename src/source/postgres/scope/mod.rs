//! Which rows a caller may have, as SQL: the one place where a caller's values become part of a statement. COPY takes no
//! bind parameters, so each value becomes a typed literal.
//!
//! Pure: nothing here does IO or awaits.

pub(super) mod aggregate;
mod error;
mod literal;
mod moment;
mod predicate;
mod type_name;

pub(crate) use predicate::{predicate, without_rows};

#[cfg(test)]
use error::ScopeError;
#[cfg(test)]
use literal::literal;
#[cfg(test)]
use type_name::SqlType;

#[cfg(test)]
mod tests;
