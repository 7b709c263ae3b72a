//! The repository's own rules, as tests. What clippy checks (function length, casts, docs) is not repeated here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a source file before its tests. The aim is 400; what passes this must be split.
const FILE_LINES_MAX: usize = 450;

/// Who may name a crate: everybody else goes through the module that owns it. `main.rs` wires all of them.
/// The command line makes rayon's pool, `base/cpu.rs` gives it work.
const OWNERS: [(&str, &[&str]); 9] = [
    ("tokio_postgres", &["src/base/postgres/", "src/service/state/postgres/", "src/source/postgres/"]),
    ("postgres_protocol", &["src/source/postgres/"]),
    ("deadpool_postgres", &["src/service/state/postgres/", "src/source/postgres/"]),
    ("object_store", &["src/store/"]),
    ("rayon", &["src/base/cpu.rs", "src/cli/mod.rs"]),
    ("clap", &["src/cli/"]),
    ("axum", &["src/service/"]),
    ("jsonwebtoken", &["src/service/"]),
    ("rusqlite", &["src/service/state/"]),
];

/// Code that does no IO and never awaits (invariant I8).
const PURE: [&str; 9] = [
    "src/model/",
    "src/source/clickhouse/formats.rs",
    "src/source/clickhouse/frame.rs",
    "src/source/clickhouse/lexer.rs",
    "src/source/postgres/plan/",
    "src/source/postgres/frame",
    "src/encode/",
    "src/base/text/",
    "src/store/name.rs",
];

/// Files that may hold unsafe code: measured, documented, and fuzzed where they touch data.
const UNSAFE: [&str; 1] = ["src/base/postgres/low_water.rs"];

/// One source file, without its tests.
pub struct Source {
    pub path: String,
    pub text: String,
    /// Lines before the tests, comments blanked.
    pub code: Vec<String>,
    /// Lines before the tests.
    lines: usize,
}

#[test]
fn every_file_says_why_it_exists_and_is_short() {
    let rule = |source: &Source| {
        let mut wrong = Vec::new();
        if !source.text.starts_with("//! ") {
            wrong.push("starts without a //! line".to_owned());
        }
        if source.lines > FILE_LINES_MAX {
            wrong.push(format!("has {} lines before its tests, {FILE_LINES_MAX} at most", source.lines));
        }
        wrong
    };
    let all = sources();
    report(
        all.values().flat_map(|source| rule(source).into_iter().map(move |wrong| format!("{}: {wrong}", source.path))),
    );
}

#[test]
fn crates_are_used_by_their_owners_only() {
    let outside = |source: &Source, owners: &[&str]| {
        source.path != "src/main.rs" && !owners.iter().any(|owner| source.path.starts_with(owner))
    };
    let all = sources();
    report(OWNERS.iter().flat_map(|(name, owners)| {
        all.values()
            .filter(move |source| outside(source, owners))
            .flat_map(move |source| source.find(&|line| has_word(line, name), &format!("{name} is for {owners:?}")))
    }));
}

#[test]
fn pure_code_does_no_io_and_never_awaits() {
    let impure = ["async", "await", "tokio", "fs", "net", "process"];
    let rule = |line: &str| impure.iter().any(|word| has_word(line, word) && !line.contains("::process("));
    let all = sources();
    let pure = all.values().filter(|source| PURE.iter().any(|start| source.path.starts_with(start)));
    report(pure.flat_map(|source| source.find(&rule, "IO or await in pure code (I8)")));
}

#[test]
fn code_does_not_panic_queue_without_bound_or_silence_lints() {
    let rules: [(&str, &str); 9] = [
        (".unwrap()", "return an error"),
        ("todo!(", "finish it"),
        ("unimplemented!(", "finish it"),
        ("dbg!(", "remove it"),
        ("#[allow(", "#[expect(…, reason = …)] says why, and ends when it is not needed"),
        ("#![allow(", "#[expect(…, reason = …)] says why, and ends when it is not needed"),
        ("unbounded", "every queue has a bound"),
        ("mpsc::channel()", "std's channel has no bound: sync_channel"),
        ("lazy_static!", "std::sync::LazyLock"),
    ];
    let all = sources();
    report(rules.iter().flat_map(|(text, instead)| {
        all.values().flat_map(move |source| {
            // What panics while it is compiled cannot panic later.
            let rule = |line: &str| line.contains(text) && !(has_word(line, "const") && line.contains(" = "));
            source.find(&rule, &format!("{text} {instead}"))
        })
    }));
}

/// `Row::get` panics over a NULL, and catalog views have NULLs where nobody expects them: `catalog::value` gives an error.
/// The simple protocol's rows, whose values are all text, have a `get` that does not panic.
#[test]
fn answers_of_the_server_are_read_without_panics() {
    let simple = ["src/source/postgres/connect.rs"];
    let all = sources();
    let typed = all.values().filter(|source| {
        let path = source.path.as_str();
        path.starts_with("src/source/postgres/") && !path.contains("/decode/") && !simple.contains(&path)
    });
    let rule = |line: &str| line.contains("row.get(") || line.contains("row.get::<");
    report(typed.flat_map(|source| source.find(&rule, "a NULL would panic: catalog::value")));
}

/// `1 rows`: a count and its noun are written by `words::counted`, or by `human::plural`.
#[test]
fn nothing_counts_one_rows() {
    let all = sources();
    let found = all.values().flat_map(|source| {
        let counts = counts(&source.code.join("\n"));
        let bad = counts.into_iter().filter(|words| !NEVER_ONE.iter().any(|never| words.contains(never)));
        bad.map(|words| format!("{}: {words:?} may be one", source.path)).collect::<Vec<_>>()
    });
    report(found);
}

/// The counts of a source's texts, each with its noun and what stands around them.
fn counts(code: &str) -> Vec<String> {
    // A text goes on in the next line behind a backslash.
    let mut joined = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("\\\n") {
        joined.push_str(before);
        rest = after.trim_start();
    }
    joined.push_str(rest);
    let mut found = Vec::new();
    for (at, _) in joined.match_indices("} ") {
        let noun: String = joined[at + 2..].chars().take_while(char::is_ascii_alphabetic).collect();
        let named = joined[..at].rsplit('{').next().unwrap_or_default();
        // A constant, which is never one, or no place of a text at all.
        let constant = named.starts_with(|first: char| first.is_ascii_uppercase());
        let place = named.chars().all(|c| c.is_alphanumeric() || "_.:?".contains(c));
        if COUNTED.contains(&noun.as_str()) && place && !constant {
            let line = joined[..at].rfind('\n').map_or(0, |start| start + 1);
            let end = joined[at..].find('\n').map_or(joined.len(), |end| at + end);
            found.push(joined[line..end].trim().to_owned());
        }
    }
    found
}

/// A name means one thing in the crate, whoever may see it. What a trait asks of its implementations is no name of its own.
#[test]
fn no_two_types_share_a_name() {
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources().values() {
        for (at, name) in types_of(&source.code) {
            homes.entry(name).or_default().push(format!("{}:{}", source.path, at + 1));
        }
    }
    let shared = homes.into_iter().filter(|(_, homes)| homes.len() > 1);
    report(shared.map(|(name, homes)| format!("{name}: {}", homes.join(", "))));
}

/// The types that lines of code define, each with its line.
fn types_of(code: &[String]) -> Vec<(usize, String)> {
    let defined = |line: &String| {
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || word.ends_with(')'));
        let keyword = words.next()?;
        // What is indented belongs to a trait, or is what an implementation says to it.
        let own =
            ["struct", "enum", "trait", "union"].contains(&keyword) || keyword == "type" && !line.starts_with(' ');
        let name: String = words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        own.then_some(name)
    };
    code.iter().enumerate().filter_map(|(at, line)| Some((at, defined(line)?))).collect()
}

/// What texts count.
const COUNTED: [&str; 31] = [
    "rows",
    "tables",
    "columns",
    "partitions",
    "parts",
    "relations",
    "leaves",
    "bytes",
    "readers",
    "connections",
    "sessions",
    "days",
    "keys",
    "files",
    "objects",
    "values",
    "names",
    "locks",
    "attempts",
    "seconds",
    "lines",
    "fields",
    "digits",
    "pages",
    "statements",
    "hosts",
    "ports",
    "snapshots",
    "findings",
    "elements",
    "runs",
];

/// Counts that are never one.
static NEVER_ONE: [&str; 13] = [
    // Verbs.
    "names one file of",
    "names a folder",
    // A rate.
    "{} rows/s",
    // What is too much.
    "a cap of {max_rows} rows is too large",
    "the plan has {count} partitions, more than",
    "it has more than {} bytes",
    "\"more than {} bytes",
    "has {precision} digits, and it reads",
    // Of several.
    "{statements} statements read the foreign tables",
    "all of {} tables, {} to {}",
    "locking {} tables for as long as they are read",
    " in {} tables",
    "and in each of {} of {} partitions",
];

#[test]
fn unsafe_code_is_listed() {
    let all = sources();
    let others = all.values().filter(|source| !UNSAFE.contains(&source.path.as_str()));
    let rule = |line: &str| has_word(line, "unsafe") || has_word(line, "unsafe_code");
    report(others.flat_map(|source| source.find(&rule, "unsafe code in a file that tidy does not list")));
}

/// What the top of the repository holds, beside licences and files whose names start with a dot.
const TOP: [&str; 8] = ["Cargo.toml", "Cargo.lock", "README.md", "src", "config", "benches", "tests", "scripts"];

#[test]
fn the_top_of_the_repository_holds_nothing_else() {
    let first = |path: &String| path.split('/').next().map(str::to_owned);
    let top: BTreeSet<String> = tracked().iter().filter_map(first).collect();
    let named = |name: &str| TOP.contains(&name) || name.starts_with("LICENSE-") || name.starts_with('.');
    report(top.into_iter().filter(|name| !named(name)).map(|name| format!("{name}: not at the top")));
}

/// Without a configuration of ours, a property test that fails makes a folder at the top.
#[test]
fn property_tests_keep_what_failed_beside_them() {
    let open = concat!("proptest", "! {");
    let rule = |text: &str| {
        let mut blocks = text.split(open).skip(1);
        blocks.any(|block| !block.lines().nth(1).is_some_and(|line| line.contains("crate::regressions::kept()")))
    };
    let all = tracked().into_iter().filter(|path| is_rust(path) && path != "tests/it/tidy.rs");
    report(all.filter(|path| rule(&read(path))).map(|path| format!("{path}: a {open} without regressions::kept()")));
}

#[test]
fn no_test_is_skipped() {
    let ignored = concat!("#[", "ignore");
    let all = tracked().into_iter().filter(|path| is_rust(path));
    report(all.filter(|path| read(path).contains(ignored)).map(|path| format!("{path}: an ignored test")));
}

#[test]
fn open_ends_have_a_link() {
    // Written so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let rule = |line: &str| marks.iter().any(|mark| line.contains(mark)) && !line.contains("https://");
    report(everything().flat_map(|(path, text)| lines_with(&path, &text, &rule, "an open end without a link")));
}

#[test]
fn no_file_names_a_place_on_somebody_s_machine() {
    let places = ["work", "root", "home", "Users"].map(|folder| format!("/{folder}/"));
    let rule = |line: &str| {
        places.iter().any(|place| {
            // In the middle of a relative path or of a URL it is no place on a machine.
            line.match_indices(place.as_str()).any(|(at, _)| {
                !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-/}*)".contains(before))
            })
        })
    };
    report(everything().flat_map(|(path, text)| lines_with(&path, &text, &rule, "an absolute path of one machine")));
}

#[test]
fn scripts_stop_at_the_first_error() {
    let scripts =
        everything().filter(|(_, text)| text.starts_with("#!/bin/sh") || text.starts_with("#!/usr/bin/env bash"));
    let loose = scripts.filter(|(_, text)| !text.contains("\nset -eu\n") && !text.contains("\nset -euo pipefail\n"));
    report(loose.map(|(path, _)| format!("{path}: no `set -eu`")));
}

/// The rows of the fault matrix: a letter, and which numbers.
const FAULTS: [(&str, &[RangeInclusive<u32>]); 8] = [
    ("A", &[1..=12, 15..=15]),
    ("B", &[1..=15]),
    ("C", &[1..=10]),
    ("D", &[1..=1, 3..=7]),
    ("E", &[1..=8]),
    ("F", &[1..=4, 8..=11]),
    ("G", &[1..=6]),
    ("H", &[1..=3, 8..=8, 10..=10]),
];

#[test]
fn every_row_of_the_fault_matrix_names_tests_that_exist() {
    let matrix = read("tests/fault-matrix.md");
    let row = |name: &str| matrix.lines().find(|line| line.starts_with(&format!("| {name} |")));
    let rows = FAULTS
        .iter()
        .flat_map(|(letter, numbers)| numbers.iter().cloned().flatten().map(move |number| format!("{letter}{number}")));
    let bare = rows.filter(|name| row(name).is_none_or(|line| tests_named(line).is_empty()));
    let bare = bare.map(|name| format!("{name}: no line with a test"));
    report(
        bare.chain(
            tests_named(&matrix)
                .into_iter()
                .filter(|(file, test)| !is_test(file, test))
                .map(|(file, test)| format!("{file}::{test}: no such test")),
        ),
    );
}

#[test]
fn every_case_names_tests_that_exist() {
    let cases = read("tests/cases.md");
    let rows = cases.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| case |"));
    let bare = rows.filter(|row| tests_named(row).is_empty()).map(|row| format!("{row}: no test"));
    let named = tests_named(&cases).into_iter().filter(|(file, test)| !is_test(file, test));
    report(bare.chain(named.map(|(file, test)| format!("{file}::{test}: no such test"))));
}

/// The files and functions that a text of `module::test` and `file.rs::test` between backticks means. Types have capitals.
fn tests_named(text: &str) -> Vec<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::"));
    let tests = quoted.filter(|(home, _)| !home.starts_with(char::is_uppercase) && *home != "job");
    tests
        .map(|(home, test)| {
            let file = if is_rust(home) { home.to_owned() } else { format!("tests/it/{home}.rs") };
            (file, test.to_owned())
        })
        .collect()
}

fn is_test(file: &str, name: &str) -> bool {
    let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let at = lines.iter().position(|line| {
        line.trim_start_matches("async ").strip_prefix("fn ").is_some_and(|rest| rest.starts_with(&format!("{name}(")))
    });
    at.is_some_and(|at| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("///"));
        above.into_iter().any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

/// The rules above can fail: each is seen to find what it is for.
#[test]
fn the_rules_find_what_they_look_for() {
    assert!(has_word("use tokio_postgres::Client;", "tokio_postgres"));
    assert!(!has_word("use tokio_postgres::Client;", "tokio"));
    assert!(!has_word("let prefs = 1;", "fs"));
    let source = Source::parse(
        "src/x.rs",
        "//! Why.\nlet a = b.unwrap(); // .unwrap()\n// c.unwrap()\n#[cfg(test)]\nmod tests {\nd.unwrap()\n}\n",
    );
    assert_eq!(source.lines, 3);
    assert_eq!(source.find(&|line| line.contains(".unwrap()"), "no").len(), 1);
    let declared =
        "#[cfg(test)]\n#[path = \"csv_tests.rs\"]\nmod tests;\n#[cfg(test)]\npub(crate) mod wire;\nmod kept;\n";
    let modules: BTreeSet<PathBuf> = test_modules("src/encode/csv.rs", declared).into_iter().collect();
    for file in ["src/encode/csv_tests.rs", "src/encode/csv/wire.rs"] {
        assert!(modules.contains(Path::new(file)), "{file} not in {modules:?}");
    }
    assert!(!modules.contains(Path::new("src/encode/csv/kept.rs")));
    assert_eq!(counts("let a = format!(\"below {branches} \\\n    tables\");\nlet b = \"{MAX} rows\";").len(), 1);
    let lines = ["pub(in crate::x) enum A<T> {", "    struct B(u8);", "    type C = u8;", "type D = u8;", "let e = 1;"];
    let types: Vec<String> = types_of(&lines.map(str::to_owned)).into_iter().map(|(_, name)| name).collect();
    assert_eq!(types, ["A", "B", "D"]);
    assert!(sources().len() > 20);
    let named = tests_named("`store::s3` and `src/x.rs::why`, `Place::whole`, `a word`");
    assert_eq!(named.len(), 2);
    assert_eq!(named[1], ("src/x.rs".to_owned(), "why".to_owned()));
    assert!(is_test("tests/it/store.rs", "s3") && !is_test("tests/it/tidy.rs", "is_test") && !is_test("no.rs", "s3"));
}

impl Source {
    fn parse(path: &str, text: &str) -> Self {
        let all: Vec<&str> = text.lines().collect();
        let opens_tests = |at: usize| {
            all[at].starts_with("#[cfg(test)]")
                && all[at + 1..]
                    .iter()
                    .find(|line| !line.starts_with("#["))
                    .is_some_and(|line| line.ends_with('{') && has_word(line, "mod"))
        };
        let lines = (0..all.len()).find(|at| opens_tests(*at)).unwrap_or(all.len());
        let code = all[..lines].iter().map(|line| without_comment(line).to_owned()).collect();
        Self { path: path.to_owned(), text: text.to_owned(), code, lines }
    }

    fn find(&self, rule: &dyn Fn(&str) -> bool, message: &str) -> Vec<String> {
        let numbered = self.code.iter().enumerate().filter(|(_, line)| rule(line));
        numbered.map(|(at, line)| format!("{}:{}: {message}: {}", self.path, at + 1, line.trim())).collect()
    }
}

/// The part of a line before a comment. A `//` in a string counts as one, unless it belongs to a URL.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Whether a line holds a word, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(inside) && !line[at + word.len()..].starts_with(inside))
}

/// The source files that are compiled outside tests.
pub fn sources() -> BTreeMap<String, Source> {
    let files: Vec<(String, String)> = tracked()
        .into_iter()
        .filter(|path| path.starts_with("src/") && is_rust(path))
        .map(|path| (path.clone(), read(&path)))
        .collect();
    let tests: BTreeSet<PathBuf> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    // A test module's folder goes with it.
    let is_test = |path: &str| {
        Path::new(path).ancestors().any(|step| tests.contains(step) || tests.contains(&step.with_extension("rs")))
    };
    let kept = files.iter().filter(|(path, _)| !is_test(path));
    kept.map(|(path, text)| (path.clone(), Source::parse(path, text))).collect()
}

/// The files of modules that a file declares for tests only, or for tests and benches.
fn test_modules(path: &str, text: &str) -> Vec<PathBuf> {
    let folder = Path::new(path).parent().unwrap();
    let stem = Path::new(path).file_stem().unwrap().to_str().unwrap();
    let below = if ["mod", "lib", "main"].contains(&stem) { folder.to_owned() } else { folder.join(stem) };
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" && line != "#[cfg(any(test, feature = \"bench\"))]" {
            continue;
        }
        let mut file = None;
        for line in lines.by_ref() {
            if let Some(named) = line.strip_prefix("#[path = \"") {
                file = Some(folder.join(named.trim_end_matches("\"]")));
            } else if !line.starts_with("#[") {
                if let Some(name) =
                    line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name)
                {
                    found.extend(file.is_none().then(|| below.join(name).join("mod.rs")));
                    found.push(file.unwrap_or_else(|| below.join(format!("{name}.rs"))));
                }
                break;
            }
        }
    }
    found
}

/// The files of the repository that people write, as text.
fn everything() -> impl Iterator<Item = (String, String)> {
    let written = tracked().into_iter().filter(|path| path != "Cargo.lock" && !path.ends_with(".parquet"));
    written.filter_map(|path| std::fs::read_to_string(root().join(&path)).ok().map(|text| (path, text)))
}

fn lines_with(path: &str, text: &str, rule: &dyn Fn(&str) -> bool, message: &str) -> Vec<String> {
    let numbered = text.lines().enumerate().filter(|(_, line)| rule(line));
    numbered.map(|(at, line)| format!("{path}:{}: {message}: {}", at + 1, line.trim())).collect()
}

/// Tracked files and those that are new but not ignored, that still exist.
fn tracked() -> Vec<String> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listing.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
    let names = String::from_utf8(listing.stdout).unwrap();
    names.split_terminator('\0').filter(|path| root().join(path).is_file()).map(str::to_owned).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

#[track_caller]
pub fn report(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{} found:\n{}", wrong.len(), wrong.join("\n"));
}
