//! A partitioned export equals the one statement that a person would have typed: random schemas, expressions, predicates and
//! splits (invariant I4).
//!
//! `OUTHAUL_TEST_SHAPES=N` tries so many instead of 300, half of them from a fixed seed and half from a fresh one, which is
//! printed; `OUTHAUL_TEST_SHAPES_SEED=S` tries all of them from that seed. Both sides of a difference are printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, TryStreamExt};

use crate::support::foreign;
use crate::support::job::export_csv_without;
use crate::support::pg::{Pg, pg};
use crate::support::schemas::{Dice, Rows, Value, World};
use crate::support::shapes::Shape;

const SHAPES: usize = 300;
/// Tried in each schema.
const SHAPES_A_WORLD: usize = 30;
const FIXED_SEED: u64 = 20_261_128;
/// Exports at the same time.
const TOGETHER: usize = 4;
/// After so many differences nobody reads on.
const DIFFERENCES_MAX: usize = 12;

fn shapes() -> usize {
    std::env::var("OUTHAUL_TEST_SHAPES").map_or(SHAPES, |count| count.parse().unwrap())
}

fn given_seed() -> Option<u64> {
    std::env::var("OUTHAUL_TEST_SHAPES_SEED").ok().map(|seed| seed.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_the_work_is_split_it_is_the_one_statement_from_a_fixed_seed() {
    let (seed, count) = given_seed().map_or((FIXED_SEED, shapes() / 2), |seed| (seed, shapes()));
    assert_none(seed, &try_shapes(seed, count, "").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_the_work_is_split_it_is_the_one_statement_from_a_fresh_seed() {
    if given_seed().is_none() {
        let seed = rand::random();
        assert_none(seed, &try_shapes(seed, shapes() / 2, "").await);
    }
}

/// Without the mechanisms that keep rows together the comparison finds differences.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_split_without_thought_is_found_out() {
    for off in ["whole-rows", "clocks,volatility"] {
        assert!(!try_shapes(FIXED_SEED, 300, off).await.is_empty(), "{off}");
    }
}

#[track_caller]
fn assert_none(seed: u64, differences: &[String]) {
    assert!(differences.is_empty(), "seed {seed}: {} differ\n{}", differences.len(), differences.join("\n"));
}

/// The differences that so many shapes show.
#[expect(clippy::print_stderr, reason = "the seed repeats a run that failed or was killed")]
async fn try_shapes(seed: u64, count: usize, off: &str) -> Vec<String> {
    eprintln!("OUTHAUL_TEST_SHAPES_SEED={seed}, {count} shapes");
    let worlds = count.div_ceil(SHAPES_A_WORLD);
    // One is enough where one is expected.
    let most = if off.is_empty() { DIFFERENCES_MAX } else { 0 };
    let (mut differences, done, refused) = (Vec::new(), AtomicUsize::new(0), AtomicUsize::new(0));
    for world in 0..worlds {
        let shapes = SHAPES_A_WORLD.min(count - world * SHAPES_A_WORLD);
        differences.extend(try_world(seed, world, shapes, off, (&done, &refused)).await);
        if differences.len() > most {
            break;
        }
    }
    let (done, refused) = (done.into_inner(), refused.into_inner());
    eprintln!("{done} shapes, {refused} of them refused for a reason that is listed");
    assert!(refused * 5 <= done, "so many refusals test nothing");
    differences
}

/// The differences found in one schema.
async fn try_world(
    seed: u64,
    number: usize,
    shapes: usize,
    off: &str,
    (done, refused): (&AtomicUsize, &AtomicUsize),
) -> Vec<String> {
    let number = u64::try_from(number).unwrap();
    let mut dice = Dice::new(seed ^ (number << 32));
    let version = if number.is_multiple_of(2) { 18 } else { 15 };
    let world = World::new(&mut dice);
    let pg = pg(version).await;
    pg.batch(&world.tables).await;
    for (table, columns, names) in &world.foreign {
        pg.batch(&foreign::tables(&pg, table, columns, names).await).await;
    }
    pg.batch(&world.rest).await;
    let shapes: Vec<Shape> = (0..shapes).map(|_| Shape::next(&mut dice, &world)).collect();
    let tried: Vec<Option<String>> = futures_util::stream::iter(&shapes)
        .map(|shape| async {
            let difference = difference(&pg, shape, off, refused).await;
            done.fetch_add(1, Ordering::Relaxed);
            difference.map(|difference| report(&pg, shape, number, &difference))
        })
        .buffered(TOGETHER)
        .collect()
        .await;
    let mut found: Vec<String> = tried.into_iter().flatten().collect();
    if !found.is_empty() {
        let foreign: Vec<String> =
            world.foreign.iter().map(|(table, columns, names)| format!("{names:?} {columns} of {table}")).collect();
        found.push(format!(
            "-- the schema {number} of seed {seed}\n{}-- foreign: {foreign:?}\n{}",
            world.tables, world.rest
        ));
    }
    found
}

fn report(pg: &Pg, shape: &Shape, world: u64, difference: &str) -> String {
    let mut command = "outhaul export".to_owned();
    for arg in &shape.args {
        write!(command, " '{}'", arg.replace('\'', "'\\''")).unwrap();
    }
    format!("== PostgreSQL {}, schema {world}\n{command}\n{}\n{difference}\n", pg.version, shape.select)
}

/// What is wrong with an export, if anything.
async fn difference(pg: &Pg, shape: &Shape, off: &str, refused: &AtomicUsize) -> Option<String> {
    let args: Vec<&str> = shape.args.iter().map(String::as_str).collect();
    let done = export_csv_without(pg, &args, off).await;
    let expected = match copy_or_error(pg, &shape.select).await {
        Ok(expected) => expected,
        // What is no statement is no export either.
        Err(_) if matches!(done.run.code, 2 | 14 | 15) => return None,
        Err(error) => return Some(format!("PostgreSQL refuses it ({error}), the export ended with {}", done.run.code)),
    };
    let code = done.run.code;
    if code == 2 && shape.may_be_refused.is_some() {
        refused.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    if code != 0 && code != 3 {
        return Some(format!("exit {code}: {}", done.run.stderr));
    }
    let found = records(&done.data());
    let manifest = done.manifest();
    if manifest["consistency"]["mode"] != shape.mode {
        return Some(format!("{} in the manifest where {} is right", manifest["consistency"], shape.mode));
    }
    judge(pg, shape, found, expected, code).await
}

async fn judge(pg: &Pg, shape: &Shape, found: Vec<Row>, expected: Vec<Row>, code: i32) -> Option<String> {
    let all = match &shape.rows {
        Rows::Exact => Some(expected.len()),
        Rows::Some { count: Some(count), .. } => Some(pg.value(count).await.parse().unwrap()),
        Rows::Some { count: None, .. } => None,
    };
    if let Some(all) = all {
        let most = shape.cap.map_or(usize::MAX, |(rows, _)| usize::try_from(rows).unwrap());
        let (right, right_code) = (all.min(most), if all > most { 3 } else { 0 });
        if found.len() != right || code != right_code {
            return Some(format!(
                "{} rows and exit {code}, where {right} and exit {right_code} are right",
                found.len()
            ));
        }
    } else if let Some((cap, _)) = shape.cap
        && (rows(&found) > cap || code == 3 && rows(&found) != cap)
    {
        return Some(format!("{} rows under a cap of {cap} and exit {code}", found.len()));
    }
    for (column, value) in shape.values.iter().enumerate() {
        let mut values: Vec<&String> = found.iter().map(|row| &row[column]).collect();
        values.sort();
        values.dedup();
        let wrong = match value {
            Value::One => values.len() > 1,
            Value::Distinct => values.len() < found.len(),
            Value::Same | Value::Any => false,
        };
        if wrong {
            let some: Vec<_> = values.iter().take(4).collect();
            return Some(format!("column {column} has {} values in {} rows: {some:?}", values.len(), found.len()));
        }
    }
    let same = |rows: Vec<Row>| -> Vec<Row> {
        let kept = |row: Row| row.into_iter().zip(&shape.values).filter(|(_, value)| **value == Value::Same);
        rows.into_iter().map(|row| kept(row).map(|(value, _)| value).collect()).collect()
    };
    let (found, mut expected) = (same(found), same(expected));
    match (&shape.rows, shape.cap) {
        (Rows::Exact, Some((_, true))) => {
            expected.truncate(found.len());
            (found != expected).then(|| unlike(&found, &expected))
        }
        (Rows::Exact, Some((_, false))) => surplus(found, expected),
        (Rows::Exact, None) => {
            let sorted = |mut rows: Vec<Row>| {
                rows.sort();
                rows
            };
            let (found, expected) = (sorted(found), sorted(expected));
            (found != expected).then(|| unlike(&found, &expected))
        }
        (Rows::Some { of, .. }, _) => match copy_or_error(pg, of).await {
            Ok(of) => surplus(found, same(of)),
            Err(error) => Some(format!("{of}: {error}")),
        },
    }
}

type Row = Vec<String>;

fn rows(found: &[Row]) -> u64 {
    u64::try_from(found.len()).unwrap()
}

fn records(csv: &[u8]) -> Vec<Row> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv);
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

async fn copy_or_error(pg: &Pg, select: &str) -> Result<Vec<Row>, String> {
    let client = pg.connect().await;
    client.batch_execute("set timezone = 'UTC'; set intervalstyle = postgres").await.unwrap();
    let failed = |error: tokio_postgres::Error| {
        error.as_db_error().map_or_else(|| error.to_string(), |it| it.message().to_owned())
    };
    let stream = client.copy_out(&format!("copy ({select}\n) to stdout with (format csv)")).await.map_err(failed)?;
    Ok(records(&stream.try_collect::<Vec<_>>().await.map_err(failed)?.concat()))
}

fn unlike(found: &[Row], expected: &[Row]) -> String {
    let pairs = found.iter().zip(expected).filter(|(found, expected)| found != expected);
    let some: Vec<String> =
        pairs.take(3).map(|(found, expected)| format!("  found {found:?}\n  right {expected:?}")).collect();
    format!("{} rows found, {} are right; the first that differ:\n{}", found.len(), expected.len(), some.join("\n"))
}

/// Rows that `of` does not have, or not so often.
fn surplus(found: Vec<Row>, of: Vec<Row>) -> Option<String> {
    let mut left: BTreeMap<Row, usize> = BTreeMap::new();
    for row in of {
        *left.entry(row).or_default() += 1;
    }
    for row in found {
        match left.get_mut(&row) {
            Some(count @ 1..) => *count -= 1,
            _ => return Some(format!("a row that is not there, or not so often: {row:?}")),
        }
    }
    None
}
