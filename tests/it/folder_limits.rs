//! `--partition-by`: what makes no sense is refused by its name, and rows that no source sorts are in their folders all the
//! same.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clickhouse_typed::{Target, found};
use crate::support::clickhouse::clickhouse;
use crate::support::job::{command, export, parts};
use crate::support::manifest;
use crate::support::pg::{both, pg};
use crate::support::run::Run;

const LIMIT: Duration = Duration::from_mins(2);

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn expressions_that_say_nothing_of_a_row_are_refused() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create sequence s; create table t (id int primary key, at timestamptz); insert into t values (1, now())",
        )
        .await;
        for (term, why) in [
            ("dt=now()::date", "--partition-by dt: it names no column"),
            ("dt=current_date", "--partition-by dt: it names no column"),
            ("x='id'", "--partition-by x: it names no column"),
            ("id,x=1", "--partition-by x: it names no column"),
            ("x=(random() * 3)::int", "random() is another value each time"),
            ("x=id + nextval('s')::int", "nextval() is another value each time"),
            ("x=count(*)", "x has no value of its own in each row"),
            ("x=ntile(3) over (order by id)", "x has no value of its own in each row"),
            ("x=generate_series(1, id)", "x has no value of its own in each row"),
        ] {
            for args in [&["--table", "t"][..], &["--query", "select * from t"]] {
                let args = [args, &["--partition-by", term, "--dry-run"]].concat();
                let run = command(&pg, "out.d", &args).run().await.expect(2);
                assert!(run.stderr.contains(why), "{version} {args:?}: {}", run.stderr);
            }
        }
        for term in ["x=(at > now())::text", "x=tableoid::text", "x=(select 'one' || t.id)", "x=to_jsonb(t) ->> 'id'"] {
            let done = export(&pg, &["--table", "t", "--partition-by", term]).await.expect(0);
            assert_eq!(parts(&done.manifest()).len(), 1, "{version} {term}");
        }
    }
    let server = clickhouse().await;
    server.run("CREATE TABLE t (id UInt32, at DateTime) ENGINE = MergeTree ORDER BY id").await;
    server.run("INSERT INTO t VALUES (1, now())").await;
    for (term, why) in [
        ("dt=today()", "--partition-by dt: it names no column"),
        ("x=1", "--partition-by x: it names no column"),
        ("x=toUInt8(rand() % 3)", "rand is another value each time"),
        ("x=toUInt8(rowNumberInAllBlocks())", "rowNumberInAllBlocks is another value each time"),
    ] {
        let run = server.export(&["--table", "t", "--partition-by", term, "--to", "out.d"]).run().await.expect(2);
        assert!(run.stderr.contains(why), "{term}: {}", run.stderr);
    }
}

/// What looks at other rows than its own is of all of them, however many slices there could be; an aggregate has no value of a
/// row, and is refused.
#[tokio::test]
async fn a_window_of_clickhouse_is_over_all_rows() {
    let server = clickhouse().await;
    server.run("CREATE TABLE t (id UInt32) ENGINE = MergeTree PARTITION BY id % 4 ORDER BY id").await;
    server.run("INSERT INTO t SELECT number FROM numbers(4000)").await;
    for split in
        [&["--partitions", "8"][..], &["--consistency", "per_partition"], &["--key", "id", "--partitions", "8"]]
    {
        for (column, name) in [
            ("n=row_number() OVER (ORDER BY id)", "row_number"),
            ("n=toInt64(sumIf(1, id >= 0) OVER (ORDER BY id))", "sum"),
            ("n=`row_number`/* */() OVER (ORDER BY id)", "row_number"),
        ] {
            let target = Target::new();
            target
                .export(&server, &[&["--table", "t", "--column", column, "--format", "parquet"], split].concat())
                .await
                .expect(0);
            let note = target.manifest()["consistency"]["note"].as_str().unwrap_or_default().to_owned();
            assert!(note.contains(name) || note.contains("Window"), "{split:?} {column}: {note}");
            let counts = "SELECT count(*), min(n::INT), max(n::INT), count(DISTINCT n) FROM DATA";
            assert_eq!(found(&target.dest(), counts).await, json!([[4000, 1, 4000, 4000]]), "{split:?} {column}");
        }
        for terms in
            [&["--columns", "n", "--column", "n=toInt64(count())"][..], &["--partition-by", "n=toInt64(count(id))"]]
        {
            let target = Target::new();
            let run = target.export(&server, &[&["--table", "t"], terms, split].concat()).await;
            let rows = if run.code == 0 { target.manifest()["totals"]["rows"].clone() } else { json!(null) };
            // Alone it has one row.
            let alone = terms.contains(&"--columns") && !split.contains(&"--key");
            assert_eq!((run.code, rows), if alone { (0, json!(1)) } else { (15, json!(null)) }, "{split:?} {terms:?}");
        }
    }
}

/// Rows of each value, by a manifest.
fn counts(manifest: &Value) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for part in parts(manifest) {
        let value = part["partition_values"]["c"].as_str().unwrap().to_owned();
        *counts.entry(value).or_default() += part["rows"].as_u64().unwrap();
    }
    counts
}

/// A thousand values in no order, two rows of each, and `open` parts at a time.
fn is_whole(run: &Run, dest: &Path, readers: u64, open: u64) {
    let manifest = manifest(dest);
    let counts = counts(&manifest);
    assert_eq!(counts.len(), 1000);
    assert!(counts.values().all(|rows| *rows == 2), "{counts:?}");
    let many = u64::try_from(parts(&manifest).len()).unwrap();
    assert!((1000..=2000).contains(&many), "{many} parts");
    assert!(run.stderr.contains("makes many small parts"), "{}", run.stderr);
    // Locally two blocks of 2 MiB are on their way from a part; the process itself takes some 60 MiB.
    let formula = readers * (5 * MIB / 2 + open * (MIB + 4 * MIB)) + many * 4096 + 60 * MIB;
    assert!(run.memory_peak <= formula, "{} bytes of {formula}, {many} parts", run.memory_peak);
}

#[tokio::test]
async fn a_thousand_values_that_nobody_sorts_are_all_there() {
    let pg = pg(18).await;
    pg.batch("create table t as select i as id, md5((i % 1000)::text) as c from generate_series(1, 2000) i; alter table t add primary key (id); analyze t").await;
    let folder = tempfile::tempdir().unwrap();
    let fixed = ["--table", "t", "--partition-by", "c", "--readers", "2", "--open-parts", "3", "--format", "csv"];
    for (name, args, code) in [
        ("pages", &["--read-mode", "keyset", "--page-size", "300"][..], 0),
        ("capped", &["--max-rows", "2000", "--key", "id"], 0),
        ("ranges", &["--key", "id", "--partitions", "2"], 0),
    ] {
        let dest = folder.path().join(name);
        let run =
            command(&pg, dest.to_str().unwrap(), &[&fixed[..], args].concat()).limit(LIMIT).run().await.expect(code);
        is_whole(&run, &dest, 2, 3);
    }
    // Cut off by a cap, it has the first rows, whatever their folders.
    let dest = folder.path().join("cut");
    let args = [&fixed[..], &["--max-rows", "1500", "--key", "id"]].concat();
    command(&pg, dest.to_str().unwrap(), &args).limit(LIMIT).run().await.expect(3);
    let counts = counts(&manifest(&dest));
    assert_eq!((counts.len(), counts.values().sum::<u64>()), (1000, 1500));
    let server = clickhouse().await;
    server.run("CREATE TABLE t (id UInt32, c String) ENGINE = MergeTree ORDER BY id").await;
    server.run("INSERT INTO t SELECT number, hex(MD5(toString(number % 1000))) FROM numbers(2000)").await;
    let dest = folder.path().join("clickhouse");
    let run =
        server.export(&[&fixed[..], &["--to", dest.to_str().unwrap()]].concat()).limit(LIMIT).run().await.expect(0);
    is_whole(&run, &dest, 2, 3);
}

/// Redshift's COPY does not read the names of folders.
#[tokio::test]
async fn a_copy_into_redshift_needs_the_columns_in_the_files() {
    let pg = pg(18).await;
    pg.batch("create table t as select i as id, i % 3 as c from generate_series(1, 30) i").await;
    for (args, copies) in [(&[][..], false), (&["--keep-partition-columns"], true)] {
        let all = [&["--table", "t", "--partition-by", "c"], args].concat();
        let done = export(&pg, &all).await.expect(0);
        let sql = std::fs::read_to_string(done.dest().join("_ddl/redshift.sql")).unwrap();
        assert_eq!(sql.contains("--keep-partition-columns"), !copies, "{sql}");
        assert!(copies || !sql.contains("\nCOPY"), "{sql}");
    }
}
