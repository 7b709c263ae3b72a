//! `--protect`: what is protected leaves the source in no file, no record and no message, and equal values stay equal.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::support::clickhouse::clickhouse;
use crate::support::job::{command, export, export_csv, parts};
use crate::support::manifest;
use crate::support::pg::{Pg, both, pg};
use crate::support::run::{Outhaul, Stop, outhaul};
use crate::support::watch::files;

const LIMIT: Duration = Duration::from_mins(2);

const KEY: &str = "correct horse battery staple";

/// Every value that nobody is to see begins with one of these, or is this number.
const PLANTED: [&str; 4] = ["plantedmail", "plantedphone", "plantedssn", "987654321"];

const PEOPLE: &str = "create table people (id int primary key, email text, phone text, born date, ssn text, pin int, v text);
    insert into people select i, 'plantedmail' || i % 50 || '@example.org', 'plantedphone ' || i || ' (Ä)', '1980-01-01'::date + i,
        'plantedssn' || i, 987654321, 'open ' || i from generate_series(1, 500) i;
    insert into people (id) values (501); analyze people";

const ALL: [&str; 10] = [
    "--protect",
    "email=hash",
    "--protect",
    "phone=mask",
    "--protect",
    "born=null",
    "--protect",
    "ssn=drop",
    "--protect",
    "pin=hash",
];

async fn people(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(PEOPLE).await;
    pg
}

/// A folder with the key in a file.
struct Keyed {
    folder: tempfile::TempDir,
    file: String,
}

impl Keyed {
    fn new(key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key").to_str().unwrap().to_owned();
        std::fs::write(&file, format!("{key}\n")).unwrap();
        Self { folder, file }
    }
}

fn hash(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The planted values that stand in some file below a folder, or in a text.
fn seen(dest: &Path, said: &[&[u8]]) -> BTreeSet<&'static str> {
    let bytes: Vec<Vec<u8>> = files(dest).into_keys().map(|path| std::fs::read(dest.join(path)).unwrap()).collect();
    let in_it = |bytes: &[u8], planted: &str| bytes.windows(planted.len()).any(|window| window == planted.as_bytes());
    let all = || bytes.iter().map(Vec::as_slice).chain(said.iter().copied());
    PLANTED.into_iter().filter(|planted| all().any(|bytes| in_it(bytes, planted))).collect()
}

#[tokio::test]
async fn no_byte_of_a_protected_value_is_anywhere() {
    let key = Keyed::new(KEY);
    let fixed = [&ALL[..], &["--table", "people", "--protect-key-file", &key.file, "--compression", "none"]].concat();
    for version in both() {
        let pg = people(version).await;
        for format in ["parquet", "csv", "ndjson"] {
            for args in [&["--manifest-stats", "all"][..], &["--partitions", "3", "--log-format", "json"]] {
                let folder = tempfile::tempdir().unwrap();
                let dest = folder.path().join("out");
                let all = [&fixed[..], &["--format", format], args].concat();
                let run = command(&pg, dest.to_str().unwrap(), &all).run().await.expect(0);
                assert_eq!(seen(&dest, &[&run.stdout, run.stderr.as_bytes()]), BTreeSet::new(), "{format} {args:?}");
                assert!(!run.stderr.contains(KEY));
            }
        }
    }
}

#[tokio::test]
async fn without_protection_the_values_would_show() {
    let pg = people(18).await;
    let folder = tempfile::tempdir().unwrap();
    for (format, off, shown) in [("parquet", "", 0), ("parquet", "protect", 2), ("ndjson", "protect", 2)] {
        let dest = folder.path().join(format!("{format}{off}"));
        let args = ["--table", "people", "--columns", "id,phone,ssn", "--format", format, "--compression", "none"];
        let args = [&args[..], &["--protect", "phone=mask", "--protect", "ssn=null"]].concat();
        command(&pg, dest.to_str().unwrap(), &args).env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        assert_eq!(seen(&dest, &[]).len(), shown, "{format} {off:?}");
    }
}

#[tokio::test]
async fn records_of_a_dead_run_have_no_protected_value_and_it_goes_on_under_its_key_alone() {
    let pg = people(18).await;
    let (key, other) = (Keyed::new(KEY), Keyed::new("another key of some length"));
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    let to = dest.to_str().unwrap();
    let moved = key.folder.path().join("moved");
    let args = [
        &ALL[..],
        &["--table", "people", "--format", "csv", "--csv-header", "off", "--protect-key-file", &key.file],
        &["--partitions", "3", "--keep-snapshot", "60s", "--manifest-stats", "all"],
    ]
    .concat();
    let stop = Stop::at("receipted");
    let running = command(&pg, to, &args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    running.wait().await;
    assert_eq!(seen(&dest, &[]), BTreeSet::new());
    for text in files(&dest).into_keys().map(|path| std::fs::read(dest.join(path)).unwrap()) {
        assert!(!String::from_utf8_lossy(&text).contains(KEY));
    }
    let resume = || outhaul(["resume", to, "--from", &pg.url, "--report", "json"]).limit(LIMIT);
    std::fs::rename(&key.file, &moved).unwrap();
    std::fs::copy(&other.file, &key.file).unwrap();
    let run = resume().run().await.expect(2);
    assert!(run.stderr.contains("another than the one"), "{}", run.stderr);
    std::fs::rename(&moved, &key.file).unwrap();
    resume().run().await.expect(0);
    let whole = export(&pg, &args).await.expect(0).sorted();
    let text: Vec<String> = parts(&manifest(&dest))
        .iter()
        .flat_map(|part| {
            let text = std::fs::read_to_string(dest.join(part["path"].as_str().unwrap())).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(text.into_iter().collect::<BTreeSet<_>>(), whole.into_iter().collect::<BTreeSet<_>>());
}

#[tokio::test]
async fn values_are_what_is_promised_and_equal_ones_stay_equal() {
    let key = Keyed::new(KEY);
    for version in both() {
        let pg = people(version).await;
        let args = [&ALL[..], &["--table", "people", "--protect-key-file", &key.file, "--where", "id in (7, 57, 501)"]]
            .concat();
        let done = export_csv(&pg, &args, 0).await;
        let pin = hash("987654321");
        let email = hash("plantedmail7@example.org");
        let expected = [
            "501,,,,,".to_owned(),
            format!("57,{email},xxxxxxxxxxxx 00 (x),,{pin},open 57"),
            format!("7,{email},xxxxxxxxxxxx 0 (x),,{pin},open 7"),
        ];
        assert_eq!(done.sorted(), expected, "{version}");
        let manifest = done.manifest();
        let protections: Vec<(&str, Option<&str>)> = manifest["schema"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| (column["name"].as_str().unwrap(), column["protection"].as_str()))
            .collect();
        let expected = [
            ("id", None),
            ("email", Some("hash")),
            ("phone", Some("mask")),
            ("born", Some("null")),
            ("pin", Some("hash")),
            ("v", None),
        ];
        assert_eq!(protections, expected);
        assert_eq!(manifest["schema"][4]["pg_type"], "text");
        assert_eq!(manifest["protection_key"].as_str().unwrap().len(), 16);
        outhaul(["verify", done.dest().to_str().unwrap(), "--read-data"]).run().await.expect(0);
        let plan = [&["plan", "--from", &pg.url, "--report", "json", "--to", "out.d"], &args[..]].concat();
        let plan = outhaul(plan).run().await.expect(0).report;
        let told: Vec<Option<&str>> =
            plan["columns"].as_array().unwrap().iter().map(|column| column["protection"].as_str()).collect();
        assert_eq!(told, [None, Some("hash"), Some("mask"), Some("null"), Some("drop"), Some("hash"), None]);
    }
}

#[tokio::test]
async fn hashes_of_both_sources_and_of_a_command_are_the_same() {
    let server = clickhouse().await;
    server
        .run(
            "CREATE TABLE people (id UInt32, email Nullable(String), n Int64, day Date) ENGINE = MergeTree ORDER BY id",
        )
        .await;
    server.run("INSERT INTO people VALUES (1, 'a@b', -5, '2026-11-28'), (2, NULL, 7, '2020-02-29')").await;
    let pg = pg(18).await;
    pg.batch("create table people (id int, email text, n bigint, day date); insert into people values (1, 'a@b', -5, '2026-11-28'), (2, null, 7, '2020-02-29')").await;
    let printed = format!("echo '{KEY}'");
    let args = [
        "--table",
        "people",
        "--format",
        "csv",
        "--csv-header",
        "off",
        "--protect",
        "email=hash",
        "--protect",
        "n=hash",
        "--protect",
        "day=hash",
        "--protect-key-command",
        &printed,
    ];
    let postgres = export(&pg, &args).await.expect(0);
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    server.export(&[&args[..], &["--to", dest.to_str().unwrap()]].concat()).run().await.expect(0);
    let line = |n: &str, email: String, number: &str, day: &str| format!("{n},{email},{},{}", hash(number), hash(day));
    let expected = [line("1", hash("a@b"), "-5", "2026-11-28"), line("2", String::new(), "7", "2020-02-29")];
    assert_eq!(postgres.sorted(), expected);
    let path = parts(&manifest(&dest))[0]["path"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(dest.join(path)).unwrap().lines().collect::<Vec<_>>(), expected);
    assert_eq!(postgres.manifest()["protection_key"], manifest(&dest)["protection_key"]);
}

/// A rule is of the source's column too, whatever the output calls it.
#[tokio::test]
async fn another_name_takes_no_column_out_of_its_protection() {
    let pg = pg(18).await;
    pg.batch("create table t (id int, email text); insert into t values (1, 'ada@example.com')").await;
    let dest = tempfile::tempdir().unwrap();
    for (nth, (rules, expected)) in [
        (&["email=mask"][..], "1,xxx@xxxxxxx.xxx\n"),
        (&["email=mask", "contact=null"], "1,\n"),
        (&["contact=mask", "email=null"], "1,\n"),
        (&["contact=mask"], "1,xxx@xxxxxxx.xxx\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let to = dest.path().join(nth.to_string());
        let mut args =
            vec!["export", "--from", &pg.url, "--table", "t", "--to", to.to_str().unwrap(), "--format", "csv"];
        args.extend(["--csv-header", "off", "--rename", "email=contact"]);
        args.extend(rules.iter().flat_map(|rule| ["--protect", rule]));
        outhaul(&args).run().await.expect(0);
        assert_eq!(String::from_utf8(crate::support::job::data(&to)).unwrap(), expected, "{rules:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_protected_is_refused() {
    let pg = people(15).await;
    let key = Keyed::new(KEY);
    let short = Keyed::new("short");
    let (key, short) = (key.file, short.file);
    for (args, why) in [
        (&["--protect", "nobody=drop"][..], "nobody"),
        (&["--protect", "pin=mask"], "mask is for text"),
        (&["--protect", "email=hash"], "there is no key"),
        (&["--protect", "email=hash", "--protect-key-file", &short], "too short"),
        (&["--protect", "email=hash", "--protect-key-file", "no-such-file"], "no-such-file"),
        (&["--protect", "email=hash", "--protect-key-command", "exit 3"], "--protect-key-command failed"),
        (&["--protect", "email=hash", "--protect-key-file", &key, "--protect-key-command", "x"], "both given"),
        (&["--protect", "email=drop", "--protect-key-file", &key], "no column is to be hashed"),
        (&["--protect", "id=null", "--max-rows", "5"], "ordered or split"),
        (&["--protect", "email=null", "--key", "email"], "ordered or split"),
        (&["--rename", "email=e", "--protect", "e=null", "--key", "email"], "ordered or split"),
        (&["--protect", "v=drop", "--partition-by", "v"], "makes folders"),
        (&["--protect", "id=null", "--read-mode", "keyset"], "ordered or split"),
        (&["--protect", "id=null", "--watermark", "id"], "the files have the watermark \"id\" not as it is"),
        (&["--protect", "id=drop", "--watermark", "id"], "the files have the watermark \"id\" not as it is"),
        (
            &["--rename", "id=i", "--protect", "i=hash", "--protect-key-file", &key, "--watermark", "id"],
            "the watermark \"id\"",
        ),
        (&["--columns", "v", "--protect", "v=drop"], "every column"),
        (&["--protect-file", "no-such-file"], "no-such-file"),
    ] {
        let all = [&["--table", "people"], args].concat();
        let run = command(&pg, "out.d", &all).run().await.expect(2);
        assert!(run.stderr.contains(why), "{args:?}: {}", run.stderr);
        assert!(!run.stderr.contains(KEY), "{}", run.stderr);
    }
}

/// What no two formats have one text of would have no equal hashes.
#[tokio::test]
async fn what_formats_have_different_texts_of_is_not_hashed() {
    let pg = pg(18).await;
    pg.batch(
        "create extension ltree; create domain fee as money;
        create table t as select '12.34'::money as price, '1.2'::ltree as path, '{\"a\":1}'::jsonb as j, '1'::fee as fee,
            42::numeric as n, 42::numeric(9, 2) as two, array['{\"a\":1}'::jsonb] as js, 7 as i",
    )
    .await;
    let key = Keyed::new(KEY);
    for (column, format, more, code) in [
        ("price", "csv", "", 2),
        ("price", "ndjson", "", 2),
        ("fee", "parquet", "", 2),
        ("path", "ndjson", "", 2),
        ("j", "ndjson", "", 0),
        ("js", "ndjson", "", 2),
        ("n", "parquet", "text", 0),
        ("n", "parquet", "decimal(38,9)", 2),
        ("n", "parquet", "double", 2),
        ("two", "parquet", "decimal(38,9)", 0),
        ("i", "parquet", "double", 0),
    ] {
        let protect = format!("{column}=hash");
        let fixed = ["--table", "t", "--format", format, "--protect", &protect, "--protect-key-file", &key.file];
        let numeric = ["--unconstrained-numeric", more];
        let args = [&fixed[..], if more.is_empty() { &[] } else { &numeric }].concat();
        let folder = tempfile::tempdir().unwrap();
        let run = command(&pg, folder.path().to_str().unwrap(), &args).run().await.expect(code);
        assert!(code == 0 || run.stderr.contains("cannot be protected by hash"), "{}", run.stderr);
    }
}

/// A second column of a name has a number in the output, and is protected as the first.
#[tokio::test]
async fn a_number_behind_a_name_takes_no_column_out_of_its_protection() {
    let pg = pg(18).await;
    let query = "select 1 as id, 'planted one' as email, 'planted two' as email";
    for how in ["email=null", "email=drop", "email_2=null"] {
        let folder = tempfile::tempdir().unwrap();
        let args = ["--query", query, "--duplicate-columns", "suffix", "--format", "csv", "--protect", how];
        let dest = folder.path().join("out");
        command(&pg, dest.to_str().unwrap(), &args).run().await.expect(0);
        let text = String::from_utf8(crate::support::job::data(&dest)).unwrap();
        assert!(!text.contains("planted two"), "{how}: {text}");
        assert_eq!(text.contains("planted one"), how == "email_2=null", "{how}: {text}");
    }
}

/// An error names the row by its key, unless that is protected.
#[tokio::test]
async fn an_error_names_no_protected_value() {
    let pg = pg(18).await;
    pg.batch("create table odd (id int primary key, n numeric(5, 2)); insert into odd values (987654321, 'NaN')").await;
    for (args, off, named) in
        [(&[][..], "", true), (&["--protect", "id=null"], "", false), (&["--protect", "id=null"], "hidden_keys", true)]
    {
        let all = [&["--table", "odd"], args].concat();
        let folder = tempfile::tempdir().unwrap();
        let run =
            command(&pg, folder.path().to_str().unwrap(), &all).env("OUTHAUL_TEST_OFF", off).run().await.expect(14);
        assert_eq!(run.stderr.contains("987654321"), named, "{}", run.stderr);
    }
}

/// A server quotes in its own words the value that it stumbled over.
#[tokio::test]
async fn the_words_of_a_server_are_told_of_no_protected_value() {
    let pg = people(18).await;
    pg.batch("create function loud(text) returns int language plpgsql as $$ begin raise exception 'no: %', $1; end $$")
        .await;
    let server = clickhouse().await;
    server.run("CREATE TABLE people (id UInt32, email String) ENGINE = MergeTree ORDER BY id").await;
    server.run("INSERT INTO people SELECT number, 'plantedmail' || toString(number) FROM numbers(10)").await;
    for (of_clickhouse, args) in [
        (false, &["--where", "email::int > 5"][..]),
        (false, &["--column", "n=email::int"]),
        (false, &["--column", "n=loud(email)"]),
        // The rows are counted before they are read.
        (false, &["--where", "email::int > 5", "--max-rows", "2"]),
        (false, &["--where", "email::int > 5", "--max-rows", "2", "--key", "id"]),
        (true, &["--where", "toInt32(email) > 5"]),
        (true, &["--column", "n=toInt32(email)"]),
    ] {
        for (off, seen) in [("", false), ("hidden-words", true)] {
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("out");
            let fixed =
                ["--table", "people", "--protect", "email=null", "--to", to.to_str().unwrap(), "--format", "csv"];
            let all = [&fixed[..], args].concat();
            let run = if of_clickhouse {
                server.export(&all)
            } else {
                outhaul(
                    ["export", "--from", &pg.url, "--report", "json", "--log-format", "json", "-v"].iter().chain(&all),
                )
            };
            let run = run.env("OUTHAUL_TEST_OFF", off).run().await.expect(15);
            let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
            assert_eq!(said.contains("plantedmail"), seen, "{args:?} {off:?}: {said}");
            assert!(seen || said.contains("a column that is protected"), "{said}");
        }
    }
    // What is wrong with the text itself is told, and so is what is not there.
    for (table, more, told) in [
        ("people", &["--where", "emial = 'x'"][..], "emial"),
        ("people", &["--where", "id in (select id from nowhere)", "--max-rows", "2"], "nowhere"),
        ("people", &["--where", "v @@ 'a b'::tsquery", "--max-rows", "2"], "a b"),
        ("poeple", &[], "poeple"),
        ("no.people", &[], "no.people"),
    ] {
        let args = [&["--table", table, "--protect", "email=null"], more].concat();
        let run = command(&pg, "out.d", &args).run().await;
        assert!(run.code != 0 && run.stderr.contains(told), "{args:?}: {}", run.stderr);
    }
}

/// A value may be a name or a text that the server reads: what is wrong with it is no mistake of a person.
#[tokio::test]
async fn a_value_that_is_read_as_a_text_is_quoted_by_nobody() {
    let pg = people(18).await;
    pg.batch("update people set ssn = 'plantedssn ' || id || ' no query'").await;
    let relation = "pg_relation_size(email::regclass) > 5";
    for (args, code) in [
        (&["--where", "v::tsvector @@ ssn::tsquery", "--max-rows", "2"][..], 15),
        (&["--where", relation, "--max-rows", "2"], 13),
        (&["--where", "split_part(email, '@', 1)::regrole::oid = 5", "--max-rows", "2"], 15),
        (&["--where", "split_part(email, '@', 1)::regnamespace::oid = 5", "--max-rows", "2"], 13),
        // The same while rows are read.
        (&["--where", "v::tsvector @@ ssn::tsquery"], 15),
        (&["--where", relation], 13),
        (&["--column", "n=pg_relation_size(email::regclass)"], 13),
        (&["--column", "n=split_part(email, '@', 1)::regnamespace::oid"], 13),
    ] {
        for (off, planted) in [("", false), ("hidden-words", true)] {
            let fixed = ["--table", "people", "--protect", "email=null", "--protect", "ssn=null", "--format", "csv"];
            let all = [&fixed[..], args, &["-v"]].concat();
            let folder = tempfile::tempdir().unwrap();
            let run = command(&pg, folder.path().to_str().unwrap(), &all).env("OUTHAUL_TEST_OFF", off).run().await;
            let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
            assert_eq!(run.code, code, "{args:?}: {said}");
            assert_eq!(said.contains("planted"), planted, "{args:?} {off:?}: {said}");
            assert!(planted || said.contains("a column that is protected"), "{args:?}: {said}");
        }
    }
}

/// Rows that came since are counted where a partition is planned anew.
#[tokio::test]
async fn planning_anew_tells_of_no_protected_value() {
    for (off, planted) in [("", false), ("hidden-words", true)] {
        let server = clickhouse().await;
        server.run("CREATE TABLE people (id UInt32, email String) ENGINE = MergeTree ORDER BY id").await;
        server.run("INSERT INTO people SELECT number, toString(number) FROM numbers(1000)").await;
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let fixed = ["--table", "people", "--protect", "email=null", "--where", "toInt32(email) >= 0"];
        let args = [&fixed[..], &["--partitions", "2", "--to", to.to_str().unwrap()]].concat();
        let stop = Stop::at("planned");
        let running = server.export(&args).env("OUTHAUL_TEST_OFF", off).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        server.run("INSERT INTO people VALUES (2000, 'plantedmail')").await;
        server.run("OPTIMIZE TABLE people FINAL").await;
        stop.release();
        let run = running.wait().await;
        let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
        assert_eq!(run.code, 15, "{said}");
        assert!(said.contains("counting the rows of each part"), "{said}");
        assert_eq!(said.contains("plantedmail"), planted, "{off:?}: {said}");
    }
}

/// A cap chooses its rows by an order, and neither tells anything of a protected column.
#[tokio::test]
async fn no_protected_column_chooses_the_rows_of_a_cap_of_clickhouse() {
    let server = clickhouse().await;
    for (name, key) in [("by_email", "email"), ("by_part", "(id, lower(email))"), ("by_id", "id")] {
        server
            .run(&format!("CREATE TABLE {name} (id UInt32, email String, v String) ENGINE = MergeTree ORDER BY {key}"))
            .await;
        server
            .run(&format!("INSERT INTO {name} SELECT 7, toString(10 - number), toString(number) FROM numbers(10)"))
            .await;
    }
    let cap = ["--max-rows", "3", "--allow-truncated", "--format", "csv", "--csv-header", "off"];
    let key = Keyed::new(KEY);
    let hashed = ["--protect", "email=hash", "--protect-key-file", &key.file];
    for (table, more, code) in [
        ("by_email", &hashed[..], 2),
        ("by_part", &hashed, 2),
        ("by_email", &["--rename", "email=e", "--protect", "e=drop"], 2),
        ("by_email", &["--protect", "v=null"], 0),
        ("by_email", &["--protect", "email=null", "--key", "id"], 0),
        ("by_id", &hashed, 0),
        ("by_id", &["--protect", "email=null"], 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("out");
        let args = [&["--table", table, "--to", dest.to_str().unwrap()], &cap[..], more].concat();
        let run = server.export(&args).run().await.expect(code);
        if code == 2 {
            assert!(run.stderr.contains("ordered or split by it"), "{args:?}: {}", run.stderr);
            continue;
        }
        let manifest = manifest(&dest);
        // A hash tells rows apart that nothing orders.
        let order = if more == hashed { "unspecified" } else { "key" };
        assert_eq!(manifest["row_cap"]["order"], order, "{args:?}");
        let text = String::from_utf8(crate::support::job::data(&dest)).unwrap();
        // By the addresses they would be the last three, from 9 on down.
        let first: Vec<&str> = text.lines().map(|line| line.rsplit(',').next().unwrap()).collect();
        let expected = if more.contains(&"v=null") { ["", "", ""] } else { ["0", "1", "2"] };
        assert_eq!(first, expected, "{args:?}");
    }
    // Without a cap nothing is chosen.
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let args = ["--table", "by_email", "--protect", "email=null", "--to", to.to_str().unwrap()];
    server.export(&args).run().await.expect(0);
}

/// Counting again runs the export's own predicate, over rows that have come since.
#[tokio::test]
async fn counting_again_at_the_source_tells_of_no_protected_value() {
    let pg = pg(18).await;
    let server = clickhouse().await;
    pg.batch("create table people (id int primary key, email text)").await;
    server.run("CREATE TABLE people (id UInt32, email String) ENGINE = MergeTree ORDER BY id").await;
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("pg"), folder.path().join("ch"));
    let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    let drop = ["--table", "people", "--protect", "email=drop"];
    outhaul(["export", "--from", &pg.url].iter().chain(&drop).chain(&["--where", "email::int > 5", "--to", ours]))
        .run()
        .await
        .expect(0);
    server.export(&[&drop[..], &["--where", "toInt32(email) > 5", "--to", theirs]].concat()).run().await.expect(0);
    pg.batch("insert into people values (1, 'plantedmail')").await;
    server.run("INSERT INTO people VALUES (1, 'plantedmail')").await;
    for (from, to) in [(pg.url.as_str(), ours), (&server.url("writer"), theirs)] {
        for (off, seen) in [("", false), ("hidden-words", true)] {
            let run = outhaul(["verify", to, "--against-source", "--from", from, "--report", "json", "-v"]);
            let run = run.env("CLICKHOUSE_PASSWORD", &server.password).env("OUTHAUL_TEST_OFF", off).run().await;
            let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
            assert_eq!(run.code, 15, "{said}");
            assert_eq!(said.contains("plantedmail"), seen, "{to} {off:?}: {said}");
        }
    }
}

fn job(pg: &Pg, file: &Path) -> Outhaul {
    outhaul(["run", file.to_str().unwrap(), "--from", &pg.url, "--report", "json", "--progress", "none"])
}

#[tokio::test]
async fn a_file_protects_the_tables_of_a_job_by_the_names_of_their_columns() {
    let pg = people(18).await;
    pg.batch("create table orders (id int, people_email text, total int); insert into orders values (1, 'plantedmail7@example.org', 5)").await;
    let key = Keyed::new(KEY);
    let folder = key.folder.path();
    std::fs::write(
        folder.join("protect.toml"),
        "[columns]\n'*EMAIL' = 'hash'\n'ssn' = 'drop'\n'ph?ne' = 'null'\n'pin' = 'drop'\nidle = 'drop'\n",
    )
    .unwrap();
    let text = format!(
        "[defaults]\nto = '{0}/out/{{table}}'\nformat = 'csv'\ncsv_header = 'off'\nprotect_file = '{0}/protect.toml'\nprotect_key_file = '{1}'\n[[export]]\ntable = 'people'\n[[export]]\ntable = 'orders'\n",
        folder.display(),
        key.file
    );
    let file = folder.join("job.toml");
    std::fs::write(&file, text).unwrap();
    let run = job(&pg, &file).run().await.expect(0);
    assert!(run.stderr.contains("idle"), "an idle pattern is told: {}", run.stderr);
    let out = folder.join("out");
    assert_eq!(seen(&out, &[run.stderr.as_bytes()]), BTreeSet::new());
    let orders = files(&out).into_keys().find(|path| path.contains("orders/data/")).unwrap();
    let orders = std::fs::read_to_string(out.join(orders)).unwrap();
    assert_eq!(orders, format!("1,{},5\n", hash("plantedmail7@example.org")));
    let schema = |name: &str| -> Vec<Value> {
        let folder = files(&out).into_keys().find(|path| path.contains(&format!("{name}/_manifest.json"))).unwrap();
        manifest(out.join(folder).parent().unwrap())["schema"].as_array().unwrap().clone()
    };
    assert_eq!(schema("people").len(), 5);
    assert_eq!(schema("orders")[1]["protection"], "hash");
}
