//! What the profile of a user does to every statement.

use super::names::literal;
use super::plan::ChPlan;
use super::prepare::ChPlanning;
use crate::source::SourceError;

/// What a user's profile says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChProfile {
    /// The threads of one statement.
    pub(super) threads: u64,
    /// Whether it lets nobody ask for fewer.
    pub(super) fixed: bool,
    /// Whether each statement merges rows as it reads them.
    pub(super) is_final: bool,
    /// Whether each statement carries mutations out as it reads.
    pub(super) mutates: bool,
}

impl ChPlanning<'_> {
    pub(super) async fn profile(&self) -> Result<ChProfile, SourceError> {
        let sql = "SELECT name, value FROM system.settings WHERE name IN ('final', 'readonly', 'apply_mutations_on_fly') \
            UNION ALL SELECT 'threads', toString(getSetting('max_threads'))";
        let mut profile = ChProfile { threads: 1, fixed: false, is_final: false, mutates: false };
        for row in self.ask("asking what the profile of this user has", sql).await? {
            let mut values = row.into_iter().flatten();
            match (values.next().as_deref(), values.next()) {
                (Some("final"), Some(value)) => profile.is_final = value == "1",
                (Some("apply_mutations_on_fly"), Some(value)) => profile.mutates = value == "1",
                (Some("readonly"), Some(value)) => profile.fixed = value == "1",
                (Some("threads"), Some(value)) => profile.threads = value.parse().unwrap_or(1),
                _ => {}
            }
        }
        profile.threads = profile.threads.max(1);
        Ok(profile)
    }

    /// Whether the server may read a projection in the place of the table: its rows stand elsewhere.
    pub(super) async fn has_projections(&self, plan: &ChPlan) -> Result<bool, SourceError> {
        let Some((database, table)) = &plan.relation.table else { return Ok(false) };
        let sql = format!(
            "SELECT 1 FROM system.projection_parts WHERE active AND database = {} AND table = {} LIMIT 1",
            literal(database),
            literal(table)
        );
        Ok(!self.ask("looking for projections", &sql).await?.is_empty())
    }
}
