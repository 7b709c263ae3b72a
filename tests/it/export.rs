//! The main job: contents equal to PostgreSQL's, in every format, from every version, to every kind of destination.

use std::time::Duration;

use serde_json::Value;

use crate::support::job::{self, command, export, no_sessions_left, parts};
use crate::support::oracle::{self, Contents};
use crate::support::pg::{self, Pg};
use crate::support::s3::{S3, s3};
use crate::support::{eventually, manifest};

/// Where an export goes.
#[derive(Clone, Copy)]
enum Place {
    Local,
    S3,
}

/// Every format with every number of readers; every two of version, format, readers and place meet once at least.
const ON_15: [(&str, &str, Place); 5] = [
    ("parquet", "1", Place::Local),
    ("csv", "2", Place::S3),
    ("ndjson", "8", Place::Local),
    ("csv", "1", Place::S3),
    ("parquet", "8", Place::S3),
];
const ON_18: [(&str, &str, Place); 5] = [
    ("parquet", "2", Place::S3),
    ("csv", "8", Place::Local),
    ("ndjson", "1", Place::S3),
    ("ndjson", "2", Place::Local),
    ("csv", "2", Place::Local),
];

#[tokio::test]
async fn lineitem_equals_postgresql_15_in_every_format() {
    equal_in(15, &ON_15).await;
}

#[tokio::test]
async fn lineitem_equals_postgresql_18_in_every_format() {
    equal_in(18, &ON_18).await;
}

async fn equal_in(version: u32, cases: &[(&str, &str, Place)]) {
    let pg = pg::lineitem(version).await;
    let expected = oracle::query(&pg, "select * from lineitem").await;
    assert_eq!(expected.rows, 60_175);
    for (format, readers, place) in cases {
        let args = ["--table", "public.lineitem", "--format", format, "--readers", readers, "--partitions", "6"];
        let limit = Duration::from_mins(1);
        let (found, manifest) = contents(&pg, *place, &args, limit).await;
        assert_eq!(found, expected, "{format} with {readers} readers");
        assert!(manifest["totals"]["parts"].as_u64().unwrap() >= 6, "{}", manifest["totals"]);
        assert_eq!(
            manifest["source"]["server_version"].as_str().unwrap().split('.').next().unwrap(),
            version.to_string()
        );
        assert_eq!(manifest["consistency"]["mode"], "single_snapshot");
    }
    no_sessions_left(&pg).await;
}

/// Exports, and has the result judged.
async fn contents(pg: &Pg, place: Place, args: &[&str], limit: Duration) -> (Contents, Value) {
    match place {
        Place::Local => {
            let dest = tempfile::tempdir().unwrap();
            command(pg, dest.path().to_str().unwrap(), args).limit(limit).run().await.expect(0);
            (oracle::local(dest.path(), &[]).await, manifest(dest.path()))
        }
        Place::S3 => {
            let s3 = s3();
            let run = command(pg, &s3.url("out/"), args).envs(s3.env()).limit(limit).run().await.expect(0);
            assert_eq!(run.report["destination"], s3.url("out"));
            assert!(s3.open_uploads().await.is_empty());
            (oracle::on_s3(&s3, "out", &[]).await, manifest_on(&s3, "out").await)
        }
    }
}

async fn manifest_on(s3: &S3, path: &str) -> Value {
    serde_json::from_slice(&s3.get(&format!("{path}/_manifest.json")).await).unwrap()
}

#[tokio::test]
async fn six_million_rows_of_postgresql_15_as_parquet_in_a_folder() {
    acceptance(15, &["--format", "parquet", "--readers", "2"], Place::Local).await;
}

#[tokio::test]
async fn six_million_rows_of_postgresql_18_as_csv_on_s3() {
    // Parts roll, so that one partition has several.
    acceptance(18, &["--format", "csv", "--readers", "8", "--part-size", "64MiB"], Place::S3).await;
}

async fn acceptance(version: u32, shape: &[&str], place: Place) {
    let pg = pg::lineitem_sf1(version).await;
    let mut args = vec!["--table", "public.lineitem"];
    args.extend(shape);
    let (found, _) = contents(&pg, place, &args, Duration::from_mins(4)).await;
    assert_eq!(found, oracle::query(&pg, "select * from lineitem").await);
}

#[tokio::test]
async fn every_codec_gives_the_same_contents() {
    let pg = pg::lineitem(18).await;
    let expected = oracle::query(&pg, "select * from lineitem where id <= 3000").await;
    for (format, codec, ending) in [
        ("parquet", "none", ".parquet"),
        ("parquet", "snappy", ".parquet"),
        ("parquet", "zstd:3", ".parquet"),
        ("parquet", "gzip", ".parquet"),
        ("parquet", "lz4", ".parquet"),
        ("csv", "gzip", ".csv.gz"),
        ("csv", "zstd", ".csv.zst"),
        ("ndjson", "gzip:9", ".ndjson.gz"),
        ("ndjson", "zstd:5", ".ndjson.zst"),
    ] {
        let args = ["--table", "lineitem", "--where", "id <= 3000", "--format", format, "--compression", codec];
        let done = export(&pg, &args).await.expect(0);
        assert_eq!(oracle::local(&done.dest(), &[]).await, expected, "{format} {codec}");
        let manifest = done.manifest();
        let (name, level) = match codec.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u64>().unwrap())),
            None => (codec, None),
        };
        let said = &manifest["format_options"]["compression"];
        assert_eq!(said["codec"], name, "{format} {codec}");
        assert!(level.is_none() || said["level"].as_u64() == level, "{format} {codec}: {said}");
        for part in parts(&manifest) {
            assert!(part["path"].as_str().unwrap().ends_with(ending), "{part}");
        }
    }
    for (format, codec) in [("csv", "snappy"), ("ndjson", "lz4"), ("parquet", "bzip2")] {
        let refused = export(&pg, &["--table", "lineitem", "--format", format, "--compression", codec]).await.expect(2);
        assert!(!refused.dest().exists(), "{format} {codec}");
    }
}

#[tokio::test]
async fn parts_joined_by_bytes_are_one_file() {
    let pg = pg::lineitem(15).await;
    let query = "select id, l_comment, l_shipdate from lineitem";
    let expected = job::sorted(&job::copy(&pg, query).await);
    for (compression, name) in [("none", "all.csv"), ("gzip", "all.csv.gz"), ("zstd", "all.csv.zst")] {
        let args = ["--table", "lineitem", "--columns", "id,l_comment,l_shipdate", "--format", "csv"];
        let args = [&args[..], &["--compression", compression, "--partitions", "4"]].concat();
        let done = export(&pg, &args).await.expect(0);
        let manifest = done.manifest();
        assert!(parts(&manifest).len() >= 4);
        let mut joined = Vec::new();
        for part in parts(&manifest) {
            assert_eq!(part["header_rows"], 1);
            let bytes = std::fs::read(done.dest().join(part["path"].as_str().unwrap())).unwrap();
            let header = usize::try_from(part["header_bytes"].as_u64().unwrap()).unwrap();
            // The header of the first part stays: it is that of the whole.
            joined.extend_from_slice(if joined.is_empty() { &bytes } else { &bytes[header..] });
        }
        let plain = job::unpacked(name, &joined);
        let (header, rows) = plain.split_at(plain.iter().position(|byte| *byte == b'\n').unwrap() + 1);
        assert_eq!(header, b"id,l_comment,l_shipdate\n", "{compression}");
        assert!(job::sorted(rows) == expected, "{compression}: other rows");
    }
}

#[tokio::test]
async fn parts_roll_at_part_size_and_hold_every_row_once() {
    let pg = pg::lineitem(18).await;
    for format in ["csv", "ndjson", "parquet"] {
        let args = ["--table", "lineitem", "--format", format, "--partitions", "2", "--part-size", "1MiB"];
        let done = export(&pg, &args).await.expect(0);
        let manifest = done.manifest();
        assert!(format == "parquet" || parts(&manifest).iter().any(|part| part["roll"] == 1), "{format} never rolled");
        assert_eq!(manifest["totals"]["rows"], 60_175, "{format}");
        oracle::local(&done.dest(), &[]).await;
    }
}

#[tokio::test]
async fn writes_throughout_an_export_change_nothing_in_it() {
    for version in pg::both() {
        let pg = pg::lineitem(version).await;
        let (folder, stops) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stop = stops.path().join("planned");
        let args =
            ["--table", "lineitem", "--format", "csv", "--readers", "3", "--partitions", "9", "--progress", "json"];
        let running = command(&pg, folder.path().to_str().unwrap(), &args)
            .env("OUTHAUL_TEST_STOP", format!("planned={}", stop.display()))
            .spawn();
        eventually(Duration::from_secs(30), "the plan", async || stop.exists().then_some(())).await;
        // Its snapshot, in a session of ours that outlives the run.
        let told = async || snapshot_of(&running.stderr());
        let snapshot = eventually(Duration::from_secs(5), "the planned event", told).await;
        let witness = pg.connect().await;
        let import = format!("begin isolation level repeatable read read only; set transaction snapshot '{snapshot}'");
        witness.batch_execute(&import).await.unwrap();
        let expected = oracle::query_in(&witness, "select * from lineitem").await;
        let writer = pg.connect().await;
        let (ended, mut end) = tokio::sync::oneshot::channel::<()>();
        let writing = tokio::spawn(async move {
            let mut rounds = 0_u64;
            while end.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
                rounds += 1;
                let low = rounds * 37 % 60_000;
                let batch = format!(
                    "insert into lineitem select (jsonb_populate_record(l, jsonb_build_object('id', l.id + 100000 * {rounds}))).*
                        from lineitem l where id between {low} and {low} + 100;
                    update lineitem set l_comment = 'changed', l_tax = l_tax + 1 where id between {low} + 200 and {low} + 400;
                    delete from lineitem where id between {low} + 400 and {low} + 600"
                );
                writer.batch_execute(&batch).await.unwrap();
            }
            rounds
        });
        // The table has changed before anything is read, and goes on changing.
        eventually(Duration::from_secs(30), "the first writes", async || {
            let changed = pg.value("select count(*) from lineitem where l_comment = 'changed'").await;
            (changed.parse::<u64>().unwrap() > 1_000).then_some(())
        })
        .await;
        std::fs::remove_file(&stop).unwrap();
        let run = running.wait().await.expect(0);
        ended.send(()).unwrap();
        assert!(writing.await.unwrap() > 5);
        assert_eq!(run.report["snapshot"], snapshot);
        assert_eq!(oracle::local(folder.path(), &[]).await, expected, "{version}");
        assert_eq!(manifest(folder.path())["consistency"]["snapshots"][0]["id"], snapshot);
        assert_eq!(oracle::query_in(&witness, "select * from lineitem").await, expected);
        assert_ne!(oracle::query(&pg, "select * from lineitem").await, expected, "nothing was written");
    }
}

/// The snapshot's id, as the `planned` event tells it.
fn snapshot_of(events: &str) -> Option<String> {
    let mut lines = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let planned = lines.find(|event| event["event"] == "planned")?;
    Some(planned["snapshot"].as_str().unwrap().to_owned())
}
