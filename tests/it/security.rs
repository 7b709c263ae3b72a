//! Secrets, confinement and least privilege (I9; A13, F1, G1, G2, G4, P6).

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_postgres::NoTls;

use crate::support::job::{command, data, sorted};
use crate::support::pg::{both, pg};
use crate::support::run::{Run, Stop, outhaul, program};
use crate::support::s3::{guarded, s3};
use crate::support::secured::Secured;
use crate::support::tls::{Authority, Demand, LOCAL, impostor, word};
use crate::support::{manifest, oracle};

const CANARY: &str = "canary-4711";

async fn secured(version: u32) -> Secured {
    let authority = Authority::new("ec");
    let certificate = authority.issue("db", LOCAL, 30);
    Secured::start(version, &authority, &certificate).await
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A13: the password changes while a run lasts.
#[tokio::test]
async fn the_password_is_asked_for_at_each_connection() {
    for version in both() {
        let cluster = secured(version).await;
        cluster
            .batch(
                "create role changing login; create table t as select i as id from generate_series(1, 4000) i;
                 grant select on t to changing",
            )
            .await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let cat = format!("cat {}", file.display());
        let set = async |password: &str| {
            cluster.batch(&format!("alter role changing password '{password}'")).await;
            write(folder.path(), "password", password);
        };
        for (args, code) in [
            (&["--password-command", &cat][..], 0),
            (&["--password-file", file.to_str().unwrap()], 0),
            // What is known from the start is not asked for again.
            (&[], 10),
        ] {
            set("first").await;
            let (to, planned) = (folder.path().join(format!("out{}", args.join("").len())), Stop::at("planned"));
            let from = cluster.from("changing", "");
            let fixed = ["export", "--from", &from, "--to", to.to_str().unwrap(), "--table", "t", "--report", "json"];
            let fixed = [&fixed[..], &["--readers", "2", "--partitions", "4", "--format", "csv"]].concat();
            let run = outhaul(fixed.iter().chain(args)).env("PGPASSWORD", "first").stops([&planned]).spawn();
            run.stands_at(&planned).await;
            set("second").await;
            planned.release();
            let run = run.wait().await.expect(code);
            assert_eq!(code == 0, run.report["rows"] == 4000, "{}", run.report);
        }
        let from = cluster.from("changing", "");
        let failing = ["plan", "--from", &from, "--table", "t", "--report", "json", "--password-command"];
        let run = outhaul(failing.iter().chain(&["echo vault is sealed >&2; exit 7"])).run().await.expect(10);
        let words = "the password command failed (exit status: 7): vault is sealed";
        assert!(run.stderr.starts_with("error: cannot connect to ") && run.stderr.contains(words), "{}", run.stderr);
        assert_eq!(run.report["retryable"], false, "{}", run.report);
        let hanging = outhaul(failing.iter().chain(&["sleep 600"])).env("OUTHAUL_TEST_LIMITS", "password_command=0.3");
        let run = hanging.run().await.expect(10);
        assert!(run.stderr.contains("the password command gave no answer"), "{}", run.stderr);
    }
}

#[tokio::test]
async fn the_role_exports_and_can_do_nothing_else() {
    for version in both() {
        let cluster = secured(version).await;
        cluster
            .batch(
                "create table t as select i as id, 'x' as v from generate_series(1, 100) i; create sequence s;
                 create schema other; create table other.secret (id int); create table l (id int);
                 create function other.f() returns int language sql as 'select 1';
                 create role maker; grant create on schema public to maker",
            )
            .await;
        let script = include_str!("../../config/postgres-role.sql");
        let psql = [("\\set ON_ERROR_STOP on", ""), (":\"schema\"", "public"), (":\"DBNAME\"", "postgres")];
        let psql = psql.into_iter().chain([(":\"owner\"", "maker")]);
        cluster.batch(&psql.fold(script.to_owned(), |script, (from, to)| script.replace(from, to))).await;
        let later = "set role maker; create table later (id int); reset role";
        cluster.batch(&format!("alter role outhaul password '{CANARY}'; {later}")).await;

        let from = cluster.from("outhaul", "");
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let column = "ro=current_setting('transaction_read_only')";
        let args = ["export", "--from", &from, "--to", to.to_str().unwrap(), "--table", "t", "--column", column];
        let args = [&args[..], &["--format", "csv", "--csv-header", "off", "--readers", "2", "--partitions", "4"]];
        outhaul(args.concat()).env("PGPASSWORD", CANARY).run().await.expect(0);
        let rows = sorted(&data(&to));
        assert!(rows.len() == 100 && rows.iter().all(|row| row.ends_with(",on")), "{rows:?}");
        outhaul(["plan", "--from", &from, "--table", "later"]).env("PGPASSWORD", CANARY).run().await.expect(0);
        only_reads(&cluster.log());

        let config = format!("{from} password={CANARY}");
        let (role, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let refused = async |statement: &str, code: &str| {
            let error = role.batch_execute(statement).await.expect_err(statement);
            assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some(code), "{statement}: {error:?}");
        };
        for statement in ["create temp table x (id int)", "create table x (id int)", "create schema x"] {
            refused(statement, "25006").await;
        }
        // It may lift that bar itself; what holds then are its rights.
        role.batch_execute("set default_transaction_read_only = off").await.unwrap();
        for statement in [
            "insert into t values (1, '')",
            "update t set v = ''",
            "delete from t",
            "truncate t",
            "select nextval('s')",
            "create table x (id int)",
            "create schema x",
            "create role x",
            "alter role outhaul createdb",
            "select * from other.secret",
            "select other.f()",
            "copy t to program 'cat'",
            "copy t to '/tmp/outhaul-test'",
            "select pg_read_file('postgresql.conf')",
            "select pg_ls_dir('.')",
            "select rolpassword from pg_authid",
            "select pg_switch_wal()",
            "alter system set work_mem = '1MB'",
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres' and pid <> pg_backend_pid()",
        ] {
            refused(statement, "42501").await;
        }
        refused("alter table t add x int", "42501").await;
        refused("drop table l", "42501").await;
    }
}

/// Every statement of the program is one that reads or that controls its own session, in a transaction that reads only.
fn only_reads(log: &str) {
    const FIRST_WORDS: [&str; 11] =
        ["BEGIN", "SET", "SELECT", "WITH", "COPY", "LOCK", "COMMIT", "ROLLBACK", "SAVEPOINT", "SHOW", "EXPLAIN"];
    let logged = log.lines().filter_map(|line| {
        let (name, rest) = line.split_once('|')?;
        let rest = rest.strip_prefix("LOG:  ")?;
        let statement = rest.strip_prefix("statement: ").or_else(|| rest.strip_prefix("execute <unnamed>: "))?;
        name.starts_with("outhaul/").then_some(statement)
    });
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for statement in logged {
        let word = statement.split_whitespace().next().unwrap().trim_end_matches(';').to_uppercase();
        assert!(FIRST_WORDS.contains(&word.as_str()), "{statement}");
        assert!(word != "BEGIN" || statement.contains("READ ONLY"), "{statement}");
        let changes = ["INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "ANALYZE", "VACUUM"];
        assert!(statement.split_whitespace().all(|word| !changes.contains(&word)), "{statement}");
        assert!(word != "EXPLAIN" || statement.trim_end() == "EXPLAIN SELECT (", "{statement}");
        assert!(word != "COPY" || statement.trim_end() == "COPY (", "{statement}");
        *seen.entry(word).or_default() += 1;
    }
    for word in ["BEGIN", "SET", "SELECT", "COPY"] {
        assert!(seen.contains_key(word), "{seen:?}");
    }
}

#[tokio::test]
async fn an_environment_file_is_read_before_the_environment_and_fills_its_gaps() {
    let (pg, s3) = (pg(18).await, s3());
    pg.batch("create table t as select 1 as id").await;
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = s3.env().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let text = format!("# for the lake\nOUTHAUL_FORMAT=csv\nSHOP={}\n{}\n", pg.url, lines.join("\n"));
    let file = write(folder.path(), "env", &text);
    let export = |to: &str| {
        let args = ["export", "--from", "env:SHOP", "--table", "t", "--to", to, "--report", "json"];
        outhaul(args.iter().chain(&["--env-file", &file]))
    };
    let run = export(&s3.url("one/")).run().await.expect(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    assert!(s3.list("one/data").await.keys().all(|name| name.contains(".csv")));
    let dest = s3.url("one/");
    outhaul(["verify", &dest]).env("OUTHAUL_ENV_FILE", &file).run().await.expect(0);
    outhaul(["ddl", &dest, "--dialect", "duckdb", "--env-file", &file]).run().await.expect(0);
    // What is set to nothing counts as unset, here too; a file that sets it so ends.
    std::fs::write(&file, format!("{text}OUTHAUL_MAX_ROWS=\nOUTHAUL_DATE=\nOUTHAUL_DATE=\n")).unwrap();
    let run = export(&s3.url("empty/")).env("OUTHAUL_FORMAT", "").env("OUTHAUL_MAX_ROWS", "").run().await.expect(0);
    assert!(s3.list("empty/data").await.keys().all(|name| name.contains(".csv")), "{run:?}");
    std::fs::write(&file, &text).unwrap();
    // What is set stays.
    let run = export(&s3.url("two/")).env("AWS_SECRET_ACCESS_KEY", CANARY).run().await.expect(20);
    assert!(!run.stderr.contains(CANARY), "{}", run.stderr);

    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let run = export(&s3.url("three/")).run().await.expect(0);
    assert_eq!(run.stderr.matches("warning: group or others can read the secrets of").count(), 1, "{}", run.stderr);

    let broken = write(folder.path(), "broken", &format!("A=1\nexport PGPASSWORD={CANARY}\n"));
    let args = ["export", "--table", "t", "--to", "out", "--report", "json", "--env-file"];
    let run = outhaul(args.iter().chain(&[broken.as_str()])).run().await.expect(2);
    assert!(run.stderr.contains(&format!("error: {broken}:2: not a variable")), "{}", run.stderr);
    assert!(!run.stderr.contains(CANARY) && run.report["exit_code"] == 2, "{run:?}");
    outhaul(args.iter().chain(&["/none"])).run().await.expect(2);
}

/// G4: what others can read is told; what would be sent from there by libpq's own rules is refused.
#[tokio::test]
async fn files_with_secrets_that_others_can_read_are_told() {
    let pg = pg(15).await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "password", CANARY);
    let args = ["plan", "--from", &pg.url, "--query", "select 1 as one", "--password-file", &file];
    assert!(!outhaul(args).run().await.expect(0).stderr.contains("chmod"));
    std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let run = outhaul(args).run().await.expect(0);
    assert!(run.stderr.contains(&format!("run chmod 600 {file}")) && !run.stderr.contains(CANARY), "{}", run.stderr);
}

/// G1.
#[tokio::test]
async fn mistakes_in_a_config_file_are_told_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let long = format!("where = '{}'", "x".repeat(2 << 20));
    for (text, words) in [
        (
            &b"readers = 4\n\n  part_szie = '1MB'\n"[..],
            ":3:3: unknown key \"part_szie\"\nhint: did you mean part_size?",
        ),
        (b"readers = true", ":1:1: readers is \"true\""),
        (b"readers = 4\nreaders = 5\n", ":2:1: duplicate key"),
        (b"format = 'csv'\nreaders = [\n", ":2:12: unclosed array"),
        (b"format = 'cvs'", ":1:1: format is \"cvs\"\nhint: did you mean csv?"),
        (b"sha256 = 1", ":1:1: the value of sha256 is of the wrong kind"),
        (b"[tiers]\nfree = 1\n[[tiers]]\n", "c.toml:3:3: "),
        (b"from = 'x'\nwhere = '\xff'", "line 2, column 10: not UTF-8"),
        (long.as_bytes(), "more than 1048576 bytes"),
        (b"from = 'postgres://u:canary-4711@h", "c.toml:1:"),
        (b"from = 'postgres://u:canary-4711@h/d?sslmod=x'", "did you mean sslmode?"),
    ] {
        std::fs::write(&path, text).unwrap();
        let args = ["plan", "--config", path.to_str().unwrap(), "--table", "t"];
        let run = outhaul(args).env("DATABASE_URL", "postgres://u@127.0.0.1:1/d").run().await.expect(2);
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
        assert!(!run.stderr.contains(CANARY), "{}", run.stderr);
    }
    // A variable goes before the file, and is told as what it is.
    std::fs::write(&path, "readers = 4").unwrap();
    let args = ["plan", "--config", path.to_str().unwrap(), "--table", "t", "--from", "postgres://u@127.0.0.1:1/d"];
    let run = outhaul(args).env("OUTHAUL_READERS", "many").run().await.expect(2);
    assert!(run.stderr.contains("environment variable OUTHAUL_READERS is \"many\""), "{}", run.stderr);
}

/// All below a folder: path, mode and content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let facts = path.symlink_metadata().unwrap();
        let content = if facts.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if facts.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(path, (facts.permissions().mode() & 0o7777, content));
    }
    found
}

/// G2: nothing outside the destination is read, replaced or removed by way of a link in it.
#[tokio::test]
async fn a_link_does_not_lead_out_of_the_destination() {
    let pg = pg(15).await;
    pg.batch("create table t as select 1 as id").await;
    for name in ["data", "_outhaul", "_manifest.json", "_SUCCESS", "_ddl", "_redshift"] {
        for relative in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (dest, elsewhere) = (folder.path().join("dest"), folder.path().join("elsewhere"));
            std::fs::create_dir_all(&dest).unwrap();
            std::fs::create_dir_all(&elsewhere).unwrap();
            let is_file = name.contains('.') || name == "_SUCCESS";
            let target = if is_file { elsewhere.join("file") } else { elsewhere.clone() };
            std::fs::write(elsewhere.join("file"), "{}").unwrap();
            let target =
                if relative { Path::new("..").join(target.strip_prefix(folder.path()).unwrap()) } else { target };
            symlink(target, dest.join(name)).unwrap();
            let before = tree(&elsewhere);
            for existing in ["fail", "replace"] {
                let args = ["--table", "t", "--format", "csv", "--on-existing", existing];
                let run = command(&pg, dest.to_str().unwrap(), &args).run().await.expect(2);
                assert!(run.stderr.contains("a symbolic link leads out of the destination"), "{}", run.stderr);
            }
            assert_eq!(tree(&elsewhere), before, "{name} {relative}");
            outhaul(["verify", dest.to_str().unwrap()]).run().await;
            assert_eq!(tree(&elsewhere), before, "{name} {relative}");
        }
    }
    // The destination's own path is the operator's, links and all.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("real")).unwrap();
    symlink("real", folder.path().join("link")).unwrap();
    let to = folder.path().join("link/out");
    command(&pg, to.to_str().unwrap(), &["--table", "t", "--format", "csv"]).run().await.expect(0);
    assert_eq!(oracle::local(&folder.path().join("real/out"), &[]).await.rows, 1);
}

#[tokio::test]
async fn names_do_not_lead_out_of_the_destination() {
    let pg = pg(18).await;
    let names = ["../../up", "/abs", "a/b", ".", "..", "x\u{202e}y", "line\nbreak", "'; drop table t; --", "%00", "🦀"];
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        pg.batch(&format!("create table {quoted} as select 1 as id")).await;
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("a/b/c");
        let args = ["--table", &quoted, "--format", "csv"];
        command(&pg, dest.to_str().unwrap(), &args).run().await.expect(0);
        let relation = manifest(&dest)["source"]["relation"].to_string();
        assert!(relation.contains(serde_json::json!(name).to_string().trim_matches('"')), "{relation}");
        assert!(tree(folder.path()).keys().all(|path| path.starts_with(&dest) || dest.starts_with(path)));
        // In a path they are refused rather than bent, so that two tables never share a folder.
        let expanded = format!("{}/x/{{table}}", folder.path().display());
        let before = tree(folder.path());
        let run = command(&pg, &expanded, &args).run().await;
        assert_eq!(run.code, if name == "🦀" { run.code } else { 2 }, "{name:?}: {}", run.stderr);
        if run.code == 2 {
            assert_eq!(tree(folder.path()), before, "{name:?}");
        }
    }
}

/// A process with this file creation mask.
async fn with_umask(umask: &str, args: &[&str]) -> Run {
    let script = format!("umask {umask}; exec \"$@\"");
    let all = ["-c", &script, "sh", env!("CARGO_BIN_EXE_outhaul")];
    program("/bin/sh", all.iter().chain(args)).run().await
}

#[tokio::test]
async fn what_is_written_is_its_owner_s() {
    let pg = pg(15).await;
    pg.batch("create table t as select 1 as id").await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("there")).unwrap();
    std::fs::set_permissions(path("there"), Permissions::from_mode(0o755)).unwrap();
    let fixed = ["export", "--from", &pg.url, "--table", "t", "--format", "csv", "--to"];
    let run = async |rest: &[&str]| with_umask("000", &[&fixed[..], rest].concat()).await.expect(0);
    run(&[&path("new/deep"), "--metrics-file", &path("metrics")]).await;
    run(&[&path("new/deep"), "--on-existing", "replace"]).await;
    run(&[&path("there")]).await;
    run(&[&path("one.csv"), "--single-file"]).await;
    run(&["-", "--manifest", &path("manifest.json")]).await;
    for (path, (mode, _)) in tree(folder.path()) {
        let expected = match path.is_dir() {
            true if path.ends_with("there") => 0o755,
            true => 0o700,
            // Who collects metrics is commonly another user.
            false if path.ends_with("metrics") => 0o644,
            false => 0o600,
        };
        assert_eq!(mode, expected, "{} has mode {mode:o}", path.display());
    }
}

/// SeaweedFS judges by the policies as IAM does, but takes `AbortMultipartUpload` and `ListMultipartUploadParts` for writing:
/// without either it refuses nothing.
#[tokio::test]
async fn the_exporter_s_policy_is_enough_and_each_action_is_needed() {
    let pg = pg(18).await;
    pg.batch("create table t as select i as id from generate_series(1, 100) i").await;
    let export = async |identity: &str, path: &str, args: &[&str]| {
        let s3 = guarded();
        let args = [&["--table", "t", "--format", "csv"], args].concat();
        let run = command(&pg, &s3.url(path), &args).envs(s3.env_of(identity)).run().await;
        (s3, run)
    };
    let (s3, run) = export("exporter", "dest/", &[]).await;
    run.expect(0);
    let dest = s3.url("dest/");
    outhaul(["verify", &dest, "--read-data"]).envs(s3.env_of("exporter")).run().await.expect(0);
    assert_eq!(s3.open_uploads().await, [""; 0]);
    // Elsewhere in the bucket it may do nothing.
    let outside = crate::support::s3::s3();
    let run = command(&pg, &outside.url("dest/"), &["--table", "t"]).envs(outside.env_of("exporter")).run().await;
    run.expect(20);
    assert_eq!(outside.list("").await, BTreeMap::new());

    for (action, what) in [("PutObject", "s3:PutObject"), ("GetObject", "s3:GetObject")] {
        let (s3, run) = export(&format!("without-{action}-"), "dest/", &[]).await;
        let run = run.expect(20);
        assert!(run.stderr.contains(what) && run.stderr.contains("config/s3-policy.json"), "{}", run.stderr);
        assert_eq!(run.report["retryable"], false, "{}", run.report);
        assert_eq!(s3.list("dest/data").await, BTreeMap::new());
        assert!(!s3.list("dest").await.contains_key("_manifest.json"));
    }
    let without_list = outhaul(["verify", &dest]).envs(s3.env_of("without-ListBucket-")).run().await.expect(20);
    assert!(without_list.stderr.contains("s3:ListBucket"), "{}", without_list.stderr);
    // Whoever may not list finds nothing among the parts, and exports.
    let (s3_unlisted, run) = export("without-ListBucket-", "dest/", &[]).await;
    run.expect(0);
    assert_eq!(s3_unlisted.list("dest/data").await.len(), 1);

    // Replacing removes the parts of the old export, which is the cleaner's right.
    let replace = ["--table", "t", "--format", "csv", "--on-existing", "replace"];
    let run = command(&pg, &dest, &replace).envs(s3.env_of("exporter")).run().await.expect(20);
    assert!(run.stderr.contains("s3:DeleteObject") && run.stderr.contains("s3-cleaner-policy.json"), "{}", run.stderr);
    outhaul(["verify", &dest, "--read-data"]).envs(s3.env_of("exporter")).run().await;
    command(&pg, &dest, &replace).envs(s3.env_of("cleaner")).run().await.expect(0);
    assert_eq!(s3.list("dest/data").await.len(), 1);
}

/// A store that refuses everything, and repeats the whole request in the part of its answer that nobody should show.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 16 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut request).await {
                    let seen = String::from_utf8_lossy(&request[..count]).replace(['<', '&'], "_");
                    let body = format!(
                        "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>no match</Message>\
                         <CanonicalRequest>{seen}</CanonicalRequest></Error>"
                    );
                    let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n", body.len());
                    if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

/// What a run left of the secrets that it was given, wherever it could.
#[track_caller]
fn keeps(run: &Run, folder: &Path, secrets: &[&str]) {
    let stdout = String::from_utf8_lossy(&run.stdout).into_owned();
    let mut places = vec![("standard output".to_owned(), stdout), ("standard error".to_owned(), run.stderr.clone())];
    let files = tree(folder).into_iter().filter(|(path, _)| !path.ends_with("given"));
    places.extend(
        files.map(|(path, (_, bytes))| (path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned())),
    );
    for (place, text) in places {
        for secret in secrets {
            assert!(!text.contains(secret), "{place} shows {secret}: {text}");
        }
    }
}

/// P6, for runs that succeed and runs that fail, with everything told that can be told.
#[tokio::test]
async fn no_secret_is_ever_shown() {
    let cluster = secured(18).await;
    cluster
        .batch(&format!(
            "create role changing login password '{CANARY}'; create table t as select 1 as id;
             grant select on t to changing"
        ))
        .await;
    let s3 = s3();
    let secret = s3.env().into_iter().find(|(name, _)| *name == "AWS_SECRET_ACCESS_KEY").unwrap().1;
    let secrets = [CANARY, secret.as_str(), "canary-session", "canary-sas", "canary-account"];
    let (folder, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let password_file = write(folder.path(), "given", CANARY);
    let plain = cluster.from("changing", "");
    let url = format!("postgres://changing:{CANARY}@127.0.0.1:{}/postgres", cluster.port);
    let wrong = format!("postgres://changing:{CANARY}x@127.0.0.1:{}/postgres", cluster.port);
    let command = format!("echo {CANARY}");
    let account = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "canary-account");
    let export = |from: &str, to: &str, rest: &[&str]| {
        let metrics = runs.path().join("metrics");
        let fixed = ["export", "--from", from, "--to", to, "--table", "t", "--report", "json", "--progress", "json"];
        let logs = ["--log-format", "json", "-vv", "--metrics-file", metrics.to_str().unwrap()];
        outhaul(fixed.iter().chain(&logs).chain(rest))
    };
    let local = |name: &str| runs.path().join(name).to_str().unwrap().to_owned();
    let check = |run: Run, code: i32| keeps(&run.expect(code), runs.path(), &secrets);

    // The password in each of its places.
    check(export("env:SHOP", &local("url"), &[]).env("SHOP", &url).run().await, 0);
    check(export(&plain, &local("variable"), &[]).env("PGPASSWORD", CANARY).run().await, 0);
    check(export(&plain, &local("file"), &["--password-file", &password_file]).run().await, 0);
    check(export(&plain, &local("command"), &["--password-command", &command]).run().await, 0);
    // On S3, with what its journal keeps.
    let run = export(&plain, &s3.url("dest/"), &[]).envs(s3.env()).env("PGPASSWORD", CANARY).run().await;
    check(run, 0);
    for (path, _) in s3.list("").await {
        let text = String::from_utf8_lossy(&s3.get(&path).await).into_owned();
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{path}: {text}");
    }

    // Refused by the server, by TLS, by the stores; and a password where none may be.
    check(export("env:SHOP", &local("wrong"), &[]).env("SHOP", &wrong).run().await, 10);
    let authority = Authority::new("ec");
    let server = impostor(&authority.issue("db", "DNS:db.example", 30), Demand::Clear).await;
    let root = word("sslrootcert", &authority.certificate());
    let from = format!("host=127.0.0.1 port={} user=u {root} sslmode=verify-full", server.port);
    check(export(&from, &local("tls"), &[]).env("PGPASSWORD", CANARY).run().await, 10);
    check(export(&url, &local("line"), &[]).run().await, 2);
    check(export(&plain, &local("bad"), &["--password-command", &format!("{command}; exit 1")]).run().await, 10);
    let endpoint = format!("http://127.0.0.1:{}", echo().await);
    let refused = export(&plain, "s3://bucket/x", &[]).env("PGPASSWORD", CANARY).envs(s3.env());
    let refused = refused.env("AWS_ENDPOINT", &endpoint).env("AWS_SESSION_TOKEN", "canary-session");
    check(refused.run().await, 20);
    let azure = export(&plain, "az://container/x", &[]).env("PGPASSWORD", CANARY);
    let azure = azure.env("AZURE_STORAGE_ENDPOINT", &endpoint).env("AZURE_STORAGE_ACCOUNT_NAME", "x");
    check(azure.env("AZURE_STORAGE_SAS_KEY", "sv=1&sig=canary-sas").run().await, 20);
    let azure = export(&plain, "az://container/x", &[]).env("PGPASSWORD", CANARY);
    let azure = azure.env("AZURE_STORAGE_ENDPOINT", &endpoint).env("AZURE_STORAGE_ACCOUNT_NAME", "x");
    check(azure.env("AZURE_STORAGE_ACCOUNT_KEY", &account).run().await, 20);
    check(export(&plain, "s3://k:canary-session@bucket/x", &[]).env("PGPASSWORD", CANARY).run().await, 2);

    // A panic whose message is the whole environment: in the run's own task, on a computing thread, and in a partition's task.
    for at in ["planned", "encoding", "batch"] {
        let panicking = export(&plain, &local(&format!("panic-{at}")), &[]).env("PGPASSWORD", CANARY).envs(s3.env());
        let run = panicking.env("OUTHAUL_TEST_PANIC", at).env("RUST_BACKTRACE", "full").run().await;
        assert!(run.stderr.contains("internal error at"), "{at}: {}", run.stderr);
        check(run, 1);
    }
}
