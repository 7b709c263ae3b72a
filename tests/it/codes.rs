//! Exit codes, hints and messages: what a message tells a person to do works, in every language of the server
//! (`tests/cases.md`, 13, 15 and 17).

use std::path::Path;

use crate::support::cluster::Cluster;
use crate::support::job::{command, export, nothing_is_left, rows};
use crate::support::pg::{Pg, both, pg};
use crate::support::place::Place;
use crate::support::run::{Run, outhaul, program};

/// What stands between a text and the next single quote or line end, in what a run said.
#[track_caller]
fn between<'a>(said: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = said.split_once(before).unwrap_or_else(|| panic!("{before:?} is not in {said}"));
    rest.split(after).next().unwrap()
}

/// An export whose last words a shell reads.
async fn by_shell(pg: &Pg, args: &[&str], words: &str) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    let script = format!("exec \"$0\" \"$@\" {words}");
    let fixed =
        ["-c", &script, env!("CARGO_BIN_EXE_outhaul"), "export", "--from", &pg.url, "--to", dest.to_str().unwrap()];
    program("/bin/sh", fixed.iter().chain(args)).run().await
}

#[tokio::test]
async fn the_hint_about_timestamps_names_values_that_are_taken() {
    let pg = pg(18).await;
    pg.batch(
        "create table ts (id int primary key, t timestamptz); insert into ts values (1, '2024-01-02 03:04:05.6789+00')",
    )
    .await;
    let refused = export(&pg, &["--table", "ts", "--timestamp-precision", "ms-exact"]).await.expect(14);
    let hint = between(&refused.run.stderr, "hint: --timestamp-precision ", "\n");
    let (rounds, rest) = hint.split_once(" rounds it, ").unwrap();
    let keeps = rest.split(' ').next().unwrap();
    assert_eq!((rounds, keeps), ("ms", "us"));
    for value in [rounds, keeps] {
        export(&pg, &["--table", "ts", "--timestamp-precision", value]).await.expect(0);
    }
    for value in between(&refused.run.stderr, "--on-unrepresentable ", "\n").split('|') {
        let args = ["--table", "ts", "--timestamp-precision", "ms-exact", "--on-unrepresentable", value.trim()];
        export(&pg, &args).await.expect(0);
    }
}

#[tokio::test]
async fn the_hint_about_a_column_s_policy_names_the_column_as_a_shell_takes_it() {
    let pg = pg(15).await;
    for (nth, name) in ["v", "c=d", "it's", "a \"b\"", "Größe", "a,b", "\"q\""].into_iter().enumerate() {
        let quoted = name.replace('"', "\"\"");
        pg.batch(&format!(
            "create table p{nth} (id int primary key, \"{quoted}\" numeric(9,2)); insert into p{nth} values (1, 'NaN')"
        ))
        .await;
        let table = format!("p{nth}");
        let refused = export(&pg, &["--table", &table]).await.expect(14);
        let words = between(&refused.run.stderr, "or --column-policy ", "\n").to_owned();
        by_shell(&pg, &["--table", &table], &format!("--column-policy {words}")).await.expect(0);
    }
    pg.batch("create table f (id int primary key, v float8); insert into f values (1, 'NaN')").await;
    let strict = ["--table", "f", "--format", "ndjson"];
    let refused = export(&pg, &[&strict[..], &["--json-nan", "error"]].concat()).await.expect(14);
    let words = between(&refused.run.stderr, "or --column-policy ", "\n").to_owned();
    by_shell(&pg, &strict, &format!("--json-nan error --column-policy {words}")).await.expect(0);
    for value in between(&refused.run.stderr, "choose with --json-nan ", " or").split('|') {
        export(&pg, &[&strict[..], &["--json-nan", value]].concat()).await.expect(0);
    }
}

#[tokio::test]
async fn the_hint_about_bytes_that_are_not_utf_8_gives_the_text() {
    for version in both() {
        let pg = Pg::encoded(version, "SQL_ASCII").await;
        pg.batch(
            r"create table t (id int primary key, v text); insert into t values (1, convert_from('\xe9', 'SQL_ASCII'))",
        )
        .await;
        let refused = export(&pg, &["--table", "t"]).await.expect(14);
        let words = between(&refused.run.stderr, "as in --column \"", "\"").replacen("name=", "w=", 1);
        let column = words.replacen("convert_to(column", "convert_to(v", 1);
        let done =
            export(&pg, &["--table", "t", "--columns", "id", "--column", &column, "--format", "csv"]).await.expect(0);
        assert_eq!(String::from_utf8(done.data()).unwrap(), "1,\u{e9}\n");
        for value in between(&refused.run.stderr, "--invalid-utf8 ", ",").split('|') {
            export(&pg, &["--table", "t", "--invalid-utf8", value]).await.expect(0);
        }
    }
}

/// A character that has no form in UTF-8 ends the export with its column, its row and a way out that works.
#[tokio::test]
async fn text_without_a_form_in_utf_8_is_named_with_its_column_and_row() {
    for version in both() {
        let pg = Pg::encoded(version, "WIN1252").await;
        pg.batch(
            r"create table t (id int primary key, w text, v text, n int);
              insert into t select i, 'caf' || chr(233), case i when 777 then convert_from('\x8141', 'WIN1252') else 'x' end, i
                from generate_series(1, 2000) i;
              create table a (id int primary key, v text[]); insert into a values (5, array[convert_from('\x81', 'WIN1252')]);
              analyze t",
        )
        .await;
        for args in [
            &["--table", "t"][..],
            &["--table", "t", "--partitions", "3"],
            &["--table", "t", "--readers", "1"],
            &["--table", "t", "--key", "id", "--partitions", "2"],
            &["--table", "t", "--read-mode", "keyset", "--page-size", "100"],
            &["--table", "t", "--columns", "v,w"],
            &["--table", "t", "--format", "csv"],
            &["--table", "t", "--rename", "v=renamed"],
        ] {
            let run = export(&pg, args).await.expect(14).run;
            let column = if args.contains(&"--rename") { "renamed" } else { "v" };
            for words in [&format!("column {column:?} (text)"), "row with id = 777", "WIN1252", "--columns"] {
                assert!(run.stderr.contains(words), "{args:?}: {words} not in {}", run.stderr);
            }
            assert_eq!(run.report["retryable"], false);
            let words = between(&run.stderr, "by --column \"", "\n").trim_end();
            let way = ["--table", "t", "--columns", "id,w,n", "--format", "csv"];
            by_shell(&pg, &way, &format!("--column \"{words}")).await.expect(0);
        }
        let run = export(&pg, &["--table", "a"]).await.expect(14).run;
        assert!(run.stderr.contains("column \"v\" (text[]), row with id = 5"), "{}", run.stderr);
        let query = ["--query", "select n, v from t where id > 770"];
        let run = export(&pg, &query).await.expect(14).run;
        assert!(run.stderr.contains("column \"v\" (text), row 7 of the partition"), "{}", run.stderr);
        export(&pg, &["--table", "t", "--columns", "id,w"]).await.expect(0);
    }
}

#[tokio::test]
async fn names_that_are_none_are_usage() {
    let pg = pg(18).await;
    pg.batch("create schema v; create table v.\"t*\" (id int); create table \"my-table\" (id int)").await;
    let long = "x".repeat(64);
    pg.batch(&format!("create table {} (id int)", &long[..63])).await;
    for name in [
        "v.u*",
        "u*",
        "my-other",
        "a..b",
        ".a",
        "a.",
        "\"a",
        "a b",
        " ",
        "a.b.c",
        "\"\"",
        "v.\"t*\".x",
        "a\"b",
        &long,
        "v.t+1",
    ] {
        let run = export(&pg, &["--table", name]).await.expect(2).run;
        assert!(run.stderr.contains("hint: "), "{name}: {}", run.stderr);
        assert_eq!(run.report["retryable"], false);
    }
    for name in ["v.\"t*\"", "\"my-table\"", "V.\"t*\"", &long[..63]] {
        export(&pg, &["--table", name]).await.expect(0);
    }
    let missing = export(&pg, &["--table", "v.missing"]).await.expect(13).run;
    assert!(missing.stderr.contains("does not exist"), "{}", missing.stderr);
}

#[tokio::test]
async fn an_unknown_parameter_of_a_url_is_named() {
    let pg = pg(15).await;
    for (parameter, words) in [
        ("foo=bar", "no option \"foo\""),
        ("prot=5", "did you mean port?"),
        ("sslmod=require", "did you mean sslmode?"),
        ("pgbouncer=true", "no option \"pgbouncer\""),
    ] {
        let url = format!("{}?{parameter}", pg.url);
        let run = outhaul(["export", "--from", &url, "--table", "t", "--to", "out"]).run().await.expect(2);
        assert!(run.stderr.contains(words), "{parameter}: {}", run.stderr);
    }
}

#[tokio::test]
async fn the_client_s_encoding_is_nobody_s_concern() {
    let pg = pg(18).await;
    pg.batch("create table t as select 1 as id, 'h\u{e9}'::text as v").await;
    let url = format!("{}?client_encoding=LATIN1&options=-c%20client_encoding%3DLATIN1", pg.url);
    for (from, variable) in [(&pg.url, "LATIN1"), (&pg.url, "auto"), (&url, "SQL_ASCII")] {
        let place = Place::local();
        place.export(from, &[]).env("PGCLIENTENCODING", variable).run().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await, "{from} {variable}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_in_front_of_a_query_is_skipped() {
    let pg = pg(18).await;
    pg.batch("create table t (id int); insert into t values (1), (2)").await;
    let done =
        export(&pg, &["--query", "\u{feff}select id from t", "--format", "csv", "--where", "\u{feff}id = 2"]).await;
    assert_eq!(done.expect(0).data(), b"2\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, "\u{feff}query = \"select id from t\"\n").unwrap();
    export(&pg, &["--config", file.to_str().unwrap()]).await.expect(0);
}

#[tokio::test]
async fn a_table_s_name_in_a_path_is_of_any_script() {
    let pg = pg(18).await;
    for name in ["größe", "注文", "bestellungen_é", "e\u{301}t", "हिन्दी", "ผู้ใช้", "заказы", "möbel-2"]
    {
        pg.batch(&format!("create table \"{name}\" (id int)")).await;
        for place in Place::both() {
            let (url, quoted) = (format!("{}/{{table}}", place.url()), format!("\"{name}\""));
            let args = ["export", "--from", &pg.url, "--table", &quoted, "--to", &url, "--format", "csv"];
            place.outhaul(args).run().await.expect(0);
            let there = place.list().await;
            assert!(there.keys().any(|path| *path == format!("{name}/_manifest.json")), "{name}: {there:?}");
            let url = url.replace("{table}", name);
            place.outhaul(["verify", url.as_str(), "--read-data"]).run().await.expect(0);
        }
    }
    for name in ["a/b", "..", "_a", ".a", "a b", "a\u{202e}b", "a\u{7f}", "a\u{85}b", "a%"] {
        let quoted = format!("\"{name}\"");
        let args = ["export", "--from", &pg.url, "--table", &quoted, "--to", "x/{table}", "--format", "csv"];
        let run = outhaul(args).run().await.expect(2);
        assert!(run.stderr.contains("{table} is"), "{name}: {}", run.stderr);
    }
}

/// Some megabytes.
const LARGE: &str =
    "create table t as select i as id, repeat(md5(i::text), 20) as v from generate_series(1, 10000) i; analyze t";

#[tokio::test]
async fn a_limit_on_file_sizes_is_a_full_destination() {
    let pg = pg(18).await;
    pg.batch(LARGE).await;
    // Of 512 bytes each for a shell that keeps to the standard; and as whoever ignores the signal hands it on.
    for before in ["ulimit -f 200;", "ulimit -f 3;", "trap '' XFSZ; ulimit -f 200;", "ulimit -f 4099;"] {
        // The last one ends in the middle of a block that goes past the page cache.
        let odd = before.contains("4099");
        for args in [&["--partitions", "1"][..], &[], &["--format", "parquet", "--compression", "none"]] {
            if odd && !args.contains(&"1") {
                continue;
            }
            let place = Place::local();
            let run = place.export_by(before, &pg.url, args).run().await.expect(23);
            assert!(run.stderr.contains("file too large") && run.stderr.contains("ulimit -f"), "{}", run.stderr);
            assert_eq!(run.report["retryable"], false, "{before}");
            assert_eq!(run.report["exit_code"], 23, "{before}");
            nothing_is_left(&place.folder());
        }
    }
    // What the hint says.
    let place = Place::local();
    place.export_by("ulimit -f 4096;", &pg.url, &["--part-size", "500kB"]).run().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
    // A file behind standard output is one as well.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    let script = format!("ulimit -f 200; exec \"$0\" \"$@\" > {}", file.display());
    let args = [
        "-c",
        &script,
        env!("CARGO_BIN_EXE_outhaul"),
        "export",
        "--from",
        &pg.url,
        "--table",
        "t",
        "--to",
        "-",
        "--format",
        "csv",
    ];
    program("/bin/sh", args).run().await.expect(23);
}

/// What the program starts may be ended by the signal as any other program.
#[tokio::test]
async fn what_is_started_has_the_signal_s_default() {
    let pg = pg(15).await;
    pg.batch("create table t as select 1 as id").await;
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let secret =
        format!("grep SigCgt /proc/self/status > {0}; grep SigIgn /proc/self/status >> {0}; echo x", seen.display());
    let place = Place::local();
    place.export(&pg.url, &["--password-command", &secret]).run().await.expect(0);
    let xfsz = 1_u64 << 24;
    for line in std::fs::read_to_string(&seen).unwrap().lines() {
        let mask = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(mask & xfsz, 0, "{line}");
    }
}

/// Every number of connections ends in an export or in exit 16.
#[tokio::test]
async fn as_few_connections_as_there_are_do() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(LARGE).await;
        let expected = rows(&pg).await;
        let (url, role) = pg.role("").await;
        pg.batch(&format!("grant select on t to {role}")).await;
        for limit in 1..=5 {
            pg.batch(&format!("alter role {role} connection limit {limit}")).await;
            for (args, least) in [
                (&["--readers", "2"][..], 2),
                (&["--readers", "1"], 2),
                (&["--readers", "2", "--key", "id"], 2),
                (&["--readers", "2", "--keep-snapshot", "60s"], 3),
                (&["--readers", "1", "--keep-snapshot", "60s"], 3),
                (&["--readers", "2", "--key", "id", "--keep-snapshot", "60s"], 3),
            ] {
                let place = Place::local();
                let run = place.export(&url, args).run().await;
                if limit >= least {
                    let run = run.expect(0);
                    assert_eq!(place.whole().await, expected, "{limit} {args:?}: {}", run.stderr);
                } else {
                    let run = run.expect(16);
                    assert!(run.stderr.contains("no connection left"), "{limit} {args:?}: {}", run.stderr);
                    assert_eq!(run.report["retryable"], true);
                    assert!(place.is_empty().await);
                }
                crate::support::job::no_sessions_left(&pg).await;
            }
        }
        if version == 18 {
            // Without the loan of a keeper, three are not enough.
            pg.batch(&format!("alter role {role} connection limit 3")).await;
            let place = Place::local();
            place.export(&url, &["--readers", "2"]).env("OUTHAUL_TEST_OFF", "lending").run().await.expect(16);
        }
        // A limit of the database is one, too.
        let name = pg.value("select current_database()").await;
        pg.batch(&format!("alter role {role} connection limit -1; alter database {name} connection limit 3")).await;
        let place = Place::local();
        let run = place.export(&url, &["--readers", "4"]).run().await;
        assert!([0, 16].contains(&run.code), "{}: {}", run.code, run.stderr);
        crate::support::job::no_sessions_left(&pg).await;
    }
}

/// A function of a view may read what nobody knew of. That it inherits from nothing is found out without another connection,
/// and without ending the transaction of a keeper that reads.
#[tokio::test]
async fn what_a_function_reads_takes_no_connection_more() {
    let pg = pg(18).await;
    pg.batch(
        "create table other (id int); insert into other values (1);
        create function counted() returns bigint stable language plpgsql as $$ begin return (select count(*) from other); end $$;
        create table p (id int) partition by list (id); create table p1 partition of p default;
        insert into p select generate_series(1, 5000); create view lazy as select id, counted() as c from p",
    )
    .await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!("grant select on all tables in schema public to {role}; alter role {role} connection limit 2"))
        .await;
    for args in [&["--readers", "1"][..], &["--readers", "2", "--key", "id", "--partitions", "4"]] {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let fixed = ["export", "--from", &url, "--table", "lazy", "--to", to.to_str().unwrap(), "--report", "json"];
        let run = outhaul(fixed.iter().chain(args)).run().await.expect(0);
        assert_eq!(run.report["rows"], 5000, "{args:?}: {}", run.stderr);
        crate::support::job::no_sessions_left(&pg).await;
    }
}

/// A server of another language gives the same exit codes and hints (PostgreSQL 15 of Debian has its translations).
#[tokio::test]
async fn a_server_that_speaks_german_is_understood() {
    let cluster = Cluster::start_in(15, "de", &["max_connections=20", "max_prepared_transactions=2"]).await;
    cluster
        .batch(
            "create table t (id int primary key); insert into t values (1); create role weak login;
             create role hidden login; grant select on t to hidden; alter table t enable row level security;
             create policy none on t using (false); create table l (id int); grant select on l to weak;
             create function raises(int) returns int language plpgsql as
                $$ begin raise 'nein' using errcode = 'P0001'; end $$",
        )
        .await;
    let as_role = |role: &str| cluster.url.replace("postgres@", &format!("{role}@"));
    let to = |folder: &Path| folder.join("out").to_str().unwrap().to_owned();
    for (url, args, code, words) in [
        (as_role("weak"), &["--table", "t"][..], 10, "SELECT"),
        (as_role("hidden"), &["--table", "t"], 10, "BYPASSRLS"),
        (as_role("hidden"), &["--query", "select * from t"], 10, "--allow-rls"),
        (as_role("nobody_here"), &["--table", "t"], 10, "pg_hba.conf"),
        (cluster.url.clone(), &["--table", "t", "--where", "public.t.id = 1 and s.id = 1"], 13, "without its schema"),
        (cluster.url.clone(), &["--table", "t", "--column", "x=repeat('x', id + 1073741822)"], 14, "above 1 GB"),
        (cluster.url.clone(), &["--table", "t", "--column", "x=raises(id)"], 15, "P0001"),
        (cluster.url.clone(), &["--table", "t", "--column", "x=pg_read_file('nothing')"], 15, "58P01"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let fixed = ["export", "--from", &url, "--to", &to(folder.path()), "--report", "json"].map(str::to_owned);
        let run = outhaul(fixed.into_iter().chain(args.iter().map(|arg| (*arg).to_owned()))).run().await.expect(code);
        assert!(run.stderr.contains(words), "{args:?}: {}", run.stderr);
        assert_eq!(run.report["retryable"], false, "{args:?}");
    }
    let held = cluster.connect().await;
    held.batch_execute("begin; lock table l in access exclusive mode").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dest = to(folder.path());
    let args = ["export", "--from", &cluster.url, "--to", &dest, "--table", "l"];
    let run = outhaul(args).env("OUTHAUL_TEST_LIMITS", "lock=0.5").run().await.expect(16);
    assert!(run.stderr.contains("holds ACCESS EXCLUSIVE on l"), "{}", run.stderr);
}

/// A limit that is set for one statement is there the next time too; a disk that others fill is not.
#[tokio::test]
async fn a_statement_that_passes_a_limit_of_its_own_is_not_to_be_repeated() {
    let pg = pg(18).await;
    pg.batch("create table t as select i as id, md5(i::text) as v from generate_series(1, 20000) i").await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!(
        "grant select on t to {role}; alter role {role} set temp_file_limit = 64; alter role {role} set work_mem = 64"
    ))
    .await;
    let place = Place::local();
    let query = ["--query", "select * from t order by v, id", "--report", "json"];
    let dest = place.url();
    let args = [&["export", "--from", &url, "--to", &dest][..], &query].concat();
    let run = outhaul(args).run().await.expect(15);
    assert!(run.stderr.contains("53400") && run.stderr.contains("temp_file_limit"), "{}", run.stderr);
    assert_eq!(run.report["retryable"], false);
    let folder = tempfile::tempdir().unwrap();
    let run = command(&pg, folder.path().to_str().unwrap(), &["--query", "select 1/(id - 7) as x from t"]).run().await;
    assert_eq!(run.expect(15).report["retryable"], false);
}
