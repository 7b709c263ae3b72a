//! Names that mean what they say: `--to orders.csv.gz` is one file of CSV with gzip, and whatever reads it agrees.

use serde_json::json;

use crate::support::job::{command, nothing_is_left, unpacked};
use crate::support::pg::{Pg, pg};
use crate::support::run::outhaul;
use crate::support::s3::s3;

const ROWS: &str = "create table t (id int primary key, name text);
    insert into t select n, 'na,me ' || n from generate_series(1, 50) n; insert into t values (51, '=1+1'), (52, null);
    analyze t";

async fn table() -> Pg {
    let pg = pg(18).await;
    pg.batch(ROWS).await;
    pg
}

/// What is written wrong is told by the option, and before anything is read.
#[tokio::test]
async fn mistakes_of_a_person_are_usage_and_not_worth_another_try() {
    let pg = pg(18).await;
    pg.batch("create table t as select i as id from generate_series(1, 10) i").await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (to, folder_there) = (at("out"), at("."));
    for (args, said) in [
        (&["--to", &to, "--where", "id = $1"][..], "a parameter, for which there is no value"),
        (&["--to", &to, "--column", "x=$2"], "a parameter, for which there is no value"),
        (&["--to", &to, "--max-rows", "-1"], "--max-rows"),
        (&["--to", "-", "--format", "csv", "--manifest", "/nope/m.json"], "there is no folder /nope"),
        (&["--to", "-", "--format", "csv", "--manifest", &folder_there], "is a folder"),
        (&["--to", &at("x.csv.bz2")], "nothing is known that ends in .bz2"),
        (&["--to", &at("x.xlsx")], "looks like a file"),
    ] {
        let all = [&["export", "--from", &pg.url, "--table", "t", "--report", "json"], args].concat();
        let run = outhaul(&all).run().await.expect(2);
        assert!(run.stderr.contains(said) && !run.stderr.contains("-- -1"), "{args:?}: {}", run.stderr);
        assert!(!run.stderr.contains("the stream"), "{}", run.stderr);
    }
    let bad = ["export", "--from", &pg.url, "--query", "select * from t where id = $1", "--to", &to];
    let run = outhaul(bad).run().await.expect(2);
    assert!(run.stderr.contains("error: --query, line 1, character 28: a parameter"), "{}", run.stderr);
    for (name, value, said) in [
        ("AWS_ENDPOINT_URL", "minio:9000", "write http://minio:9000"),
        ("AWS_ENDPOINT_URL", "http://minio:9000", "AWS_ALLOW_HTTP"),
        ("AWS_SESSION_TOKEN", "token\n", "AWS_SESSION_TOKEN has a line end"),
    ] {
        let keys = [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let keys = keys.map(|(name, value)| (name, value.to_owned()));
        let args = ["export", "--from", &pg.url, "--table", "t", "--to", "s3://lake/t/"];
        let run = outhaul(args).envs(keys).env(name, value).run().await.expect(2);
        assert!(run.stderr.contains(said) && run.stderr.contains(name), "{}", run.stderr);
    }
    let run = outhaul(["verify", "a", "b"]).run().await.expect(2);
    assert!(!run.stderr.contains("outhaul export"), "{}", run.stderr);
}

#[tokio::test]
async fn a_name_is_a_file_of_its_format() {
    let pg = table().await;
    let folder = tempfile::tempdir().unwrap();
    for name in ["t.csv", "t.CSV.GZ", "t.csv.zst", "t.tsv", "t.ndjson.gz", "t.jsonl", "t.json", "t.parquet"] {
        let file = folder.path().join(name);
        let run = outhaul(["export", "t", "--from", &pg.url, "-o", file.to_str().unwrap(), "--progress", "plain"]);
        let run = run.run().await.expect(0);
        assert!(file.is_file(), "{name}");
        assert!(run.stderr.contains(" as one file of "), "{name}: {}", run.stderr);
        outhaul(["verify", file.to_str().unwrap(), "--read-data"]).run().await.expect(0);
        let taken = command(&pg, file.to_str().unwrap(), &["--table", "t"]).run().await.expect(22);
        assert!(taken.report["error"].as_str().unwrap().contains(name), "{name}: {}", taken.report);
        let lower = name.to_lowercase();
        let plain = unpacked(&lower, &std::fs::read(&file).unwrap());
        if lower.ends_with("parquet") {
            assert!(plain.starts_with(b"PAR1"));
        } else if lower.contains("csv") || lower.contains("tsv") {
            let delimiter = if lower.contains("tsv") { b'\t' } else { b',' };
            let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(plain.as_slice());
            assert_eq!(reader.headers().unwrap(), vec!["id", "name"], "{name}");
            let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            assert_eq!((rows.len(), &rows[6][1]), (52, "na,me 7"), "{name}");
        } else {
            let lines = String::from_utf8(plain).unwrap();
            let row: serde_json::Value = serde_json::from_str(lines.lines().nth(6).unwrap()).unwrap();
            assert_eq!((lines.lines().count(), row), (52, json!({"id": 7, "name": "na,me 7"})), "{name}");
        }
    }
}

#[tokio::test]
async fn the_folder_of_an_earlier_export_is_not_mistaken_for_a_file() {
    let pg = table().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("t.csv");
    let as_folder = format!("{}/", to.display());
    command(&pg, &as_folder, &["--table", "t"]).run().await.expect(0);
    assert!(to.join("_manifest.json").exists());
    for choice in ["fail", "replace"] {
        let args = ["--table", "t", "--on-existing", choice];
        let refused = command(&pg, to.to_str().unwrap(), &args).run().await.expect(22);
        let error = refused.report["error"].as_str().unwrap();
        assert!(error.contains("t.csv is the folder of an earlier export"), "{error}");
    }
    let planned = outhaul(["plan", "t", "--from", &pg.url, "--to", to.to_str().unwrap()]).run().await.expect(0);
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(planned.contains("the folder of an earlier export has this name"), "{planned}");
    let url = s3().url("names/t.csv");
    let on_s3 = |to: String, args: &'static [&'static str]| command(&pg, &to, args).envs(s3().env()).run();
    on_s3(format!("{url}/"), &["--table", "t"]).await.expect(0);
    on_s3(url.clone(), &["--table", "t"]).await.expect(22);
    on_s3(format!("{url}.gz"), &["--table", "t"]).await.expect(0);
}

#[tokio::test]
async fn a_limit_and_excel_and_a_dry_run() {
    let pg = table().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.csv");
    let to = file.to_str().unwrap();
    let dry = outhaul(["export", "t", "--from", &pg.url, "-o", to, "--dry-run"]).run().await.expect(0);
    let planned = String::from_utf8(dry.stdout).unwrap();
    assert!(
        planned.contains("\nformat      one file of csv\n") && planned.contains(&format!("file://{to}, free\n")),
        "{planned}"
    );
    assert!(!file.exists());
    nothing_is_left(folder.path());

    let args = ["export", "t", "--from", &pg.url, "-o", to, "--preset", "excel", "--limit", "51"];
    let run = outhaul(args).run().await.expect(0);
    let summary = String::from_utf8(run.stdout).unwrap();
    assert!(summary.starts_with("the first 51 rows, as asked; there are more: public.t -> file://"), "{summary}");
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"\xef\xbb\xbfid,name\r\n1,"), "{bytes:?}");
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.ends_with("51,'=1+1\r\n"), "{text}");
    assert_eq!(text.matches("\r\n").count(), 52);
    let manifest = std::fs::read(folder.path().join("t.csv.manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((&manifest["status"], &manifest["row_cap"]["truncated"]), (&json!("truncated"), &json!(true)));
    let json = command(&pg, &format!("{to}.gz"), &["--table", "t", "--limit", "2"]).run().await.expect(0);
    assert_eq!((&json.report["status"], &json.report["exit_code"]), (&json!("truncated"), &json!(0)));
    let all = outhaul(["export", "t", "--from", &pg.url, "-o", "all.csv", "--limit", "1k"]).run().await.expect(0);
    assert!(String::from_utf8(all.stdout).unwrap().starts_with("complete: public.t"));
}

/// Whoever may create a table could otherwise clear the operator's terminal, or hide a line on it.
#[tokio::test]
async fn a_name_that_would_act_on_a_terminal_is_shown_as_escapes() {
    let pg = pg(18).await;
    pg.batch("create table \"a\u{1b}[2Jb\" as select 1 as id").await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let name = "\"a\u{1b}[2Jb\"";
    for args in [
        vec!["ls", "--from", &pg.url],
        vec!["plan", "-t", name, "--from", &pg.url],
        vec!["export", "-t", name, "--from", &pg.url, "--to", to.to_str().unwrap()],
        vec!["show", to.to_str().unwrap()],
        vec!["export", "-t", "\"a\u{1b}[2Jc\"", "--from", &pg.url, "--to", "./other"],
    ] {
        let run = outhaul(&args).run().await;
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
        assert!(!said.contains('\u{1b}') && said.contains("[2J"), "{args:?}: {said}");
    }
}
