//! `outhaul verify`: passes on what a run left, and names every object that is not as its manifest says.

use std::path::Path;

use serde_json::Value;

use crate::support::job::{Export, command, export, parts};
use crate::support::pg::{Pg, pg};
use crate::support::run::{Run, outhaul};
use crate::support::s3::s3;

#[tokio::test]
async fn what_a_run_left_passes_in_every_format() {
    let pg = table().await;
    for (format, compression) in [
        ("parquet", "zstd"),
        ("parquet", "none"),
        ("csv", "none"),
        ("csv", "gzip"),
        ("csv", "zstd"),
        ("ndjson", "none"),
        ("ndjson", "zstd"),
    ] {
        let done = exported(&pg, &["--format", format, "--compression", compression]).await;
        for read in [false, true] {
            let run = verify(&done.dest(), read).await.expect(0);
            assert_eq!(run.report["verified"], true, "{format} {compression}");
            assert_eq!(run.report["report"]["data_read"], read);
            assert_eq!((&run.report["report"]["rows"], &run.report["report"]["parts"]), (&3000.into(), &3.into()));
        }
    }
    let text = outhaul(["verify", exported(&pg, &[]).await.dest().to_str().unwrap()]).run().await.expect(0);
    assert!(String::from_utf8(text.stdout).unwrap().starts_with("verified: "));
}

#[tokio::test]
async fn every_kind_of_damage_is_named() {
    let pg = table().await;
    for (format, compression) in [("parquet", "zstd"), ("csv", "none"), ("ndjson", "gzip")] {
        let done = exported(&pg, &["--format", format, "--compression", compression]).await;
        let dest = done.dest();
        let manifest = done.manifest();
        let name = parts(&manifest)[1]["path"].as_str().unwrap();
        let path = dest.join(name);
        let intact = std::fs::read(&path).unwrap();

        for at in [0, intact.len() / 2, intact.len() - 1] {
            let mut flipped = intact.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            finds(&dest, true, name, "CRC64NVME").await;
        }
        std::fs::write(&path, &intact[..intact.len() - 1]).unwrap();
        finds(&dest, false, name, "bytes").await;
        finds(&dest, true, name, "bytes").await;
        std::fs::write(&path, [&intact[..], b"\n"].concat()).unwrap();
        finds(&dest, false, name, "bytes").await;
        std::fs::remove_file(&path).unwrap();
        finds(&dest, false, name, "missing").await;
        std::fs::write(&path, &intact).unwrap();

        std::fs::write(dest.join("data/stranger"), "x").unwrap();
        finds(&dest, false, "data/stranger", "no manifest names it").await;
        std::fs::remove_file(dest.join("data/stranger")).unwrap();

        let file = dest.join("_manifest.json");
        let mut lying = manifest.clone();
        lying["parts"][1]["rows"] = (parts(&manifest)[1]["rows"].as_u64().unwrap() + 1).into();
        lying["totals"]["rows"] = 3001.into();
        std::fs::write(&file, lying.to_string()).unwrap();
        finds(&dest, true, name, "rows").await;
        std::fs::write(&file, manifest.to_string()).unwrap();
        verify(&dest, true).await.expect(0);
        std::fs::write(&file, "{").unwrap();
        assert_ne!(verify(&dest, false).await.code, 0);
        std::fs::remove_file(&file).unwrap();
        verify(&dest, false).await.expect(30);
    }
}

#[tokio::test]
async fn a_manifest_that_lies_is_found_by_reading() {
    let pg = table().await;
    for (format, compression) in [("parquet", "zstd"), ("csv", "gzip"), ("ndjson", "zstd")] {
        let args = ["--format", format, "--compression", compression, "--manifest-stats", "all"];
        let done = exported(&pg, &args).await;
        let (dest, manifest) = (done.dest(), done.manifest());
        let name = parts(&manifest)[1]["path"].as_str().unwrap().to_owned();
        let lies: [(&str, &str, Value); 5] = [
            ("/parts/1/columns/id/nulls", "NULL", 1.into()),
            ("/parts/1/columns/id/min", "least value", "0".into()),
            ("/parts/1/columns/id/max", "greatest value", "9999".into()),
            ("/parts/1/columns/v/min", "least value", "u".into()),
            ("/parts/1/columns/v/max", "greatest value", "w".into()),
        ];
        for (pointer, problem, value) in lies {
            let mut lying = manifest.clone();
            *lying.pointer_mut(pointer).unwrap() = value;
            std::fs::write(dest.join("_manifest.json"), lying.to_string()).unwrap();
            finds(&dest, true, &name, problem).await;
            verify(&dest, false).await.expect(0);
        }
        let mut lying = manifest.clone();
        lying["schema"][0]["name"] = "number".into();
        for part in lying["parts"].as_array_mut().unwrap() {
            let id = part["columns"]["id"].take();
            let v = part["columns"]["v"].take();
            part["columns"] = serde_json::json!({"number": id, "v": v});
        }
        std::fs::write(dest.join("_manifest.json"), lying.to_string()).unwrap();
        finds(&dest, true, &name, "number").await;
        std::fs::write(dest.join("_manifest.json"), manifest.to_string()).unwrap();
        verify(&dest, true).await.expect(0);
    }
}

/// A folder keeps no checksum, and a report never passes that over.
#[tokio::test]
async fn what_the_store_keeps_is_said() {
    let done = exported(&table().await, &[]).await;
    let run = verify(&done.dest(), false).await.expect(0);
    assert_eq!(run.report["report"]["checksums_kept"], 0);
    let run = outhaul(["verify", done.dest().to_str().unwrap()]).run().await.expect(0);
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.contains("the store keeps no checksum"), "{text}");
}

#[tokio::test]
async fn damage_on_s3_is_named() {
    let (pg, s3) = (table().await, s3());
    let args = ["--table", "t", "--format", "csv", "--partitions", "3"];
    command(&pg, &s3.url("out"), &args).envs(s3.env()).run().await.expect(0);
    let verify = async |read: bool| {
        let url = s3.url("out/");
        let args = ["verify", &url, "--report", "json", "--read-data"];
        outhaul(&args[..if read { 5 } else { 4 }]).envs(s3.env()).run().await
    };
    for read in [false, true] {
        let run = verify(read).await.expect(0);
        assert_eq!(run.report["report"]["checksums_kept"], 3, "this store keeps them");
    }
    let manifest: Value = serde_json::from_slice(&s3.get("out/_manifest.json").await).unwrap();
    let name = parts(&manifest)[2]["path"].as_str().unwrap();
    let path = format!("out/{name}");
    let intact = s3.get(&path).await;
    let mut flipped = intact.clone();
    flipped[10] ^= 1;
    s3.put(&path, &flipped).await;
    named(&verify(true).await.expect(30), name, "CRC64NVME");
    s3.put(&path, &intact[1..]).await;
    named(&verify(false).await.expect(30), name, "bytes");
    s3.put(&path, &intact).await;
    s3.put("out/data/stranger", b"x").await;
    named(&verify(false).await.expect(30), "data/stranger", "no manifest names it");
}

async fn finds(dest: &Path, read: bool, object: &str, problem: &str) {
    named(&verify(dest, read).await.expect(30), object, problem);
}

#[track_caller]
fn named(run: &Run, object: &str, problem: &str) {
    let findings = run.report["report"]["findings"].as_array().unwrap();
    let found = findings
        .iter()
        .any(|finding| finding["path"] == object && finding["problem"].as_str().unwrap().contains(problem));
    assert!(found, "no {problem:?} of {object}: {findings:?}");
    assert_eq!(run.report["verified"], false);
}

async fn verify(dest: &Path, read: bool) -> Run {
    let args = ["verify", dest.to_str().unwrap(), "--report", "json", "--read-data"];
    outhaul(&args[..if read { 5 } else { 4 }]).run().await
}

async fn exported(pg: &Pg, more: &[&str]) -> Export {
    let args = [&["--table", "t", "--partitions", "3"][..], more].concat();
    export(pg, &args).await.expect(0)
}

async fn table() -> Pg {
    let pg = pg(15).await;
    pg.batch("create table t as select i as id, 'value ' || i as v from generate_series(1, 3000) i").await;
    pg
}
