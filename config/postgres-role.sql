-- The least that an exporting role needs. Run it as a superuser or as the owner of what is exported:
--   psql --dbname=shop --set=schema=public --file=config/postgres-role.sql
-- Then set its password in a way that does not end up in a history: \password outhaul

CREATE ROLE outhaul LOGIN CONNECTION LIMIT 16;

-- A run sets these itself; here they keep a stray session from doing harm.
ALTER ROLE outhaul SET default_transaction_read_only = on;
ALTER ROLE outhaul SET idle_in_transaction_session_timeout = '15min';

GRANT USAGE ON SCHEMA :"schema" TO outhaul;
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO outhaul;
ALTER DEFAULT PRIVILEGES IN SCHEMA :"schema" GRANT SELECT ON TABLES TO outhaul;

-- Row security: outhaul refuses to export a table of which it may see only some rows. Where policies exist, either give
-- the role a policy that shows it everything, or, as a superuser:
--   ALTER ROLE outhaul BYPASSRLS;
