//! Memory (I6) grows neither with the rows nor with a slow destination; a large row costs a few times its size.

use std::path::Path;
use std::time::Duration;

use crate::support::pg::{Pg, both, pg};
use crate::support::run::{Outhaul, outhaul, program};

const MIB: u64 = 1024 * 1024;

/// A debug build encodes some 100,000 rows a second on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

/// What allocators and schedulers make of equal work: the arenas of five threads fill up over the first seconds.
const fn about(peak: u64) -> u64 {
    peak + peak / 10 + 16 * MIB
}

async fn table(pg: &Pg, name: &str, rows: u32) {
    let columns = "i as id, i * 1.5 as b, now() + i * interval '1 s' as c, repeat(md5(i::text), 16) as d";
    pg.batch(&format!("create table {name} as select {columns} from generate_series(1, {rows}) i; analyze {name}"))
        .await;
}

fn export(pg: &Pg, table: &str, format: &str, dest: &Path) -> Outhaul {
    let mut arguments = vec!["export", "--from", &pg.url, "--table", table, "--to", dest.to_str().unwrap()];
    arguments.extend(["--format", format, "--readers", "2", "--partitions", "4", "--report", "json"]);
    outhaul(arguments).limit(LIMIT)
}

#[tokio::test]
async fn peak_memory_of_text_exports_does_not_grow_with_the_rows() {
    let [_, version] = both();
    let pg = pg(version).await;
    table(&pg, "small", 100_000).await;
    table(&pg, "large", 500_000).await;
    for format in ["csv", "ndjson"] {
        // Equal runs differ by a third on a busy machine, by how many threads meet; what the rows cost, every run pays.
        let mut peaks = Vec::new();
        let mut bytes = 0;
        for table in ["small", "large", "small", "large"] {
            let dest = tempfile::tempdir().unwrap();
            let run = export(&pg, table, format, dest.path()).run().await.expect(0);
            peaks.push(run.memory_peak);
            bytes = run.report["bytes"].as_u64().unwrap();
        }
        let (small, large) = (peaks[0].max(peaks[2]), peaks[1].min(peaks[3]));
        assert!(large <= about(small), "{format}: {peaks:?} bytes, every second one at five times the rows");
        // Whoever kept the output would be caught.
        assert!(bytes > 256 * MIB, "{bytes} bytes written");
    }
}

#[tokio::test]
async fn peak_memory_does_not_grow_with_a_slow_destination() {
    let [version, _] = both();
    let pg = pg(version).await;
    table(&pg, "t", 150_000).await;
    let mut peaks = Vec::new();
    for pause in ["0", "4"] {
        // The shell becomes the program, whose memory is then the one that is watched.
        let script = r#"mkfifo pipe; { sleep "$PAUSE"; exec cat >/dev/null; } <pipe & exec "$0" "$@" >pipe"#;
        let binary = env!("CARGO_BIN_EXE_outhaul");
        let arguments =
            ["-c", script, binary, "export", "--from", &pg.url, "--table", "t", "--to", "-", "--format", "csv"];
        let run = program("/bin/sh", arguments).env("PAUSE", pause).limit(LIMIT).run().await.expect(0);
        peaks.push(run.memory_peak);
    }
    assert!(peaks[1] <= about(peaks[0]), "{} bytes, {} where the reader pauses", peaks[0], peaks[1]);
}

#[tokio::test]
async fn a_row_of_40_megabytes_is_exported_in_a_few_times_its_size() {
    const ROW: usize = 40_000_000;
    for version in both() {
        let pg = pg(version).await;
        pg.batch(&format!(
            "create table huge (id int, v text); alter table huge alter column v set storage external;
             insert into huge values (1, 'a'), (2, repeat('0123456789', {})), (3, 'b')",
            ROW / 10
        ))
        .await;
        table(&pg, "small", 10_000).await;
        for format in ["csv", "ndjson", "parquet"] {
            let dest = tempfile::tempdir().unwrap();
            let base = export(&pg, "small", format, dest.path()).run().await.expect(0).memory_peak;
            let dest = tempfile::tempdir().unwrap();
            let run = export(&pg, "huge", format, dest.path()).run().await.expect(0);
            assert_eq!(run.report["rows"], 3);
            let bound = about(base) + 5 * u64::try_from(ROW).unwrap();
            assert!(run.memory_peak <= bound, "{format}: {} bytes, {base} for small rows", run.memory_peak);
            let args = ["verify", dest.path().to_str().unwrap(), "--read-data"];
            outhaul(args).limit(LIMIT).run().await.expect(0);
            if format == "csv" {
                let part = std::fs::read_dir(dest.path().join("data")).unwrap().next().unwrap().unwrap().path();
                let text = std::fs::read_to_string(part).unwrap();
                assert!(text == format!("id,v\n1,a\n2,{}\n3,b\n", "0123456789".repeat(ROW / 10)));
            }
        }
    }
}

/// Some batches are decoded before the first is encoded, unless they are large.
#[tokio::test]
async fn numbers_that_become_long_texts_are_in_memory_a_batch_at_a_time() {
    let [_, version] = both();
    let pg = pg(version).await;
    let mut peaks = Vec::new();
    // Fourteen bytes on the wire become 131,072: a batch is looked at every 256 rows, which are 32 MiB then.
    for (name, rows) in [("few", 300), ("many", 1_100)] {
        pg.batch(&format!("create table {name} as select 1e131071::numeric as n from generate_series(1, {rows})"))
            .await;
        let dest = tempfile::tempdir().unwrap();
        let (to, one) = (dest.path().to_str().unwrap(), ["--readers", "1", "--partitions", "1", "--report", "json"]);
        let args = ["export", "--from", &pg.url, "--table", name, "--to", to, "--format", "csv"];
        let run = outhaul(args.iter().chain(&one)).limit(LIMIT).run().await.expect(0);
        assert_eq!(run.report["rows"], rows);
        peaks.push(run.memory_peak);
    }
    assert!(peaks[1] <= about(peaks[0]), "{peaks:?} bytes");
}
