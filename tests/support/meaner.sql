-- Schemas that nobody should make, but somebody does: for tests/it/differential.rs and scripts/differential.

-- Names.

create schema "we""ird; drop schema public cascade; --";
create schema "ünï 🦀.dot/slash\back'quote";
create schema "sixty-three bytes: 🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀 and";
create schema "SELECT";
create schema "{date}";

create table "we""ird; drop schema public cascade; --"."table"" select 1; --" ("id""; select pg_sleep(60); --" int, "'; drop table x; --" text);
insert into "we""ird; drop schema public cascade; --"."table"" select 1; --" values (1, ''''), (2, '";'), (3, null);
create table "ünï 🦀.dot/slash\back'quote"."../../%2e%2e/{run_id} 🦀" ("a.b" int, "a/b" text, "$$" text, "{}" text, "$1" int, "%s" text, "\" text);
insert into "ünï 🦀.dot/slash\back'quote"."../../%2e%2e/{run_id} 🦀" values (1, 'x', '$$', '{}', 1, '%', '\'), (null, null, null, null, null, null, null);
create table "sixty-three bytes: 🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀 and"."sixty-three bytes: 🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀 and" (
    "sixty-three bytes: 🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀 and" int primary key, "sixty-three bytes: 🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀 an2" int);
insert into "sixty-three bytes: 🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀 and"."sixty-three bytes: 🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀 and" select n, -n from generate_series(1, 50) as n;
create table "SELECT"."FROM" ("select" int, "from" text, "where" int, "order" int, "user" text, "table" int, "null" int, "current_user" int, "*" int, "?column?" int);
insert into "SELECT"."FROM" values (1, 'a', 2, 3, 'b', 4, 5, 6, 7, 8);
create table "SELECT"." t " (" " int, "  " int, "a " int, " a" int, "t" int, "T" int, "t_1" int);
insert into "SELECT"." t " values (1, 2, 3, 4, 5, 6, 7);
create table "{date}".t (t int, "t.t" int, "(t).*" int);
insert into "{date}".t select n, n, n from generate_series(1, 3) as n;
create table "{date}".U&"line\000Abreak\0009tab\0001control" (U&"line\000Abreak" int, U&"tab\0009" int, U&"\0001" int, U&"\007F" int, "carriage" int, U&"\FEFFbom" int,
    U&"\202Eright to left" int, """" int, "," int, "'" int, "a,b""c" int);
insert into "{date}".U&"line\000Abreak\0009tab\0001control" values (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
create table public."--to" ("--format" int, "-" text);
insert into public."--to" values (1, '-'), (2, '--');
-- Names that readers give a meaning of their own.
create table reader_names ("element" int, "list" int[], "key" text, "value" text, "key_value" int, "entries" int, "item" int, "array" int,
    "filename" text, "file_row_number" int, "__index_level_0__" int, "rowid" int, "lower" int, "upper" int, "empty" boolean, "schema" int, "oid" int);
insert into reader_names values (1, '{1,2}', 'k', 'v', 2, 3, 4, 5, 'f', 6, 7, 8, 9, 10, true, 11, 12);
create table cased (a int, "A" int, "Ä" int, "ä" int, "aA" text, "Aa" text);
insert into cased values (1, 2, 3, 4, 'x', 'y');
create table "Mixed Case" ("Id" int primary key, "Value" text);
insert into "Mixed Case" select n, 'v' || n from generate_series(1, 500) as n;

-- Types under names of others, made of others, and without what the exporter would like.

create schema types;
create domain types.int4 as text;
create type types.text as enum ('a', 'A', '', 'NULL', ',', '"', '\', E'line\nbreak', '🦀', '{}', '()', 'sixty-three bytes: 🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀 and', 'x''; drop table y; --');
create type types.citext as (a int, b pg_catalog.text);
create type types.hstore as range (subtype = pg_catalog.int4);
create type types."weird ""type"" 🦀; --" as ("a.b" int, "say ""hi""" pg_catalog.text, "🦀" types.text, "element" int[], "A" int, " " int);
create type types.cased as (a int, "A" int);
create table types.impostors (a types.int4, b types.text, c types.citext, d types.hstore, e types.text[], f types.citext[], g types.hstore[], h types.int4[]);
insert into types.impostors values
    ('not a number', 'A', '(1,"x y")', '[1,5)', '{a,A,"","NULL",NULL,"\"","\\",🦀}', '{"(1,a)","(,)",NULL,"(2,\"\\\"q\\\"\")"}', '{"[1,2)",empty,NULL,"(,)"}', '{x,"",NULL}'),
    ('', '', '(,)', 'empty', '{}', '{}', '{}', '{}'), (null, null, null, null, null, null, null, null),
    (',"', E'line\nbreak', '(,"")', '(,)', array['x''; drop table y; --']::types.text[], null, null, null);
insert into types.impostors (b) select unnest(enum_range(null::types.text));
create table types.weird (w types."weird ""type"" 🦀; --", ws types."weird ""type"" 🦀; --"[]);
insert into types.weird values (row(1, 'x', '🦀', '{1,NULL}', 2, 3), array[row(1, '"', '', '{}', null, 0), null, row(null, null, null, null, null, null)]::types."weird ""type"" 🦀; --"[]),
    (null, '{}'), (row(null, null, null, null, null, null), null), (row(1, '', 'NULL', null, null, null), null);
create table types.cased_attributes (c types.cased);
insert into types.cased_attributes values ((1, 2)), (null), ((null, 3));

create domain types.positive as int check (value > 0);
create domain types.small_positive as types.positive check (value < 100);
create domain types.required as pg_catalog.text not null;
create domain types.list as types.positive[] check (cardinality(value) < 10);
create domain types.pair as types.citext check ((value).a is distinct from 13);
create domain types.label as types.text;
create domain types.price as numeric(12, 2);
create table types.domains (a types.small_positive, b types.required, c types.list, d types.pair, e types.label, f types.small_positive[], g types.list[], h types.pair[], i types.label[], j types.price, k types.price[]);
insert into types.domains values
    (1, '', '{1,2,NULL}', '(1,x)', 'a', '{1,99}', null, '{"(1,x)",NULL}', '{a,"",NULL}', 12.3, '{1,2.50,NULL}'),
    (null, 'r', null, null, null, null, null, null, null, null, null), (99, ',', '{}', '(,)', '', '{}', '{}', '{}', '{}', -0.01, '{}');
insert into types.domains (b, g) values ('nested lists', '{"{1,2}",NULL,"{}"}');

create type types.inner_part as (n numeric(6, 2), u uuid, at timestamptz, bits pg_catalog.bytea);
create type types.middle as (parts types.inner_part[], one types.inner_part, tags pg_catalog.text[]);
create type types.outermost as (m types.middle, ms types.middle[], span tstzrange, spans int8multirange, flag boolean);
create table types.nested (id int primary key, o types.outermost, os types.outermost[]);
insert into types.nested
    select n, case n % 4 when 0 then null else row(m, case n % 3 when 0 then null when 1 then '{}' else array[m, null, m] end,
            tstzrange('2020-01-01 00:00:00+00'::timestamptz + n * interval '1 hour', '2021-06-01 12:34:56.789+00', '[]'), int8multirange(int8range(n, n + 5), int8range(100 + n, null)), n % 2 = 0)::types.outermost end,
        case n % 5 when 0 then null when 1 then '{}' else array[row(m, null, 'empty', '{}', null)::types.outermost, null] end
    from generate_series(1, 40) as n, lateral (select row(
        array[p, null, row(null, null, null, null)]::types.inner_part[], p, array['a', null, '', 'x,y', '"', '\', '{', 'NULL'])::types.middle as m
        from (select row(n / 7.0, md5(n::pg_catalog.text)::uuid, '1999-12-31 23:59:59.5+00'::timestamptz + n * interval '1 day', decode(md5(n::pg_catalog.text), 'hex'))::types.inner_part as p) as q) as r;

-- The row type of a table with dropped and added columns, and attributes that came later than the rows.
create table types.changed (a int, gone pg_catalog.text, b pg_catalog.text);
insert into types.changed values (1, 'x', 'y');
create table types.of_changed (c types.changed, cs types.changed[]);
insert into types.of_changed values (row(1, 'gone', 'b'), array[row(2, 'gone', 'c')::types.changed]);
alter table types.changed drop column gone;
create type types.growing as (a int, b int);
create table types.of_growing (g types.growing, gs types.growing[]);
insert into types.of_growing values (row(1, 2), array[row(3, 4), null]::types.growing[]);
alter type types.growing drop attribute a cascade;
alter type types.growing add attribute c pg_catalog.text cascade;
insert into types.of_growing values (row(5, 'new'), null), (null, '{}');
create table types.of_type of types.citext;
insert into types.of_type values (1, 'x');

-- A type without a binary form, with a delimiter of its own, and one that says itself what it is in JSON.
create type types.shout;
create function types.shout_in(cstring) returns types.shout language internal immutable strict as 'textin';
create function types.shout_out(types.shout) returns cstring language internal immutable strict as 'textout';
create type types.shout (input = types.shout_in, output = types.shout_out, delimiter = '|');
create type types.shouted as (a int, s types.shout);
create table types.shouts (s types.shout, ss types.shout[], c types.shouted);
insert into types.shouts values ('HEY', '{a|"b|c"|NULL|"d,e"}', '(1,"a b")'), ('', '{}', '(,)'), (null, null, null);
create type types.mood as enum ('sad', 'happy');
create function types.mood_json(types.mood) returns json language sql immutable as $$ select json_build_object('mood', $1::pg_catalog.text) $$;
create cast (types.mood as json) with function types.mood_json(types.mood);
create type types.moody as (m types.mood);
create table types.moods (m types.mood, ms types.mood[], c types.moody);
insert into types.moods values ('sad', '{sad,happy,NULL}', row('happy')), (null, null, null);
create table types.shouts_with_infinity (s types.shout, d date);
insert into types.shouts_with_infinity values ('HEY', '-infinity');

create type types.textrange as range (subtype = pg_catalog.text, collation = "C");
create type types.arrayrange as range (subtype = int[]);
create type types.pairrange as range (subtype = types.citext);
create type types.domainrange as range (subtype = types.price);
create type types.floatrange as range (subtype = float8, subtype_diff = float8mi);
create type types.timerange as range (subtype = time);
create table types.ranges (t types.textrange, a types.arrayrange, p types.pairrange, d types.domainrange, f types.floatrange, m types.timerange, ts types.textrange[], mt types.textmultirange, fs types.floatmultirange[]);
insert into types.ranges values
    ('["a,b","c""d]")', '["{1,2}","{3}"]', '["(1,""a b"")","(2,)")', '[1,2.5)', '(-0,1e300]', '[08:00,17:30)', array['[a,b]', 'empty', null, '["",)']::types.textrange[], '{["",a),[b,)}', array['{[1,2),[3,4]}', '{}', null]::types.floatmultirange[]),
    ('empty', 'empty', 'empty', 'empty', 'empty', 'empty', '{}', '{}', '{}'), ('(,)', '(,)', '(,)', '(,)', '(,)', '(,)', null, '{(,)}', null),
    ('["(",\\)', null, null, '(,0.01]', '(,NaN]', null, null, null, null), (null, null, null, null, null, null, null, null, null);

-- What Parquet's types cannot hold: exit 14, then text.
create schema infinite;
create table infinite.dates (id int primary key, d date);
insert into infinite.dates values (1, 'infinity'), (2, '-infinity'), (3, '4713-01-01 BC'), (4, '5874897-12-31'), (5, null);
create table infinite.stamps (a timestamp, b timestamptz);
insert into infinite.stamps values ('infinity', '-infinity'), ('294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00'), ('4713-01-01 BC', null);
create table infinite.last_year (a timestamp, b timestamptz);
insert into infinite.last_year values ('294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00');
create table infinite.numbers (a numeric(10, 2), b numeric(5, -2), c numeric(3, 5));
insert into infinite.numbers values ('NaN', 'NaN', 'NaN'), (1.5, 12300, 0.00123);
create table infinite.times (a time, b timetz);
insert into infinite.times values ('24:00:00', '24:00:00+15:59'), ('00:00', '00:00-15:59');
create table infinite.arrays (a int[], b text[]);
insert into infinite.arrays values ('{{1,2},{3,NULL}}', '[0:1]={a,b}'), ('{}', '{{{"",NULL}}}');
create table infinite.shifted (a int[]);
insert into infinite.shifted values ('[-5:-3]={1,2,3}'), ('{1}');
create table infinite.within (a date[], b daterange, c tstzmultirange);
insert into infinite.within values ('{infinity}', '[2020-01-01,infinity)', '{[2020-01-01,infinity)}');
create domain infinite.grid as int[];
create table infinite.domains (a infinite.grid[]);
insert into infinite.domains values ('{"{{1,2},{3,4}}","{}"}'), ('{{"{1}",NULL}}');
create type infinite.held as (d date, t time);
create table infinite.composites (h infinite.held, hs infinite.held[]);
insert into infinite.composites values (row('2020-01-01', '12:00'), array[row('infinity', '24:00')]::infinite.held[]), (null, null);

-- Columns that are not what they were.

create table generated (id int generated always as identity, n int not null, twice int generated always as (n * 2) stored, label text generated always as ('n=' || n) stored, other int generated by default as identity);
insert into generated (n) select n from generate_series(1, 100) as n;
do $$ begin
    if current_setting('server_version_num')::int >= 180000 then
        execute 'create table virtual (n int, twice int generated always as (n * 2) virtual, at date generated always as (date ''2000-01-01'' + n) virtual, plain text)';
        execute 'insert into virtual (n, plain) select n, ''p'' || n from generate_series(1, 100) as n';
        execute 'create table virtual_parts (n int, v int generated always as (n + 1) virtual) partition by range (n)';
        execute 'create table virtual_part partition of virtual_parts (v generated always as (n - 1)) for values from (0) to (1000)';
        execute 'insert into virtual_parts select n from generate_series(1, 10) as n';
        execute 'create table checked (n int, constraint positive check (n > 0) not enforced, m int constraint there not null)';
        execute 'insert into checked values (-1, 2)';
    end if;
end $$;
create table dropped (a int, b text, c int, d text);
insert into dropped select n, 'b' || n, n, 'd' || n from generate_series(1, 10) as n;
alter table dropped drop column a, drop column c;
insert into dropped values ('b', 'd');
alter table dropped add column e int not null default 7, add column a text default 'a second a';
insert into dropped values ('b', 'd', 1, null);
alter table dropped alter column b type varchar(10), alter column e type bigint;
create table all_dropped (a int, b int);
insert into all_dropped values (1, 2), (3, 4);
alter table all_dropped drop column a, drop column b;
create table nothing ();
insert into nothing default values;
create unlogged table unlogged as select n from generate_series(1, 10) as n;
create table no_rows (id bigint primary key, t text, a int[], c types.outermost, h types.text, n numeric(10, 2), ts timestamptz[]);
create table one_column (t text);
insert into one_column values (''), (null), ('\.'), ('\N'), ('"'), (','), (E'\n'), (E'\r'), (E'\r\n'), ('""'), (' '), ('#'), ('NULL'), (E'\t');
create table one_null (n int);
insert into one_null select null from generate_series(1, 1000);
create table defaulted_nulls (a int not null, b text not null default '', c int);

-- Values.

create table texts (id serial, t text);
insert into texts (t) select chr(c) || 'x' || chr(c) from generate_series(1, 300) as c where c not between 55296 and 57343;
insert into texts (t) values (U&'\FEFFbom'), (U&'\202E\2028\2029\0085'), (U&'\+01F980\+10FFFF\FFFF\FDD0'), ('  lead and trail  '), (repeat('"', 1000)), ('=1+1'), ('@x'), ('a' || chr(13)), ('{"a": 1}'),
    (E'a\\b\\\\c'), (E'\\'), (repeat('🦀', 10000)), ('é' || 'é'), ('%s %d $1 {0}'), ('</script><!--'), (E'\u001b[31m');
create table chars (a char(5), b char, c bpchar, d varchar(3), e name, f "char", g char(5)[], h "char"[]);
insert into chars values ('ab', 'x', 'ab  ', 'abc', 'name', 'q', '{ab,"",NULL}', '{a,"",NULL,"\""}'), ('', '', '', '', '', '', '{}', '{}'), ('🦀', 'é', ' ', '🦀🦀🦀', '🦀', 'é'::text::"char", null, null), (null, null, null, null, null, null, null, null),
    (E'\n', '"', E'\t ', ',,,', ',', '"', null, null), ('\', '\', '\', '\', '\', '\', null, null);
create table jsons (j json, b jsonb, js json[], bs jsonb[]);
insert into jsons values
    (E'{ "a" : 1 ,\n\t"a" : [ 1 , 2.50 , 1e400 , -0 , 1E+2 ] , "b\\u0000" : "\\ud800" , "c d" : "e\\"f \\\\ \\n" }', '{"a": [1, 2.50, 12345678901234567890123.4500, -0.0], "b": {"c": null}}', array['{"a": [1, 2]}'::json, ' [ ] ', null], array['{"a": "b c"}'::jsonb, 'null', null]),
    ('null', 'null', '{}', '{}'), ('"a  b"', '"a  b"', null, null), ('  [ ]  ', '[]', null, null), (null, null, null, null), ('1.0', '1.0', null, null), ('"🦀\ud83e\udd80"', '"🦀"', null, null),
    ((repeat('[', 500) || repeat(']', 500))::json, (repeat('[', 500) || repeat(']', 500))::jsonb, null, null), ('{}', '{}', null, null), (E'"tab\\t"', '"\u0001"', null, null);
create table markup (x xml, xs xml[]);
do $$ begin
    execute $q$insert into markup values ('<?xml version="1.0" encoding="UTF-8" standalone="yes"?><a b="c">é🦀</a>', array['<a/>'::xml, null, '<?xml version="1.0"?><b/>']), ('<a>&lt;</a>text', '{}'), (null, null), ('', null), (E'<a>\n</a>', null), ('<?xml version="1.1"?><a/>', null)$q$;
exception when feature_not_supported then insert into markup values (null, null); end $$;
create table numbers (a numeric(38, 0), b numeric(38, 38), c numeric(39, 0), d numeric(1000, 500), e numeric(5, -2), f numeric(3, 5), g numeric, h numeric(38, 10)[], i numeric[], j numeric(1, 0), k numeric(9, 9), l numeric(18, 0), m numeric(2, -4), n numeric(76, 38));
insert into numbers values
    (repeat('9', 38)::numeric, ('0.' || repeat('9', 38))::numeric, repeat('9', 39)::numeric, ('1' || repeat('0', 400) || '.5')::numeric, 9999900, 0.00999, ('1' || repeat('0', 1000) || '.' || repeat('3', 1000))::numeric, '{1.5,NULL,-9999999999999999999999999999.9999999999}', '{NaN,Infinity,-Infinity,1e-100,0.000,NULL}', 9, 0.999999999, 999999999999999999, 990000, 1.5),
    (-repeat('9', 38)::numeric, -('0.' || repeat('9', 38))::numeric, -repeat('9', 39)::numeric, 'NaN', -9999900, -0.00999, 'NaN', '{}', '{}', -9, -0.999999999, -999999999999999999, -990000, 'NaN'),
    (0, 0, 0, 0, 0, 0, 'Infinity', null, null, 0, 0, 0, 0, 0), (1, 1e-38, 10000, 1e-500, 100, 0.00001, '-Infinity', null, null, 1, 1e-9, 10000, 10000, 1e-38), (10000, 0.0001, 1, 1, 4900, 0.001, 1e-1000, null, null, null, 0.0001, 99990000, null, null),
    (null, null, null, null, null, null, 100000000.00000000, null, null, null, null, null, null, null), (100000000, 1e-20, 123, 1e400, 51, 0.005, 0.00, null, null, null, null, 1, null, null);
create table floats (a real, b double precision, c real[], d double precision[]);
insert into floats values ('NaN', 'NaN', '{NaN,Infinity,-Infinity,-0,1e-45,3.4028235e+38,1e15,0.1}', '{NaN,Infinity,-Infinity,-0,5e-324,1.7976931348623157e+308,1e15,1e16,0.1,1e-5,123456789012345680}'),
    ('Infinity', '-Infinity', '{}', '{}'), ('-0', '-0', '{NULL}', '{NULL}'), (1e-45, 5e-324, null, null), (16777216, 9007199254740993, null, null), (1e6, 1e15, null, null), (999999, 999999999999999, null, null), (0.0001, 0.0001, null, null), (0.00001, 0.00001, null, null), (null, null, null, null);
insert into floats select (random() * 10 ^ (n % 76 - 38))::real, random() * 10 ^ (n % 600 - 300) from generate_series(1, 2000) as n;
create table calendar as select d::date as d, d as ts, d at time zone 'UTC' as tz, d::time as t from generate_series(timestamp '0002-12-30 BC', timestamp '0003-01-02', interval '37 days 05:06:07.000008') as d;
insert into calendar select d, d, d at time zone 'UTC', d::time from generate_series(timestamp '1582-01-01', timestamp '2100-03-02', interval '97 days 11:59:59.999') as d;
insert into calendar values ('4713-11-24 BC', '4713-11-24 00:00:00 BC', '4713-11-24 00:00:00+00 BC', '00:00'), ('5874897-12-31', '294246-12-31 23:59:59.999999', '294246-12-31 23:59:59.999999+00', '23:59:59.999999'), ('10000-01-01', '10000-01-01', '99999-12-31 00:00:00+00', '00:00:00.1');
create table wide_values (id int primary key, t text, b bytea, j jsonb, a text[]);
alter table wide_values alter column t set storage external, alter column b set storage external;
insert into wide_values select n, repeat(md5(n::text) || '",' || E'\n', 40000), decode(repeat(md5(n::text), 20000), 'hex'), jsonb_build_object('k', repeat('x"y', 50000)), array_fill(md5(n::text), array[10000]) from generate_series(1, 6) as n;
do $$ declare numbers text; texts text; begin
    select string_agg(format('c%s int', n), ', ') into numbers from generate_series(1, 1600) as n;
    execute format('create table columns_1600 (%s)', numbers);
    execute format('insert into columns_1600 (c1, c800, c1600) values (1, 2, 3), (null, null, null)');
    select string_agg(format('"column %s" text', n), ', ') into texts from generate_series(1, 1600) as n;
    execute format('create table texts_1600 (%s)', texts);
    execute 'insert into texts_1600 ("column 1", "column 1600") values ('','', ''"''), ('''', null)';
    select string_agg(format('%s as v%s', n, n), ', ') into numbers from generate_series(1, 1600) as n;
    execute format('create view view_1600 as select %s', numbers);
end $$;
create table references_ (c regclass, t regtype, p regproc, pr regprocedure, o regoper, op regoperator, r regrole, n regnamespace, cf regconfig, d regdictionary, co regcollation, cs regclass[], i oid, x xid, x8 xid8, ci cid, td tid, iv int2vector, ov oidvector, ac aclitem, acs aclitem[], rc refcursor, sn pg_snapshot, ts txid_snapshot);
insert into references_ values
    ('"SELECT"."FROM"', 'types."weird ""type"" 🦀; --"', 'pg_catalog.now', 'pg_catalog.abs(int)', 'pg_catalog.||/', '+(int,int)', 'postgres', 'types', 'simple', 'simple', '"C"', '{pg_class,"\"Mixed Case\"",0,NULL}', 4294967295, '4294967295', '18446744073709551615', '4294967295', '(4294967295,65535)', '1 2 3', '1 2 4294967295', 'postgres=arwdDxt/postgres', '{postgres=r/postgres,=r/postgres}', 'cursor', '10:20:10,14', '10:20:10,14'),
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '{}', 0, '0', '0', '0', '(0,0)', '', '', null, '{}', '', '1:1:', '1:1:'), (4294967295, 4294967295, 4294967295, 4294967295, 4294967295, 4294967295, 4294967295, 4294967295, 4294967295, 4294967295, 4294967295, null, 1, '1', '1', '1', '(1,1)', '-32768', '0', null, null, null, null, null),
    (null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null);

-- Trees of tables.

create table tree (id int, at date, label text, gone int) partition by range (id);
create table tree_1 partition of tree for values from (0) to (100);
create table tree_2 (label text, extra int, at date, gone int, id int);
alter table tree_2 drop column extra;
alter table tree attach partition tree_2 for values from (100) to (200);
create table tree_3 partition of tree for values from (200) to (300) partition by hash (label);
create table "SELECT".tree_3a partition of tree_3 for values with (modulus 2, remainder 0);
create table tree_3b (gone int, id int, label text, at date);
alter table tree_3 attach partition tree_3b for values with (modulus 2, remainder 1);
create table tree_rest partition of tree default partition by list (label);
create table tree_empty partition of tree for values from (1000) to (1001);
create table tree_rest_null partition of tree_rest for values in (null);
create table tree_rest_rest partition of tree_rest default;
insert into tree select n, date '2020-01-01' + n, case n % 7 when 0 then null else 'l' || n end, n from generate_series(0, 400) as n;
insert into tree values (null, null, null, null);
alter table tree drop column gone;
create table leafless (id int) partition by list (id);
create table parent (id int, label text);
create table child (more text) inherits (parent);
create table other (id int, more int, label text);
alter table other inherit parent;
create table grandchild () inherits (child, parent);
insert into parent values (1, 'parent');
insert into child values (2, 'child', 'x');
insert into other values (3, 3, 'other');
insert into grandchild values (4, 'grandchild', 'y');

-- Views.

create view "SELECT"."view; drop table x" as with recursive t(n, path) as (select 1, array[1] union all select n + 1, path || (n + 1) from t where n < 30) select n as "n;", path from t;
create view windowed as select id, sum(n) over (order by id rows between 2 preceding and current row) as s, lag(label) over (order by id) as l, count(*) filter (where n % 2 = 0) over () as c from generated;
create view unnamed as select 1, array[1, 2], row_number() over () where true limit 1;
create view expressions as select 1 as "?column?", 'unknown' as u, null as n, 1.50 as d, current_date is null as b, interval '1 day' as i, array['x', null] as a, generate_series(1, 3) as g;
create view joined as select p.*, g.twice from parent as p left join generated as g on g.n = p.id;
create view barrier with (security_barrier) as select * from cased where a > 0;
create view of_view as select * from "SELECT"."view; drop table x" where "n;" > 10;
create view whole_rows as select g as generated, array_agg(p) over () as parents from generated as g, parent as p where g.n < 4;
create view fails as select 1 / (n - 50) as x from generated;
create view from_function as select * from pg_catalog.generate_series(1, 10) with ordinality;
create view from_values as values (1, 'a'), (2, null);
create view no_columns as select;
create materialized view materialized as select n, n * n as square, repeat('x', n) as t from generate_series(1, 1000) as n;
create materialized view "Not ""filled""" as select 1 as n with no data;
create materialized view of_tree as select * from tree with data;
create unique index on materialized (n);
