//! Flags that other programs have, and what they are here: the nearest spelling is seldom what was meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config::synonyms::instead_of;

/// What is wrong and what to write instead, where clap met a word that is known elsewhere.
pub(super) fn of(error: &clap::Error, arguments: &[OsString]) -> Option<(String, String)> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let ContextValue::String(word) = error.get(ContextKind::InvalidArg)? else { return None };
    let what = format!("unexpected argument '{word}' found");
    let flag = word.trim_start_matches('-').split('=').next().unwrap_or_default();
    if !word.starts_with('-') {
        // A second word after the table can only be where it goes. Of other commands clap says what they take.
        arguments.get(1).filter(|name| *name == "export" || *name == "plan")?;
        return Some((what, format!("name the destination by --to: outhaul export TABLE --to {word}")));
    }
    instead_of(flag).map(|instead| (what, instead.to_owned()))
}

/// What to write instead of psql's `-h HOST`, which would be the help: a value follows it.
pub(super) fn host(arguments: &[OsString]) -> Option<String> {
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1)?.to_str().filter(|value| !value.starts_with('-'))
    };
    let name = arguments.get(1)?.to_str().filter(|name| !name.starts_with('-'))?;
    let host = after("-h").filter(|_| !["help", "completions", "man"].contains(&name))?;
    let port = after("-p").map_or_else(String::new, |port| format!(":{port}"));
    let user = after("-U").map_or_else(String::new, |user| format!("{user}@"));
    let database = after("-d").unwrap_or("database");
    Some(format!("the server goes into --from: --from postgres://{user}{host}{port}/{database}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;
    use crate::config::synonyms::{FLAGS_ALONE, SERVER, SYNONYMS};

    fn told(line: &str) -> Option<(String, String)> {
        let words: Vec<_> = line.split(' ').map(OsString::from).collect();
        of(&args::command().try_get_matches_from(&words).unwrap_err(), &words)
    }

    #[test]
    fn words_of_other_programs_are_known() {
        for (flag, instead) in [
            ("--overwrite", "--on-existing replace"),
            ("--force", "--on-existing replace"),
            ("--output x.csv", "--to DEST"),
            ("--output=x.csv", "--to DEST"),
            ("--sample 10", "--limit N"),
            ("--order-by id", "--key COLUMN"),
            ("--timezone UTC", "times are written in UTC: convert them in --query"),
            ("--schema public", "write the schema into the table's name: --table public.orders"),
            ("-p 5439", SERVER),
            ("--json", "--report json for the report, --format ndjson for the rows"),
        ] {
            let (what, hint) = told(&format!("outhaul export -t orders {flag}")).unwrap_or_else(|| panic!("{flag}"));
            assert_eq!(hint, instead, "{flag}");
            assert!(what.starts_with("unexpected argument '-"), "{what}");
        }
        let (_, hint) = told("outhaul export lineitem out.csv").unwrap();
        assert_eq!(hint, "name the destination by --to: outhaul export TABLE --to out.csv");
        assert_eq!(told("outhaul export --tabel orders"), None);
        assert_eq!(told("outhaul verify a b"), None);
    }

    #[test]
    fn no_synonym_is_a_flag() {
        for (words, _) in SYNONYMS {
            for word in *words {
                let is_flag = crate::config::options::OPTIONS.iter().any(|option| option.flag() == *word);
                assert!(!is_flag, "{word}");
            }
        }
    }

    /// A variable of such a name would be taken for somebody else's, and what it asks for be left out.
    #[test]
    fn flags_that_are_no_options_are_known_to_the_variables() {
        let command = args::command();
        let of = |name: &str| {
            let command = command.get_subcommands().find(|command| command.get_name() == name).unwrap();
            let flags = command.get_arguments().filter(|argument| argument.get_long().is_some());
            flags.map(|argument| argument.get_id().as_str().to_owned()).collect::<Vec<_>>()
        };
        for name in ["export", "plan", "run", "resume"] {
            for key in of(name) {
                let known = crate::config::options::by_key(&key).is_some() || FLAGS_ALONE.contains(&key.as_str());
                assert!(known, "{name} --{key}");
            }
        }
    }

    #[test]
    fn a_host_is_not_the_help() {
        let host = |line: &str| host(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        let wanted = "the server goes into --from: --from postgres://me@localhost:5439/shop";
        assert_eq!(host("outhaul export -h localhost -p 5439 -U me -d shop").as_deref(), Some(wanted));
        assert_eq!(host("outhaul export -h"), None);
        assert_eq!(host("outhaul export -h --help"), None);
        assert_eq!(host("outhaul -h"), None);
    }
}
