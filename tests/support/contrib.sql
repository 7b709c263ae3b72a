-- What PostgreSQL's contrib modules bring: their types in columns, arrays, composites and domains, the relations that
-- they make themselves, and tables of foreign-data wrappers. For tests/it/differential.rs and scripts/differential.
do $$
declare
    -- Not those whose views change while they are read (pg_buffercache), nor those for servers started otherwise.
    wanted constant text[] := '{bloom,btree_gin,btree_gist,citext,cube,dblink,dict_int,dict_xsyn,earthdistance,file_fdw,
        fuzzystrmatch,hstore,intagg,intarray,isn,lo,ltree,pageinspect,pg_trgm,pg_visibility,pgcrypto,pgrowlocks,
        pgstattuple,postgres_fdw,seg,tablefunc,unaccent,uuid-ossp,xml2}';
    module text;
begin
    foreach module in array wanted loop
        if exists (select from pg_available_extensions where name = module) then
            begin
                execute format('create extension if not exists %I cascade', module);
            exception when undefined_file then -- A server from a wheel lacks libraries.
                raise notice 'without %: %', module, sqlerrm;
            end;
        end if;
    end loop;
end $$;

create table hstores as select n as id,
    case n % 5 when 0 then null when 1 then '' when 2 then 'a=>1, b=>NULL, "NULL"=>"NULL", ""=>""'
        else hstore(array['k' || n, 'q"uote', 'back\slash', 'ünï 🦀'], array[n::text, 'say "hi"', E'a\\b\nc', null]) end::hstore as h,
    array['a=>1'::hstore, null, '', 'x=>"y, z"'] as hs
    from generate_series(1, 50) as n;
create type stored as (id int, h hstore, c citext);
create domain hdomain as hstore check (value is null or not value ? 'forbidden');
create table hstore_within as select row(n, 'a=>"(1,2)"', 'MiXed "case"')::stored as s, array[row(n, null, '')::stored] as a,
    '"d"=>"{}"'::hdomain as d from generate_series(1, 5) as n;

create domain email as citext check (value ~ '@' or value = '');
create table citexts as select * from (values
    ('Mixed Case'::citext, '{a,B,NULL,"c d",""}'::citext[], 'Me@Example.org'::email, array['A@b', '']::email[]),
    ('', '{}', '', null), (null, null, null, '{}'), (E'new\nline', '{{a,b},{c,d}}', null, null)) as v(c, a, e, ea);

create table ltrees as select * from (values
    ('Top.Science.Astronomy'::ltree, 'Top.*{1,2}.a|b'::lquery, 'Europe & Russia*@'::ltxtquery, '{a.b,c,NULL,""}'::ltree[]),
    ('', '*', 'a', '{}'), (null, null, null, null)) as v(l, q, t, a);
create table cubes as select * from (values ('(1,2,3),(4,5,6)'::cube, '{"(1),(2)","(0, 0)",NULL}'::cube[]),
    ('(1e-300, NaN)', '{}'), ('(0)', null), (null, null), ('()', null)) as v(c, a);
create table segs as select * from (values ('1.5 .. 2.50'::seg, '{"1 .. 2",~5,NULL}'::seg[]), ('<7', '{}'), ('6(+-)1', null),
    (null, null), ('1e20 ..', null)) as v(s, a);
create table isns as select * from (values ('9780393040029'::isbn13, '0-393-04002-X'::isbn, '9790260002265'::ismn13, '977-1436-452-00-8'::issn13,
    '1436-4522'::issn, '220500896101?'::ean13, '{0-393-04002-X,NULL}'::isbn[]), (null, null, null, null, null, null, '{}')) as v(a, b, c, d, e, f, g);
create table int_queries as select * from (values ('1&(2|!3)'::query_int, '{1&2,NULL,"3|4"}'::query_int[]), (null, null)) as v(q, a);
create table los (id int primary key, raster lo, rasters lo[]);
insert into los values (1, 4294967295, '{0,4294967295,NULL}'), (2, null, '{}');
do $$ begin
    if not exists (select from pg_extension where extname = 'uuid-ossp') then return; end if;
    create table uuids as select uuid_generate_v5(uuid_ns_url(), n::text) as u, array[uuid_generate_v3(uuid_ns_dns(), n::text), null] as a
    from generate_series(1, 20) as n;
end $$;
create table crosstabs as select * from crosstab3('select (n / 3)::text, (n % 3)::text, n::text from generate_series(0, 11) as n order by 1, 2');
create table crosstab_rows as select row('a', 'b', null, 'd', '')::tablefunc_crosstab_4 as r;
create table earths as select ll_to_earth(n, n * 2) as e, array[ll_to_earth(0, n)] as a from generate_series(-80, 80, 40) as n;
create domain location as earth;
create table locations as select ll_to_earth(1, 1)::location as l;
create table trigrams as select show_trgm('word ' || n) as t, similarity('word', 'w' || n) as s from generate_series(1, 20) as n;
create index on trigrams using gin (t);
create table blooms as select n as a, n % 7 as b from generate_series(1, 200) as n;
create index on blooms using bloom (a, b);
create table ciphers as select digest('a' || n, 'sha256') as d, crypt('x', '$1$abcdefgh') as c from generate_series(1, 10) as n;
create view pages as select * from heap_page_items(get_raw_page('blooms', 0));
create view page_head as select * from page_header(get_raw_page('blooms', 0));
create view tuple_stat as select table_len, tuple_count, dead_tuple_count from pgstattuple('blooms');
create view words as select unaccent('Hôtel'), ts_lexize('intdict', '12345678'), xpath_string('<a>b</a>', '/a'), dmetaphone('Thompson');

create server files foreign data wrapper file_fdw;
create foreign table file_lines (line text) server files options (program 'printf ''one\ntwo\n\n"three"\n''', format 'text');
do $$ begin
    if not exists (select from pg_extension where extname = 'postgres_fdw') then return; end if;
    execute format('create server loop foreign data wrapper postgres_fdw options (host %L, port %L, dbname %L)',
        '127.0.0.1', current_setting('port'), current_database());
    create user mapping for current_user server loop options (user 'postgres', password_required 'false');
    create foreign table far_hstores (id int, h hstore, hs hstore[]) server loop options (table_name 'hstores');
    create foreign table far_blooms (a int, b int) server loop options (table_name 'blooms');
    create table near_and_far (a int, b int) partition by range (a);
    create table near partition of near_and_far for values from (1000) to (2000);
    insert into near select n, -n from generate_series(1000, 1010) as n;
    alter table near_and_far attach partition far_blooms for values from (minvalue) to (1000);
    -- Its server is not there: PostgreSQL itself cannot read it.
    create server gone foreign data wrapper postgres_fdw options (host '127.0.0.1', port '1');
    create user mapping for current_user server gone options (user 'postgres', password_required 'false');
    create foreign table unreachable (a int) server gone;
end $$;
