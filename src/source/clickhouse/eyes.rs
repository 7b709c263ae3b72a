//! Whose eyes a run reads with: a name without a database, a policy and a profile are of the session, and no text of a person
//! says which.

use serde::{Deserialize, Serialize};

use super::plan::ChPlan;
use super::prepare::ChPlanning;
use super::typed_settings::is_ours;
use crate::base::failpoint;
use crate::base::postgres::settings::ConnectSettings;
use crate::source::setting_digests::SettingDigests;
use crate::source::{SourceError, SourceFault};

/// What the statements of a run depend on beside their text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChEyes {
    /// Where names without a database are looked for.
    database: String,
    /// Whose policies hide rows.
    user: String,
    /// What the user's profile has otherwise than the server's defaults, less what we send ourselves.
    settings: SettingDigests,
}

// Names that no setting has.
const DATABASE: &str = "currentDatabase()";
const USER: &str = "currentUser()";

/// Settings that bound, log or carry a statement, by how their names begin: whoever changes one between a run and its resume
/// reads the same rows.
const HARMLESS: [&str; 14] = [
    "max_",
    "min_",
    "log_",
    "http_",
    "send_",
    "receive_",
    "connect_",
    "tcp_",
    "memory_",
    "network_",
    "query_profiler_",
    "opentelemetry_",
    "priority",
    "readonly",
];

impl ChPlanning<'_> {
    /// Asks whose eyes the session has, before any setting of ours. A served run is of one process.
    pub(super) async fn eyes(&self) -> Result<Option<ChEyes>, SourceError> {
        if self.request.work.served.is_some() {
            return Ok(None);
        }
        let sql = format!(
            "SELECT '{DATABASE}' AS name, currentDatabase() AS value UNION ALL SELECT '{USER}', currentUser() \
             UNION ALL SELECT name, value FROM system.settings WHERE changed"
        );
        let (mut database, mut user, mut settings) = (String::new(), String::new(), Vec::new());
        for row in self.session.ask_as_it_is("asking whose rows are read", &sql).await? {
            let mut values = row.into_iter();
            let (Some(Some(name)), Some(value)) = (values.next(), values.next()) else { continue };
            let value = value.unwrap_or_default();
            match name.as_str() {
                DATABASE => database = value,
                USER => user = value,
                name if is_harmless(name) || is_ours(name) => {}
                _ => settings.push((name, value)),
            }
        }
        Ok(Some(ChEyes { database, user, settings: settings.into_iter().collect() }))
    }
}

fn is_harmless(name: &str) -> bool {
    name.contains("timeout") || HARMLESS.iter().any(|begin| name.starts_with(begin))
}

impl ChPlan {
    /// How to connect where the run's names without a database mean what they did.
    pub(super) fn at_its_database(&self, settings: &ConnectSettings) -> ConnectSettings {
        match &self.eyes {
            Some(eyes) if !failpoint::off("eyes") => {
                ConnectSettings { database: eyes.database.clone(), ..settings.clone() }
            }
            _ => settings.clone(),
        }
    }

    /// Makes sure that whoever goes on with the run has the eyes that it began with. A run of an earlier version has noted
    /// none.
    ///
    /// # Errors
    /// [`SourceFault::Usage`] with what differs.
    pub(super) fn same_eyes(&self, now: Option<&ChEyes>) -> Result<(), SourceError> {
        let (Some(began), Some(now)) = (&self.eyes, now) else { return Ok(()) };
        if failpoint::off("eyes") {
            return Ok(());
        }
        if now.user != began.user {
            let message = format!("the run was begun by user {}, and user {} may see other rows", began.user, now.user);
            return Err(SourceError::new(SourceFault::Usage, message)
                .with_hint(format!("connect as {}, or begin a new export", began.user)));
        }
        now.settings.same_as(&began.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_rows_is_compared_and_what_bounds_or_is_ours_is_not() {
        let compared = |name: &str| !is_harmless(name) && !is_ours(name);
        for name in ["final", "SQL_tenant", "session_timezone", "apply_mutations_on_fly", "join_use_nulls"] {
            assert!(compared(name), "{name}");
        }
        for name in ["max_memory_usage", "max_threads", "readonly", "send_timeout", "limit", "result_overflow_mode"] {
            assert!(!compared(name), "{name}");
        }
    }
}
