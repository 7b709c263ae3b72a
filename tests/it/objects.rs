//! How a store is told to keep what it is given: the headers of the requests that come to it.

use crate::crash::kill;
use crate::support::http_proxy::{Op, Proxy, Seen};
use crate::support::night::Night;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, Run, Stop, outhaul};
use crate::support::s3::s3;
use crate::support::{unique, variable};

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 1000) i";

/// An export by way of the proxy.
async fn export(pg: &Pg, proxy: &Proxy, words: &[&str]) -> Run {
    let s3 = s3();
    let (from, to) = (pg.url.clone(), s3.url("objects"));
    let own = ["export", "--from", &from, "--table", "t", "--to", &to, "--on-existing", "replace"];
    let mut run = outhaul(own.iter().chain(words));
    for (name, value) in s3.env() {
        run = run.env(name, value);
    }
    run.env("AWS_ENDPOINT", &proxy.endpoint).run().await
}

/// The values of a header in requests, where they have it.
fn headers(seen: &[Seen], name: &str) -> Vec<Option<String>> {
    let value = |seen: &Seen| {
        let line = seen.head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: ")))?;
        Some(line.split_once(": ")?.1.trim().to_owned())
    };
    seen.iter().map(value).collect()
}

#[tokio::test]
async fn parts_have_the_class_and_the_tags_and_records_have_not() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let proxy = Proxy::start(&s3().endpoint, []).await;
    let words = ["--storage-class", "STANDARD", "--object-tag", "team=data + more", "--object-tag", "kind=night"];
    export(&pg, &proxy, &words).await.expect(0);
    let parts = proxy.seen(Op::Create, "part-");
    assert!(!parts.is_empty());
    for (header, value) in [("x-amz-storage-class", "STANDARD"), ("x-amz-tagging", "team=data+%2B+more&kind=night")] {
        assert!(headers(&parts, header).iter().all(|found| found.as_deref() == Some(value)), "{header}: {parts:?}");
        let records = proxy.seen(Op::Put, "");
        assert!(!records.is_empty() && headers(&records, header).iter().all(Option::is_none), "{header}");
    }
}

#[tokio::test]
async fn whatever_is_written_is_encrypted_as_the_options_say() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let proxy = Proxy::start(&s3().endpoint, []).await;
    for (words, expected) in [
        (&["--sse", "AES256"][..], [Some("AES256"), None, None]),
        (
            &["--sse", "aws:kms", "--sse-kms-key-id", "alias/lake", "--sse-bucket-key"],
            [Some("aws:kms"), Some("alias/lake"), Some("true")],
        ),
        (&["--sse", "aws:kms:dsse"], [Some("aws:kms:dsse"), None, None]),
        (&[], [None, None, None]),
    ] {
        proxy.forget();
        // The server of the tests encrypts nothing, and may refuse; what it was asked for is what counts.
        let run = export(&pg, &proxy, words).await;
        let seen: Vec<Seen> = [Op::Create, Op::Put].into_iter().flat_map(|op| proxy.seen(op, "")).collect();
        assert!(!seen.is_empty(), "{words:?}: {}", run.stderr);
        let names = [
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-aws-kms-key-id",
            "x-amz-server-side-encryption-bucket-key-enabled",
        ];
        for (name, value) in names.into_iter().zip(expected) {
            let found = headers(&seen, name);
            assert!(found.iter().all(|found| found.as_deref() == value), "{words:?} {name}: {found:?}");
        }
        if words.is_empty() {
            run.expect(0);
        }
    }
}

/// A whole export: S3 takes the headers where an object or an upload begins, and refuses them on the chunks.
#[tokio::test]
async fn a_whole_export_is_encrypted_down_to_its_manifest() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let s3 = s3();
    let proxy = Proxy::encrypting(&s3.endpoint).await;
    let to = format!("s3://{}/{}", variable("OUTHAUL_TEST_S3_OPEN_BUCKET"), unique());
    for args in [&["--partitions", "2"][..], &["--on-existing", "replace", "--keep-snapshot", "60s"]] {
        proxy.forget();
        let own = ["export", "--from", &pg.url, "--table", "t", "--to", &to, "--upload-chunk-size", "5MiB"];
        let kms = ["--sse", "aws:kms", "--sse-kms-key-id", "alias/lake", "--sse-bucket-key"];
        let mut run = outhaul(own.iter().chain(&kms).chain(args));
        for (name, value) in [("AWS_ENDPOINT", proxy.endpoint.as_str()), ("AWS_ALLOW_HTTP", "true")] {
            run = run.env(name, value);
        }
        run.env("AWS_REGION", "us-east-1").env("AWS_SKIP_SIGNATURE", "true").run().await.expect(0);
        for (op, path) in [
            (Op::Create, "/data/part-"),
            (Op::Put, "/_manifest.json"),
            (Op::Put, "/_SUCCESS"),
            (Op::Put, "/_outhaul/owner.json"),
            (Op::Put, "/plan.json"),
            (Op::Put, "/_ddl/"),
            (Op::Put, ""),
            (Op::Create, ""),
        ] {
            let seen = proxy.seen(op, path);
            assert!(!seen.is_empty(), "{op:?} {path}");
            for (name, value) in [
                ("x-amz-server-side-encryption", "aws:kms"),
                ("x-amz-server-side-encryption-aws-kms-key-id", "alias/lake"),
                ("x-amz-server-side-encryption-bucket-key-enabled", "true"),
            ] {
                let found = headers(&seen, name);
                assert!(found.iter().all(|found| found.as_deref() == Some(value)), "{op:?} {path} {name}: {found:?}");
            }
        }
        for op in [Op::Chunk, Op::Complete] {
            let seen = proxy.seen(op, "");
            assert!(!seen.is_empty(), "{op:?}");
            assert!(headers(&seen, "x-amz-server-side-encryption").iter().all(Option::is_none), "{op:?}: {seen:?}");
        }
    }
}

/// What a job writes beside its exports: its record, what it remembers, and what the keeper of its snapshot notes.
#[tokio::test]
async fn the_records_of_a_job_are_encrypted_as_its_exports_are() {
    let pg = pg(18).await;
    pg.batch("create table t as select i as id, i as n from generate_series(1, 100) i; create table u as table t")
        .await;
    let s3 = s3();
    for (off, all) in [("", true), ("encrypted-records", false)] {
        let proxy = Proxy::encrypting(&s3.endpoint).await;
        let root = format!("s3://{}/{}", variable("OUTHAUL_TEST_S3_OPEN_BUCKET"), unique());
        let night = Night::new(&format!(
            "root = '{root}'\n[defaults]\nsse = 'aws:kms'\nkeep_snapshot = '60s'\nto = '{root}/{{table}}/load={{run_id}}'\n\
             [[export]]\ntable = 'public.t'\nwatermark = 'id'\n[[export]]\ntable = 'public.u'\n"
        ));
        let mut run = night.run(&pg, &[]).env("OUTHAUL_TEST_OFF", off);
        for (name, value) in [("AWS_ENDPOINT", proxy.endpoint.as_str()), ("AWS_ALLOW_HTTP", "true")] {
            run = run.env(name, value);
        }
        run.env("AWS_REGION", "us-east-1").env("AWS_SKIP_SIGNATURE", "true").run().await.expect(0);
        for path in ["/_runs/", "/_run.json", "/_state/", "/keepers/", "/_manifest.json"] {
            let seen = proxy.seen(Op::Put, path);
            assert!(!seen.is_empty(), "{path}");
            let found = headers(&seen, "x-amz-server-side-encryption");
            let encrypted = found.iter().all(|found| found.as_deref() == Some("aws:kms"));
            assert_eq!(encrypted, all || path == "/_manifest.json", "{path} {off:?}: {found:?}");
        }
        let puts = proxy.seen(Op::Put, "");
        assert!(!all || headers(&puts, "x-amz-server-side-encryption").iter().all(Option::is_some), "{puts:?}");
    }
}

/// Whoever finishes a commit that died was told nothing of encryption: the dead run's own record says it.
#[tokio::test]
async fn what_a_dead_commit_lacked_is_encrypted_as_its_run_was() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let s3 = s3();
    let kms = ["--sse", "aws:kms", "--sse-kms-key-id", "alias/lake", "--sse-bucket-key"];
    for (command, off) in [("clean", ""), ("resume", ""), ("export", ""), ("clean", "encrypted-records")] {
        let proxy = Proxy::encrypting(&s3.endpoint).await;
        let to = format!("s3://{}/{}", variable("OUTHAUL_TEST_S3_OPEN_BUCKET"), unique());
        let store = [
            ("AWS_ENDPOINT", proxy.endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_SKIP_SIGNATURE", "true"),
        ];
        let at_store = |run: Outhaul| store.iter().fold(run, |run, (name, value)| run.env(name, *value));
        let stop = Stop::at("sent");
        let own = ["export", "--from", &pg.url, "--table", "t", "--to", &to];
        let running = at_store(outhaul(own.iter().chain(&kms))).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        kill(running).await;
        proxy.forget();
        let finished: &[&str] = match command {
            "resume" => &["resume", &to, "--take-over", "--from", &pg.url],
            // The next run, which finds it and would leave it as it is.
            "export" => {
                &["export", "--from", &pg.url, "--table", "t", "--to", &to, "--on-existing", "skip", "--sse", "AES256"]
            }
            _ => &["clean", &to],
        };
        at_store(outhaul(finished)).env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        let success = proxy.seen(Op::Put, "/_SUCCESS");
        assert!(!success.is_empty(), "{command}");
        // A run of its own writes its own records as it was told.
        let written = if command == "export" { success } else { proxy.seen(Op::Put, "") };
        for (name, value) in [
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption-aws-kms-key-id", "alias/lake"),
            ("x-amz-server-side-encryption-bucket-key-enabled", "true"),
        ] {
            let found = headers(&written, name);
            let encrypted = found.iter().all(|found| found.as_deref() == Some(value));
            assert_eq!(encrypted, off.is_empty(), "{command} {off:?} {name}: {found:?}");
        }
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let from = "postgres://nobody@127.0.0.1:1/none";
    for (to, words, expected) in [
        ("./out", &["--sse", "AES256"][..], "only S3 is told how to encrypt"),
        ("./out", &["--storage-class", "STANDARD"], "only S3 and GCS are told the class"),
        ("az://c/x", &["--storage-class", "Cool"], "default access tier"),
        ("gs://b/x", &["--object-tag", "a=b"], "only S3 is told tags"),
        ("s3://b/x", &["--sse-kms-key-id", "k"], "without --sse aws:kms"),
        ("s3://b/x", &["--sse", "AES256", "--sse-bucket-key"], "without --sse aws:kms"),
        ("s3://b/x", &["--sse", "aws:kms:dsse", "--sse-bucket-key"], "which has no such key"),
        ("s3://b/x", &["--sse", "kms"], "one of AES256, aws:kms, aws:kms:dsse is wanted"),
        ("s3://b/x", &["--object-tag", "a"], "KEY=VALUE is wanted"),
        ("s3://b/x", &["--object-tag", "a=1", "--object-tag", "a=2"], "--object-tag a is given twice"),
        ("s3://b/x", &["--storage-class", "A B"], "a word without spaces"),
        ("-", &["--sse", "AES256"], "with --to -"),
    ] {
        for command in ["export", "plan"] {
            let own = [command, "--from", from, "--table", "t", "--to", to];
            let run = outhaul(own.iter().chain(words)).env("AWS_REGION", "us-east-1").run().await.expect(2);
            assert!(run.stderr.contains(expected), "{command} {to} {words:?}: {}", run.stderr);
        }
    }
}
