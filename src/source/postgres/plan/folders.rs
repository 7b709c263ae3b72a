//! Expressions of `--partition-by` that say nothing of a row. Pure.

use super::RelationFacts;
use super::mentions::{ESCAPED_NAME, Mentions};
use crate::source::{SourceError, SourceFault};

/// Functions that give another value whenever they are called: a row would be in another folder in every export.
const VOLATILE: [&str; 12] = [
    "clock_timestamp",
    "currval",
    "gen_random_uuid",
    "lastval",
    "nextval",
    "random",
    "random_normal",
    "setval",
    "timeofday",
    "uuidv4",
    "uuidv7",
    "uuid_generate_v4",
];

/// Columns that every table has.
const OF_EVERY_TABLE: [&str; 6] = ["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"];

/// Refuses expressions that make the folders of these names and name no column, or call what is another value each time.
///
/// # Errors
/// [`SourceFault::Usage`], which names the expression.
pub(crate) fn check_folders(
    names: &[String],
    expressions: &[(String, String)],
    relation: &RelationFacts,
) -> Result<(), SourceError> {
    for (name, text) in expressions.iter().filter(|(name, _)| names.contains(name)) {
        let mentions = Mentions::of(text);
        if let Some(function) = VOLATILE.iter().find(|function| mentions.calls.contains(**function)) {
            let message = format!("--partition-by {name}: {function}() is another value each time it is called");
            let hint =
                "make folders of what the row holds: --partition-by \"dt=(created_at at time zone 'UTC')::date\"";
            return Err(SourceError::new(SourceFault::Usage, message).with_hint(hint));
        }
        if is_of_row(&mentions, relation) {
            continue;
        }
        let message = format!("--partition-by {name} names no column, and would make one folder of everything");
        return Err(SourceError::new(SourceFault::Usage, message)
            .with_hint("put {date} or {run_id} into --to for a folder of the whole export"));
    }
    Ok(())
}

/// Whether a text may depend on the row: it names a column, the whole row or what a statement in it does.
fn is_of_row(mentions: &Mentions, relation: &RelationFacts) -> bool {
    let named = |name: &str| mentions.names.contains(name);
    let alias = relation.alias.trim_matches('"').replace("\"\"", "\"");
    mentions.statement
        || mentions.picks_rows.as_deref() == Some(ESCAPED_NAME)
        || named(&alias)
        || OF_EVERY_TABLE.into_iter().any(named)
        || relation.columns.iter().any(|column| named(&column.name))
}

#[cfg(test)]
mod tests {
    use super::super::oid;
    use super::super::testing::{column, relation};
    use super::*;

    #[test]
    fn expressions_are_of_the_row() {
        let relation = relation(vec![column("id", oid::INT8, true), column("At", oid::TIMESTAMPTZ, false)]);
        let refused = |text: &str| {
            let expressions = [("b".to_owned(), text.to_owned()), ("other".to_owned(), "1".to_owned())];
            check_folders(&["b".to_owned(), "id".to_owned()], &expressions, &relation).err().map(|error| error.message)
        };
        for text in ["ID % 3", "\"At\"::date", "(t).id", "t::text", "tableoid::regclass", "(select max(x) from y)"] {
            assert_eq!(refused(text), None, "{text}");
        }
        for text in ["1", "now()::date", "current_date", "'id'", "at", "-- id\n1", "$$id$$"] {
            assert!(refused(text).is_some_and(|message| message.contains("names no column")), "{text}");
        }
        for text in ["id + random()", "nextval('s') % id", "pg_catalog.clock_timestamp()::date"] {
            assert!(refused(text).is_some_and(|message| message.contains("another value each time")), "{text}");
        }
    }
}
