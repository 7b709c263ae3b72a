//! Planning: relation, statistics and cap become disjoint, covering partitions and one column plan per column.
//!
//! Nothing here does IO or awaits (invariant I8): facts come in as values, a [`PgPlan`] goes out, and `told` says of it what
//! the other rooms may know. `decide`, beside this folder, asks the server for what it takes.

pub(crate) mod clocks;
pub mod columns;
mod constant;
pub(crate) mod delta;
pub mod error;
mod extremes;
mod facts;
mod folders;
pub mod key;
mod lexer;
pub mod locks;
mod members;
pub(crate) mod mentions;
pub(crate) mod oid;
mod partition;
mod pg_plan;
mod pg_type;
mod pieces;
pub mod predicate;
mod relation;
pub mod sizing;
pub mod split;
#[cfg(test)]
mod testing;
mod told;
mod type_mapping;
pub(crate) mod whole_row;
mod words;

pub use columns::{ColumnRules, columns};
pub use delta::Delta;
pub use error::{PlanError, SqlFlaw};
pub(super) use error::{listed, nearest};
use facts::numbered;
pub(crate) use folders::check_folders;
pub(crate) use key::choose_repeating_key;
pub use key::{KeyChoice, choose_key};
pub(crate) use lexer::NAME_BYTES_MAX;
pub use partition::{Comparison, Operators, PgKeyColumn, PgPartition, Slice};
pub use pg_plan::{FixedNow, LockUse, LockWay, PgColumn, PgPlan, RowKeyColumn, Wire};
pub use pg_type::{Attribute, ExtensionType, PgType, TypeKind};
pub(crate) use predicate::placeholders;
pub use predicate::{check_expression, check_predicate, check_query};
pub use relation::{ColumnFacts, LeafFacts, ReadingFacts, RelationFacts};
pub use sizing::Sizing;
pub use split::number_partitions;
pub use type_mapping::ServerTypes;
pub(crate) use type_mapping::{is_text, srid, values_are_safe};
