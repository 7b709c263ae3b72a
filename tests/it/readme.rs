//! The README against the program: what can be checked is checked, the rest is prose.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use outhaul::cli::exit;
use outhaul::config::options_markdown;
use outhaul::model::ExportErrorKind;
use serde_json::Value;

use crate::support::run::outhaul;

/// Every way in which a run can end without a commit.
const KINDS: [ExportErrorKind; 16] = [
    ExportErrorKind::Internal,
    ExportErrorKind::Usage,
    ExportErrorKind::SourceAuthentication,
    ExportErrorKind::SourceUnavailable,
    ExportErrorKind::SnapshotLost,
    ExportErrorKind::SchemaChanged,
    ExportErrorKind::Data,
    ExportErrorKind::StatementRejected,
    ExportErrorKind::GaveWay,
    ExportErrorKind::DestinationAuthentication,
    ExportErrorKind::DestinationUnavailable,
    ExportErrorKind::DestinationTaken,
    ExportErrorKind::DestinationFull,
    ExportErrorKind::Verification,
    ExportErrorKind::Interrupted,
    ExportErrorKind::Terminated,
];

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

fn readme() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// The text between `<!-- name -->` and `<!-- /name -->`.
fn section(name: &str) -> String {
    let text = readme();
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap_or_else(|| panic!("no {name} begins"));
    let (section, _) = rest.split_once(&format!("<!-- /{name} -->")).unwrap_or_else(|| panic!("no {name} ends"));
    section.to_owned()
}

/// The rows of the table in a section, without its head.
fn rows(name: &str) -> Vec<Vec<String>> {
    let section = section(name);
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// `UPDATE_GOLDEN=1` writes the table anew.
#[test]
fn the_options_table_is_the_programs() {
    let wanted = options_markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let updated = readme().replace(&section("options"), &wanted);
        std::fs::write(path(), updated).unwrap();
    }
    assert_eq!(section("options"), wanted, "UPDATE_GOLDEN=1 writes the table anew");
}

#[test]
fn the_exit_codes_are_the_programs() {
    let mut wanted: BTreeMap<u8, bool> = KINDS.iter().map(|kind| (exit::failed(*kind), kind.retryable())).collect();
    assert_eq!(wanted.len(), KINDS.len());
    wanted.extend([(exit::COMPLETE, false), (exit::TRUNCATED, false)]);
    let told: BTreeMap<u8, bool> = rows("exit codes")
        .iter()
        .map(|row| (row[0].parse().unwrap(), row[2].split([' ', ',', ':']).next() == Some("yes")))
        .collect();
    assert_eq!(told, wanted);
}

#[test]
fn the_manifests_fields_are_the_schemas() {
    let schema = std::fs::read(path().with_file_name("config/manifest.v1.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let told: BTreeSet<String> = rows("manifest")
        .iter()
        .flat_map(|row| row[0].split(", ").map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(told, names(&schema["properties"]));
}

#[test]
fn every_file_that_is_linked_is_there() {
    let text = readme();
    let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 5);
    for link in links.iter().filter(|link| !link.contains("://") && !link.starts_with('#')) {
        assert!(path().with_file_name(link).exists(), "{link}");
    }
}

#[tokio::test]
async fn what_is_not_in_this_version_is_refused_by_name() {
    let later = section("later");
    for command in ["serve", "pull"] {
        assert!(later.contains(&format!("`{command}`")), "{command}");
        let run = outhaul([command, "x"]).run().await.expect(2);
        assert!(run.stderr.contains(command) && run.stderr.contains("not in this version"), "{}", run.stderr);
    }
}

/// What the tour types is what the program takes.
#[tokio::test]
async fn the_tours_commands_are_understood() {
    let text = readme();
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("$ outhaul export ")).collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands {
        // A source that cannot be one is then the only mistake.
        let mut args = vec!["export".to_owned(), "--from".to_owned(), "x".to_owned()];
        args.extend(words(command));
        let run = outhaul(args).run().await.expect(2);
        assert!(run.stderr.contains("neither a postgres:// URL nor"), "{command}: {}", run.stderr);
        assert_eq!(run.stderr.matches("error:").count(), 1, "{command}: {}", run.stderr);
    }
}

/// A command line's words; double quotes keep blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match (character, words.last_mut()) {
            ('"', _) => quoted = !quoted,
            (' ', _) if !quoted => words.push(String::new()),
            (other, Some(word)) => word.push(other),
            (_, None) => {}
        }
    }
    words
}
