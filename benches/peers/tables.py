"""The tables of the benchmark, how they are made, and what of them is checked in every output."""

from dataclasses import dataclass, field

EPOCH = "date '1970-01-01'"
# The table that is read by the relay of a long way.
FAR = "far"


@dataclass
class Check:
    """One aggregate: by PostgreSQL, and by DuckDB over what was written."""

    name: str
    postgres: str
    duckdb: str
    # A sum of doubles depends on the order of the rows.
    rounded: bool = False


@dataclass
class Table:
    name: str
    # SQL that makes and fills it; None where scripts/tpch does.
    make: str | None
    # Columns in order, with the types that DuckDB reads CSV and JSON as.
    columns: dict[str, str]
    checks: list[Check] = field(default_factory=list)
    # The table that it is made from.
    source: str | None = None


def same(name, expression):
    return Check(name, expression, expression)


def date_sum(column):
    return Check(f"sum {column}", f"sum({column} - {EPOCH})", f"sum({column}::date - {EPOCH})")


def time_sum(column, kind):
    microseconds = f"(extract(epoch from {column}) * 1000000)::bigint"
    return [
        Check(f"{name} {column}", f"{name}({microseconds})", f"{name}(epoch_us({column}::{kind}))")
        for name in ("sum", "min", "max")
    ]


def decimal_sum(column, scale):
    return Check(f"sum {column}", f"sum({column})", f"sum({column}::decimal(38,{scale}))")


COUNT = same("rows", "count(*)")

LINEITEM_COLUMNS = (
    {"id": "bigint", "l_orderkey": "bigint", "l_partkey": "integer", "l_suppkey": "integer", "l_linenumber": "integer"}
    | {name: "decimal(15,2)" for name in ("l_quantity", "l_extendedprice", "l_discount", "l_tax")}
    | {name: "varchar" for name in ("l_returnflag", "l_linestatus")}
    | {name: "date" for name in ("l_shipdate", "l_commitdate", "l_receiptdate")}
    | {name: "varchar" for name in ("l_shipinstruct", "l_shipmode", "l_comment")}
)
LINEITEM_CHECKS = [
    COUNT,
    *(same(f"sum {name}", f"sum({name})") for name in ("id", "l_orderkey", "l_partkey", "l_suppkey", "l_linenumber")),
    *(decimal_sum(name, 2) for name in ("l_quantity", "l_extendedprice", "l_discount", "l_tax")),
    same("distinct l_returnflag", "count(distinct l_returnflag)"),
    same("count l_returnflag R", "count(*) filter (where l_returnflag = 'R')"),
    same("count l_linestatus O", "count(*) filter (where l_linestatus = 'O')"),
    Check("min l_shipdate", "min(l_shipdate)", "min(l_shipdate::date)"),
    Check("max l_shipdate", "max(l_shipdate)", "max(l_shipdate::date)"),
    *(date_sum(name) for name in ("l_shipdate", "l_commitdate", "l_receiptdate")),
    # Whether the blanks of character(n) are kept is the tool's choice.
    *(Check(f"length {name}", f"sum(length({name}))", f"sum(length(rtrim({name}, ' ')))")
      for name in ("l_shipinstruct", "l_shipmode")),
    same("distinct l_shipmode", "count(distinct l_shipmode)"),
    same("length l_comment", "sum(length(l_comment))"),
]

EVENTS_SQL = """
create table public.events (
    id bigint not null, uid uuid not null, created_at timestamptz not null, updated_at timestamptz,
    local_at timestamp not null, body text not null, status text not null, payload jsonb not null,
    score double precision not null, amount numeric(18,4) not null, ratio numeric not null, active boolean not null,
    attempts integer, digest bytea not null, note text);
select setseed(0.25);
-- Some texts have neither commas nor quotes, some have commas, some all of it and line breaks too.
create temporary table soup as
select s, string_agg(word || case when s % 4 >= 2 and pick > 0.9 then ',' else '' end, case
    when s % 4 = 3 and pick > 0.97 then E'\\n' when s % 4 = 3 and pick > 0.94 then ' "' else ' ' end order by n) as text
from (select s, n, random() as pick,
        (array['the','ship','sailed','past','harbour','with','cargo','and','crew','toward','an','island','slowly','wind',
               'café','naïve','rope','canvas','mast','keel','tide','storm','calm','anchor'])[1 + floor(random() * 24)::int]
            as word
      from generate_series(0, 63) s, generate_series(1, 500) n) words
group by s;
insert into public.events
select i, md5(i::text)::uuid, t, case when r1 < 0.9 then t + r2 * interval '3 days' end,
    (t at time zone 'UTC') - r3 * interval '1 day',
    substr(soup.text, 1 + floor(r2 * 2000)::int, 100 + floor(r3 * 300)::int),
    (array['new','queued','running','done','failed'])[1 + floor(r1 * r1 * 5)::int],
    jsonb_build_object('n', i % 1000, 'name', substr(md5((i % 5000)::text), 1, 8 + i % 9), 'tags',
        jsonb_build_array('red', 'green', i % 7), 'nested', jsonb_build_object('x', round(r1::numeric, 6), 'ok', r2 < 0.5,
        'path', '/a/' || (i % 100) || '/b/' || (i % 13)), 'none', null),
    (r1 - 0.5) * 1e6, round((r2 * 1e9 - 5e8)::numeric, 4), round((r3 * 1000)::numeric, (i % 9)::int), r1 < 0.7,
    case when r2 >= 0.3 then floor(r1 * 100000)::int end, sha256(i::text::bytea),
    case when r3 < 0.5 then substr(soup.text, 1 + floor(r1 * 2000)::int, 5 + floor(r2 * 60)::int) end
from (select i, random() as r1, random() as r2, random() as r3,
        timestamptz '2024-01-01 00:00:00+00' + i * interval '31.415926 seconds' as t
      from generate_series(1, {rows}) i) numbers
join soup on soup.s = i * 7 % 64;
alter table public.events add constraint events_pkey primary key (id);
"""
EVENTS_COLUMNS = {
    "id": "bigint", "uid": "uuid", "created_at": "timestamptz", "updated_at": "timestamptz", "local_at": "timestamp",
    "body": "varchar", "status": "varchar", "payload": "json", "score": "double", "amount": "decimal(18,4)",
    "ratio": "varchar", "active": "boolean", "attempts": "integer", "digest": "varchar", "note": "varchar",
}  # fmt: skip
EVENTS_CHECKS = [
    COUNT,
    same("sum id", "sum(id)"),
    Check("distinct uid", "count(distinct uid)", "count(distinct uid::uuid)"),
    Check("min uid", "min(uid::text)", "min(uid::uuid)::varchar"),
    *time_sum("created_at", "timestamptz"),
    *time_sum("updated_at", "timestamptz"),
    same("count updated_at", "count(updated_at)"),
    *time_sum("local_at", "timestamp"),
    same("length body", "sum(length(body))"),
    same("line breaks body", "sum(length(body) - length(replace(body, chr(10), '')))"),
    same("quotes body", "sum(length(body) - length(replace(body, chr(34), '')))"),
    same("distinct body", "count(distinct body)"),
    same("distinct status", "count(distinct status)"),
    same("length status", "sum(length(status))"),
    Check("sum payload n", "sum((payload->>'n')::bigint)", "sum(({payload}->>'$.n')::bigint)"),
    Check("length payload name", "sum(length(payload->>'name'))", "sum(length({payload}->>'$.name'))"),
    Check("sum payload x", "sum((payload->'nested'->>'x')::numeric)",
          "sum(({payload}->>'$.nested.x')::decimal(38,6))"),
    Check("sum score", "sum(score)", "sum(score)", rounded=True),
    same("min score", "min(score)"),
    same("max score", "max(score)"),
    decimal_sum("amount", 4),
    decimal_sum("ratio", 10),
    same("count active", "count(*) filter (where active)"),
    same("count attempts", "count(attempts)"),
    same("sum attempts", "sum(attempts)"),
    Check("min digest", "min(encode(digest, 'hex'))", "min({digest})"),
    Check("max digest", "max(encode(digest, 'hex'))", "max({digest})"),
    Check("length digest", "sum(octet_length(digest))", "sum(length({digest})) / 2"),
    same("count note", "count(note)"),
    same("length note", "sum(length(note))"),
]  # fmt: skip

# 512 KiB of text and as much of bytea in each row, stored as they are: nothing is to be gained from their content.
WIDE_SQL = """
create table public.wide (id bigint not null, body text not null, blob bytea not null);
alter table public.wide alter column body set storage external, alter column blob set storage external;
insert into public.wide
select i, encode(string_agg(sha512((i * 100000 + n)::text::bytea), '' order by n) filter (where n <= 4096), 'hex'),
    string_agg(sha512((i * 100000 + n)::text::bytea), '' order by n)
from generate_series(1, {rows}) i, generate_series(1, 8192) n group by i;
alter table public.wide add constraint wide_pkey primary key (id);
"""
WIDE_CHECKS = [
    COUNT,
    same("sum id", "sum(id)"),
    same("length body", "sum(length(body))"),
    same("min body", "min(md5(body))"),
    same("max body", "max(md5(body))"),
    same("length blob", "sum(octet_length(blob))"),
    same("min blob", "min(md5(blob))"),
    same("max blob", "max(md5(blob))"),
]

SMALL_SQL = """
create table public.{name} (id bigint primary key, name text not null);
insert into public.{name} select i, 'name ' || i from generate_series(1, {rows}) i;
"""
SMALL_CHECKS = [COUNT, same("sum id", "sum(id)"), same("length name", "sum(length(name))")]


def small(name, rows):
    return Table(name, SMALL_SQL.format(name=name, rows=rows), {"id": "bigint", "name": "varchar"}, SMALL_CHECKS)


# A tenth of lineitem: a long way takes its time.
FAR_SQL = """
create table public.far (like public.lineitem);
insert into public.far select * from public.lineitem where id <= (select max(id) / 10 from public.lineitem);
alter table public.far add constraint far_pkey primary key (id);
"""


def tables(scale):
    """All tables by name, sized for a scale factor; `one` and `tiny` keep their size."""
    events = EVENTS_SQL.replace("{rows}", str(max(1000, round(1_000_000 * scale))))
    wide = WIDE_SQL.format(rows=max(20, round(400 * min(scale, 1))))
    found = [
        Table("lineitem", None, LINEITEM_COLUMNS, LINEITEM_CHECKS),
        Table("events", events, EVENTS_COLUMNS, EVENTS_CHECKS),
        Table("wide", wide, {"id": "bigint", "body": "varchar", "blob": "blob"}, WIDE_CHECKS),
        Table(FAR, FAR_SQL, LINEITEM_COLUMNS, LINEITEM_CHECKS, source="lineitem"),
        small("tiny", 100),
        small("one", 1),
    ]
    return {table.name: table for table in found}


LINEITEM5_SQL = """
create table public.lineitem5 (like public.lineitem);
""" + 5 * "insert into public.lineitem5 select * from public.lineitem;\n"


def five_times():
    """Five times lineitem: 5 x the rows, otherwise the same."""
    return Table("lineitem5", LINEITEM5_SQL, LINEITEM_COLUMNS, LINEITEM_CHECKS, source="lineitem")
