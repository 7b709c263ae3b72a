//! The extremes of the manifest: the least and the greatest value in the order in which PostgreSQL sorts the type, or none.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::job::{Export, export, parts};
use crate::support::pg::{Pg, both, pg};
use crate::support::run::outhaul;

const EVERY_TYPE: &str = include_str!("../support/every_type.sql");

const FORMATS: [&str; 3] = ["parquet", "csv", "ndjson"];

async fn exported(pg: &Pg, table: &str, format: &str, args: &[&str]) -> Export {
    let fixed = ["--table", table, "--format", format, "--manifest-stats", "all"];
    export(pg, &[&fixed[..], args].concat()).await.expect(0)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The least and the greatest value of each column of a part that has them, by name.
fn extremes(part: &Value) -> BTreeMap<&str, (Option<&str>, Option<&str>)> {
    let columns = part["columns"].as_object().unwrap();
    let shown = columns.iter().map(|(name, said)| {
        let ends = (said["min"].as_str(), said["max"].as_str());
        assert!(ends.0.is_some() || said["exact"] == false, "{name}: {said}");
        (name.as_str(), ends)
    });
    shown.filter(|(_, ends)| *ends != (None, None)).collect()
}

/// The rows of a part of an export that is split by `id`.
fn rows_of(part: &Value) -> String {
    let range = &part["range"];
    let bound = |end: &str, inclusive: &str, exclusive: &str| match range[end]["values"][0].as_str() {
        None => "true".to_owned(),
        Some(value) if range[end]["inclusive"] == true => format!("id {inclusive} {value}"),
        Some(value) => format!("id {exclusive} {value}"),
    };
    match range["kind"].as_str().unwrap() {
        "whole" => "true".to_owned(),
        "keys" => format!("{} and {}", bound("lower", ">=", ">"), bound("upper", "<=", "<")),
        other => panic!("{other}"),
    }
}

/// Compares what the manifest shows with PostgreSQL's own order, part by part; returns the types that have extremes.
async fn compare(pg: &Pg, table: &str, format: &str) -> BTreeSet<String> {
    let done = exported(pg, table, format, &["--key", "id", "--partitions", "2"]).await;
    let manifest = done.manifest();
    let types: BTreeMap<&str, &str> = manifest["schema"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (column["name"].as_str().unwrap(), column["pg_type"].as_str().unwrap()))
        .collect();
    let mut shown = BTreeSet::new();
    assert_eq!(done.partitions(), 2);
    for part in parts(&manifest) {
        let mut tests = Vec::new();
        let rows = rows_of(part);
        for (name, (min, max)) in extremes(part) {
            shown.insert(types[name].to_owned());
            let exact = part["columns"][name]["exact"] == true;
            for (end, order, bound) in [(min, "", "<="), (max, "desc", ">=")] {
                let Some(text) = end else { continue };
                let (text, pg_type, sign) = (literal(text), types[name], if exact { "=" } else { bound });
                tests.push(format!(
                    "case when not {text}::{pg_type} {sign} (select {name} from {table} where {rows} and {name} is not null
                        order by {name} {order} limit 1) then {} end",
                    literal(&format!("{name} {pg_type} {text} {order}"))
                ));
            }
        }
        let wrong = pg.value(&format!("select array_to_string(array[{}], '; ')", tests.join(", "))).await;
        assert_eq!(wrong, "", "PostgreSQL {} {table} {format} {rows}", pg.version);
    }
    let verified = outhaul(["verify", "--read-data", done.dest().to_str().unwrap()]).run().await;
    assert_eq!(verified.code, 0, "{table} {format}: {}", String::from_utf8_lossy(&verified.stdout));
    shown
}

#[tokio::test]
async fn extremes_of_every_type_are_postgresql_s_own_or_there_are_none() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(EVERY_TYPE).await;
        pg.batch("alter table scalars add primary key (id); alter table domains add primary key (id); analyze").await;
        for format in FORMATS {
            let shown = compare(&pg, "scalars", format).await;
            for pg_type in [
                "boolean",
                "smallint",
                "integer",
                "bigint",
                "real",
                "double precision",
                "text",
                "character varying",
                "character varying(20)",
                "name",
                "bytea",
                "uuid",
                "date",
                "time without time zone",
                "macaddr",
                "bit(9)",
                "bit varying",
                "timestamp without time zone",
                "timestamp with time zone",
            ] {
                assert!(shown.contains(pg_type), "{format}: {pg_type} has none");
            }
            assert_eq!(shown.contains("numeric(12,2)"), format == "parquet");
            for pg_type in [
                "mood",
                "time with time zone",
                "inet",
                "cidr",
                "interval",
                "jsonb",
                "json",
                "xml",
                "citext",
                "character(7)",
                "\"char\"",
                "pg_lsn",
                "tid",
                "xid",
                "cid",
                "point",
                "tsvector",
                "int4range",
                "hstore",
                "regclass",
            ] {
                assert!(!shown.contains(pg_type), "{format}: {pg_type} has some");
            }
            compare(&pg, "domains", format).await;
        }
    }
}

/// The types whose texts are sorted otherwise than they are, and what PostgreSQL's order makes of them.
/// In milliseconds since 1970 the last years have room, and in microseconds they do not.
#[tokio::test]
async fn the_last_timestamps_are_verified_in_milliseconds() {
    let pg = pg(18).await;
    pg.batch(
        "create table late as select i as id, t, t at time zone 'utc' as z
            from (values (1, '294276-12-31 23:59:59'::timestamp), (2, '4713-01-01 00:00:00 BC')) as v (i, t)",
    )
    .await;
    for precision in ["ms", "ms-exact"] {
        let done = exported(&pg, "late", "parquet", &["--timestamp-precision", precision]).await;
        let manifest = done.manifest();
        let shown = extremes(&parts(&manifest)[0]);
        assert_eq!(shown["t"], (Some("4713-01-01 00:00:00 BC"), Some("294276-12-31 23:59:59")));
        outhaul(["verify", done.dest().to_str().unwrap(), "--read-data"]).run().await.expect(0);
    }
}

#[tokio::test]
async fn types_that_are_not_sorted_as_their_texts_have_no_extremes() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create type size as enum ('small', 'medium', 'large'); create domain sized as size;
             create table t (size size, sized sized, at timetz, ip inet, net cidr, price money, took interval, c char(4), doc jsonb);
             insert into t values
                ('small', 'small', '02:00+05', '9.0.0.1', '9.0.0.0/8', '-$5', '-178000000 years', 'a', '\"b\"'),
                ('large', 'large', '00:30-05', '10.0.0.2', '10.0.0.0/8', '$10', '-1 s', E'a\\t', '1'),
                ('medium', 'medium', '01:00+00', '::1', '::/0', '$9', '2 days', 'b', '[]')",
        )
        .await;
        for format in FORMATS {
            let manifest = exported(&pg, "t", format, &[]).await.manifest();
            let found = extremes(&parts(&manifest)[0]);
            let money = BTreeMap::from([("price", (Some("-5.00"), Some("10.00")))]);
            assert_eq!(found, if format == "parquet" { money } else { BTreeMap::new() }, "{format}");
            let trimmed = exported(&pg, "t", format, &["--columns", "c", "--char-padding", "trim"]).await.manifest();
            assert_eq!(extremes(&parts(&trimmed)[0])["c"], (Some("a"), Some("b")), "{format}");
        }
        // Held as text for other reasons.
        pg.batch(
            "create table held (d date, n numeric(9,2), at timestamptz);
             insert into held values ('-infinity', -9, '0044-03-15 BC'), ('10000-01-01', 10, '294276-12-31'), ('2000-01-01', 9, 'infinity')",
        )
        .await;
        let manifest = exported(&pg, "held", "parquet", &["--on-unrepresentable", "text"]).await.manifest();
        assert_eq!(extremes(&parts(&manifest)[0]), BTreeMap::new());
        let manifest = exported(&pg, "held", "csv", &[]).await.manifest();
        let found = extremes(&parts(&manifest)[0]);
        assert_eq!(found["d"], (Some("-infinity"), Some("10000-01-01")));
        assert_eq!(found["at"], (Some("0044-03-15 00:00:00+00 BC"), Some("infinity")));
    }
}

#[tokio::test]
async fn text_has_extremes_under_collations_that_compare_bytes() {
    for version in both() {
        let pg = pg(version).await;
        let icu =
            pg.value("select count(*) from pg_collation where collprovider = 'i' and collname = 'und-x-icu'").await
                == "1";
        let (defined, inserted) = if icu {
            pg.batch("create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
                .await;
            (", i text collate \"und-x-icu\", l text collate loose", ", v, v")
        } else {
            ("", "")
        };
        pg.batch(&format!(
            "create domain code as text collate \"C\";
             create table t (id int primary key, d text, c text collate \"C\", p varchar(9) collate \"POSIX\", u text collate ucs_basic,
                o code, n name {defined});
             insert into t select id, v, v, v, v, v, v {inserted} from (values (1, 'b'), (2, 'A'), (3, 'é'), (4, 'Z'), (5, 'a')) as x (id, v);
             create view looked as select * from t"
        ))
        .await;
        for (table, format) in [("t", "parquet"), ("t", "csv"), ("t", "ndjson"), ("looked", "csv")] {
            let manifest = exported(&pg, table, format, &[]).await.manifest();
            let found = extremes(&parts(&manifest)[0]);
            let names: Vec<&str> = found.keys().copied().collect();
            assert_eq!(names, ["c", "d", "id", "n", "p", "u"], "PostgreSQL {version} {table} {format}");
            assert_eq!((found["c"], found["d"]), ((Some("A"), Some("é")), (Some("A"), Some("é"))));
        }
        // The collation of an expression and of a query's column is not known.
        let manifest = exported(&pg, "t", "csv", &["--columns", "id", "--column", "x=c"]).await.manifest();
        assert_eq!(extremes(&parts(&manifest)[0]).into_keys().collect::<Vec<_>>(), ["id"]);
        let args = ["--query", "select id, c from t", "--format", "csv", "--manifest-stats", "all"];
        let manifest = export(&pg, &args).await.expect(0).manifest();
        assert_eq!(extremes(&parts(&manifest)[0]).into_keys().collect::<Vec<_>>(), ["id"]);
    }
}

/// Where the database's own encoding or collation sorts otherwise, so does text without a collation of its own.
#[tokio::test]
async fn text_follows_the_database_it_is_in() {
    let pg = Pg::encoded(15, "LATIN1").await;
    pg.batch("create table t (v text); insert into t values ('a'), ('b')").await;
    assert!(extremes(&parts(&exported(&pg, "t", "csv", &[]).await.manifest())[0]).is_empty());
    let pg = Pg::encoded(18, "SQL_ASCII").await;
    pg.batch("create table t (v text); insert into t values ('a'), ('b')").await;
    let manifest = exported(&pg, "t", "csv", &[]).await.manifest();
    assert_eq!(extremes(&parts(&manifest)[0])["v"], (Some("a"), Some("b")));
    let pg = Pg::encoded(15, "UTF8' locale_provider icu icu_locale 'en").await;
    pg.batch("create table t (v text, c text collate \"C\"); insert into t values ('a', 'a'), ('B', 'B')").await;
    let manifest = exported(&pg, "t", "csv", &[]).await.manifest();
    assert_eq!(extremes(&parts(&manifest)[0]), BTreeMap::from([("c", (Some("B"), Some("a")))]));
}

/// An earlier release showed such extremes: neither depth of `verify` passes them.
#[tokio::test]
async fn a_manifest_that_shows_extremes_of_another_order_is_not_verified() {
    let pg = pg(18).await;
    pg.batch(
        "create type size as enum ('small', 'medium', 'large');
         create table t (id int, size size, ip inet);
         insert into t values (1, 'small', '9.0.0.1'), (2, 'large', '10.0.0.2'), (3, 'medium', '::1')",
    )
    .await;
    for format in FORMATS {
        let done = exported(&pg, "t", format, &[]).await;
        let path = done.dest().join("_manifest.json");
        let mut manifest = done.manifest();
        for (name, min, max) in [("size", "large", "small"), ("ip", "10.0.0.2", "::1")] {
            let said = &mut manifest["parts"][0]["columns"][name];
            said["min"] = min.into();
            said["max"] = max.into();
            said["exact"] = true.into();
        }
        std::fs::write(&path, manifest.to_string()).unwrap();
        for depth in [&[][..], &["--read-data"]] {
            let to = done.dest();
            let run = outhaul(["verify", to.to_str().unwrap()].iter().chain(depth)).run().await.expect(30);
            let said = String::from_utf8(run.stdout).unwrap();
            for column in ["\"size\"", "\"ip\""] {
                assert!(said.contains(column) && said.contains("not sorted as the bytes of its text"), "{said}");
            }
        }
    }
}
