//! Shards that are down. A `Distributed` table may say in its own SETTINGS that their rows are left out, and the server goes by
//! that wherever the statement's text does not say otherwise: a parameter beside the text that has the profile's value already
//! counts as none.

use std::collections::BTreeSet;

use super::columns::usage;
use super::lexer;
use super::names::literal;
use super::prepare::OLDEST;
use super::settings::ClickHouseSession;
use crate::source::{SourceError, SourceFault};

const SETTING: &str = "skip_unavailable_shards";

/// Stands at the end of each statement of ours that reads rows.
pub(crate) const ALL_SHARDS: &str = " SETTINGS skip_unavailable_shards = 0";

/// Views that stand upon one another.
const DEPTH_MAX: usize = 16;

/// What stands at the end of a statement of ours to a server of this release. Tables of older ones have no such setting, and a
/// profile there may forbid to name it.
pub(crate) fn all_shards(release: (u32, u32)) -> &'static str {
    if release >= OLDEST { ALL_SHARDS } else { "" }
}

/// Refuses a person's own statement that reads such a table, itself or through views, and does not say that no rows are to be
/// left out. Names are all that is known of it, so that a table function is not seen through.
///
/// # Errors
/// [`SourceFault::Usage`], or the server fails.
pub(crate) async fn check(session: &ClickHouseSession, query: &str) -> Result<(), SourceError> {
    let says = lexer::statement(query).unwrap_or_default();
    if session.release() < OLDEST || says.settings.iter().any(|name| name == SETTING) {
        return Ok(());
    }
    let (mut seen, mut found) = (BTreeSet::new(), lexer::names(query).into_iter().collect::<BTreeSet<String>>());
    for _ in 0..DEPTH_MAX {
        let unknown: Vec<String> = found.difference(&seen).map(|name| literal(name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        seen.extend(found.iter().cloned());
        // Of all databases together the server asks those of other servers too, and fails where one of them is gone.
        let databases: Vec<String> = seen.iter().map(|name| literal(name)).collect();
        let sql = format!(
            "SELECT database, name, if(engine = 'Distributed', engine_full, ''), \
             toValidUTF8(as_select) FROM system.tables WHERE database IN (currentDatabase(), {}) AND name IN ({})",
            databases.join(", "),
            unknown.join(", ")
        );
        let rows = match session.ask("looking for tables that leave rows out", &sql, &[]).await {
            Ok(rows) => rows,
            // Whoever may not look is not kept from reading.
            Err(error) if error.fault == SourceFault::Authentication => return Ok(()),
            Err(error) => return Err(error),
        };
        for row in rows {
            let [Some(database), Some(name), Some(engine), Some(view)] = row.as_slice() else { continue };
            if leaves_out(engine) {
                let message =
                    format!("shards that are down are left out of {database}.{name} ({SETTING} in its own SETTINGS)");
                return Err(usage(
                    message,
                    format!("say otherwise at the end of the statement: SETTINGS {SETTING} = 0"),
                ));
            }
            found.extend(lexer::names(view));
        }
    }
    Ok(())
}

/// Whether a table's engine, as the server prints it with its settings, leaves rows out.
fn leaves_out(engine: &str) -> bool {
    let value = engine.rsplit_once(&format!("{SETTING} = ")).map(|(_, value)| value.trim_start_matches('\''));
    value.is_some_and(|value| !value.starts_with('0') && !value.starts_with("false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_of_a_table_says_whether_rows_are_left_out() {
        let of = |settings| leaves_out(&format!("Distributed('one', 'd', 'near'){settings}"));
        assert!(of(" SETTINGS skip_unavailable_shards = 1"));
        assert!(of(" SETTINGS fsync_after_insert = 0, skip_unavailable_shards = '1', bytes_to_throw_insert = 0"));
        assert!(of(" SETTINGS skip_unavailable_shards = true"));
        assert!(!of(" SETTINGS skip_unavailable_shards = 0, fsync_after_insert = 1"));
        assert!(!of(" SETTINGS skip_unavailable_shards = false") && !of(""));
    }

    #[test]
    fn servers_whose_tables_have_no_such_setting_are_not_told() {
        assert_eq!((all_shards((23, 8)), all_shards((18, 16))), (ALL_SHARDS, ""));
    }
}
