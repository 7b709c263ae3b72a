//! Every type, thousands of generated rows of it, each value compared with PostgreSQL's own in every format: as a column,
//! in arrays, under domains of domains, and all of them as the attributes of one composite.
//!
//! The rows come from PostgreSQL's `setseed`, whose numbers a version gives again; the seed is told with a failure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::support::differential::equal_but;
use crate::support::pg::{Pg, both, pg};

/// Another seed, between -1 and 1, comes from the environment.
const SEED: &str = "0.25";

/// A type.
struct Type {
    name: &'static str,
    /// Values at the edges of what it holds and of what formats can write, in its own text.
    edges: &'static [&'static str],
    /// An expression for any other value; `random()` and the functions of `PRELUDE` give chance.
    random: &'static str,
}

const fn of(name: &'static str, edges: &'static [&'static str], random: &'static str) -> Type {
    Type { name, edges, random }
}

const PRELUDE: &str = r#"
create extension hstore;
create extension citext;
create schema "odd ""schema""";
create type mood as enum ('sad', 'it''s "ok"', '', 'NULL', 'a,b', E'line\nbreak', '\', '🦀', '{}');
create type "odd ""schema"""."odd type; --" as ("a b" int, "say ""hi""" text, at timestamptz, list numeric(8, 3)[]);
create type textrange as range (subtype = text, collation = "C");
create function whole(many bigint) returns bigint volatile language sql as $$ select floor(random() * many)::bigint $$;
create function digits(many int) returns text volatile language sql as
    $$ select coalesce(substr(string_agg(translate(md5(random()::text), 'abcdef', '012345'), ''), 1, many), '') from generate_series(0, many / 32) $$;
create function evil(many int) returns text volatile language sql as $$
    select coalesce(string_agg((array['a', 'Z', '0', '"', '''', ',', E'\n', E'\r', '\', '\.', '\N', E'\t', ' ', '{', '}', '(', ')', '[', ']', '=', ':', '&', '<',
        E'\u0001', E'\u007f', U&'\FEFF', U&'\2028', 'é', 'ß', '漢', '🦀', U&'\+10FFFF', 'NULL', 'null', '""', ';'])[1 + floor(random() * 36)::int], ''), '')
    from generate_series(1, floor(random() * many)::int) $$;
create function moment() returns timestamp volatile language sql as
    $$ select timestamp '2000-01-01' + (random() - 0.15) * interval '30000 years' $$;
"#;

const TEXT: &[&str] = &[
    "", " ", "NULL", "null", "\\N", "\\.", "\"", "\"\"", ",", "\n", "\r", "\r\n", "a\tb", "\\", "'", "{}", "🦀",
    "\u{feff}", "=1+1",
];
const SCALARS: &[Type] = &[
    of("boolean", &["t", "f"], "random() < 0.5"),
    of("\"char\"", &["", "a", "\"", ",", "\\", "\n", " ", "\u{7f}"], "(64 + whole(60))::int::\"char\""),
    of("smallint", &["-32768", "32767", "0", "-1"], "(whole(65536) - 32768)::smallint"),
    of("integer", &["-2147483648", "2147483647", "0", "-1"], "(whole(4294967296) - 2147483648)::int"),
    of(
        "bigint",
        &["-9223372036854775808", "9223372036854775807", "9007199254740993", "0", "-1"],
        "('x' || substr(md5(random()::text), 1, 16))::bit(64)::bigint",
    ),
    of("oid", &["0", "4294967295"], "whole(4294967296)::oid"),
    of("xid", &["0", "3", "4294967295"], "whole(4294967296)::text::xid"),
    of("cid", &["0", "4294967295"], "whole(4294967296)::text::cid"),
    of("xid8", &["0", "18446744073709551615"], "digits(18)::xid8"),
    of(
        "real",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "-0",
            "0",
            "1e-45",
            "3.4028235e+38",
            "1.17549435e-38",
            "16777216",
            "1e6",
            "999999",
            "0.0001",
            "1e-5",
        ],
        "((random() - 0.5) * 10 ^ (whole(67) - 30))::real",
    ),
    of(
        "double precision",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "-0",
            "0",
            "5e-324",
            "1.7976931348623157e308",
            "2.2250738585072014e-308",
            "1e15",
            "1e22",
            "1e23",
            "9007199254740993",
            "0.1",
        ],
        "(random() - 0.5) * 10 ^ (whole(600) - 300)",
    ),
    of(
        "numeric",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0",
            "0.00",
            "-0.000001",
            "10000",
            "1e300",
            "1e-300",
            "99999999.99999999",
            "123456789012345678901234567890.5",
            "100000000.00",
        ],
        "((array['', '-'])[1 + whole(2)] || '0' || digits(whole(50)::int) || '.' || digits(whole(50)::int))::numeric",
    ),
    of(
        "numeric(12,2)",
        &["0", "0.01", "-0.01", "9999999999.99", "-9999999999.99"],
        "(digits(12)::numeric / 100)::numeric(12,2)",
    ),
    of("numeric(9,4)", &["0", "99999.9999", "-99999.9999"], "(digits(9)::numeric / 10000)::numeric(9,4)"),
    of(
        "numeric(38,10)",
        &["0", "9999999999999999999999999999.9999999999", "-0.0000000001"],
        "('-' || digits(28) || '.' || digits(10))::numeric(38,10)",
    ),
    of("numeric(38,38)", &["0", "-0.99999999999999999999999999999999999999"], "('0.' || digits(38))::numeric(38,38)"),
    of(
        "numeric(39,1)",
        &["0", "99999999999999999999999999999999999999.9", "NaN"],
        "(digits(38) || '.' || digits(1))::numeric(39,1)",
    ),
    of("numeric(5,-2)", &["0", "9999900", "-100"], "whole(9999900)::numeric(5,-2)"),
    of("numeric(3,5)", &["0", "0.00999", "-0.00001"], "(random() / 101)::numeric(3,5)"),
    of("money", &["-92233720368547758.08", "92233720368547758.07", "0", "-0.01"], "digits(12)::numeric::money"),
    of("text", TEXT, "evil(40)"),
    of("varchar", TEXT, "evil(10)"),
    of("varchar(20)", TEXT, "evil(20)::varchar(20)"),
    of("bpchar", TEXT, "evil(9)::bpchar"),
    of("char(7)", &["", " ", "a", "🦀", "1234567", "\"", "\\", "\n"], "evil(8)::char(7)"),
    of("name", TEXT, "evil(20)::name"),
    of("citext", TEXT, "evil(12)::citext"),
    of(
        "mood",
        &["sad", "it's \"ok\"", "", "NULL", "a,b", "line\nbreak", "\\", "🦀", "{}"],
        "(enum_range(null::mood))[1 + whole(9)]",
    ),
    of(
        "bytea",
        &["\\x", "\\x00", "\\xff5c22", "\\x0a0d2c"],
        "decode(repeat(md5(random()::text), whole(4)::int), 'hex')",
    ),
    of(
        "uuid",
        &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        "md5(random()::text)::uuid",
    ),
    of(
        "date",
        &[
            "4713-11-24 BC",
            "5874897-12-31",
            "0001-12-31 BC",
            "0001-01-01",
            "1969-12-31",
            "1970-01-01",
            "1999-12-31",
            "2000-02-29",
            "9999-12-31",
            "10000-01-01",
        ],
        "date '2000-01-01' + (whole(10000000) - 2400000)::int",
    ),
    of(
        "time",
        &["00:00:00", "23:59:59.999999", "00:00:00.000001", "12:00:00.1"],
        "time '00:00' + random() * interval '1 day'",
    ),
    of("time(3)", &["00:00:00", "23:59:59.999", "12:00:00.1"], "(time '00:00' + random() * interval '1 day')::time(3)"),
    of(
        "timetz",
        &["00:00:00+00", "24:00:00-15:59", "23:59:59.999999+15:59", "12:34:56.7+05:30:15"],
        "((time '00:00' + random() * interval '1 day')::text || (array['+00', '-15:59', '+05:30', '+01:02:03'])[1 + whole(4)])::timetz",
    ),
    of(
        "timestamp",
        &[
            "4713-11-24 00:00:00 BC",
            "294246-12-31 23:59:59.999999",
            "0001-12-31 23:59:59.9 BC",
            "0001-01-01 00:00:00",
            "1969-12-31 23:59:59.999999",
            "1999-12-31 23:59:59.999999",
            "2000-01-01 00:00:00",
        ],
        "moment()",
    ),
    of("timestamp(3)", &["4713-11-24 00:00:00 BC", "1969-12-31 23:59:59.999"], "moment()::timestamp(3)"),
    of(
        "timestamptz",
        &[
            "4713-11-24 00:00:00+00 BC",
            "294246-12-31 23:59:59.999999+00",
            "0001-01-01 00:00:00+00",
            "1969-12-31 23:59:59.999999+00",
            "1970-01-01 00:00:00+15:59",
        ],
        "moment() at time zone 'UTC'",
    ),
    of("timestamptz(0)", &["1970-01-01 00:00:00+00"], "(moment() at time zone 'UTC')::timestamptz(0)"),
    of(
        "interval",
        &[
            "0",
            "178000000 years",
            "-178000000 years",
            "1 year -2 mons 3 days -04:05:06.789",
            "-1 days +24:00:00",
            "00:00:00.000001",
            "-00:00:00.000001",
            "2147483647 days",
            "1 mon -1 days",
            "-2562047788:00:54.775807",
        ],
        "make_interval(months => (whole(4000) - 2000)::int, days => (whole(4000) - 2000)::int, secs => (random() - 0.5) * 1e7)",
    ),
    of("interval(2)", &["0", "1.25"], "(random() * interval '1 year')::interval(2)"),
    of(
        "json",
        &[
            "null",
            "{}",
            " [ ] ",
            "\"a  b\"",
            "{ \"a\" : 1,\n\"a\":2.50e+400 }",
            "-0",
            "1E5",
            "\"\\u0000\\ud800\"",
            "\"🦀\\/\"",
            "{\"\":{\"\":[[]]}}",
        ],
        "json_build_object(evil(5), random(), 'text', evil(20), 'list', json_build_array(1, null, true))",
    ),
    of(
        "jsonb",
        &[
            "null",
            "{}",
            "[]",
            "\"a  b\"",
            "{\"a\":1.500,\"b\":[1e40,-0.0]}",
            "\"\\u0001\"",
            "123456789012345678901234567890.10",
        ],
        "jsonb_build_object(evil(5), random(), 'text', evil(20), 'list', jsonb_build_array(1, null, true))",
    ),
    of(
        "jsonpath",
        &["$", "strict $.\"a b\"[*] ? (@.x > 1.50)", "$.**{2 to last}.type()"],
        "format('$[%s] ? (@ like_regex \"%s\")', whole(9), md5(random()::text))::jsonpath",
    ),
    of(
        "xml",
        &[
            "",
            "<a/>",
            "text",
            "<a b=\"c\">é🦀&lt;\n</a>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>",
            "<?xml version=\"1.0\" standalone=\"yes\"?><a/>",
            "<?xml version=\"1.1\"?><a/>",
        ],
        "format('<a b=\"%s\">%s</a>', md5(random()::text), digits(5))::xml",
    ),
    of(
        "inet",
        &[
            "0.0.0.0",
            "255.255.255.255/0",
            "10.1.2.3/8",
            "::",
            "::1/128",
            "::ffff:1.2.3.4",
            "fe80::1/64",
            "2001:db8::/32",
        ],
        "('10.' || whole(256) || '.' || whole(256) || '.1/' || whole(33))::inet",
    ),
    of(
        "cidr",
        &["0.0.0.0/0", "10.0.0.0/8", "1.2.3.4/32", "::/0", "2001:db8::/32"],
        "network(('10.' || whole(256) || '.' || whole(256) || '.1/' || whole(33))::inet)",
    ),
    of("macaddr", &["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"], "substr(md5(random()::text), 1, 12)::macaddr"),
    of(
        "macaddr8",
        &["00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff"],
        "substr(md5(random()::text), 1, 16)::macaddr8",
    ),
    of("bit(1)", &["0", "1"], "whole(2)::int::bit(1)"),
    of("bit(9)", &["000000000", "111111111", "100000001"], "whole(512)::int::bit(9)"),
    of(
        "varbit",
        &["", "0", "1", "10000000", "111111110"],
        "substr(whole(1000000)::bit(64)::varbit, 1, whole(64)::int)",
    ),
    of("point", &["(0,-0)", "(NaN,Infinity)", "(1e300,-1e-300)"], "point(random() * 1e6, -random() * 1e-6)"),
    of("line", &["{1,-1,0}", "{0,1,-5e-324}"], "line(point(0, 0), point(random() + 1, random()))"),
    of("lseg", &["[(0,0),(1,-0)]", "[(NaN,1),(Infinity,2)]"], "lseg(point(0, random()), point(random(), 1))"),
    of("box", &["(1,1),(0,0)", "(Infinity,1),(-Infinity,0)"], "box(point(0, random()), point(random(), 1))"),
    of(
        "path",
        &["((0,0))", "[(0,0),(1,1)]", "((0,0),(1e20,1),(-0,2))"],
        "format('[(0,%s),(%s,1)]', random(), random())::path",
    ),
    of("polygon", &["((0,0))", "((0,0),(1e20,1),(-0,2))"], "format('((0,%s),(%s,1))', random(), random())::polygon"),
    of("circle", &["<(0,0),0>", "<(NaN,-0),1e300>"], "circle(point(random(), 0), random() * 1000)"),
    of(
        "tsvector",
        &["", "'a' 'b c':1A,2", "'it''s':3B '\\\\':4"],
        "to_tsvector('simple', evil(30) || ' ' || md5(random()::text))",
    ),
    of(
        "tsquery",
        &["", "'a' & !'b' | 'c':*A", "'x' <-> 'y' <3> 'it''s'"],
        "plainto_tsquery('simple', md5(random()::text) || ' ' || digits(4))",
    ),
    of("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"], "'0/0'::pg_lsn + digits(18)::numeric"),
    of("tid", &["(0,0)", "(4294967295,65535)"], "format('(%s,%s)', whole(4294967296), whole(65536))::tid"),
    of("pg_snapshot", &["1:1:", "10:20:10,14,15"], "format('%s:%s:', 1 + whole(99), 100 + whole(99))::pg_snapshot"),
    of("txid_snapshot", &["1:1:", "10:20:10,14,15"], "format('%s:%s:', 1 + whole(99), 100 + whole(99))::txid_snapshot"),
    of("int2vector", &["", "-32768 0 32767"], "format('%s %s', whole(999), -whole(999))::int2vector"),
    of("oidvector", &["", "0 4294967295"], "format('%s %s', whole(4294967296), whole(999))::oidvector"),
    of("regclass", &["-", "pg_class", "4294967295"], "whole(5000)::oid::regclass"),
    of(
        "regtype",
        &["-", "integer", "\"odd \"\"schema\"\"\".\"odd type; --\"", "4294967295"],
        "whole(5000)::oid::regtype",
    ),
    of("regproc", &["-", "now", "4294967295"], "whole(5000)::oid::regproc"),
    of("regprocedure", &["-", "abs(integer)", "4294967295"], "whole(5000)::oid::regprocedure"),
    of("regoper", &["0", "||/", "4294967295"], "whole(3000)::oid::regoper"),
    of("regoperator", &["0", "+(integer,integer)", "4294967295"], "whole(3000)::oid::regoperator"),
    of("regrole", &["-", "postgres", "4294967295"], "whole(20)::oid::regrole"),
    of("regnamespace", &["-", "pg_catalog", "\"odd \"\"schema\"\"\""], "whole(20000)::oid::regnamespace"),
    of("regconfig", &["simple", "4294967295"], "whole(20000)::oid::regconfig"),
    of("regdictionary", &["simple", "4294967295"], "whole(20000)::oid::regdictionary"),
    of("regcollation", &["-", "\"C\"", "4294967295"], "whole(20000)::oid::regcollation"),
    of("aclitem", &["postgres=arwdDxt/postgres", "=r/postgres"], "makeaclitem(10, 10, 'SELECT', random() < 0.5)"),
    of("refcursor", TEXT, "evil(9)::refcursor"),
    of(
        "hstore",
        &["", "a=>1", "\"\"=>\"\"", "a=>NULL, \"NULL\"=>\"NULL\""],
        "hstore(array[md5(random()::text), evil(5), 'k'], array[evil(9), null, digits(3)])",
    ),
    of(
        "int4range",
        &["empty", "(,)", "[1,2)", "[-2147483648,2147483647)", "(,5]"],
        "int4range(-whole(99)::int, whole(99)::int, '[]')",
    ),
    of("int8range", &["empty", "(,)", "[-9223372036854775808,)"], "int8range(-whole(99), whole(99), '(]')"),
    of(
        "numrange",
        &["empty", "(,)", "[0.00,1.10]", "[-Infinity,NaN)", "(1,)"],
        "numrange(-digits(5)::numeric / 100, digits(20)::numeric, '(]')",
    ),
    of(
        "daterange",
        &["empty", "(,)", "[4713-11-24 BC,5874897-12-31)"],
        "daterange(date '1999-01-01' - whole(999)::int, date '1999-01-01' + whole(999)::int)",
    ),
    of(
        "tsrange",
        &["empty", "(,)", "[1969-12-31 23:59:59.999999,)"],
        "tsrange(timestamp '1969-01-01', timestamp '1970-01-01' + random() * interval '99 years', '[]')",
    ),
    of(
        "tstzrange",
        &["empty", "(,)", "(,1969-12-31 23:59:59.999999+00]"],
        "tstzrange(timestamptz '1969-01-01+00', timestamptz '1970-01-01+00' + random() * interval '99 years', '()')",
    ),
    of(
        "textrange",
        &["empty", "(,)", "[a,b]", "[\"\",\"x,y\")", "(,\"\\\"\\\\\"]", "[\"(\",\")\"]"],
        "textrange(evil(6), U&'\\+10FFFF' || U&'\\+10FFFF' || evil(6), '[]')",
    ),
    of(
        "int4multirange",
        &["{}", "{(,)}", "{[1,2),[5,9)}"],
        "int4multirange(int4range(1, 5 + whole(9)::int), int4range(50, 60 + whole(9)::int))",
    ),
    of("int8multirange", &["{}", "{(,1),[5,)}"], "int8multirange(int8range(1, 5 + whole(9)))"),
    of("nummultirange", &["{}", "{(,0.50],(1.00,1.10)}"], "nummultirange(numrange(1, 5 + digits(9)::numeric / 1000))"),
    of(
        "datemultirange",
        &["{}", "{(,)}"],
        "datemultirange(daterange('2000-01-01', date '2000-01-02' + whole(9)::int))",
    ),
    of(
        "tsmultirange",
        &["{}", "{[\"2000-01-01 00:00:00.5\",)}"],
        "tsmultirange(tsrange('2000-01-01', timestamp '2000-01-02' + random() * interval '1 day'))",
    ),
    of(
        "tstzmultirange",
        &["{}", "{[\"2000-01-01 00:00:00.5+00\",)}"],
        "tstzmultirange(tstzrange('2000-01-01 00:00+00', timestamptz '2000-01-02 00:00+00' + random() * interval '1 day'))",
    ),
    of("textmultirange", &["{}", "{[\"\",\"a,b\"),[b,\"}\"]}"], "textmultirange(textrange('a', 'b' || evil(9), '[]'))"),
    of(
        "\"odd \"\"schema\"\"\".\"odd type; --\"",
        &["(,,,)", "(0,\"\",\"1970-01-01 00:00:00+00\",{})", "(-1,\"(\"\"\\\\,\",,\"{1.5,NULL,-99999.999}\")"],
        "row(whole(9), evil(20), moment() at time zone 'UTC', array[digits(4)::numeric / 1000, null])::\"odd \"\"schema\"\"\".\"odd type; --\"",
    ),
];

/// Types with values that Parquet's own types cannot hold: those columns are refused, then written as text.
const UNREPRESENTABLE: &[Type] = &[
    of("date", &["infinity", "-infinity"], "date '2000-01-01' + whole(999)::int"),
    of("time", &["24:00:00"], "time '00:00' + random() * interval '1 day'"),
    of("timestamp", &["infinity", "-infinity", "294276-12-31 23:59:59.999999"], "moment()"),
    of("timestamptz", &["infinity", "-infinity", "294276-12-31 23:59:59.999999+00"], "moment() at time zone 'UTC'"),
    of("numeric(12,2)", &["NaN"], "digits(9)::numeric"),
    of("numeric(5,-2)", &["NaN"], "whole(9999900)::numeric(5,-2)"),
    of("numeric(3,5)", &["NaN"], "(random() / 101)::numeric(3,5)"),
    of("int[]", &["{{1,2},{3,NULL}}", "[0:1]={1,2}", "{{{1}}}"], "array[1, 2]"),
    of("text[]", &["{{\"\",NULL},{\"NULL\",\"\\\"\"}}", "[-3:-2]={\"a b\",c}"], "array[evil(5)]"),
    of("daterange", &["[2000-01-01,infinity)"], "daterange('2000-01-01', '2001-01-01')"),
    of("tstzmultirange", &["{[-infinity,infinity]}"], "'{}'::tstzmultirange"),
    of("date[]", &["{2000-01-01,infinity}"], "array[date '2000-01-01']"),
];

#[tokio::test]
async fn every_value_of_every_type_is_postgresql_s_own() {
    let seed = std::env::var("OUTHAUL_TEST_SEED").unwrap_or_else(|_| SEED.to_owned());
    for version in both() {
        let pg = pg(version).await;
        pg.batch(&format!("{PRELUDE} select setseed({seed});")).await;
        tables(&pg, version).await;
        let found = equal_but(&pg, &[], &format!("seed {seed} (OUTHAUL_TEST_SEED)")).await;
        let expected: BTreeSet<String> =
            (0..UNREPRESENTABLE.len()).map(|n| format!("text parquet \"public\".\"unrepresentable_{n}\"")).collect();
        assert_eq!(found, expected, "{version}, seed {seed}");
    }
}

async fn tables(pg: &Pg, version: u32) {
    // Numbers NULL where a value may be.
    let edge = |kind: &Type| if version >= 17 && kind.name == "interval" { "'infinity','-infinity'," } else { "" };
    let column = |kind: &Type| {
        let (edges, count) = (list(kind), kind.edges.len() + if edge(kind).is_empty() { 0 } else { 2 });
        let more = edge(kind);
        format!(
            "(case whole(10) when 0 then null when 1 then {edges_of}[1 + whole({count})]::{name} when 2 then {edges_of}[1 + whole({count})]::{name} \
             when 3 then {edges_of}[1 + whole({count})]::{name} else {random} end)::{name}",
            edges_of = format_args!("(array[{more}{edges}]::text[])"),
            name = kind.name,
            random = kind.random,
        )
    };
    let table = |name: &str, rows: u32, columns: &[(String, String)]| {
        let columns = columns.iter().fold(String::new(), |mut all, (name, value)| {
            write!(all, ", {value} as {name}").unwrap();
            all
        });
        format!("create table {name} as select n as id{columns} from generate_series(1, {rows}) as n")
    };

    let scalars: Vec<_> = SCALARS.iter().enumerate().map(|(n, kind)| (format!("c{n}"), column(kind))).collect();
    pg.batch(&table("scalars", 3000, &scalars)).await;

    let arrays = SCALARS.iter().enumerate().map(|(n, kind)| {
        // A slice of all edges and a NULL: from none to three elements, numbered from 1.
        let (name, edges, count) = (kind.name, list(kind), kind.edges.len() + 1);
        let whole = format!("array_append(array[{edges}]::text[]::{name}[], null)");
        (format!("c{n}"), format!("(case whole(9) when 0 then null when 1 then '{{}}' when 2 then array[{random}]::{name}[] \
            else (select ({whole})[at:at + whole(4)::int - 1] from (select 1 + whole({count})::int as at) as slice where n > 0) end)::{name}[]", random = kind.random))
    });
    pg.batch(&table("arrays", 1000, &arrays.collect::<Vec<_>>())).await;

    let mut domains = Vec::new();
    for (n, kind) in SCALARS.iter().enumerate() {
        let name = kind.name;
        pg.batch(&format!(
            "create domain d{n} as {name}; create domain dd{n} as d{n} check (true); create domain da{n} as d{n}[]"
        ))
        .await;
        domains.push((format!("d{n}"), format!("{}::dd{n}", column(kind))));
        domains.push((format!("a{n}"), format!("array[{}::d{n}, null]::da{n}", column(kind))));
    }
    pg.batch(&table("domains", 200, &domains)).await;

    let attributes: Vec<String> =
        SCALARS.iter().enumerate().map(|(n, kind)| format!("\"a {n}\" {}", kind.name)).collect();
    pg.batch(&format!(
        "create type everything as ({}); create type twice as (one everything, many everything[], d dd0)",
        attributes.join(", ")
    ))
    .await;
    let all: Vec<String> = SCALARS.iter().map(column).collect();
    let row = format!("row({})::everything", all.join(", "));
    let twice = format!("case whole(4) when 0 then null else row({row}, array[{row}, null], true)::twice end");
    pg.batch(&table(
        "composites",
        200,
        &[("one".to_owned(), row.clone()), ("many".to_owned(), format!("array[{row}]")), ("nested".to_owned(), twice)],
    ))
    .await;

    for (n, kind) in UNREPRESENTABLE.iter().enumerate() {
        pg.batch(&table(&format!("unrepresentable_{n}"), 200, &[("c".to_owned(), column(kind))])).await;
    }
}

/// The edges as SQL literals, between commas.
fn list(kind: &Type) -> String {
    let literals = kind.edges.iter().map(|edge| format!("'{}'", edge.replace('\'', "''")));
    literals.collect::<Vec<_>>().join(",")
}
