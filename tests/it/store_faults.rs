//! Faults of the destination: what a store answers, loses or spoils, a disk that fills, a folder that goes (rows B1-B15
//! of the fault matrix). After each run either one whole export stands, or nothing of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::disk::Disk;
use crate::support::http_proxy::{End, Fault, Op, Proxy, Rule, answer, on};
use crate::support::job::{self, command, copy, no_sessions_left, parts};
use crate::support::pg::{self, Pg};
use crate::support::run::{Outhaul, Run, Stop, outhaul};
use crate::support::s3::{S3, s3};
use crate::support::watch::files;

const MANIFEST: &str = "_manifest.json";
const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

/// A relation, a prefix, and a proxy before it.
struct Rig {
    pg: Pg,
    s3: S3,
    proxy: Proxy,
}

impl Rig {
    async fn new(version: u32, rules: impl Into<Vec<Rule>>) -> Self {
        let (pg, s3) = (pg::lineitem(version).await, s3());
        let proxy = Proxy::start(&s3.endpoint, rules).await;
        Self { pg, s3, proxy }
    }

    /// One part of two chunks.
    fn export(&self, args: &[&str]) -> Outhaul {
        let [key, secret] = self.secrets();
        self.export_as_nobody(args).env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret)
    }

    fn export_as_nobody(&self, args: &[&str]) -> Outhaul {
        let mut all = vec!["--table", "lineitem", "--format", "csv", "--csv-header", "off", "--partitions", "1"];
        if args.contains(&"--table") {
            all.drain(..2);
        }
        all.extend(args);
        let command = command(&self.pg, &self.s3.url("out"), &all);
        command.env("AWS_ENDPOINT", &self.proxy.endpoint).env("AWS_REGION", "us-east-1")
    }

    fn secrets(&self) -> [String; 2] {
        let value = |wanted: &str| self.s3.env().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
        [value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY")]
    }

    /// What holds after every run.
    async fn clean(&self, run: &Run) {
        let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
        for secret in self.secrets() {
            assert!(!said.contains(&secret), "a credential was shown:\n{said}");
        }
        no_sessions_left(&self.pg).await;
    }

    /// The run left nothing that anybody sees, and nothing that is billed.
    async fn nothing(&self, run: &Run) {
        self.clean(run).await;
        let left: Vec<_> = self.s3.list("out").await.into_keys().filter(|key| !key.starts_with("_outhaul/")).collect();
        assert!(left.is_empty(), "left behind: {left:?}\n{}", run.stderr);
        assert_eq!(self.s3.open_uploads().await, Vec::<String>::new());
    }

    /// One whole export stands, with every row once, and nothing beside it.
    async fn complete(&self, run: &Run) {
        self.complete_but_for_uploads(run).await;
        assert_eq!(self.s3.open_uploads().await, Vec::<String>::new());
    }

    async fn complete_but_for_uploads(&self, run: &Run) {
        self.clean(run).await;
        let manifest: Value = serde_json::from_slice(&self.s3.get("out/_manifest.json").await).unwrap();
        assert_eq!(manifest["status"], "complete");
        let mut data = Vec::new();
        let mut named = Vec::new();
        for part in parts(&manifest) {
            let path = part["path"].as_str().unwrap();
            data.extend(self.s3.get(&format!("out/{path}")).await);
            named.push(path.strip_prefix("data/").unwrap().to_owned());
        }
        assert!(job::sorted(&data) == job::sorted(&copy(&self.pg, "select * from lineitem").await), "other rows");
        assert_eq!(self.s3.list("out/data").await.into_keys().collect::<Vec<_>>(), named);
        outhaul(["verify", &self.s3.url("out"), "--read-data"]).envs(self.s3.env()).run().await.expect(0);
    }
}

#[tokio::test]
async fn b1_slow_down_is_waited_out() {
    let slow = |op, path, times| on(op, path, answer(503, SLOW_DOWN)).only(1..=times);
    let rules =
        [slow(Op::Create, "", 2), slow(Op::Chunk, "", 3), slow(Op::Complete, "", 1), slow(Op::Put, MANIFEST, 1)];
    let rig = Rig::new(15, rules).await;
    let run = rig.export(&[]).run().await.expect(0);
    rig.complete(&run).await;
    for (op, times) in [(Op::Create, 3), (Op::Chunk, 5), (Op::Complete, 2)] {
        assert_eq!(rig.proxy.seen(op, "").len(), times, "{op:?}");
    }
}

#[tokio::test]
async fn b1_a_store_that_stays_slow_is_given_up() {
    let rig = Rig::new(18, [on(Op::Chunk, "", answer(503, SLOW_DOWN))]).await;
    let run = rig.export(&[]).env("OUTHAUL_TEST_LIMITS", "store-retry=1").run().await.expect(21);
    assert_eq!(run.report["retryable"], true);
    assert!(run.stderr.contains("SlowDown"), "{}", run.stderr);
    rig.nothing(&run).await;
    rig.proxy.set([]);
    let run = rig.export(&[]).run().await.expect(0);
    rig.complete(&run).await;
}

#[tokio::test]
async fn b2_requests_that_fail_on_their_way_are_sent_again() {
    let lost = |op, path, nth, end| on(op, path, Fault::Lost(end)).only(nth..=nth);
    let rig = Rig::new(
        18,
        [
            lost(Op::Create, "", 1, End::Close),
            lost(Op::Chunk, "", 1, End::Reset),
            lost(Op::Chunk, "", 2, End::Status500),
            lost(Op::Chunk, "", 3, End::Close),
            lost(Op::Complete, "", 1, End::Reset),
            lost(Op::Put, MANIFEST, 1, End::Reset),
            lost(Op::Put, "_SUCCESS", 1, End::Close),
        ],
    )
    .await;
    let run = rig.export(&[]).run().await.expect(0);
    rig.complete(&run).await;
    assert_eq!(rig.proxy.broken(Op::Chunk, ""), 3);
}

#[tokio::test]
async fn b2_a_conflict_with_another_request_passes() {
    let conflict =
        "<Error><Code>OperationAborted</Code><Message>A conflicting operation is in progress.</Message></Error>";
    let refused = |op, times| on(op, "", answer(409, conflict)).only(1..=times);
    let rig = Rig::new(15, [refused(Op::Create, 1), refused(Op::Chunk, 3), refused(Op::Complete, 2)]).await;
    let run = rig.export(&[]).run().await.expect(0);
    rig.complete(&run).await;
    rig.proxy.set([on(Op::Chunk, "", answer(409, conflict))]);
    let run = rig.export(&["--on-existing", "replace"]).run().await.expect(21);
    assert_eq!(run.report["retryable"], true);
    rig.complete(&run).await;
}

#[tokio::test]
async fn b3_chunks_whose_answer_is_lost_are_sent_again() {
    let lost = |nth, end| on(Op::Chunk, "", Fault::AnswerLost(end)).only(nth..=nth);
    let rig = Rig::new(15, [lost(1, End::Close), lost(2, End::Reset), lost(3, End::Status500)]).await;
    let run = rig.export(&[]).run().await.expect(0);
    rig.complete(&run).await;
    assert_eq!(rig.proxy.broken(Op::Chunk, ""), 3);

    // What is cut off in the middle of a read is read on from there.
    rig.proxy.set([on(Op::Get, "", Fault::HalfAnswer).only(1..=2)]);
    let verify = outhaul(["verify", &rig.s3.url("out"), "--read-data"]).envs(rig.s3.env());
    verify.env("AWS_ENDPOINT", &rig.proxy.endpoint).run().await.expect(0);
    assert_eq!(rig.proxy.broken(Op::Get, ""), 2);
}

/// S3 has then begun an upload whose id nobody was told: the run looks for it at its end.
#[tokio::test]
async fn b3_an_upload_that_began_unheard_of_is_found_and_not_used() {
    let lost = |end| on(Op::Create, "", Fault::AnswerLost(end)).only(1..=1);
    for end in [End::Close, End::Status500] {
        let rig = Rig::new(15, [lost(end)]).await;
        let run = rig.export(&[]).run().await.expect(0);
        rig.complete(&run).await;
        assert!(rig.s3.list("out/_outhaul").await.is_empty());
    }
    // One that fails for another reason takes it away, too.
    let rig = Rig::new(18, [lost(End::Reset)]).await;
    rig.pg.batch("create view late as select *, 1 / (60000 - id) as bad from lineitem").await;
    let run = rig.export(&["--table", "late"]).run().await.expect(15);
    rig.nothing(&run).await;

    rig.proxy.set([lost(End::Close)]);
    let run = rig.export(&[]).env("OUTHAUL_TEST_OFF", "unheard-uploads").run().await.expect(0);
    rig.complete_but_for_uploads(&run).await;
    assert_eq!(rig.s3.open_uploads().await.len(), 1, "without the look it stays");
}

/// Who looks in vain loses nothing else by it.
#[tokio::test]
async fn b3_a_role_that_may_not_list_uploads_is_warned_and_commits() {
    let rules =
        [on(Op::Create, "", Fault::AnswerLost(End::Close)).only(1..=1), on(Op::List, "uploads=", answer(403, DENIED))];
    let rig = Rig::new(18, rules).await;
    let run = rig.export(&[]).run().await.expect(0);
    assert!(run.stderr.contains("open uploads cannot be listed"), "{}", run.stderr);
    rig.complete_but_for_uploads(&run).await;
    assert_eq!(rig.s3.open_uploads().await.len(), 1);
}

#[tokio::test]
async fn b4_an_error_in_a_200_is_an_error() {
    let error = "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>";
    let rig = Rig::new(18, [on(Op::Complete, "", answer(200, error)).only(1..=1)]).await;
    let run = rig.export(&[]).run().await.expect(0);
    rig.complete(&run).await;
    assert_eq!(rig.proxy.seen(Op::Complete, "").len(), 2);
}

const NO_SUCH_UPLOAD: &str = "<Error><Code>NoSuchUpload</Code><Message>It does not exist.</Message></Error>";

#[tokio::test]
async fn b5_a_completion_that_was_not_heard_is_found_by_looking() {
    let rules = || {
        let lost = on(Op::Complete, "", Fault::AnswerLost(End::Close)).only(1..=1);
        [lost, on(Op::Complete, "", answer(404, NO_SUCH_UPLOAD)).only(2..=9)]
    };
    let rig = Rig::new(15, rules()).await;
    let run = rig.export(&[]).env("OUTHAUL_TEST_OFF", "look-after-complete").run().await.expect(21);
    rig.nothing(&run).await;
    rig.proxy.set(rules());
    let run = rig.export(&[]).run().await.expect(0);
    rig.complete(&run).await;
}

#[tokio::test]
async fn b6_expired_credentials_end_the_run_and_leave_nothing() {
    let expired = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
    let rig = Rig::new(18, []).await;
    for (op, status) in [(Op::Chunk, 403), (Op::Complete, 400), (Op::Create, 400)] {
        rig.proxy.set([on(op, "", answer(status, expired))]);
        let run = rig.export(&[]).run().await.expect(20);
        assert!(run.stderr.contains("ExpiredToken") && run.stderr.contains("credentials"), "{}", run.stderr);
        assert_eq!(run.report["retryable"], false);
        rig.nothing(&run).await;
    }
}

#[tokio::test]
async fn b6_credentials_that_change_are_asked_for_again() {
    let rig = Rig::new(15, []).await;
    let [old, secret] = rig.secrets();
    let keys = Keys::start(&old, &secret).await;
    let stop = Stop::at("planned");
    let export = rig.export_as_nobody(&[]).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &keys.url);
    let export = export.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", keys.token.path());
    let running = export.stops([&stop]).spawn();
    running.stands_at(&stop).await;
    let new = format!("next{old}");
    keys.give(&new);
    // As long as the client uses what it was given just now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.release();
    let run = running.wait().await.expect(0);
    rig.complete(&run).await;
    for (op, path, key) in
        [(Op::Put, "plan.json", &old), (Op::Chunk, "", &new), (Op::Complete, "", &new), (Op::Put, MANIFEST, &new)]
    {
        let signed = rig.proxy.seen(op, path);
        let by = format!("Credential={key}/");
        assert!(!signed.is_empty() && signed.iter().all(|seen| seen.head.contains(&by)), "{op:?}: {signed:?}");
    }
}

/// A service that gives out credentials which are about to expire, as one in a cluster does.
struct Keys {
    url: String,
    token: tempfile::NamedTempFile,
    key: Arc<Mutex<String>>,
}

impl Keys {
    async fn start(key: &str, secret: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "token").unwrap();
        let key = Arc::new(Mutex::new(key.to_owned()));
        let (given, secret) = (Arc::clone(&key), secret.to_owned());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
                let body = json!({
                    "AccessKeyId": *given.lock().unwrap(),
                    "SecretAccessKey": secret,
                    "Token": "",
                    "Expiration": chrono::Utc::now() + chrono::Duration::seconds(1),
                });
                let body = body.to_string();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        Self { url, token, key }
    }

    fn give(&self, key: &str) {
        key.clone_into(&mut self.key.lock().unwrap());
    }
}

#[tokio::test]
async fn b7_a_role_that_may_not_write_is_told_before_anything_is_read() {
    let rig = Rig::new(15, []).await;
    let run = rig.export(&[]).envs(rig.s3.read_only_env()).env("AWS_ENDPOINT", &rig.proxy.endpoint);
    let run = run.run().await.expect(20);
    assert!(rig.proxy.seen(Op::Create, "").is_empty(), "an upload was begun");
    rig.nothing(&run).await;
}

const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>";

#[tokio::test]
async fn b7_a_role_that_may_not_abort_leaves_uploads_that_the_journal_names() {
    let rig = Rig::new(18, [on(Op::Abort, "", answer(403, DENIED))]).await;
    rig.pg.batch("create view late as select *, 1 / (60000 - id) as bad from lineitem").await;
    let run = rig.export(&["--table", "late"]).run().await.expect(15);
    assert!(run.stderr.contains("could not be"), "{}", run.stderr);
    rig.clean(&run).await;
    let open = rig.s3.open_uploads().await;
    assert!(!open.is_empty());
    let noted = rig.s3.list("out/_outhaul").await;
    for key in open {
        let (_, path) = key.split_once("/out/").unwrap();
        assert!(noted.keys().any(|name| name.ends_with(&format!("uploads/{path}.json"))), "{path} not in {noted:?}");
    }
}

/// What nobody sees is no reason to refuse every later export: it is told, and waits for `clean`.
#[tokio::test]
async fn b7_uploads_that_may_not_be_aborted_are_told_and_left_to_clean() {
    let denied = || [on(Op::Abort, "", answer(403, DENIED))];
    let rig = Rig::new(15, denied()).await;
    rig.pg.batch("create view late as select *, 1 / (60000 - id) as bad from lineitem").await;
    rig.export(&["--table", "late"]).run().await.expect(15);
    let left = rig.s3.open_uploads().await;
    assert!(!left.is_empty());
    let run = rig.export(&[]).env("OUTHAUL_TEST_OFF", "tolerate-uploads").run().await.expect(20);
    assert!(run.stderr.contains("s3:AbortMultipartUpload"), "{}", run.stderr);

    let run = rig.export(&[]).run().await.expect(0);
    rig.complete_but_for_uploads(&run).await;
    for key in &left {
        assert!(run.stderr.contains(key), "{key} is not named: {}", run.stderr);
    }
    assert!(run.stderr.contains("`outhaul clean`"), "{}", run.stderr);
    assert_eq!(rig.s3.open_uploads().await, left);

    let url = rig.s3.url("out");
    let clean = || outhaul(["clean", &url]).envs(rig.s3.env()).env("AWS_ENDPOINT", &rig.proxy.endpoint);
    let refused = clean().run().await.expect(20);
    assert!(refused.stderr.contains("s3:AbortMultipartUpload"), "{}", refused.stderr);
    rig.proxy.set([]);
    clean().run().await.expect(0);
    rig.complete(&run).await;
    assert!(rig.s3.list("out/_outhaul").await.is_empty());
}

#[tokio::test]
async fn b7_a_role_that_may_not_write_the_manifest_publishes_nothing() {
    let rig = Rig::new(15, [on(Op::Put, MANIFEST, answer(403, DENIED))]).await;
    let run = rig.export(&[]).run().await.expect(20);
    assert!(run.stderr.contains("_manifest.json: "), "{}", run.stderr);
    rig.nothing(&run).await;
}

/// However many records a run has made, they go in a few requests, and what one of them says of a single object counts.
#[tokio::test]
async fn b7_records_go_together_and_a_refusal_for_one_of_them_is_heard() {
    let rig = Rig::new(15, []).await;
    let many = ["--part-size", "1MiB", "--run-id", "many"];
    let run = rig.export(&many).run().await.expect(0);
    rig.complete(&run).await;
    assert!(rig.s3.list("out/_outhaul").await.is_empty());
    let deletions = rig.proxy.seen(Op::Delete, "").len();
    // Records, plan, the facts of the run, owner.
    assert!(deletions <= 4, "{deletions} requests");

    let rig = Rig::new(18, []).await;
    let key = format!("{}/out/_outhaul/many/run.json", rig.s3.prefix);
    let refused = format!(
        "<DeleteResult><Error><Key>{key}</Key><Code>AccessDenied</Code><Message>No.</Message></Error></DeleteResult>"
    );
    // The third request is for the facts of the run.
    rig.proxy.set([on(Op::Delete, "", answer(200, refused.leak())).only(3..=3)]);
    let run = rig.export(&many).run().await.expect(0);
    rig.complete(&run).await;
    let left: Vec<String> = rig.s3.list("out/_outhaul").await.into_keys().collect();
    assert_eq!(left, ["many/ended.json", "many/run.json"]);
    outhaul(["clean", &rig.s3.url("out")]).envs(rig.s3.env()).run().await.expect(0);
    assert!(rig.s3.list("out/_outhaul").await.is_empty());
}

#[tokio::test]
async fn b8_a_conflict_on_the_manifest_is_looked_into() {
    let conflict = "<Error><Code>ConditionalRequestConflict</Code><Message>Please retry.</Message></Error>";
    let rig = Rig::new(18, [on(Op::Put, MANIFEST, answer(409, conflict)).only(1..=2)]).await;
    let run = rig.export(&[]).run().await.expect(0);
    rig.complete(&run).await;
    assert_eq!(rig.proxy.seen(Op::Put, MANIFEST).len(), 3);
}

#[tokio::test]
async fn b8_somebody_else_s_manifest_stands_and_is_kept() {
    let conflict = "<Error><Code>ConditionalRequestConflict</Code><Message>Please retry.</Message></Error>";
    let rig = Rig::new(15, []).await;
    let first = rig.export(&[]).run().await.expect(0);
    let theirs = rig.s3.get("out/_manifest.json").await;
    for key in rig.s3.list("out").await.into_keys() {
        rig.s3.delete(&format!("out/{key}")).await;
    }
    rig.clean(&first).await;

    let stop = Stop::at("uploaded");
    rig.proxy.set([on(Op::Put, MANIFEST, answer(409, conflict))]);
    let running = rig.export(&[]).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    rig.s3.put("out/_manifest.json", &theirs).await;
    stop.release();
    let run = running.wait().await.expect(22);
    assert_eq!(rig.s3.get("out/_manifest.json").await, theirs);
    assert!(rig.s3.list("out/data").await.is_empty());
    assert_eq!(rig.s3.open_uploads().await, Vec::<String>::new());
    rig.clean(&run).await;
}

#[tokio::test]
async fn b9_a_manifest_whose_answer_is_lost_is_read_back() {
    let rig = Rig::new(18, []).await;
    for end in [End::Close, End::Reset, End::Status500, End::Hang] {
        rig.proxy.set([on(Op::Put, MANIFEST, Fault::AnswerLost(end)).only(1..=1)]);
        let run = rig.export(&["--on-existing", "replace"]).env("OUTHAUL_TEST_LIMITS", "request=2").run().await;
        let run = run.expect(0);
        rig.complete(&run).await;
        assert_eq!(rig.proxy.broken(Op::Put, MANIFEST), 1, "{end:?}");
        rig.proxy.forget();
    }
}

/// Without reading it back a manifest that stands is taken for lost, and its parts are removed.
#[tokio::test]
async fn b9_reading_back_is_what_saves_the_export() {
    let rig = Rig::new(15, [on(Op::Put, MANIFEST, Fault::AnswerLost(End::Hang))]).await;
    let run = rig.export(&[]).env("OUTHAUL_TEST_LIMITS", "request=1").env("OUTHAUL_TEST_OFF", "read-back");
    run.run().await.expect(21);
    assert!(rig.s3.list("out").await.contains_key(MANIFEST));
    assert!(rig.s3.list("out/data").await.is_empty());
}

#[tokio::test]
async fn b10_a_slow_upload_has_as_long_as_its_size_needs() {
    // 5 MiB take two seconds, where a request without a body has one.
    let rig = Rig::new(18, [on(Op::Chunk, "partNumber=1", Fault::Throttle(5 << 19))]).await;
    let slow = || rig.export(&[]).env("OUTHAUL_TEST_LIMITS", "request=1,store-retry=1");
    let run = slow().env("OUTHAUL_TEST_OFF", "scaled-timeout").run().await.expect(21);
    assert!(run.stderr.contains("no answer within 1 s"), "{}", run.stderr);
    rig.nothing(&run).await;
    let run = slow().run().await.expect(0);
    rig.complete(&run).await;
}

/// The arguments of an export of lineitem to a folder of a disk.
fn to_disk(pg: &Pg, disk: &Disk, folder: &str, more: &[&str]) -> Outhaul {
    let to = disk.folder().join(folder);
    let fixed = ["export", "--from", &pg.url, "--to", to.to_str().unwrap(), "--report", "json", "--format", "csv"];
    disk.outhaul(&[&fixed, &["--table", "lineitem", "--partitions", "2"][..], more].concat())
}

/// All files of a folder but what later runs may look into.
fn left_in(disk: &Disk, folder: &str) -> Vec<String> {
    let all = files(&disk.seen().join(folder)).into_keys();
    all.filter(|path| !path.starts_with("_outhaul/") || path.contains("staging")).collect()
}

#[tokio::test]
async fn b11_a_full_disk_ends_the_run_and_keeps_what_was_there() {
    let (pg, disk) = (pg::lineitem(18).await, Disk::new(6).await);
    to_disk(&pg, &disk, "first", &["--where", "id <= 10000"]).run().await.expect(0);
    let first = files(&disk.seen().join("first"));
    let run = to_disk(&pg, &disk, "second", &[]).run().await.expect(23);
    assert!(run.stderr.contains("no space left") && run.stderr.contains("free space"), "{}", run.stderr);
    assert_eq!(run.report["retryable"], false);
    assert_eq!(left_in(&disk, "second"), Vec::<String>::new());
    assert_eq!(files(&disk.seen().join("first")), first);
    disk.remount("size=20m").await;
    to_disk(&pg, &disk, "second", &[]).run().await.expect(0);
    for folder in ["first", "second"] {
        let folder = disk.folder().join(folder);
        disk.outhaul(&["verify", folder.to_str().unwrap(), "--read-data"]).run().await.expect(0);
    }
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn b11_a_disk_that_fills_before_the_commit_keeps_the_export_to_be_replaced() {
    let (pg, disk) = (pg::lineitem(15).await, Disk::new(6).await);
    to_disk(&pg, &disk, "out", &["--where", "id <= 10000"]).run().await.expect(0);
    let first = left_in(&disk, "out");
    let stop = Stop::at("uploaded");
    let replace = ["--where", "id > 10000 and id <= 20000", "--on-existing", "replace"];
    let running = to_disk(&pg, &disk, "out", &replace).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    disk.fill();
    stop.release();
    running.wait().await.expect(23);
    assert_eq!(left_in(&disk, "out"), first);
    disk.outhaul(&["verify", disk.folder().join("out").to_str().unwrap(), "--read-data"]).run().await.expect(0);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn b12_a_disk_that_turns_read_only_gets_no_manifest() {
    let (pg, disk) = (pg::lineitem(18).await, Disk::new(20).await);
    let stop = Stop::at("uploaded");
    let running = to_disk(&pg, &disk, "out", &[]).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    disk.remount("ro").await;
    stop.release();
    let run = running.wait().await.expect(21);
    assert!(run.stderr.contains("mounted read-only"), "{}", run.stderr);
    disk.remount("rw").await;
    assert!(left_in(&disk, "out").iter().all(|path| path.contains("staging")), "{:?}", left_in(&disk, "out"));
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn b12_a_folder_that_is_deleted_under_a_run_gets_no_manifest() {
    let (pg, folder) = (pg::lineitem(15).await, tempfile::tempdir().unwrap());
    let to = folder.path().join("out");
    let export = || command(&pg, to.to_str().unwrap(), &["--table", "lineitem", "--format", "csv"]);
    let stop = Stop::at("uploaded");
    let running = export().stops([&stop]).spawn();
    running.stands_at(&stop).await;
    std::fs::remove_dir_all(&to).unwrap();
    stop.release();
    // With the folder went the record that it is the run's own.
    running.wait().await.expect(22);
    assert!(files(&to).is_empty(), "{:?}", files(&to));
    export().run().await.expect(0);
    outhaul(["verify", to.to_str().unwrap(), "--read-data"]).run().await.expect(0);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn b13_a_missing_bucket_and_a_wrong_region_are_told_before_anything_is_read() {
    let rig = Rig::new(15, []).await;
    let to = "s3://never-made-by-any-test/out";
    let run = command(&rig.pg, to, &["--table", "lineitem"]).envs(rig.s3.env()).run().await.expect(2);
    assert!(run.stderr.contains("bucket never-made-by-any-test does not exist"), "{}", run.stderr);

    let moved = "<Error><Code>PermanentRedirect</Code><Message>Use the specified endpoint.</Message></Error>";
    let region = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; \
        expecting 'eu-west-1'</Message></Error>";
    for (status, body) in [(301, moved), (400, region)] {
        let everything = [Op::Create, Op::Put, Op::Get, Op::List, Op::Head];
        rig.proxy.set(everything.map(|op| on(op, "", answer(status, body))));
        let run = rig.export(&[]).run().await.expect(2);
        assert!(run.stderr.contains("check the region and the endpoint"), "{}", run.stderr);
        assert!(rig.proxy.seen(Op::Create, "").is_empty());
        rig.nothing(&run).await;
    }
}

#[tokio::test]
async fn b15_a_changed_byte_is_refused_by_its_checksum() {
    let rig = Rig::new(18, [on(Op::Chunk, "partNumber=1", Fault::Corrupt)]).await;
    let run = rig.export(&[]).env("OUTHAUL_TEST_LIMITS", "store-retry=1").run().await.expect(21);
    rig.nothing(&run).await;
}

#[tokio::test]
async fn g3_destinations_that_hide_another_place_are_refused() {
    let pg = pg::pg(18).await;
    for to in [
        "http://169.254.169.254/latest/meta-data",
        "s3://bucket/x?endpoint=http://127.0.0.1:1",
        "s3://key:hunter2@bucket/x",
        "s3://bucket/../other",
        "s3://bucket/x/%2e%2e/y\n",
        "file://elsewhere/etc/x",
    ] {
        let run = command(&pg, to, &["--table", "t"]).run().await.expect(2);
        let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
        assert!(!said.contains("hunter2"), "{said}");
    }
    no_sessions_left(&pg).await;
}

/// A store may send its client elsewhere; the signature stays at home.
#[tokio::test]
async fn g3_a_redirect_carries_no_signature() {
    let rig = Rig::new(15, []).await;
    let elsewhere = Proxy::start(&rig.s3.endpoint, []).await;
    // Another host by its name, as an attacker's would be.
    let away = format!("Location: {}/stolen\r\n", elsewhere.endpoint);
    rig.proxy.set([on(Op::Get, "", Fault::Answer(307, away, ""))]);
    let run = rig.export(&[]).run().await;
    assert!(matches!(run.code, 2 | 20 | 21), "{}: {}", run.code, run.stderr);
    let followed = elsewhere.seen(Op::Get, "stolen");
    assert!(followed.iter().all(|seen| !seen.head.to_ascii_lowercase().contains("authorization:")), "{followed:?}");
    assert!(rig.proxy.seen(Op::Create, "").is_empty());
    rig.nothing(&run).await;
}
