//! `--partition-by`: every row is in the folder of its value, whatever the value is, and readers find it there again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::clickhouse::clickhouse;
use crate::support::job::{command, export, export_csv, parts, visible};
use crate::support::pg::{Pg, both, pg};
use crate::support::place::Place;
use crate::support::run::{Outhaul, Stop, outhaul};
use crate::support::{manifest, variable, within};

const LIMIT: Duration = Duration::from_mins(2);

/// Texts that other tools fold together, lose or trip over; NULL comes beside them.
const HOSTILE: [&str; 22] = [
    "NL",
    "nl",
    "",
    " ",
    "__HIVE_DEFAULT_PARTITION__",
    "__hive_default_partition__",
    "NULL",
    "null",
    "~empty",
    "a/b",
    "..",
    ".",
    "c=d",
    "%2F",
    "%",
    "it's \"quoted\"",
    "a\\b",
    "[x]*?{y}",
    "line\nend",
    "ü 😀",
    "007",
    "2026-11-28",
];

/// What `tests/support/folders.py` finds.
async fn read(what: &str, dest: &Path) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/folders.py");
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.arg(script).arg(what).arg(dest).kill_on_drop(true);
    let output = within(LIMIT, "folders.py", python.output()).await.unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A table of hostile texts, a long one and NULL, five rows each: by id, what `c` is.
async fn hostile(pg: &Pg) -> BTreeMap<String, Value> {
    let client = pg.connect().await;
    client.batch_execute("create table t (id int primary key, c text, v text)").await.unwrap();
    let long = "long/".repeat(60);
    let texts = HOSTILE.into_iter().chain([long.as_str()]).map(|text| Some(text.to_owned())).chain([None]);
    let mut expected = BTreeMap::new();
    for (id, text) in (0_i32..).zip(texts.cycle().take(5 * (HOSTILE.len() + 2))) {
        client.execute("insert into t values ($1, $2, 'v')", &[&id, &text]).await.unwrap();
        expected.insert(id.to_string(), text.map_or(Value::Null, Value::String));
    }
    client.batch_execute("analyze t").await.unwrap();
    expected
}

/// The column `c` of rows by id.
fn column(rows: &Value) -> BTreeMap<String, Value> {
    rows.as_object().unwrap().iter().map(|(id, row)| (id.clone(), row["c"].clone())).collect()
}

fn rows_of(manifest: &Value) -> u64 {
    parts(manifest).iter().map(|part| part["rows"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn hostile_values_come_back_by_the_manifest_and_by_our_ddl() {
    for version in both() {
        let pg = pg(version).await;
        let expected = hostile(&pg).await;
        for format in ["parquet", "csv", "ndjson"] {
            let args =
                ["--table", "t", "--partition-by", "c", "--format", format, "--partitions", "3", "--readers", "2"];
            let done = export(&pg, &args).await.expect(0);
            assert_eq!(column(&read("manifest", &done.dest()).await), expected, "{version} {format}");
            assert_eq!(column(&read("ddl", &done.dest()).await), expected, "{version} {format}");
            let manifest = done.manifest();
            assert_eq!(manifest["partition_by"][0]["name"], "c");
            assert_eq!(manifest["schema"].as_array().unwrap().len(), 2, "the files have no c");
            let folders: BTreeSet<&str> = parts(&manifest)
                .iter()
                .map(|part| part["path"].as_str().unwrap().rsplit_once('/').unwrap().0)
                .collect();
            assert_eq!(folders.len(), HOSTILE.len() + 2, "a folder for each value: {folders:?}");
            for folder in folders {
                assert!(folder.strip_prefix("data/c=").is_some_and(|name| name.len() <= 253), "{folder}");
            }
            outhaul(["verify", done.dest().to_str().unwrap(), "--read-data"]).run().await.expect(0);
        }
    }
}

/// DuckDB's #24308 lost the rows of one of the two.
#[tokio::test]
async fn null_and_the_text_that_readers_take_for_it_are_in_different_folders() {
    let pg = pg(18).await;
    hostile(&pg).await;
    for (off, apart) in [("", true), ("null_folder", false)] {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("out");
        let args = ["--table", "t", "--partition-by", "c"];
        command(&pg, dest.to_str().unwrap(), &args).env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        let answers = read("readers", &dest).await;
        let names = HOSTILE.iter().position(|text| *text == "__HIVE_DEFAULT_PARTITION__").unwrap().to_string();
        for reader in ["duckdb", "spark"] {
            let found = &answers[reader][&names];
            assert_eq!(*found == "__HIVE_DEFAULT_PARTITION__", apart, "{reader}: {found}");
        }
    }
}

/// `config/output.md` has what readers of a bare folder make of each value; `UPDATE_GOLDEN=1` writes it anew.
#[tokio::test]
async fn the_table_of_values_and_readers_is_what_they_do() {
    let pg = pg(18).await;
    let expected = hostile(&pg).await;
    let done = export(&pg, &["--table", "t", "--partition-by", "c", "--partitions", "1"]).await.expect(0);
    let answers = read("readers", &done.dest()).await;
    for reader in ["duckdb", "pyarrow", "spark"] {
        assert_eq!(answers[reader].as_object().unwrap().len(), expected.len(), "{reader}: every row once");
    }
    let shown = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        value => format!(
            "`{}`",
            value
                .to_string()
                .replace(char::is_control, "\u{fffd}")
                .replace('|', "\\|")
                .replace("long/long/", "…")
                .replace("……", "…")
        ),
    };
    let mut table = "| Value | DuckDB | pyarrow | Spark |\n|---|---|---|---|\n".to_owned();
    for id in 0..HOSTILE.len() + 2 {
        let (id, value) = (id.to_string(), &expected[&id.to_string()]);
        if value.as_str().is_some_and(|text| text.len() > 200) {
            continue;
        }
        let answer = |reader: &str| {
            let found = &answers[reader][&id];
            if found == value { "the value".to_owned() } else { shown(found) }
        };
        let line = [shown(value), answer("duckdb"), answer("pyarrow"), answer("spark")].join(" | ");
        table.extend(["| ", &line, " |\n"]);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/output.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once("<!-- folders -->\n").unwrap();
    let (found, after) = rest.split_once("<!-- /folders -->").unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, format!("{before}<!-- folders -->\n{table}<!-- /folders -->{after}")).unwrap();
        return;
    }
    assert_eq!(found, table, "UPDATE_GOLDEN=1 writes the table anew");
}

const ORDERS: &str = "create table t (id int primary key, at timestamptz, paid boolean, region smallint, v text);
    insert into t select i, '2026-11-28 22:00:00+00'::timestamptz + i * interval '1 min', i % 5 = 0,
        nullif(i % 4, 3), md5(i::text) from generate_series(1, 3000) i;
    analyze t";

const BY_DAY: &str = "dt=(at at time zone 'UTC')::date,paid,region";

async fn orders(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(ORDERS).await;
    pg
}

/// Rows of each combination of values, by a manifest.
fn counts(manifest: &Value) -> BTreeMap<Vec<Option<String>>, u64> {
    let mut counts = BTreeMap::new();
    for part in parts(manifest) {
        let names: Vec<&str> =
            manifest["partition_by"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        let values = &part["partition_values"];
        let values = names.iter().map(|name| values[name].as_str().map(str::to_owned)).collect();
        *counts.entry(values).or_default() += part["rows"].as_u64().unwrap();
    }
    counts
}

async fn expected_counts(pg: &Pg) -> BTreeMap<Vec<Option<String>>, u64> {
    let sql =
        "select (at at time zone 'UTC')::date::text, paid::text, region::text, count(*)::text from t group by 1, 2, 3";
    let rows = pg.sql(sql).await;
    rows.into_iter()
        .map(|mut row| (row.pop().unwrap().unwrap().parse().unwrap(), row))
        .map(|(n, row)| (row, n))
        .collect()
}

#[tokio::test]
async fn expressions_and_columns_make_folders_within_folders() {
    for version in both() {
        let pg = orders(version).await;
        let expected = expected_counts(&pg).await;
        let fixed = ["--table", "t", "--partition-by", BY_DAY, "--partitions", "4", "--readers", "3"];
        for args in [
            &["--format", "parquet"][..],
            &["--format", "csv", "--open-parts", "1"],
            &["--format", "csv", "--read-mode", "keyset", "--open-parts", "2"],
            &["--format", "ndjson", "--layout", "flat", "--visibility", "as-written"],
            &["--key", "id", "--part-size", "4KiB", "--format", "csv"],
        ] {
            let done = export(&pg, &[&fixed, args].concat()).await.expect(0);
            let manifest = done.manifest();
            assert_eq!(counts(&manifest), expected, "{version} {args:?}");
            assert_eq!(rows_of(&manifest), 3000);
            let named: BTreeSet<String> =
                parts(&manifest).iter().map(|part| part["path"].as_str().unwrap().to_owned()).collect();
            let seen: BTreeSet<String> = visible(&done.dest()).into_iter().map(|(path, _)| path).collect();
            assert_eq!(seen, named, "{version} {args:?}");
            assert!(named.iter().all(|path| path.contains("dt=2026-1") && path.contains("/paid=")), "{named:?}");
        }
    }
}

#[tokio::test]
async fn rows_of_a_part_have_its_values_where_the_columns_are_kept() {
    let pg = orders(18).await;
    let args = ["--table", "t", "--columns", "id,v", "--partition-by", BY_DAY, "--keep-partition-columns"];
    let done = export_csv(&pg, &args, 0).await;
    let mut ids = BTreeSet::new();
    for part in parts(&done.manifest()) {
        let text = std::fs::read_to_string(done.dest().join(part["path"].as_str().unwrap())).unwrap();
        let values = &part["partition_values"];
        let paid = if values["paid"] == "true" { "t" } else { "f" };
        for line in text.lines() {
            let fields: Vec<&str> = line.split(',').collect();
            let [id, _, kept_paid, region, dt] = fields[..] else { panic!("{line}") };
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert_eq!((kept_paid, dt), (paid, values["dt"].as_str().unwrap()));
            assert_eq!(region, values["region"].as_str().unwrap_or_default());
        }
    }
    assert_eq!(ids.len(), 3000);
    let sql = std::fs::read_to_string(done.dest().join("_ddl/clickhouse.sql")).unwrap();
    assert!(sql.contains("CREATE OR REPLACE VIEW"), "{sql}");
    let shown = read("ddl", &done.dest()).await;
    assert_eq!(shown.as_object().unwrap().len(), 3000);
}

#[tokio::test]
async fn dialects_that_do_not_read_the_names_of_folders_say_so() {
    let pg = orders(18).await;
    let done = export(&pg, &["--table", "t", "--partition-by", "region"]).await.expect(0);
    for dialect in ["clickhouse", "redshift"] {
        let ddl = outhaul(["ddl", done.dest().to_str().unwrap(), "--dialect", dialect]).run().await.expect(2);
        assert!(ddl.stderr.contains("--keep-partition-columns"), "{dialect}: {}", ddl.stderr);
    }
}

#[tokio::test]
async fn an_empty_table_has_its_one_part_and_no_values() {
    let pg = orders(15).await;
    for format in ["parquet", "csv"] {
        let args = ["--table", "t", "--where", "false", "--partition-by", BY_DAY, "--format", format];
        let done = export(&pg, &args).await.expect(0);
        let manifest = done.manifest();
        assert_eq!((parts(&manifest).len(), rows_of(&manifest)), (1, 0));
        assert_eq!(parts(&manifest)[0].get("partition_values"), None);
        assert_eq!(read("ddl", &done.dest()).await.as_object().unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_cap_has_the_first_rows_whatever_their_folders() {
    let pg = orders(18).await;
    for partitions in ["1", "5"] {
        let args =
            ["--table", "t", "--partition-by", BY_DAY, "--max-rows", "1234", "--partitions", partitions, "--key", "id"];
        let done = export_csv(&pg, &args, 3).await;
        assert_eq!(rows_of(&done.manifest()), 1234);
        let ids: Vec<u32> = done.sorted().iter().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
        assert_eq!(ids.into_iter().max(), Some(1234));
    }
}

#[tokio::test]
async fn what_makes_no_folders_is_refused_before_anything_is_read() {
    let pg = orders(18).await;
    pg.batch("create table odd (id int, f float8, at timestamptz, n numeric, doc jsonb, b bytea)").await;
    for (args, why) in [
        (&["--table", "odd", "--partition-by", "f"][..], "double precision"),
        (&["--table", "odd", "--partition-by", "at"], "timestamp with time zone"),
        (&["--table", "odd", "--partition-by", "n"], "numeric"),
        (&["--table", "odd", "--partition-by", "doc"], "jsonb"),
        (&["--table", "odd", "--partition-by", "b"], "bytea"),
        (&["--table", "t", "--partition-by", "x"], "column"),
        (&["--table", "t", "--partition-by", "_x=1"], "hidden"),
        (&["--table", "t", "--partition-by", "x=1,X=2"], "twice"),
        (
            &["--table", "odd", "--partition-by", "ID=id%2"],
            "--partition-by names folders \"ID\", and the files have a column \"id\"",
        ),
        (&["--table", "t", "--partition-by", "region=region%2"], "--partition-by region"),
        (&["--table", "t", "--partition-by", "x=1)--"], "--column x"),
        (&["--table", "t", "--partition-by", "x=random();"], "--column x"),
        (&["--table", "t", "--columns", "region", "--partition-by", "region"], "every column"),
        (&["--table", "t", "--partition-by", "region", "--single-file"], "one object"),
        (&["--table", "t", "--keep-partition-columns"], "without --partition-by"),
        (&["--table", "t", "--open-parts", "2"], "without --partition-by"),
    ] {
        let run = command(&pg, "out.d", args).run().await.expect(2);
        assert!(run.stderr.contains(why), "{args:?}: {}", run.stderr);
    }
    let below = command(&pg, "out.d/Region=ZZ/o", &["--table", "t", "--partition-by", "region"]).run().await.expect(2);
    assert!(below.stderr.contains("--to is in a folder Region="), "{}", below.stderr);
    let stream = command(&pg, "-", &["--table", "t", "--partition-by", "region"]).run().await.expect(2);
    assert!(stream.stderr.contains("--to -"), "{}", stream.stderr);
}

fn partitioned(pg: &Pg, place: &Place, args: &[&str]) -> Outhaul {
    let fixed = ["--partition-by", BY_DAY, "--open-parts", "2"];
    place.export(&pg.url, &[&fixed, args].concat())
}

/// Kills a run at a place of its life.
async fn killed(pg: &Pg, place: &Place, at: &'static str) {
    let stop = Stop::at(at);
    let args = ["--on-existing", "replace", "--keep-snapshot", "60s"];
    let running = partitioned(pg, place, &args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    assert_eq!(running.wait().await.code, 137, "{at}");
}

#[tokio::test]
async fn killed_and_resumed_or_cleaned_it_is_whole_or_nothing() {
    let pg = orders(18).await;
    let expected = expected_counts(&pg).await;
    for place in Place::both() {
        let url = place.url();
        for at in ["batch", "receipted"] {
            killed(&pg, &place, at).await;
            place.outhaul(["clean", url.as_str(), "--report", "json"]).run().await.expect(0);
            place.nothing_is_left().await;
        }
        for at in ["batch", "receipted", "uploaded", "published", "sent"] {
            killed(&pg, &place, at).await;
            let args = ["resume", &url, "--from", &pg.url, "--report", "json", "--progress", "none"];
            place.outhaul(args).run().await.expect(0);
            assert_eq!(counts(&place.manifest().await), expected, "{at}");
            assert_eq!(place.whole().await.len(), 3000, "{at}");
        }
    }
}

#[tokio::test]
async fn hostile_values_are_keys_of_an_object_store() {
    let pg = pg(18).await;
    let expected = hostile(&pg).await;
    let [_, place] = Place::both();
    let args = ["--partition-by", "c", "--format", "csv"];
    place.export(&pg.url, &args).run().await.expect(0);
    assert_eq!(place.whole().await.len(), expected.len());
    let manifest = place.manifest().await;
    let values: BTreeSet<String> =
        parts(&manifest).iter().map(|part| part["partition_values"]["c"].to_string()).collect();
    let wanted: BTreeSet<String> = expected.values().map(Value::to_string).collect();
    assert_eq!(values, wanted);
    for part in parts(&manifest) {
        let folder = part["path"].as_str().unwrap().strip_prefix("data/").unwrap().rsplit_once('/').unwrap().0;
        let listed = place.get(&format!("_symlink_format_manifest/{folder}/manifest")).await;
        assert!(String::from_utf8(listed).unwrap().lines().any(|line| part["url"] == line), "{folder}");
    }
    place.outhaul(["verify", place.url().as_str(), "--read-data"]).run().await.expect(0);
}

#[tokio::test]
async fn rows_of_clickhouse_go_into_folders_too() {
    let server = clickhouse().await;
    server
        .run("CREATE TABLE o (id UInt32, day Date, c Nullable(String), v Float64) ENGINE = MergeTree ORDER BY id")
        .await;
    server.run("INSERT INTO o SELECT number, toDate('2026-11-28') + number % 3, if(number % 4 = 0, NULL, 'c' || toString(number % 4)), number FROM numbers(600)").await;
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    let args = [
        "--table",
        "o",
        "--partition-by",
        "day,c,odd=toUInt8(id % 2)",
        "--to",
        dest.to_str().unwrap(),
        "--format",
        "parquet",
    ];
    server.export(&args).run().await.expect(0);
    let rows = read("manifest", &dest).await;
    assert_eq!(rows.as_object().unwrap().len(), 600);
    for (id, row) in rows.as_object().unwrap() {
        let id: u32 = id.parse().unwrap();
        assert_eq!(row["day"], ["2026-11-28", "2026-11-29", "2026-11-30"][(id % 3) as usize]);
        assert_eq!(row["c"], if id.is_multiple_of(4) { Value::Null } else { format!("c{}", id % 4).into() });
        assert_eq!(row["odd"], (id % 2).to_string());
    }
    for (by, why) in [("v", "Float64"), ("Day=toString(day)", "the files have a column \"day\"")] {
        let refused = server.export(&["--table", "o", "--partition-by", by, "--to", "out.d"]).run().await.expect(2);
        assert!(refused.stderr.contains(why), "{by}: {}", refused.stderr);
    }
}

const MIB: u64 = 1024 * 1024;

/// 1,000 values in no order, read by eight readers: sorted by the server, and unsorted where its statistics say that the
/// values are few. DuckDB's #25920, #11817 and ClickHouse's #88666 are of memory that grows with the values.
#[tokio::test]
async fn a_thousand_values_and_eight_readers_stay_inside_the_formula() {
    let pg = pg(18).await;
    let rows =
        "select i as id, md5((i % 1000)::text) as c, repeat(md5(i::text), 8) as v from generate_series(1, 60000) i";
    pg.batch(&format!(
        "create table t as {rows}; create table u as {rows}; alter table u alter c set (n_distinct = 5)"
    ))
    .await;
    pg.batch("analyze t; analyze u").await;
    for (table, open) in [("t", 8), ("u", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("out");
        let open_parts = open.to_string();
        let args = [
            "--table",
            table,
            "--partition-by",
            "c",
            "--readers",
            "8",
            "--partitions",
            "8",
            "--row-group-bytes",
            "1MiB",
            "--open-parts",
            &open_parts,
            "--where",
            if table == "u" { "id <= 6000" } else { "true" },
        ];
        let run = command(&pg, dest.to_str().unwrap(), &args).limit(LIMIT).run().await.expect(0);
        let manifest = manifest(&dest);
        let values: BTreeSet<&str> =
            parts(&manifest).iter().map(|part| part["partition_values"]["c"].as_str().unwrap()).collect();
        assert_eq!(values.len(), 1000);
        let many = u64::try_from(parts(&manifest).len()).unwrap();
        // Locally two blocks of 2 MiB are on their way from a part; the process itself takes some 60 MiB.
        let formula = 8 * (5 * MIB / 2 + open * (MIB + 4 * MIB)) + many * 4096 + 60 * MIB;
        assert!(run.memory_peak <= formula, "{table}: {} bytes of {formula}, {many} parts", run.memory_peak);
        if table == "t" {
            assert!(many <= 8 * 1000, "sorted, a partition has one part of a value: {many}");
        }
    }
}
