-- Puts into a schema what fits at least as well as all that is built in and named by the program: each raises "hijacked"
-- when it is run. Settings say which: hostile.schema, hostile.functions, hostile.types, hostile.relations.
set search_path = pg_catalog;

create function pg_temp.tried(statement text) returns void language plpgsql as $$
begin
    execute statement;
exception when others then
    -- Pseudotypes that no function of a person may take, and what is there already.
    null;
end $$;

create function pg_temp.raises(name text, arguments text, result text) returns void language plpgsql as $$
begin
    perform pg_temp.tried(format('create function %I.%I(%s) returns %s language plpgsql as ''begin raise exception ''''hijacked: %s''''; end''',
        current_setting('hostile.schema'), name, arguments, result, name));
end $$;

-- Every operator, for the same types and for types to which the built-in ones are stretched.
do $$
declare
    op record;
    of text;
    place constant text := current_setting('hostile.schema');
begin
    for op in select o.oid, o.oprname, o.oprleft, o.oprright, o.oprresult from pg_operator o
        where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprright <> 0
    loop
        perform pg_temp.raises('op_' || op.oid,
            concat_ws(', ', case when op.oprleft <> 0 then format_type(op.oprleft, null) end, format_type(op.oprright, null)),
            format_type(op.oprresult, null));
        perform pg_temp.tried(format('create operator %I.%s (%s rightarg = %s, function = %I.%I)', place, op.oprname,
            case when op.oprleft <> 0 then format('leftarg = %s,', format_type(op.oprleft, null)) else '' end,
            format_type(op.oprright, null), place, 'op_' || op.oid));
    end loop;
    for of in select format('%I.%I', n.nspname, t.typname) from pg_type t join pg_namespace n on n.oid = t.typnamespace
        where t.typtype in ('b', 'd', 'e', 'c') and n.nspname not in ('information_schema', 'pg_toast', place)
            and not exists (select from pg_operator o where o.oprname = '<' and o.oprleft = t.oid and o.oprright = t.oid
                and o.oprnamespace = 'pg_catalog'::regnamespace)
            and (n.nspname <> 'pg_catalog' or t.typname in ('varchar', 'regclass', 'cidr', '_int4', '_text', '_oid'))
            and (t.typrelid = 0 or exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
    loop
        perform pg_temp.raises('op_' || of, format('%s, %s', of, of), 'boolean');
        for op in select unnest(array['=', '<>', '<', '<=', '>', '>=', '||']) as name loop
            perform pg_temp.tried(format('create operator %I.%s (leftarg = %s, rightarg = %s, function = %I.%I)',
                place, op.name, of, of, place, 'op_' || of));
        end loop;
    end loop;
end $$;

-- Functions and aggregates of these names, for the same types.
do $$
declare
    f record;
    place constant text := current_setting('hostile.schema');
begin
    for f in select p.oid, p.proname::text, p.prokind, pg_get_function_identity_arguments(p.oid) as arguments,
            pg_get_function_result(p.oid) as result
        from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace
            and p.proname = any (string_to_array(current_setting('hostile.functions'), ','))
    loop
        if f.prokind = 'a' then
            perform pg_temp.raises('state_' || f.oid, concat_ws(', ', 'bigint', nullif(f.arguments, '')), 'bigint');
            perform pg_temp.tried(format('create aggregate %I.%I(%s) (sfunc = %I.%I, stype = bigint, initcond = ''0'')',
                place, f.proname, coalesce(nullif(f.arguments, ''), '*'), place, 'state_' || f.oid));
        else
            perform pg_temp.raises(f.proname, f.arguments, f.result);
        end if;
    end loop;
    perform pg_temp.raises('format', 'text, anyelement', 'text');
    perform pg_temp.raises('to_json', 'anyelement', 'json');
end $$;

-- Types into which nothing can be cast, and relations without rows.
do $$
declare
    name text;
    place constant text := current_setting('hostile.schema');
begin
    foreach name in array string_to_array(current_setting('hostile.relations'), ',') loop
        perform pg_temp.tried(format('create view %I.%I as select * from pg_catalog.%I where false', place, name, name));
    end loop;
    foreach name in array string_to_array(current_setting('hostile.types'), ',') loop
        perform pg_temp.tried(format('create domain %I.%I as pg_catalog.bytea check (false)', place, name));
    end loop;
end $$;
