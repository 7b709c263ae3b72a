//! Stage 1, WHAT: relation, statistics and cap become disjoint, covering partitions and one column plan per column.
//!
//! Nothing here does IO or awaits (invariant I8): facts come in as values, a [`Plan`](crate::model::Plan) goes out.

pub(crate) mod clocks;
pub mod columns;
mod constant;
pub mod describe;
pub mod error;
mod extremes;
mod facts;
pub mod key;
mod lexer;
pub mod locks;
mod members;
pub(crate) mod mentions;
pub(crate) mod oid;
mod pieces;
pub mod predicate;
pub mod sizing;
pub mod split;
#[cfg(test)]
mod testing;
mod travel;
pub(crate) mod whole_row;
mod words;

pub use columns::{ColumnRules, columns};
pub use describe::PlanView;
pub use error::{PlanError, SqlFlaw};
use facts::numbered;
pub use key::{KeyChoice, choose_key};
pub(crate) use lexer::NAME_BYTES_MAX;
pub use predicate::{check_expression, check_predicate, check_query};
pub use sizing::Sizing;
pub use split::number_partitions;
pub use travel::ServerTypes;
pub(crate) use travel::{is_free_text, is_text, srid, values_are_safe};
