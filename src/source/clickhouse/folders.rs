//! Expressions of `--partition-by` that say nothing of a row. Pure.

use super::columns::{ChColumnFacts, usage};
use super::lexer::names;
use crate::source::SourceError;

/// Functions that give another value whenever they are called, or one by how the server reads: a row would be in another
/// folder in every export.
const VOLATILE: [&str; 12] = [
    "blocknumber",
    "generateuuidv4",
    "generateuuidv7",
    "nowinblock",
    "rand",
    "rand32",
    "rand64",
    "randcanonical",
    "randomstring",
    "rownumberinallblocks",
    "rownumberinblock",
    "runningdifference",
];

/// Refuses expressions that make the folders of these names and name no column, or call what is another value each time.
///
/// # Errors
/// [`SourceFault::Usage`](crate::source::SourceFault::Usage), which names the expression.
pub(super) fn check_folders(
    folders: &[String],
    expressions: &[(String, String)],
    columns: &[ChColumnFacts],
) -> Result<(), SourceError> {
    for (folder, text) in expressions.iter().filter(|(name, _)| folders.contains(name)) {
        let found = names(text);
        if let Some(function) = found.iter().find(|name| VOLATILE.contains(&name.to_ascii_lowercase().as_str())) {
            let message = format!("--partition-by {folder}: {function} is another value each time it is called");
            return Err(usage(message, "make folders of what the row holds: --partition-by 'dt=toDate(created_at)'"));
        }
        // A star is all columns; names with an underscore in front may be the server's own, such as `_part`.
        let is_column =
            |name: &String| name == "*" || name.starts_with('_') || columns.iter().any(|column| column.name == *name);
        if found.iter().any(is_column) {
            continue;
        }
        let message = format!("--partition-by {folder}: it names no column, and would make one folder of everything");
        return Err(usage(message, "put {date} or {run_id} into --to for a folder of the whole export"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_of_the_row() {
        let column = |name: &str| ChColumnFacts {
            name: name.to_owned(),
            type_name: "UInt8".to_owned(),
            hidden: false,
            alias: None,
        };
        let columns = [column("id"), column("a b")];
        let refused = |text: &str| {
            let expressions = [("b".to_owned(), text.to_owned()), ("other".to_owned(), "1".to_owned())];
            check_folders(&["b".to_owned(), "id".to_owned()], &expressions, &columns).err().map(|error| error.message)
        };
        for text in ["id % 3", "`a b`", "toUInt8(\"id\")", "_part", "tuple(*).1"] {
            assert_eq!(refused(text), None, "{text}");
        }
        for text in ["1", "now()", "today()", "'id'", "ID", "1 -- id", "/* id */ 2"] {
            assert!(refused(text).is_some_and(|message| message.contains("names no column")), "{text}");
        }
        for text in ["id + rand()", "generateUUIDv4()", "rowNumberInAllBlocks() % id"] {
            assert!(refused(text).is_some_and(|message| message.contains("another value each time")), "{text}");
        }
    }
}
