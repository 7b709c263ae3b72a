//! The walls between the rooms of `src/`: no circle, no arrow that `lib.rs` does not draw, and nothing of PostgreSQL outside
//! its source. Which crate belongs to which room is in `tidy.rs`.

mod imports;

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{read, report, sources};
use imports::{Naming, Tree};

/// Rooms that every room above them may name without an arrow; the first may name the second.
const GROUND: [&str; 2] = ["model", "base"];

/// The benches' way into the stages, which only their feature compiles.
const BENCH: &str = "bench";

const POSTGRES: &str = "src/source/postgres";

/// Who names what of `source::postgres` outside of it: the room that reads what a person typed, and makes a source of it.
/// An entry that is not needed any more fails the test.
const NAMES: [(&str, &[&str]); 2] =
    [("src/config/connection/mod.rs", &["Postgres"]), ("src/config/value.rs", &["NAME_BYTES_MAX"])];

/// Words of PostgreSQL, as parts of a name or of a text.
const WORDS: [&str; 5] = ["ctid", "oid", "oids", "sqlstate", "sqlstates"];

/// Who may say them for good: the manifest's format v1, and the scripts for engines, which go by the names of types.
const MAY_SAY: [(&str, &[&str]); 2] =
    [("src/commit/wire/parts.rs", &["ctid"]), ("src/describe/ddl/columns.rs", &["oid"])];

/// From which room to which, and where.
type Arrows = BTreeMap<(String, String), Vec<String>>;

#[test]
fn every_arrow_between_rooms_is_drawn_and_none_for_nothing() {
    let drawn = drawing(&read("src/lib.rs"));
    let arrows = arrows(&tree());
    let rooms: BTreeSet<String> = tree().rooms().filter(|room| room != BENCH).collect();
    let homeless =
        rooms.symmetric_difference(&drawn.rooms).map(|room| format!("{room}: in src or in the drawing only"));
    report(homeless.chain(undrawn(&arrows, &drawn)).chain(unused(&arrows, &drawn)));
}

#[test]
fn no_rooms_stand_in_a_circle() {
    report(circle(&arrows(&tree())).into_iter());
}

#[test]
fn nothing_of_postgresql_is_named_outside_its_source() {
    let outside = |naming: &Naming| !naming.file.starts_with(POSTGRES) && room(&naming.from) != BENCH;
    let found = tree()
        .namings()
        .into_iter()
        .filter(|naming| outside(naming) && naming.to.starts_with(&["source".to_owned(), "postgres".to_owned()]));
    report(beyond(found.map(|naming| (naming.file, naming.name)), &NAMES).into_iter());
}

#[test]
fn words_of_postgresql_are_said_in_its_source_only() {
    let all = sources();
    let outside = all.values().filter(|source| !source.path.starts_with(POSTGRES));
    let found = outside
        .flat_map(|source| source.code.iter().flat_map(|line| words(line)).map(|word| (source.path.clone(), word)));
    report(beyond(found, &MAY_SAY).into_iter());
}

/// What is found but not listed, and what is listed but not found.
fn beyond(found: impl Iterator<Item = (String, String)>, listed: &[(&str, &[&str])]) -> Vec<String> {
    let found: BTreeSet<(String, String)> = found.collect();
    let listed: BTreeSet<(String, String)> = listed
        .iter()
        .flat_map(|(file, names)| names.iter().map(|name| ((*file).to_owned(), (*name).to_owned())))
        .collect();
    let new = found.difference(&listed).map(|(file, name)| format!("{file}: {name} belongs to {POSTGRES}"));
    let old = listed
        .difference(&found)
        .map(|(file, name)| format!("{file}: {name} is not there any more: leave it out here"));
    new.chain(old).collect()
}

/// The words of PostgreSQL in a line of code: `ctid_ranges` has one.
fn words(line: &str) -> impl Iterator<Item = String> {
    let parts = line.split(|c: char| !c.is_alphanumeric());
    parts.map(str::to_lowercase).filter(|part| WORDS.contains(&part.as_str()))
}

fn tree() -> Tree {
    let mut tree = Tree::default();
    for source in sources().values().filter(|source| source.path != "src/main.rs") {
        tree.add(&source.path, &source.text);
    }
    tree
}

fn room(module: &[String]) -> &str {
    module.first().map_or("lib", String::as_str)
}

fn arrows(tree: &Tree) -> Arrows {
    let mut arrows = Arrows::new();
    for Naming { file, line, from, to, name } in tree.namings() {
        let (from, to) = (room(&from), room(&to));
        if from != to && ![from, to].contains(&"lib") && from != BENCH {
            arrows.entry((from.to_owned(), to.to_owned())).or_default().push(format!("{file}:{line}: {name}"));
        }
    }
    arrows
}

/// What `lib.rs` draws: `store ──> model` and the like.
struct Drawing {
    rooms: BTreeSet<String>,
    arrows: BTreeSet<(String, String)>,
}

fn drawing(lib: &str) -> Drawing {
    let text = lib.lines().skip_while(|line| *line != "//! # Rooms").skip_while(|line| *line != "//! ```text").skip(1);
    let lines =
        text.take_while(|line| *line != "//! ```").filter_map(|line| line.strip_prefix("//!")?.split_once("──>"));
    let drawn: BTreeMap<String, Vec<String>> =
        lines.map(|(from, to)| (from.trim().to_owned(), to.split_whitespace().map(str::to_owned).collect())).collect();
    let arrows = drawn.iter().flat_map(|(from, to)| to.iter().map(move |to| (from.clone(), to.clone()))).collect();
    Drawing { rooms: drawn.into_keys().collect(), arrows }
}

fn undrawn(arrows: &Arrows, drawn: &Drawing) -> Vec<String> {
    let below = |from: &str, to: &str| GROUND.contains(&to) && from != GROUND[1];
    let missing =
        arrows.iter().filter(|((from, to), _)| !below(from, to) && !drawn.arrows.contains(&(from.clone(), to.clone())));
    missing
        .map(|((from, to), places)| format!("{from} ──> {to} is not drawn in lib.rs:\n  {}", places.join("\n  ")))
        .collect()
}

fn unused(arrows: &Arrows, drawn: &Drawing) -> Vec<String> {
    let unused = drawn.arrows.iter().filter(|arrow| !arrows.contains_key(arrow));
    unused.map(|(from, to)| format!("{from} ──> {to} is drawn in lib.rs, and nothing goes that way")).collect()
}

/// The rooms that are left once those have gone, again and again, to which or from which no arrow leads.
fn circle(arrows: &Arrows) -> Option<String> {
    let mut left: BTreeSet<&(String, String)> = arrows.keys().collect();
    loop {
        let inner = left.iter().copied().filter(|(from, to)| {
            left.iter().any(|(_, reached)| reached == from) && left.iter().any(|(leaving, _)| leaving == to)
        });
        let inner: BTreeSet<&(String, String)> = inner.collect();
        if inner.len() == left.len() {
            break;
        }
        left = inner;
    }
    let lines: Vec<String> =
        left.iter().map(|arrow| format!("{} ──> {}:\n  {}", arrow.0, arrow.1, arrows[*arrow].join("\n  "))).collect();
    (!lines.is_empty()).then(|| format!("rooms in a circle:\n{}", lines.join("\n")))
}

/// The rules above can fail: a made-up house has a circle, an arrow that is not drawn, and a name out of its source.
#[test]
fn the_walls_are_seen_to_fall() {
    let mut tree = Tree::default();
    let lib = "//! # Rooms\n//!\n//! ```text\n//! cli ──> store\n//! store ──>\n//! plan ──> store\n//! model ──>\n//! base ──>\n//! ```\n";
    for (path, text) in [
        ("src/lib.rs", "pub mod cli; pub mod store; pub mod plan; pub mod model; pub mod base;"),
        // Nested braces, a re-export, an alias, and what only a test names.
        (
            "src/cli/mod.rs",
            "use crate::{store::{self, Claim as Mine}, model::Plan};\n#[cfg(test)]\nuse crate::source::postgres::plan::Secret;",
        ),
        ("src/store/mod.rs", "mod owner;\npub use owner::Claim;\nuse crate::model::*;"),
        // A path in the code, and a text, a comment, a character and a lifetime that name nothing.
        (
            "src/store/owner.rs",
            "pub struct Claim;\nfn f<'a>(x: &'a str) { let y = '\"'; super::super::plan::cut(\"crate::cli::Odd\"); } // crate::cli::Odd",
        ),
        (
            "src/plan/mod.rs",
            "mod deep { pub(super) fn take() -> super::super::store::Claim { crate::store::Claim } }\npub fn cut() {}",
        ),
        ("src/model/mod.rs", "pub struct Plan;\n#[cfg(test)]\nmod tests { use crate::cli::Odd; }"),
        ("src/base/mod.rs", "use crate::model::Plan;"),
    ] {
        tree.add(path, text);
    }
    let arrows = arrows(&tree);
    let found: Vec<String> = arrows.keys().map(|(from, to)| format!("{from} {to}")).collect();
    assert_eq!(found, ["base model", "cli model", "cli store", "plan store", "store model", "store plan"]);
    let circle = circle(&arrows).unwrap();
    assert!(circle.contains("plan ──> store") && circle.contains("store ──> plan"), "{circle}");
    assert!(!circle.contains("cli ──>") && !circle.contains("──> model"), "{circle}");
    let drawn = drawing(lib);
    let missing = undrawn(&arrows, &drawn).join("\n");
    assert!(missing.contains("store ──> plan is not drawn in lib.rs:\n  src/store/owner.rs:2: cut"), "{missing}");
    assert!(missing.contains("base ──> model") && !missing.contains("cli ──>"), "{missing}");
    let claims = tree.namings().into_iter().filter(|naming| naming.name == "Claim");
    assert!(claims.map(|naming| naming.to.join("::")).all(|home| home == "store::owner"), "through its re-export");
    let spare = drawing("//! # Rooms\n//! ```text\n//! cli ──> plan\n//! ```");
    assert_eq!(unused(&arrows, &spare), ["cli ──> plan is drawn in lib.rs, and nothing goes that way"]);
    let pair = |file: &str, name: &str| (file.to_owned(), name.to_owned());
    let beyond = beyond([pair("a", "X"), pair("a", "Y")].into_iter(), &[("a", &["X"]), ("b", &["Z"])]);
    assert_eq!(beyond.len(), 2, "{beyond:?}");
    assert_eq!(words("x.ctid_ranges(\"SQLSTATE\", avoid)").collect::<Vec<_>>(), ["ctid", "sqlstate"]);
}
