//! Names of folders, as Hive has them: `dt=2026-11-28/country=NL/`. Pure, and no two values share a name.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::base::failpoint;
use crate::model::FolderValue;

/// What readers take for NULL.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// Most bytes of one name: file systems have no longer ones.
const NAME_BYTES_MAX: usize = 255;

/// Most bytes of all names together: keys of object stores have 1,024, and the destination and the part need some.
const NAMES_BYTES_MAX: usize = 768;

/// Hexadecimal digits of the hash that ends a shortened name.
const HASH_DIGITS: usize = 32;

/// The folders of a part, each with a slash at its end; empty where there are none.
///
/// Letters, digits, `_`, `.` and `-` stay, all other bytes become `%` and two digits, as Hive and Spark read them. NULL is
/// [`NULL_FOLDER`], and a text that a reader would take for it has its first character escaped. The empty text is `~empty`,
/// and a name that would be too long ends in `~` and a hash: no other value has a `~`.
pub(crate) fn folder_path(values: &[FolderValue]) -> String {
    let most = name_bytes(values.len());
    let mut path = String::new();
    for FolderValue { column, value } in values {
        let column = escaped(column);
        let name = match value.as_deref() {
            None => NULL_FOLDER.to_owned(),
            Some(text) => value_name(text, most.saturating_sub(column.len() + 1)),
        };
        path.extend([column.as_str(), "=", name.as_str(), "/"]);
    }
    path
}

/// Whether folders of so many levels can be named by these columns, whatever their values are.
pub(crate) fn folders_fit(columns: &[String]) -> bool {
    let shortest = NULL_FOLDER.len().max(HASH_DIGITS + 1);
    columns.iter().all(|column| escaped(column).len() + 1 + shortest <= name_bytes(columns.len()))
}

/// Most bytes of one name, where there are so many.
fn name_bytes(levels: usize) -> usize {
    NAME_BYTES_MAX.min(NAMES_BYTES_MAX / levels.max(1))
}

/// The name of a text in at most so many bytes.
fn value_name(text: &str, most: usize) -> String {
    if text.is_empty() {
        return "~empty".to_owned();
    }
    let mut name = escaped(text);
    if name.eq_ignore_ascii_case(NULL_FOLDER) && !failpoint::off("null_folder") {
        name = format!("%5F{}", &name[1..]);
    }
    if name.len() <= most {
        return name;
    }
    let hash = Sha256::digest(text.as_bytes());
    let mut end = most.saturating_sub(HASH_DIGITS + 1);
    // Half an escape is none.
    while name.as_bytes()[end.saturating_sub(2)..end].contains(&b'%') {
        end -= 1;
    }
    name.truncate(end);
    name.push('~');
    for byte in &hash[..HASH_DIGITS / 2] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn path(values: &[(&str, Option<&str>)]) -> String {
        let folder = |(column, value): &(&str, Option<&str>)| FolderValue {
            column: (*column).to_owned(),
            value: value.map(str::to_owned),
        };
        folder_path(&values.iter().map(folder).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_those_that_hive_reads() {
        for (value, name) in [
            (Some("NL"), "NL"),
            (Some("2026-11-28"), "2026-11-28"),
            (Some("a/b c=d%"), "a%2Fb%20c%3Dd%25"),
            (Some("."), "."),
            (Some("\u{e9}~"), "%C3%A9%7E"),
            (Some("~empty"), "%7Eempty"),
            (Some(""), "~empty"),
            (None, "__HIVE_DEFAULT_PARTITION__"),
            (Some("__HIVE_DEFAULT_PARTITION__"), "%5F_HIVE_DEFAULT_PARTITION__"),
            (Some("__hive_default_partition__"), "%5F_hive_default_partition__"),
            (Some("__HIVE_DEFAULT_PARTITION__x"), "__HIVE_DEFAULT_PARTITION__x"),
        ] {
            assert_eq!(path(&[("c", value)]), format!("c={name}/"));
        }
        assert_eq!(path(&[("d t", Some("1")), ("x", None)]), "d%20t=1/x=__HIVE_DEFAULT_PARTITION__/");
        assert_eq!(path(&[]), "");
    }

    #[test]
    fn names_are_as_short_as_file_systems_want_them_and_stay_apart() {
        let (long, other) = ("/".repeat(300), format!("{}x", "/".repeat(299)));
        let names: Vec<String> = [&long, &other].map(|value| path(&[("country", Some(value))])).into();
        assert_ne!(names[0], names[1]);
        for name in &names {
            assert!(name.len() <= 256, "{name}");
            let (value, hash) = name.trim_end_matches('/').rsplit_once('~').unwrap();
            assert_eq!((hash.len(), value.strip_prefix("country=").unwrap().len() % 3), (32, 0), "{name}");
        }
        let names: Vec<String> = (0..7).map(|n| format!("{n}{}", "n".repeat(62))).collect();
        assert!(folders_fit(&names));
        let values: Vec<(&str, Option<&str>)> = names.iter().map(|name| (name.as_str(), Some(long.as_str()))).collect();
        assert!(path(&values).len() <= NAMES_BYTES_MAX + 7);
        assert!(!folders_fit(&["\u{20ac}".repeat(80)]));
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn no_two_values_share_a_name(
            values in prop::collection::hash_set(
                prop::option::of(prop_oneof![
                    ".{0,6}", "[%~_0-9A-F]{0,6}", "(?i)__hive_default_partition__", "[a-b/]{250,260}", "~?(empty)?",
                ]),
                1..12,
            )
        ) {
            let names: HashSet<String> = values.iter().map(|value| path(&[("c", value.as_deref())])).collect();
            prop_assert_eq!(names.len(), values.len());
            for name in names {
                prop_assert!(name.len() <= 256 && name.matches('/').count() == 1 && !name.contains('\\'));
            }
        }
    }
}
