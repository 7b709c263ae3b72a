-- The least that an exporting role needs. Run it as a superuser, with the role that makes the tables:
--   psql --dbname=shop --set=schema=public --set=owner=shop --file=config/postgres-role.sql
-- Or run it as that role itself, where it has CREATEROLE. Where several roles make tables, repeat the last statement for each.
-- Then set its password in a way that does not end up in a history: \password outhaul

\set ON_ERROR_STOP on
BEGIN;

CREATE ROLE outhaul LOGIN CONNECTION LIMIT 16 NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

-- A run sets these itself; here they keep a stray session from doing harm.
ALTER ROLE outhaul SET default_transaction_read_only = on;
ALTER ROLE outhaul SET idle_in_transaction_session_timeout = '15min';

GRANT CONNECT ON DATABASE :"DBNAME" TO outhaul;
GRANT USAGE ON SCHEMA :"schema" TO outhaul;
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO outhaul;
-- Tables that come later are read too. This counts only for those that the named role makes.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT SELECT ON TABLES TO outhaul;

COMMIT;

-- For incremental exports (--watermark): when the oldest transaction began, without which they look at every row; and on a
-- standby, whose WAL it receives.
--   GRANT pg_read_all_stats TO outhaul;

-- Not pg_read_all_data: it reads every table of the database, and those that come later.

-- What everybody may do, this role may do too: make temporary tables, call functions of the schema and, up to PostgreSQL
-- 14, make tables in the schema public. Where no other role needs that:
--   REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC;
--   REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
--   REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- Row security: outhaul refuses to export a table of which it may see only some rows. Where policies exist, either give
-- the role a policy that shows it everything, or, as a superuser:
--   ALTER ROLE outhaul BYPASSRLS;
