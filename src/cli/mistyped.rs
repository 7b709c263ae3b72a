//! What people type out of habit from other programs, and what they mean: said in place of the nearest spelling.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags of other programs, and what stands for them here.
const SYNONYMS: [(&[&str], &str); 11] = [
    (&["--overwrite", "--force", "--replace"], "--on-existing replace puts the new export in the place of the old one"),
    (&["--json"], "--report json prints the report as one JSON line; --format ndjson writes JSON"),
    (&["--output", "--out", "--dest", "--destination"], "--to DEST says where the export goes"),
    (&["--sample", "--head", "--rows"], "--max-rows N takes the first N rows by key"),
    (&["--timezone", "--tz"], "times are written in UTC; for another zone use --query with AT TIME ZONE"),
    (&["--order-by", "--sort", "--sort-by"], "--key COLUMNS orders the rows"),
    (&["--schema"], "write the schema in front of the table's name: --table public.orders"),
    (&["--host", "--port", "--user", "--username", "--dbname", "--database"], IN_FROM),
    (&["--threads", "--jobs", "--parallel", "--workers"], "--readers N reads with N connections"),
    (&["--delimiter", "--separator"], "--csv-delimiter takes one character, or \\t"),
    (&["--gzip", "--zstd"], "--compression gzip, or zstd, packs the parts"),
];

const IN_FROM: &str = "the server goes into --from: --from postgres://user@host:port/database";

/// What clap says of a command line that it does not understand, with our own hint where a habit is known.
pub(super) fn explained(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    message.to_owned()
}

/// The hint for an unknown flag of another program.
pub(super) fn hint(error: &clap::Error) -> Option<&'static str> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = flag.split('=').next().unwrap_or_default();
    SYNONYMS.iter().find(|(flags, _)| flags.contains(&flag)).map(|(_, hint)| *hint)
}

/// The hint where `-h` has a value, as psql takes it: what is meant is no help.
pub(super) fn psql_habit(arguments: &[OsString]) -> Option<&'static str> {
    let word = |place: usize| arguments.get(place).and_then(|argument| argument.to_str());
    let at = arguments.iter().position(|argument| argument == "-h")?;
    let has_value = word(at + 1).is_some_and(|value| !value.starts_with('-'));
    let has_port = arguments.iter().any(|argument| ["-p", "-U", "-d"].iter().any(|flag| argument == flag));
    (has_value && (has_port || word(at + 1) == Some("localhost"))).then_some(IN_FROM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    #[test]
    fn a_habit_gets_its_hint_and_a_slip_gets_none() {
        let of = |flag: &str| {
            let error = args::command().try_get_matches_from(["outhaul", "export", flag]).unwrap_err();
            (explained(&error), hint(&error))
        };
        for (flags, wanted) in SYNONYMS {
            for flag in flags {
                let (message, hint) = of(flag);
                assert!(message.contains(flag) && hint == Some(wanted), "{flag}: {message} {hint:?}");
            }
        }
        assert_eq!(of("--tabel=x").1, None);
        assert_eq!(of("--overwrite=yes").1, Some(SYNONYMS[0].1));
    }

    #[test]
    fn psqls_host_is_no_cry_for_help() {
        let of = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            psql_habit(&arguments)
        };
        for line in
            ["outhaul export -h localhost -p 5439", "outhaul export -h db.example -U me", "outhaul -h localhost"]
        {
            assert_eq!(of(line), Some(IN_FROM), "{line}");
        }
        for line in ["outhaul export -h", "outhaul -h", "outhaul export -h --to x", "outhaul export --to x"] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
