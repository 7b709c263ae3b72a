//! `--protect` with workers: the key is in no plan, each worker is given it, and equal values have the hashes that a single
//! process would have given them.

use serde_json::json;

use crate::support::job::no_sessions_left;
use crate::support::night::Night;
use crate::support::pg::{Pg, pg};
use crate::support::place::{Place, export};
use crate::support::run::{Run, outhaul};
use crate::workers::{Driver, QUICK, driver, lines, resume, worker};

const KEY: &str = "correct horse battery staple";

const PEOPLE: &str = "create table t as select i as id, 'plantedmail' || i % 50 as email, 'plantedphone ' || i as phone
    from generate_series(1, 4000) i; alter table t add primary key (id); analyze t";

const HOW: [&str; 4] = ["--protect", "email=hash", "--protect", "phone=mask"];

struct Keys {
    _folder: tempfile::TempDir,
    file: String,
    other: String,
}

fn keys() -> Keys {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, key: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{key}\n")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (file, other) = (put("key", KEY), put("other", "another key of some length"));
    Keys { _folder: folder, file, other }
}

async fn people() -> Pg {
    let pg = pg(18).await;
    pg.batch(PEOPLE).await;
    pg
}

/// No value that is protected, and no key, is at a place or was said.
async fn nothing_shows(place: &Place, runs: &[&Run]) {
    let mut seen: Vec<Vec<u8>> =
        runs.iter().flat_map(|run| [run.stdout.clone(), run.stderr.clone().into_bytes()]).collect();
    for path in place.list().await.into_keys() {
        seen.push(place.get(&path).await);
    }
    for bytes in seen {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("planted") && !text.contains(KEY), "{text:.300}");
    }
}

/// The hashes of workers are those of one process, whoever says where the key is.
#[tokio::test]
async fn the_hashes_of_workers_are_those_of_one_process() {
    let pg = people().await;
    let keys = keys();
    let alone = Place::local();
    export(&pg, &alone, &[&HOW[..], &["--protect-key-file", &keys.file]].concat()).run().await.expect(0);
    let expected = alone.whole().await;
    let command = format!("cat {}", keys.file);
    for (run, of_worker) in [
        // A file that stands at the same place for all.
        (["--protect-key-file", &keys.file], None),
        (["--protect-key-command", &command], Some(["--protect-key-file", &keys.file])),
        (["--protect-key-file", &keys.file], Some(["--protect-key-command", &command])),
    ] {
        let place = Place::local();
        let driver = Driver::start(driver(&pg, &place, &[&HOW[..], &run].concat())).await;
        let args: Vec<&str> = ["--shard", "0/1"].into_iter().chain(of_worker.into_iter().flatten()).collect();
        let done = worker(&pg, &place, &args).run().await.expect(0);
        let run = driver.running.wait().await.expect(0);
        assert_eq!(place.whole().await, expected);
        assert_eq!(place.manifest().await["protection"], alone.manifest().await["protection"]);
        nothing_shows(&place, &[&done, &run]).await;
    }
    no_sessions_left(&pg).await;
}

/// A worker with another key, or with none, reads nothing; one that comes with the right one does.
#[tokio::test]
async fn a_worker_with_another_key_reads_nothing() {
    let pg = people().await;
    let keys = keys();
    let place = Place::local();
    let command = format!("cat {}", keys.file);
    let args = [&HOW[..], &["--protect-key-command", &command, "--keep-snapshot", "60s"]].concat();
    let started = Driver::start(driver(&pg, &place, &args)).await;
    for (args, says) in [
        (&["--protect-key-file", &keys.other][..], "another than the one that the run began with"),
        (&[][..], "--protect-key-"),
        (&["--protect-key-file", "/nowhere"][..], "cannot be read"),
        (&["--protect-key-file", &keys.file, "--protect-key-command", "true"][..], "both given"),
    ] {
        let run = worker(&pg, &place, &[&["--shard", "0/1"], args].concat()).run().await.expect(2);
        assert!(run.stderr.contains(says), "{args:?}: {}", run.stderr);
        assert!(lines(&String::from_utf8_lossy(&run.stdout), "receipt").is_empty());
    }
    started.worker(&pg, &place, "0").env("OUTHAUL_PROTECT_KEY_FILE", &keys.file).run().await.expect(0);
    // Another process goes on, under the same key alone.
    crate::crash::kill(started.running).await;
    let wrong = ["--workers", "external", "--protect-key-file", &keys.other];
    let run = resume(&pg, &place, &wrong).run().await.expect(2);
    assert!(run.stderr.contains("another than the one"), "{}", run.stderr);
    let right = ["--workers", "external", "--protect-key-file", &keys.file];
    let second = Driver::start(resume(&pg, &place, &right)).await;
    assert_eq!(second.partitions(), [1, 2, 3]);
    worker(&pg, &place, &["--shard", "0/1", "--protect-key-file", &keys.file]).run().await.expect(0);
    second.running.wait().await.expect(0);
    let alone = Place::local();
    export(&pg, &alone, &[&HOW[..], &["--protect-key-file", &keys.file]].concat()).run().await.expect(0);
    assert_eq!(place.whole().await, alone.whole().await);
    no_sessions_left(&pg).await;
}

/// In a job each export has its own rules; a worker that was given the wrong key reads those that need none.
#[tokio::test]
async fn exports_of_a_job_that_hash_nothing_need_no_key() {
    let pg = people().await;
    pg.batch("create table open as select i as id from generate_series(1, 100) i; analyze open").await;
    let keys = keys();
    let text = format!(
        "[defaults]\nreaders = 2\nformat = 'csv'\n[[export]]\nname = 't'\ntable = 't'\nto = 'ROOT/t'\nprotect = ['email=hash', 'phone=drop']\n\
         protect_key_file = '{}'\n[[export]]\nname = 'open'\ntable = 'open'\nto = 'ROOT/open'\n",
        keys.file
    );
    let alone = Night::new(&text);
    alone.run(&pg, &[]).run().await.expect(0);
    let night = Night::new(&text);
    let run = night.run(&pg, &["--workers", "external"]).env("OUTHAUL_TEST_LIMITS", QUICK);
    let driver = Driver::start(run).await;
    let root = night.out("");
    let fixed = ["worker", "--destination", root.to_str().unwrap(), "--from", &pg.url, "--shard", "0/1"];
    let worker =
        |key: &str| outhaul(fixed.into_iter().chain(["--protect-key-file", key])).env("OUTHAUL_TEST_LIMITS", QUICK);
    let run = worker(&keys.other).run().await.expect(2);
    let failed = lines(&String::from_utf8_lossy(&run.stdout), "failed");
    assert_eq!((failed.len(), &failed[0]["export"], &failed[0]["code"]), (1, &json!(0), &json!(2)), "{failed:?}");
    worker(&keys.file).run().await.expect(0);
    driver.running.wait().await.expect(0);
    for name in ["t", "open"] {
        let data = |night: &Night| crate::support::job::sorted(&crate::support::job::data(&night.out(name)));
        assert_eq!(data(&night), data(&alone), "{name}");
    }
    no_sessions_left(&pg).await;
}
