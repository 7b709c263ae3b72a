//! What may be written after `--to`, and what is none of a destination's schemes: refused by every command, before anybody
//! connects anywhere.

use crate::support::run::{Run, outhaul};

/// Nothing listens there.
const NOBODY: &str = "postgres://hunter2@127.0.0.1:1/x";

static REFUSED: [&str; 14] = [
    "memory:///x",
    "memory:x",
    "http://example.com/x",
    "https://user:hunter2@example.com/x",
    "ftp://example.com/x",
    "postgres://user:hunter2@example.com/x",
    "hdfs://host/x",
    "S3://bucket/x",
    "data:text/plain,x",
    "git+ssh:x",
    "c:\\x",
    "c:/x",
    "user:hunter2@host",
    "s3:/bucket/x",
];

fn refused(run: &Run, to: &str) {
    for text in ["s3://", "cannot write to"] {
        assert!(run.stderr.contains(text), "{to}: {}", run.stderr);
    }
    assert!(!run.stderr.contains("hunter2"), "{to}: {}", run.stderr);
}

#[tokio::test]
async fn a_scheme_that_is_no_destination_is_refused_by_every_command() {
    let all = async |to: &'static str| {
        for more in [&[][..], &["--single-file"][..]] {
            let export = ["export", "--from", NOBODY, "--table", "t", "--to", to];
            let run = outhaul(export.iter().chain(more)).run().await.expect(2);
            refused(&run, to);
            let plan = ["plan", "--from", NOBODY, "--table", "t", "--to", to];
            let run = outhaul(plan.iter().chain(more)).run().await.expect(2);
            refused(&run, to);
            for command in ["resume", "keep", "clean", "verify"] {
                let from = ["--from", NOBODY, "--for", "5s"];
                let from = match command {
                    "resume" => &from[..2],
                    "keep" => &from[..],
                    _ => &[],
                };
                let run = outhaul([command, to].iter().chain(more).chain(from)).run().await.expect(2);
                refused(&run, to);
            }
        }
        let run = outhaul(["ddl", to, "--dialect", "duckdb"]).run().await.expect(2);
        refused(&run, to);
    };
    let some = async |list: &'static [&'static str]| {
        for to in list {
            all(to).await;
        }
    };
    let (one, other) = REFUSED.split_at(7);
    tokio::join!(some(one), some(other));
}

/// A colon is a letter of a path like any other, where it cannot be a scheme's.
#[tokio::test]
async fn a_path_with_a_colon_is_a_path() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["./data:x", "7:x", "a/b:c", "a b:c"] {
        // No run is there, and that is found out there.
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        let run = outhaul(["clean", path.to_str().unwrap()]).run().await.expect(0);
        assert!(String::from_utf8_lossy(&run.stdout).contains("nothing to clean"), "{name}");
        let run = outhaul(["clean", name]).run().await.expect(0);
        assert!(String::from_utf8_lossy(&run.stdout).contains("nothing to clean"), "{name}");
    }
}
