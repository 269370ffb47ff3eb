-- A role and a database for the gateway, as a superuser:
--
--   psql -v ON_ERROR_STOP=1 -f deploy/database.sql
--   psql -c '\password gateway'
--
-- The role owns its database and nothing else: it makes its tables by `webhook-gateway migrate`, and partitions later.

CREATE ROLE gateway LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE DATABASE gateway OWNER gateway TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8';
REVOKE ALL ON DATABASE gateway FROM PUBLIC;

-- `webhook-gateway status` and `check` ask how old the oldest transaction of anybody is.
GRANT pg_read_all_stats TO gateway;

-- A DETAIL line in the server's log quotes the row's values, and rows are about patients.
ALTER ROLE gateway IN DATABASE gateway SET log_error_verbosity = terse;
-- The planner's compiler costs more than it saves for statements that touch a few rows.
ALTER ROLE gateway IN DATABASE gateway SET jit = off;
