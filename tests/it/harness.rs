//! The tests' own ground: the servers are what they say, and the judges see what is wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use futures_util::TryStreamExt;
use object_store::MultipartUpload;
use object_store::ObjectStoreExt;
use serde_json::json;

use crate::support::pg::{self, Pg, both, pg};
use crate::support::run::{outhaul, program};
use crate::support::s3::s3;
use crate::support::watch::Watcher;
use crate::support::{eventually, manifest, oracle};

#[tokio::test]
async fn the_servers_have_the_versions_that_they_claim() {
    for version in both() {
        let pg = pg(version).await;
        let number: u32 = pg.value("show server_version_num").await.parse().unwrap();
        assert_eq!((number / 10_000, pg.version), (version, version));
        assert_eq!(pg.value("show server_encoding").await, "UTF8");
        assert_eq!(pg.exporter_sessions().await, 0);
    }
}

#[tokio::test]
async fn a_database_belongs_to_one_test_and_goes_with_it() {
    for version in both() {
        let [one, other] = [pg(version).await, pg(version).await];
        one.batch("create table t (x int); insert into t values (1), (null)").await;
        assert_eq!(one.sql("select x from t").await, [[Some("1".to_owned())], [None]]);
        assert_eq!(other.value("select count(*) from pg_class where relname = 't'").await, "0");
        let name = one.value("select current_database()").await;
        let _still_open = one.connect().await;
        drop(one);
        assert_eq!(other.value(&format!("select count(*) from pg_database where datname = '{name}'")).await, "0");
    }
}

#[tokio::test]
async fn lineitem_is_numbered_analysed_and_a_copy() {
    for version in both() {
        let [changed, kept] = [pg::lineitem(version).await, pg::lineitem(version).await];
        changed.batch("delete from lineitem where id > 10").await;
        assert_eq!(changed.value("select count(*) from lineitem").await, "10");
        let range = kept.sql("select count(*), min(id), max(id), count(distinct id) from lineitem").await;
        assert_eq!(range[0], ["60175", "1", "60175", "60175"].map(|text| Some(text.to_owned())));
        let columns = "select count(*) from pg_stats where tablename = 'lineitem'";
        assert_eq!(kept.value(columns).await, "17");
    }
}

#[tokio::test]
async fn s3_stores_lists_and_keeps_uploads_open() {
    let s3 = s3();
    assert_eq!(s3.list("").await, BTreeMap::new());
    s3.put("data/a b", b"four").await;
    assert_eq!(s3.list("").await, BTreeMap::from([("data/a b".to_owned(), 4)]));
    assert_eq!(s3.list("data/").await, BTreeMap::from([("a b".to_owned(), 4)]));
    assert_eq!(s3.get("data/a b").await, b"four");

    let mut upload = s3.client().put_multipart(&s3.key("data/open").into()).await.unwrap();
    upload.put_part(vec![0; 5 << 20].into()).await.unwrap();
    assert_eq!(s3.open_uploads().await, [s3.key("data/open")]);
    assert_eq!(s3.list("data").await.len(), 1);
    upload.abort().await.unwrap();
    assert!(s3.open_uploads().await.is_empty());
}

#[tokio::test]
async fn the_reading_identity_cannot_write_to_s3() {
    let s3 = s3();
    let environment = BTreeMap::from(s3.read_only_env());
    let client = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(&environment["AWS_ENDPOINT"])
        .with_region(&environment["AWS_REGION"])
        .with_allow_http(true)
        .with_access_key_id(&environment["AWS_ACCESS_KEY_ID"])
        .with_secret_access_key(&environment["AWS_SECRET_ACCESS_KEY"])
        .with_bucket_name(&s3.bucket)
        .build()
        .unwrap();
    let refused = client.put(&s3.key("x").into(), "x".into()).await.unwrap_err();
    assert!(matches!(refused, object_store::Error::PermissionDenied { .. }), "{refused:?}");
    s3.put("x", b"x").await;
    client.get(&s3.key("x").into()).await.unwrap();
}

#[tokio::test]
async fn the_watchers_see_a_file_that_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let watcher = Watcher::local(&folder.path().join("data"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    std::fs::create_dir_all(folder.path().join("data/deep")).unwrap();
    std::fs::write(folder.path().join("data/deep/part"), "four").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::remove_file(folder.path().join("data/deep/part")).unwrap();
    let seen = watcher.stop().await;
    let listings: Vec<_> = seen.changes.iter().map(|(_, listing)| listing.clone()).collect();
    let there = BTreeMap::from([("deep/part".to_owned(), 4)]);
    assert_eq!(listings, [BTreeMap::new(), there, BTreeMap::new()]);
    assert!(seen.looks > 3, "{} looks", seen.looks);
    assert!(seen.changes.is_sorted_by_key(|(at, _)| *at));

    let s3 = s3();
    let watcher = Watcher::s3(&s3, "data");
    // Its first look may come after the object, but not after the stop.
    tokio::time::sleep(Duration::from_millis(200)).await;
    s3.put("data/part", b"four").await;
    let seen = watcher.stop().await;
    let listings: Vec<_> = seen.changes.iter().map(|(_, listing)| listing.clone()).collect();
    assert_eq!(listings, [BTreeMap::new(), BTreeMap::from([("part".to_owned(), 4)])]);
}

#[tokio::test]
async fn a_run_has_a_code_a_report_a_clean_environment_and_a_limit() {
    let script = r#"echo "$GREETING" >&2; env | wc -l; echo '{"status":"complete"}'; exit 3"#;
    let run = program("/bin/sh", ["-c", script]).env("GREETING", "good day").run().await.expect(3);
    assert_eq!(run.stderr, "good day\n");
    assert_eq!(run.report, json!({"status": "complete"}));
    // PATH, HOME, TMPDIR, GREETING, and what the shell itself sets (PWD).
    assert!(run.stdout.starts_with(b"5\n"), "{}", run.stdout.escape_ascii());

    let waiting =
        program("/bin/sh", ["-c", "trap 'exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done"]).spawn();
    waiting.stderr_has("ready").await;
    waiting.signal("TERM").await;
    let run = waiting.wait().await.expect(7);
    assert!(run.memory_peak > 100_000, "{} bytes", run.memory_peak);
    assert_eq!(run.report, json!(null));

    let killed = program("/bin/sleep", ["60"]).spawn();
    killed.signal("KILL").await;
    killed.wait().await.expect(137);

    let hang = program("/bin/sleep", ["60"]).limit(Duration::from_millis(200)).run();
    let failed = tokio::spawn(hang).await.unwrap_err();
    assert!(failed.is_panic());
}

#[tokio::test]
async fn the_binary_runs() {
    outhaul(["--version"]).envs(s3().env()).run().await.expect(0);
}

/// Values that exporters get wrong, of types whose text PostgreSQL's COPY and `row_to_json` give.
const NASTY: &str = r#"
create table nasty (id int, t text, c char(4), b boolean, n numeric(12,3), f float8, r real, d date, ts timestamp, x bytea,
    j jsonb);
insert into nasty values
    (1, null, null, null, null, null, null, null, null, null, null),
    (2, '', '', true, 0, 0, 0, '2000-01-01', '2000-01-01', '', '{}'),
    (3, 'a "quoted", \back\ (word)', 'a,"b', false, -0.050, 1e15, 1e6, '1999-12-31', '2024-02-29 23:59:59.5', '\x00ff',
        '{"a": 1.10, "b": [null, "x"]}'),
    (4, E'line\nbreak\r\nand\ttab', ' ', true, 123456789.125, 123456789012345, 123456, '9999-12-31',
        '1970-01-01 00:00:00.000001', '\xdeadbeef', '"text"'),
    (5, 'NULL', 'null', false, 7, -1.5e-7, 0.00001, '0001-01-01', '0001-01-01', '\x22', 'false'),
    (6, E'\\N', '\N', false, 7, 3.14159, 16777216, '2024-02-29', '2024-02-29 00:00:00', '\x0a', '[]'),
    (7, ' ünï 🦀 ', 'ü', true, 7.1, 1.7976931348623157e308, 3.4e38, '2024-02-29', '2024-02-29 00:00:00', '\x0a', '[{}]');
"#;

#[tokio::test]
async fn the_oracle_agrees_with_copy_and_row_to_json_on_nasty_values() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(NASTY).await;
        let expected = oracle::query(&pg, "select * from nasty").await;
        assert_eq!(expected.rows, 7);
        for format in ["csv", "ndjson"] {
            let dest = tempfile::tempdir().unwrap();
            publish(&pg, "nasty", format, dest.path()).await;
            assert_eq!(oracle::local(dest.path(), &[]).await, expected, "{format}");
        }
        let changed = oracle::query(&pg, "select * from nasty where id <> 7").await;
        assert_ne!(changed, expected);
        let null = "select id, case when id <> 2 then t end as t, c, b, n, f, r, d, ts, x, j from nasty";
        assert_ne!(oracle::query(&pg, null).await, expected, "the empty string is not NULL");
    }
}

#[tokio::test]
async fn the_fast_and_the_exact_reader_agree_with_postgresql_on_lineitem() {
    let [version, _] = both();
    let pg = pg::lineitem(version).await;
    let expected = oracle::query(&pg, "select * from lineitem").await;
    for (format, reader) in [("csv", "--exact"), ("csv", "--fast"), ("ndjson", "--exact"), ("ndjson", "--fast")] {
        let dest = tempfile::tempdir().unwrap();
        publish(&pg, "lineitem", format, dest.path()).await;
        assert_eq!(oracle::local(dest.path(), &[reader]).await, expected, "{format} {reader}");
    }
}

#[tokio::test]
async fn the_oracle_reads_s3() {
    let (pg, s3) = (pg(18).await, s3());
    pg.batch(NASTY).await;
    let dest = tempfile::tempdir().unwrap();
    publish(&pg, "nasty", "csv", dest.path()).await;
    for name in ["_manifest.json", PART] {
        let name = name.replace("FORMAT", "csv");
        s3.put(&format!("dest/{name}"), &std::fs::read(dest.path().join(&name)).unwrap()).await;
    }
    assert_eq!(oracle::on_s3(&s3, "dest", &[]).await, oracle::query(&pg, "select * from nasty").await);
}

#[tokio::test]
async fn the_oracle_names_every_difference_between_manifest_and_destination() {
    let pg = pg(15).await;
    pg.batch("create table t as select i as id, i::text as t from generate_series(1, 9) i").await;
    let dest = tempfile::tempdir().unwrap();
    publish(&pg, "t", "csv", dest.path()).await;
    assert_eq!(oracle::problems(dest.path(), &[]).await, [""; 0]);
    let part = dest.path().join(PART.replace("FORMAT", "csv"));
    let bytes = std::fs::read(&part).unwrap();
    let check = async |expected: &[&str]| {
        let problems = oracle::problems(dest.path(), &[]).await;
        for text in expected {
            assert!(problems.iter().any(|problem| problem.contains(text)), "no {text:?} in {problems:?}");
        }
    };

    std::fs::write(dest.path().join("data/stray"), "x").unwrap();
    std::fs::write(dest.path().join("_SUCCESS"), "{}").unwrap();
    check(&["data/stray is there, but not in the manifest"]).await;
    assert_eq!(oracle::problems(dest.path(), &["--no-listing"]).await, [""; 0]);

    let mut flipped = bytes.clone();
    *flipped.iter_mut().rev().nth(1).unwrap() ^= 1;
    std::fs::write(&part, flipped).unwrap();
    check(&["CRC64NVME"]).await;
    std::fs::write(&part, &bytes[..bytes.len() - 4]).unwrap();
    check(&["bytes", "CRC64NVME", "8 rows"]).await;
    std::fs::remove_file(&part).unwrap();
    check(&["is in the manifest, but not there"]).await;

    std::fs::write(&part, bytes).unwrap();
    let mut wrong = manifest(dest.path());
    wrong["totals"]["rows"] = json!(10);
    std::fs::write(dest.path().join("_manifest.json"), wrong.to_string()).unwrap();
    check(&["totals.rows is 10, the parts add up to 9"]).await;
}

#[tokio::test]
async fn six_million_rows_of_lineitem_are_there() {
    for version in both() {
        let pg = pg::lineitem_sf1(version).await;
        assert_eq!(pg.value("select count(*) from lineitem").await, "6001215");
    }
}

#[tokio::test]
async fn a_query_under_a_held_snapshot_ignores_later_writes() {
    let pg = pg(15).await;
    pg.batch("create table t as select 1 as x").await;
    let session = pg.connect().await;
    session.batch_execute("begin isolation level repeatable read; select * from t").await.unwrap();
    pg.batch("insert into t values (2)").await;
    assert_eq!(oracle::query_in(&session, "select * from t").await.rows, 1);
    let now = eventually(Duration::from_secs(5), "the write", async || {
        Some(oracle::query(&pg, "select * from t").await).filter(|contents| contents.rows == 2)
    });
    assert_eq!(now.await.columns, ["x"]);
}

const PART: &str = "data/part-00000-000-00000000.FORMAT";

/// Makes an export of one part without any code of ours: PostgreSQL writes the part.
async fn publish(pg: &Pg, table: &str, format: &str, dest: &Path) {
    let copy = match format {
        "csv" => format!("copy {table} to stdout with (format csv, header)"),
        // CSV with a delimiter, quote and escape that do not occur leaves JSON as it is.
        _ => format!(
            r"copy (select row_to_json(whole)::text from {table} as whole) to stdout with (format csv, quote E'\x01', delimiter E'\x02')"
        ),
    };
    let client = pg.connect().await;
    let chunks: Vec<_> = client.copy_out(&copy).await.unwrap().try_collect().await.unwrap();
    let part = chunks.concat();
    let path = PART.replace("FORMAT", format);
    std::fs::create_dir_all(dest.join("data")).unwrap();
    std::fs::write(dest.join(&path), &part).unwrap();

    let rows: u64 = pg.value(&format!("select count(*) from {table}")).await.parse().unwrap();
    let types = "select attname, format_type(atttypid, atttypmod) from pg_attribute";
    let types = format!("{types} where attrelid = '{table}'::regclass and attnum > 0 order by attnum");
    let schema: Vec<_> =
        pg.sql(&types).await.into_iter().map(|row| json!({"name": row[0], "pg_type": row[1]})).collect();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &part);
    let crc = base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes());
    let manifest = json!({
        "schema": schema,
        "totals": {"parts": 1, "rows": rows, "bytes": part.len()},
        "parts": [{
            "path": path, "rows": rows, "bytes": part.len(), "crc64nvme": crc, "header_rows": u32::from(format == "csv"),
        }],
    });
    std::fs::write(dest.join("_manifest.json"), manifest.to_string()).unwrap();
}
