-- Every type, thousands of generated rows of it: as a column, in arrays, under domains of domains, and all of them as the
-- attributes of one composite. For tests/it/every_type.rs and scripts/differential. A version of PostgreSQL gives the same
-- rows again for a seed; another one (between -1 and 1) is set before: set outhaul.seed = '0.5'.
set client_min_messages = warning;
create extension hstore;
create extension citext;
create schema "odd ""schema""";
create type mood as enum ('sad', 'it''s "ok"', '', 'NULL', 'a,b', E'line\nbreak', '\', '🦀', '{}');
create type "odd ""schema"""."odd type; --" as ("a b" int, "say ""hi""" text, at timestamptz, list numeric(8, 3)[]);
create type textrange as range (subtype = text, collation = "C");

-- What gives chance. A query without a table of its own would be run once for all rows; a function is not.
create function whole(below bigint) returns bigint volatile language sql as $$ select floor(random() * below)::bigint $$;
create function one_of(choices text[]) returns text volatile language sql as
    $$ select choices[1 + floor(random() * cardinality(choices))::int] $$;
create function digits(many int) returns text volatile language sql as
    $$ select coalesce(substr(string_agg(translate(md5(random()::text), 'abcdef', '012345'), ''), 1, many), '') from generate_series(0, many / 32) $$;
create function evil(many int) returns text volatile language sql as $$
    select coalesce(string_agg(one_of(array['a', 'Z', '0', '"', '''', ',', E'\n', E'\r', '\', '\.', '\N', E'\t', ' ', '{', '}', '(', ')', '[', ']', '=', ':', '&',
        '<', E'\u0001', E'\u007f', U&'\FEFF', U&'\2028', 'é', 'ß', '漢', '🦀', U&'\+10FFFF', 'NULL', 'null', '""', ';']), ''), '')
    from generate_series(1, floor(random() * many)::int) $$;
create function moment() returns timestamp volatile language sql as
    $$ select timestamp '2000-01-01' + (random() - 0.15) * interval '30000 years' $$;
create function texts() returns text[] immutable language sql as $$
    select array['', ' ', 'NULL', 'null', '\N', '\.', '"', '""', ',', E'\n', E'\r', E'\r\n', E'a\tb', '\', '''', '{}', '🦀', E'\uFEFF', '=1+1'] $$;

-- A type, values at the edges of what it and the formats can hold, and an expression for any other value.
create temporary table types (number int generated always as identity (minvalue 0), name text, edges text[], random text);
insert into types (name, edges, random) values
    ('boolean', array['t', 'f'], $$random() < 0.5$$),
    ('"char"', array['', 'a', '"', ',', '\', E'\n', ' ', E'\x7f'], $$(64 + whole(60))::int::"char"$$),
    ('smallint', array['-32768', '32767', '0', '-1'], $$(whole(65536) - 32768)::smallint$$),
    ('integer', array['-2147483648', '2147483647', '0', '-1'], $$(whole(4294967296) - 2147483648)::int$$),
    ('bigint', array['-9223372036854775808', '9223372036854775807', '9007199254740993', '0', '-1'], $$('x' || substr(md5(random()::text), 1, 16))::bit(64)::bigint$$),
    ('oid', array['0', '4294967295'], $$whole(4294967296)::oid$$),
    ('xid', array['0', '3', '4294967295'], $$whole(4294967296)::text::xid$$),
    ('cid', array['0', '4294967295'], $$whole(4294967296)::text::cid$$),
    ('xid8', array['0', '18446744073709551615'], $$('1' || digits(18))::xid8$$),
    ('real', array['NaN', 'Infinity', '-Infinity', '-0', '0', '1e-45', '3.4028235e+38', '1.17549435e-38', '16777216', '1e6', '999999', '0.0001', '1e-5'], $$((random() - 0.5) * 10 ^ (whole(67) - 30))::real$$),
    ('double precision', array['NaN', 'Infinity', '-Infinity', '-0', '0', '5e-324', '1.7976931348623157e308', '2.2250738585072014e-308', '1e15', '1e22', '1e23', '9007199254740993', '0.1'], $$(random() - 0.5) * 10 ^ (whole(600) - 300)$$),
    ('numeric', array['NaN', 'Infinity', '-Infinity', '0', '0.00', '-0.000001', '10000', '1e300', '1e-300', '99999999.99999999', '123456789012345678901234567890.5', '100000000.00'], $$((array['', '-'])[1 + whole(2)] || '0' || digits(whole(50)::int) || '.' || digits(whole(50)::int))::numeric$$),
    ('numeric(12,2)', array['0', '0.01', '-0.01', '9999999999.99', '-9999999999.99'], $$(digits(12)::numeric / 100)::numeric(12,2)$$),
    ('numeric(9,4)', array['0', '99999.9999', '-99999.9999'], $$(digits(9)::numeric / 10000)::numeric(9,4)$$),
    ('numeric(38,10)', array['0', '9999999999999999999999999999.9999999999', '-0.0000000001'], $$('-' || digits(28) || '.' || digits(10))::numeric(38,10)$$),
    ('numeric(38,38)', array['0', '-0.99999999999999999999999999999999999999'], $$('0.' || digits(38))::numeric(38,38)$$),
    ('numeric(39,1)', array['0', '99999999999999999999999999999999999999.9', 'NaN'], $$(digits(38) || '.' || digits(1))::numeric(39,1)$$),
    ('numeric(5,-2)', array['0', '9999900', '-100'], $$whole(9999900)::numeric(5,-2)$$),
    ('numeric(3,5)', array['0', '0.00999', '-0.00001'], $$(random() / 101)::numeric(3,5)$$),
    ('money', array['-92233720368547758.08', '92233720368547758.07', '0', '-0.01'], $$digits(12)::numeric::money$$),
    ('text', texts(), $$evil(40)$$),
    ('varchar', texts(), $$evil(10)$$),
    ('varchar(20)', texts(), $$evil(20)::varchar(20)$$),
    ('bpchar', texts(), $$evil(9)::bpchar$$),
    ('char(7)', array['', ' ', 'a', '🦀', '1234567', '"', '\', E'\n'], $$evil(8)::char(7)$$),
    ('name', texts(), $$evil(20)::name$$),
    ('citext', texts(), $$evil(12)::citext$$),
    ('mood', array['sad', 'it''s "ok"', '', 'NULL', 'a,b', E'line\nbreak', '\', '🦀', '{}'], $$(enum_range(null::mood))[1 + whole(9)]$$),
    ('bytea', array['\x', '\x00', '\xff5c22', '\x0a0d2c'], $$decode(repeat(md5(random()::text), whole(4)::int), 'hex')$$),
    ('uuid', array['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff'], $$md5(random()::text)::uuid$$),
    ('date', array['4713-11-24 BC', '5874897-12-31', '0001-12-31 BC', '0001-01-01', '1969-12-31', '1970-01-01', '1999-12-31', '2000-02-29', '9999-12-31', '10000-01-01'], $$date '2000-01-01' + (whole(10000000) - 2400000)::int$$),
    ('time', array['00:00:00', '23:59:59.999999', '00:00:00.000001', '12:00:00.1'], $$time '00:00' + random() * interval '1 day'$$),
    ('time(3)', array['00:00:00', '23:59:59.999', '12:00:00.1'], $$(time '00:00' + random() * interval '1 day')::time(3)$$),
    ('timetz', array['00:00:00+00', '24:00:00-15:59', '23:59:59.999999+15:59', '12:34:56.7+05:30:15'], $$((time '00:00' + random() * interval '1 day')::text || (array['+00', '-15:59', '+05:30', '+01:02:03'])[1 + whole(4)])::timetz$$),
    ('timestamp', array['4713-11-24 00:00:00 BC', '294246-12-31 23:59:59.999999', '0001-12-31 23:59:59.9 BC', '0001-01-01 00:00:00', '1969-12-31 23:59:59.999999', '1999-12-31 23:59:59.999999', '2000-01-01 00:00:00'], $$moment()$$),
    ('timestamp(3)', array['4713-11-24 00:00:00 BC', '1969-12-31 23:59:59.999'], $$moment()::timestamp(3)$$),
    ('timestamptz', array['4713-11-24 00:00:00+00 BC', '294246-12-31 23:59:59.999999+00', '0001-01-01 00:00:00+00', '1969-12-31 23:59:59.999999+00', '1970-01-01 00:00:00+15:59'], $$moment() at time zone 'UTC'$$),
    ('timestamptz(0)', array['1970-01-01 00:00:00+00'], $$(moment() at time zone 'UTC')::timestamptz(0)$$),
    ('interval', array['0', '178000000 years', '-178000000 years', '1 year -2 mons 3 days -04:05:06.789', '-1 days +24:00:00', '00:00:00.000001', '-00:00:00.000001', '2147483647 days', '1 mon -1 days', '-2562047788:00:54.775807'], $$make_interval(months => (whole(4000) - 2000)::int, days => (whole(4000) - 2000)::int, secs => (random() - 0.5) * 1e7)$$),
    ('interval(2)', array['0', '1.25'], $$(random() * interval '1 year')::interval(2)$$),
    ('json', array['null', '{}', ' [ ] ', '"a  b"', E'{ "a" : 1,\n"a":2.50e+400 }', '-0', '1E5', '"\u0000\ud800"', '"🦀\/"', '{"":{"":[[]]}}'], $$json_build_object(evil(5), random(), 'text', evil(20), 'list', json_build_array(1, null, true))$$),
    ('jsonb', array['null', '{}', '[]', '"a  b"', '{"a":1.500,"b":[1e40,-0.0]}', '"\u0001"', '123456789012345678901234567890.10'], $$jsonb_build_object(evil(5), random(), 'text', evil(20), 'list', jsonb_build_array(1, null, true))$$),
    ('jsonpath', array['$', 'strict $."a b"[*] ? (@.x > 1.50)', '$.**{2 to last}.type()'], $$format('$[%s] ? (@ like_regex "%s")', whole(9), md5(random()::text))::jsonpath$$),
    ('xml', array['', '<a/>', 'text', E'<a b="c">é🦀&lt;\n</a>', '<?xml version="1.0" encoding="UTF-8"?><a/>', '<?xml version="1.0" standalone="yes"?><a/>', '<?xml version="1.1"?><a/>'], $$format('<a b="%s">%s</a>', md5(random()::text), digits(5))::xml$$),
    ('inet', array['0.0.0.0', '255.255.255.255/0', '10.1.2.3/8', '::', '::1/128', '::ffff:1.2.3.4', 'fe80::1/64', '2001:db8::/32'], $$('10.' || whole(256) || '.' || whole(256) || '.1/' || whole(33))::inet$$),
    ('cidr', array['0.0.0.0/0', '10.0.0.0/8', '1.2.3.4/32', '::/0', '2001:db8::/32'], $$network(('10.' || whole(256) || '.' || whole(256) || '.1/' || whole(33))::inet)$$),
    ('macaddr', array['00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff'], $$substr(md5(random()::text), 1, 12)::macaddr$$),
    ('macaddr8', array['00:00:00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff:ff:ff'], $$substr(md5(random()::text), 1, 16)::macaddr8$$),
    ('bit(1)', array['0', '1'], $$whole(2)::int::bit(1)$$),
    ('bit(9)', array['000000000', '111111111', '100000001'], $$whole(512)::int::bit(9)$$),
    ('varbit', array['', '0', '1', '10000000', '111111110'], $$substring(whole(1000000)::bit(64)::varbit from 1 for whole(64)::int)$$),
    ('point', array['(0,-0)', '(NaN,Infinity)', '(1e300,-1e-300)'], $$point(random() * 1e6, -random() * 1e-6)$$),
    ('line', array['{1,-1,0}', '{0,1,-5e-324}'], $$line(point(0, 0), point(random() + 1, random()))$$),
    ('lseg', array['[(0,0),(1,-0)]', '[(NaN,1),(Infinity,2)]'], $$lseg(point(0, random()), point(random(), 1))$$),
    ('box', array['(1,1),(0,0)', '(Infinity,1),(-Infinity,0)'], $$box(point(0, random()), point(random(), 1))$$),
    ('path', array['((0,0))', '[(0,0),(1,1)]', '((0,0),(1e20,1),(-0,2))'], $$format('[(0,%s),(%s,1)]', random(), random())::path$$),
    ('polygon', array['((0,0))', '((0,0),(1e20,1),(-0,2))'], $$format('((0,%s),(%s,1))', random(), random())::polygon$$),
    ('circle', array['<(0,0),0>', '<(NaN,-0),1e300>'], $$circle(point(random(), 0), random() * 1000)$$),
    ('tsvector', array['', '''a'' ''b c'':1A,2', '''it''''s'':3B ''\\'':4'], $$to_tsvector('simple', evil(30) || ' ' || md5(random()::text))$$),
    ('tsquery', array['', '''a'' & !''b'' | ''c'':*A', '''x'' <-> ''y'' <3> ''it''''s'''], $$plainto_tsquery('simple', md5(random()::text) || ' ' || digits(4))$$),
    ('pg_lsn', array['0/0', 'FFFFFFFF/FFFFFFFF', '16/B374D848'], $$'0/0'::pg_lsn + digits(18)::numeric$$),
    ('tid', array['(0,0)', '(4294967295,65535)'], $$format('(%s,%s)', whole(4294967296), whole(65536))::tid$$),
    ('pg_snapshot', array['1:1:', '10:20:10,14,15'], $$format('%s:%s:', 1 + whole(99), 100 + whole(99))::pg_snapshot$$),
    ('txid_snapshot', array['1:1:', '10:20:10,14,15'], $$format('%s:%s:', 1 + whole(99), 100 + whole(99))::txid_snapshot$$),
    ('int2vector', array['', '-32768 0 32767'], $$format('%s %s', whole(999), -whole(999))::int2vector$$),
    ('oidvector', array['', '0 4294967295'], $$format('%s %s', whole(4294967296), whole(999))::oidvector$$),
    ('regclass', array['pg_class', 'information_schema.tables'], $$(whole(2) * (1 + whole(5000)))::oid::regclass$$),
    ('regtype', array['-', 'integer', '"odd ""schema"""."odd type; --"', '4294967295'], $$whole(5000)::oid::regtype$$),
    ('regproc', array['-', 'now', '4294967295'], $$whole(5000)::oid::regproc$$),
    ('regprocedure', array['-', 'abs(integer)', '4294967295'], $$whole(5000)::oid::regprocedure$$),
    ('regoper', array['0', '||/', '4294967295'], $$whole(3000)::oid::regoper$$),
    ('regoperator', array['0', '+(integer,integer)', '4294967295'], $$whole(3000)::oid::regoperator$$),
    ('regrole', array['-', 'postgres', '4294967295'], $$whole(20)::oid::regrole$$),
    ('regnamespace', array['-', 'pg_catalog', '"odd ""schema"""'], $$whole(20000)::oid::regnamespace$$),
    ('regconfig', array['simple', '4294967295'], $$whole(20000)::oid::regconfig$$),
    ('regdictionary', array['simple', '4294967295'], $$whole(20000)::oid::regdictionary$$),
    ('regcollation', array['-', '"C"', '4294967295'], $$whole(20000)::oid::regcollation$$),
    ('aclitem', array['postgres=arwdDxt/postgres', '=r/postgres'], $$makeaclitem(10, 10, 'SELECT', random() < 0.5)$$),
    ('refcursor', texts(), $$evil(9)::refcursor$$),
    ('hstore', array['', 'a=>1', '""=>""', 'a=>NULL, "NULL"=>"NULL"'], $$hstore(array[md5(random()::text), evil(5), 'k'], array[evil(9), null, digits(3)])$$),
    ('int4range', array['empty', '(,)', '[1,2)', '[-2147483648,2147483647)', '(,5]'], $$int4range(-whole(99)::int, whole(99)::int, '[]')$$),
    ('int8range', array['empty', '(,)', '[-9223372036854775808,)'], $$int8range(-whole(99), whole(99), '(]')$$),
    ('numrange', array['empty', '(,)', '[0.00,1.10]', '[-Infinity,NaN)', '(1,)'], $$numrange(-digits(5)::numeric / 100, digits(20)::numeric, '(]')$$),
    ('daterange', array['empty', '(,)', '[4713-11-24 BC,5874897-12-31)'], $$daterange(date '1999-01-01' - whole(999)::int, date '1999-01-01' + whole(999)::int)$$),
    ('tsrange', array['empty', '(,)', '[1969-12-31 23:59:59.999999,)'], $$tsrange(timestamp '1969-01-01', timestamp '1970-01-01' + random() * interval '99 years', '[]')$$),
    ('tstzrange', array['empty', '(,)', '(,1969-12-31 23:59:59.999999+00]'], $$tstzrange(timestamptz '1969-01-01+00', timestamptz '1970-01-01+00' + random() * interval '99 years', '()')$$),
    ('textrange', array['empty', '(,)', '[a,b]', '["","x,y")', '(,"\"\\"]', '["(",")"]'], $$textrange('a' || evil(6), 'b' || evil(6), '[]')$$),
    ('int4multirange', array['{}', '{(,)}', '{[1,2),[5,9)}'], $$int4multirange(int4range(1, 5 + whole(9)::int), int4range(50, 60 + whole(9)::int))$$),
    ('int8multirange', array['{}', '{(,1),[5,)}'], $$int8multirange(int8range(1, 5 + whole(9)))$$),
    ('nummultirange', array['{}', '{(,0.50],(1.00,1.10)}'], $$nummultirange(numrange(1, 5 + digits(9)::numeric / 1000))$$),
    ('datemultirange', array['{}', '{(,)}'], $$datemultirange(daterange('2000-01-01', date '2000-01-02' + whole(9)::int))$$),
    ('tsmultirange', array['{}', '{["2000-01-01 00:00:00.5",)}'], $$tsmultirange(tsrange('2000-01-01', timestamp '2000-01-02' + random() * interval '1 day'))$$),
    ('tstzmultirange', array['{}', '{["2000-01-01 00:00:00.5+00",)}'], $$tstzmultirange(tstzrange('2000-01-01 00:00+00', timestamptz '2000-01-02 00:00+00' + random() * interval '1 day'))$$),
    ('textmultirange', array['{}', '{["","a,b"),[b,"}"]}'], $$textmultirange(textrange('a', 'b' || evil(9), '[]'))$$),
    ('"odd ""schema"""."odd type; --"', array['(,,,)', '(0,"","1970-01-01 00:00:00+00",{})', '(-1,"(""\\,",,"{1.5,NULL,-99999.999}")'], $$row(whole(9), evil(20), moment() at time zone 'UTC', array[digits(4)::numeric / 1000, null])::"odd ""schema"""."odd type; --"$$);
do $$ begin
    if current_setting('server_version_num')::int >= 170000 then
        update types set edges = edges || '{infinity,-infinity}' where name = 'interval';
    end if;
end $$;
-- Values that Parquet's own types cannot hold: those columns are refused, then written as text.
create temporary table unrepresentable (like types including all);
insert into unrepresentable (name, edges, random) values
    ('date', array['infinity', '-infinity'], $$date '2000-01-01' + whole(999)::int$$),
    ('time', array['24:00:00'], $$time '00:00' + random() * interval '1 day'$$),
    ('timestamp', array['infinity', '-infinity', '294276-12-31 23:59:59.999999'], $$moment()$$),
    ('timestamptz', array['infinity', '-infinity', '294276-12-31 23:59:59.999999+00'], $$moment() at time zone 'UTC'$$),
    ('numeric(12,2)', array['NaN'], $$digits(9)::numeric$$),
    ('numeric(5,-2)', array['NaN'], $$whole(9999900)::numeric(5,-2)$$),
    ('numeric(3,5)', array['NaN'], $$(random() / 101)::numeric(3,5)$$),
    ('int[]', array['{{1,2},{3,NULL}}', '[0:1]={1,2}', '{{{1}}}'], $$array[1, 2]$$),
    ('text[]', array['{{"",NULL},{"NULL","\""}}', '[-3:-2]={"a b",c}'], $$array[evil(5)]$$),
    ('daterange', array['[2000-01-01,infinity)'], $$daterange('2000-01-01', '2001-01-01')$$),
    ('tstzmultirange', array['{[-infinity,infinity]}'], $$'{}'::tstzmultirange$$),
    ('date[]', array['{2000-01-01,infinity}'], $$array[date '2000-01-01']$$);

create function pg_temp.value(t types) returns text language sql as $f$
    select format('(case when random() < 0.1 then null when random() < 0.35 then one_of(%L)::%s else %s end)::%2$s', t.edges, t.name, t.random) $f$;

select setseed(coalesce(nullif(current_setting('outhaul.seed', true), ''), '0.25')::float8);
do $do$
declare
    one record;
    list text;
begin
    select string_agg(format('%s as c%s', pg_temp.value(t), number), ', ' order by number) into list from types as t;
    execute format('create table scalars as select n as id, %s from generate_series(1, 3000) as n', list);

    -- Slices of all edges and a NULL: from none to three elements, numbered from 1.
    select string_agg(format('(case whole(9) when 0 then null when 1 then ''{}'' when 2 then array[%s] else (array_append(%L::text[], null)::%s[])'
            '[1 + n %% %s : 1 + n %% %4$s + n %% 4 - 1] end)::%3$s[] as c%5$s', random, edges, name, cardinality(edges) + 1, number), ', ' order by number)
        into list from types as t;
    execute format('create table arrays as select n as id, %s from generate_series(1, 1000) as n', list);

    for one in select * from types order by number loop
        execute format('create domain d%s as %s; create domain dd%1$s as d%1$s check (true); create domain da%1$s as d%1$s[]', one.number, one.name);
    end loop;
    select string_agg(format('%s::dd%s as d%2$s, array[%1$s::d%2$s, null]::da%2$s as a%2$s', pg_temp.value(t), number), ', ' order by number) into list from types as t;
    execute format('create table domains as select n as id, %s from generate_series(1, 200) as n', list);

    select string_agg(format('"a %s" %s', number, name), ', ' order by number) into list from types;
    execute format('create type everything as (%s)', list);
    create type twice as (one everything, many everything[], d dd0);
    select string_agg(pg_temp.value(t), ', ' order by number) into list from types as t;
    execute format('create table composites as select n as id, one, many, case when n %% 4 > 0 then row(one, many, true)::twice end as nested
        from (select n, row(%s)::everything as one, array[row(%1$s)::everything, null] as many from generate_series(1, 200) as n offset 0) as rows', list);

    for one in select number, pg_temp.value(row(u.*)::types) as value from unrepresentable as u order by number loop
        execute format('create table unrepresentable_%s as select n as id, %s as c from generate_series(1, 200) as n', one.number, one.value);
    end loop;
end $do$;
