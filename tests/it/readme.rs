//! The README and the pages of `config/` against the program: their commands are run, their tables compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use outhaul::cli::exit;
use outhaul::config::options_markdown;
use outhaul::model::ExportErrorKind;
use serde_json::Value;

use crate::support::pg::pg;
use crate::support::run::program;
use crate::support::s3::s3;
use crate::support::variable;

/// Every way in which a run can end without a commit.
pub(crate) const KINDS: [ExportErrorKind; 16] = [
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

/// The README and every page beside it.
const PAGES: [&str; 10] = [
    "README.md",
    "config/clickhouse.md",
    "config/connecting.md",
    "config/exit-codes.md",
    "config/limits.md",
    "config/options.md",
    "config/output.md",
    "config/recipes.md",
    "config/schedulers.md",
    "config/types.md",
];

/// What the README may weigh.
const README_BYTES_MAX: usize = 14 * 1024;

fn path(page: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(page)
}

fn text(page: &str) -> String {
    std::fs::read_to_string(path(page)).unwrap()
}

/// The text between `<!-- name -->` and `<!-- /name -->`.
fn section(page: &str, name: &str) -> String {
    let text = text(page);
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap_or_else(|| panic!("no {name} begins"));
    let (section, _) = rest.split_once(&format!("<!-- /{name} -->")).unwrap_or_else(|| panic!("no {name} ends"));
    section.to_owned()
}

/// The rows of the table in a section, without its head.
fn rows(page: &str, name: &str) -> Vec<Vec<String>> {
    let section = section(page, name);
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// `UPDATE_GOLDEN=1` writes the table anew.
#[test]
fn the_options_table_is_the_programs() {
    let wanted = options_markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let updated = text("config/options.md").replace(&section("config/options.md", "options"), &wanted);
        std::fs::write(path("config/options.md"), updated).unwrap();
    }
    assert_eq!(section("config/options.md", "options"), wanted, "UPDATE_GOLDEN=1 writes the table anew");
}

#[test]
fn the_exit_codes_are_the_programs() {
    let mut wanted: BTreeMap<u8, bool> = KINDS.iter().map(|kind| (exit::failed(*kind), kind.retryable())).collect();
    assert_eq!(wanted.len(), KINDS.len());
    wanted.extend([(exit::COMPLETE, false), (exit::TRUNCATED, false), (exit::READER_GONE, false)]);
    let told: BTreeMap<u8, bool> = rows("config/exit-codes.md", "exit codes")
        .iter()
        .map(|row| (row[0].parse().unwrap(), row[2].split([' ', ',', ':']).next() == Some("yes")))
        .collect();
    assert_eq!(told, wanted);
}

#[test]
fn the_manifests_fields_are_the_schemas() {
    let schema = std::fs::read(path("config/manifest.v1.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let told: BTreeSet<String> = rows("config/output.md", "manifest")
        .iter()
        .flat_map(|row| row[0].split(", ").map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(told, names(&schema["properties"]));
}

#[test]
fn every_file_that_is_linked_is_there() {
    for page in PAGES {
        let text = text(page);
        let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        for link in links.iter().filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            assert!(path(page).with_file_name(file).exists(), "{page}: {link}");
        }
    }
}

#[test]
fn the_readme_is_short() {
    let bytes = text("README.md").len();
    assert!(bytes <= README_BYTES_MAX, "{bytes} bytes");
}

/// A block of shell that a page has, and the files that it needs.
struct Recipe {
    page: &'static str,
    name: String,
    script: String,
    files: Vec<(String, String)>,
}

/// The blocks behind `<!-- run: NAME -->`, each with the files of the page, which stand behind `<!-- file: NAME -->`.
fn recipes() -> Vec<Recipe> {
    let block = |rest: &str| {
        let (_, rest) = rest.split_once("```").unwrap();
        let (_, rest) = rest.split_once('\n').unwrap();
        rest.split_once("\n```").unwrap().0.to_owned() + "\n"
    };
    let mut found = Vec::new();
    for page in PAGES {
        let text = text(page);
        let named = |mark: &str| {
            let parts = text.split(mark).skip(1);
            parts.map(|rest| (rest.split_once(" -->").unwrap().0.to_owned(), block(rest))).collect::<Vec<_>>()
        };
        let files = named("<!-- file: ");
        let blocks = named("<!-- run: ").into_iter();
        found.extend(blocks.map(|(name, script)| Recipe { page, name, script, files: files.clone() }));
        // A block that is not marked is shell that nobody has tried.
        let shell = text.matches("```sh\n").count();
        let tried = text.matches("<!-- run: ").count() + text.matches("scripts/quickstart    #").count();
        assert_eq!(shell, tried, "{page}: each block of sh has its mark");
    }
    found
}

/// Runs the recipes of a page, as a shell of a person would.
async fn run_recipes(page: &str) {
    let pg = pg(18).await;
    pg.batch(
        "create table orders (id bigint primary key, amount numeric(12,2) not null, status text, day date);
        insert into orders select i, i / 100.0, case when i % 7 = 0 then 'cancelled' else 'paid' end, '2026-01-01'
            from generate_series(1, 60000) i",
    )
    .await;
    let s3 = s3();
    let bin = Path::new(env!("CARGO_BIN_EXE_outhaul")).parent().unwrap();
    let python = PathBuf::from(variable("OUTHAUL_TEST_PYTHON"));
    let mut run = 0;
    for recipe in recipes().into_iter().filter(|recipe| recipe.page == page) {
        let folder = tempfile::tempdir().unwrap();
        let mine = s3.url(&recipe.name);
        let place = |text: &str| text.replace("s3://lake", &mine).replace("python3", python.to_str().unwrap());
        for (name, content) in &recipe.files {
            std::fs::write(folder.path().join(name), place(content)).unwrap();
        }
        // A shell that stops at the first command that fails, in a pipe too, but for the program whose reader has enough.
        let script = format!("set -eu\ncd {}\n{}", folder.path().display(), place(&recipe.script));
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut shell = program("/bin/bash", ["-c", &script]).env("PATH", path).env("DATABASE_URL", &pg.url);
        for (name, value) in s3.env() {
            shell = shell.env(name, value);
        }
        let done = shell.run().await;
        assert_eq!(done.code, 0, "{page}, {}:\n{script}\n{}", recipe.name, done.stderr);
        run += 1;
    }
    assert!(run > 4, "{run}");
}

#[tokio::test]
async fn the_readmes_recipes_work() {
    run_recipes("README.md").await;
}

/// A loop that tries again must end as its last try did: whoever runs it sees nothing else.
#[tokio::test]
async fn the_retry_recipe_fails_where_each_try_fails() {
    let recipe = recipes().into_iter().find(|recipe| recipe.name == "retry").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_outhaul")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for (server, code, tries) in [("postgres://me@127.0.0.1:1/shop", 11, 3), ("no-url", 2, 1)] {
        let script = format!("cd {}\nsleep() {{ :; }}\n{}", folder.path().display(), recipe.script);
        let done = program("/bin/bash", ["-c", &script]).env("PATH", &path).env("DATABASE_URL", server).run().await;
        assert_eq!((done.code, done.stderr.matches("error: ").count()), (code, tries), "{}", done.stderr);
    }
}

#[tokio::test]
async fn the_other_recipes_work() {
    run_recipes("config/recipes.md").await;
}
