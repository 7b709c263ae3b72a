//! Values of every type, at the edges of their ranges: the text formats are byte for byte what PostgreSQL writes, in its
//! order. What Parquet holds is compared in `every_type`.

use crate::support::job::{copy, export, export_csv};
use crate::support::pg::{Pg, both, pg};

const TYPES: &str = r#"
create type mood as enum ('sad', 'it''s "ok"');
create type pair as (a int, b text);
create domain cents as numeric(12, 2);
create domain short_text as varchar(20);
create table types (
    id int, b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric, nps numeric(20, 5), t text, vc varchar(30), c char(5),
    nm name, by bytea, d date, tm time, ts timestamp, tz timestamptz, ts3 timestamp(3), u uuid, e mood, dn cents, dt short_text,
    net inet, cd cidr, iv interval, pt point, r int4range, a text[], aa int[], p pair, m money, bt bit(3), vb varbit, ttz timetz, mac macaddr, o oid,
    tv tsvector, x xml, mr int4multirange, ch "char", lsn pg_lsn, reg regclass, jp jsonpath);
insert into types values
(1, true, -32768, -9223372036854775808, 1e-45, 2.2250738585072014e-308, 'NaN', 'NaN', 'tab	 and "quote", \back', 'x', 'ab', 'nm', '\x00ff22', '4713-01-01 BC', '00:00', '4713-01-01 00:00:00 BC', '4713-01-02 00:00:00+00 BC', '2000-01-01 00:00:00.1236', '00000000-0000-0000-0000-000000000000', 'sad', -0.01, 'short',
 '10.1.2.3/8', '10.0.0.0/8', '-1 year 2 mons -3 days 04:05:06.789', '(1.5,-2)', '[1,5)', '{a,"b c",NULL,""}', '{{1,2},{3,NULL}}', '(1,"x y")', -12.34, '101', '1', '12:34:56.78+05:30', '08:00:2b:01:02:03', 4294967295, 'a:1 b:2', '<a>"1"</a>', '{[1,3),[5,9)}', 'q', '16/B374D848', 'types', '$.a[*] ? (@ > 1)'),
(2, false, 32767, 9223372036854775807, 'NaN', 'NaN', '1e100', 0.00000, '', '', '', '', '', 'infinity', '24:00', 'infinity', 'infinity', '1999-12-31 23:59:59.9999', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'it''s "ok"', 9999999999.99, '',
 '::1', '::/0', '0', '(0,0)', 'empty', '{}', '{}', '(,)', 0, '000', '', '00:00:00+00', '00:00:00:00:00:00', 0, '', '', '{}', '', '0/0', '0', '$'),
(3, null, 0, 0, 'Infinity', '-Infinity', '-Infinity', 123456789012345.12345, E'line\nbreak\r\n', 'ünï', 'a  b', null, '\x', '-infinity', '23:59:59.999999', '-infinity', '-infinity', '1970-01-01', null, null, null, null,
 '192.168.0.1', null, '1 day', null, '(,)', '{NULL}', null, '(1,)', 1, null, null, null, null, 1, null, null, null, null, null, null, null),
(4, true, 1, 1, -0.0, -0.0, 0.000000000000000000001, 0.00001, '\N', '\.', ' x', '"', '\x5c', '5874897-12-31', '12:00:00.5', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '2024-02-29 12:00:00.5', null, null, 0, ' ',
 null, null, '178000000 years', null, null, null, null, null, null, null, null, null, null, null, null, null, null, 'é'::text::"char", null, null, null),
(5, null, null, null, 1e15, 1e15, 12345678901234567890123456789012345678901234567890.5, null, null, null, null, null, null, '0001-01-01', null, '0001-01-01 BC', null, null, null, null, null, null,
 null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null);
"#;

#[tokio::test]
async fn csv_is_what_copy_writes() {
    for version in both() {
        let pg = types(version).await;
        let done = export_csv(&pg, &["--table", "types"], 0).await;
        let expected = copy(&pg, "select * from types").await;
        let [found, expected] = [done.data(), expected].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(found, expected, "{version}");
    }
}

#[tokio::test]
async fn ndjson_is_what_row_to_json_writes() {
    for version in both() {
        let pg = types(version).await;
        let session = pg.connect().await;
        session.batch_execute("set timezone = 'UTC'; set intervalstyle = postgres").await.unwrap();
        let rows = crate::support::pg::rows(&session, "select row_to_json(types) from types").await;
        let expected: Vec<String> = rows.into_iter().map(|row| row.into_iter().next().flatten().unwrap()).collect();
        let done = export(&pg, &["--table", "types", "--format", "ndjson"]).await.expect(0);
        let found = String::from_utf8(done.data()).unwrap();
        assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{version}");
    }
}

#[tokio::test]
async fn parquet_refuses_by_name_what_it_cannot_hold() {
    for version in both() {
        let pg = types(version).await;
        for (column, value) in [("nps", "NaN"), ("d", "infinity"), ("ts", "infinity"), ("tz", "infinity")] {
            let predicate = format!("{column}::text = '{value}'");
            let args = ["--table", "types", "--columns", column, "--where", &predicate];
            let refused = export(&pg, &args).await.expect(14);
            let said = &refused.run.stderr;
            assert!(said.contains(&format!("column \"{column}\"")) && said.contains("row 1"), "{column}: {said}");
            assert!(!refused.dest().join("data").exists(), "{column}");
        }
    }
}

async fn types(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(TYPES).await;
    pg
}
