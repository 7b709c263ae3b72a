//! Parquet files as other readers see them: pyarrow and DuckDB, none of our own code.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::job::export;
use crate::support::pg::{both, pg};
use crate::support::{variable, within};

/// What both readers find in the files of an export, in order. Fails by itself where they differ, or where the rows are
/// not in the order that the file claims.
const READ: &str = r#"
import functools, glob, json, sys
import duckdb, pyarrow.parquet as parquet

def compare(order, a, b):
    for name, descending in order:
        x, y = a[name], b[name]
        if x == y:
            continue
        if x is None or y is None:
            return 1 if x is None else -1
        return (-1 if x < y else 1) * (-1 if descending else 1)
    return 0

files = []
for path in sorted(glob.glob(sys.argv[1] + "/data/*.parquet")):
    file = parquet.ParquetFile(path)
    metadata = file.metadata
    rows = []
    orders = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        leaves = [group.column(leaf) for leaf in range(group.num_columns)]
        assert all(leaf.has_column_index and leaf.has_offset_index and leaf.is_stats_set for leaf in leaves), path
        order = [(leaves[c.column_index].path_in_schema, c.descending) for c in group.sorting_columns]
        assert not any(c.nulls_first for c in group.sorting_columns), path
        orders.append(order)
        part = file.read_row_group(number).to_pylist()
        assert all(compare(order, a, b) <= 0 for a, b in zip(part, part[1:])), path
        rows += part
    assert all(order == orders[0] for order in orders), path
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    found = connection.execute("select count(*) from read_parquet(?)", [path]).fetchone()[0]
    assert found == len(rows) == metadata.num_rows, path
    names = [row[0] for row in connection.execute("describe select * from read_parquet(?)", [path]).fetchall()]
    assert names == file.schema_arrow.names, (names, file.schema_arrow.names)
    leaf = metadata.row_group(0).column(0)
    files.append({
        "created_by": metadata.created_by,
        "version": metadata.format_version,
        "metadata": {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()},
        "order": orders[0],
        "types": {field.name: str(field.type) for field in file.schema_arrow},
        "leaves": [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)],
        "codec": leaf.compression,
        "rows": len(rows),
    })
print(json.dumps(files))
"#;

async fn read(dest: &Path) -> Vec<Value> {
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.args(["-c", READ]).arg(dest).kill_on_drop(true);
    let output = within(Duration::from_mins(1), "pyarrow and DuckDB", python.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// 5,000 rows whose leading key has ties and NULLs, in no order of their own; names with dots, quotes and an emoji.
const TABLE: &str = r#"
create table t ("a.b" int not null, "tags""😀" text[], pair point_pair, id bigint not null, at timestamptz(3), note text not null,
    u uuid not null, tm time not null);
insert into t select g % 7, array['x', null, g::text], row(g, array[g])::point_pair, g,
    case when g % 11 > 0 then '2024-01-01 00:00:00+00'::timestamptz + (g * 7919 % 1000) * interval '1 millisecond' end,
    md5(g::text), md5(g::text)::uuid, '00:00'::time + g * interval '1 second' from generate_series(1, 5000) as g order by md5(g::text)
"#;

#[tokio::test]
async fn files_tell_their_order_and_where_they_come_from() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create type point_pair as (x int, ys int[])").await;
        pg.batch(TABLE).await;
        for (key, order) in [
            ("at desc,id", json!([["at", true], ["id", false]])),
            ("a.b,u desc", json!([["a.b", false], ["u", true]])),
            // Collations are the server's own.
            ("tm desc,note,id", json!([["tm", true]])),
            ("note", json!([])),
        ] {
            let key = if key.starts_with("a.b") { key.replace("a.b", "\"a.b\"") } else { key.to_owned() };
            let args = ["--table", "t", "--key", &key, "--partitions", "3", "--readers", "2", "--run-id", "order-test"];
            let done = export(&pg, &args).await.expect(0);
            let files = read(&done.dest()).await;
            assert_eq!(files.iter().map(|file| file["rows"].as_u64().unwrap()).sum::<u64>(), 5_000);
            for file in &files {
                assert_eq!(file["order"], order, "{key}");
                assert_eq!(file["version"], "1.0");
                let created_by = file["created_by"].as_str().unwrap();
                assert!(created_by.starts_with("outhaul version "), "{created_by}");
                let metadata = file["metadata"].as_object().unwrap();
                assert_eq!(metadata["outhaul.run_id"], "order-test");
                assert_eq!(metadata["outhaul.snapshot"], done.manifest()["consistency"]["snapshots"][0]["id"]);
                assert_eq!(metadata.len(), 2, "{metadata:?}");
            }
        }
        let files = read(&export(&pg, &["--table", "t"]).await.expect(0).dest()).await;
        assert_eq!(files[0]["order"], json!([]));
        let leaves = ["a.b", "tags\"😀.list.element", "pair.x", "pair.ys.list.element", "id", "at", "note", "u", "tm"];
        assert_eq!(files[0]["leaves"], json!(leaves));
    }
}

#[tokio::test]
async fn presets_write_what_their_warehouses_read() {
    let pg = pg(18).await;
    pg.batch("create type point_pair as (x int, ys int[])").await;
    pg.batch(TABLE).await;
    for (preset, codec, stamp) in
        [("athena", "ZSTD", "timestamp[ms, tz=UTC]"), ("spectrum", "SNAPPY", "timestamp[us, tz=UTC]")]
    {
        let done = export(&pg, &["--table", "t", "--preset", preset]).await.expect(0);
        for file in read(&done.dest()).await {
            let types = &file["types"];
            assert_eq!((&file["codec"], &types["at"]), (&json!(codec), &json!(stamp)), "{preset}");
            assert_eq!((&types["u"], &types["tm"]), (&json!("string"), &json!("string")), "{preset}");
        }
    }
}
