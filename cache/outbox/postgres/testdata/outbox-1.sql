-- +goose Up
-- +goose StatementBegin

-- The outbox of a cache: whatever transactions of this database touch, by whomever they are
-- written, is recorded here, in the same transaction, as tags that cached answers depend on.
--
--   SELECT cache_watch('enrollments',
--       'course:{course_id}',
--       'progress:{user_id}');
--
-- Plain SQL for psql or any migration tool; goose takes the file as it is. It may be applied
-- again, also over an earlier version. It needs PostgreSQL 14, and everything goes into the
-- first schema of the search path. Whoever applies it owns what the triggers do: they
-- run with the rights of the owner, so that a writer needs none on the outbox.

-- A row lives from the commit that it belongs to until its tag has been invalidated,
-- usually for less than a second. At 1,000 writes a second that leaves 1,000 dead rows a
-- second, so vacuum starts early, goes at full speed, and does not care for statistics.
CREATE TABLE IF NOT EXISTS cache_outbox (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tag         text        NOT NULL,
    -- Of the writer, if it invalidates its tags itself as soon as it has committed: then
    -- others wait a while before they do it in its place. NULL: nobody else will.
    mark        bytea       CHECK (octet_length(mark) = 16),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_threshold = 100000
);

-- A writer finds its own rows by it.
CREATE INDEX IF NOT EXISTS cache_outbox_mark ON cache_outbox (mark);

-- cache_mark returns the mark of the transaction, or NULL. A writer sets it with
--   SELECT set_config('cache.mark', '32 hexadecimal digits', true)
CREATE OR REPLACE FUNCTION cache_mark() RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT decode(nullif(current_setting('cache.mark', true), ''), 'hex')
$$;

-- cache_record records tags that no watched row shows. Transactions without a mark wake
-- the relays when they commit, once, whatever they recorded: PostgreSQL drops
-- notifications that are equal. Those with a mark must not, because commits that notify
-- queue up behind one lock of the whole server. (Nor can one that is to be prepared for a
-- two-phase commit: give it a mark.)
CREATE OR REPLACE FUNCTION cache_record(VARIADIC tags text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO cache_outbox (tag, mark)
    SELECT DISTINCT tag, cache_mark() FROM unnest(tags) AS t (tag) WHERE tag IS NOT NULL;
    IF FOUND AND cache_mark() IS NULL THEN
        PERFORM pg_notify('cache_outbox', '');
    END IF;
END
$$;

-- cache_touched returns what the transaction with this mark has recorded. It is a function
-- for the sake of its setting: a plan made while the table was tiny would scan it whole
-- for as long as the session lives.
CREATE OR REPLACE FUNCTION cache_touched(of_mark bytea) RETURNS TABLE (id bigint, tag text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY SELECT o.id, o.tag FROM cache_outbox o WHERE o.mark = of_mark;
END
$$;

-- cache_watch makes every statement that changes rows of a table record the tags that the
-- templates give for these rows; for an UPDATE, for the rows before and after. It
-- replaces what was watched before, and covers the partitions and children that the
-- table has now: call it again after adding one, or its own writers go unseen (those that
-- name the parent are seen).
--
-- A template is a tag with columns, or any other scalar SQL expressions over a row, in
-- braces. The row goes by the name of the table. An expression that is NULL means
-- no tag. Expressions hold no braces.
--
--   'course:{course_id}'
--   'course:{CASE WHEN generated_for IS NULL THEN course_id END}'
--   'catalog:{(SELECT difficulty FROM courses WHERE courses.id = enrollments.course_id)}'
--   'catalog:all'
--
-- An expression that reads another row sees it as of now; make sure that nobody changes it
-- at the same time, for instance with FOR KEY SHARE.
--
-- It may end with the events that concern it, as in CREATE TRIGGER; the default is all.
-- UPDATE OF means rows in which one of these columns, or a column that stands alone in
-- braces, has another value than before. (For a table without a primary key it
-- means every updated row.)
--
--   'courses:titles ON DELETE OR UPDATE OF title'
--
-- Each distinct tag is recorded once per statement. A template that gives more than 1,000
-- records their families instead: 'course:*'. So does TRUNCATE, for all templates
-- that concern DELETE. That is why braces come after the last colon.
--
-- No trigger fires for rows that arrive by logical replication (initial copies excepted), and
-- none after ALTER TABLE … DISABLE TRIGGER. A session with session_replication_role =
-- replica is seen like any other, but foreign keys do not cascade in it.
--
-- Whoever writes the table is waited for, and then waits, so not for long: after 3 seconds
-- cache_watch fails and may be tried again.
CREATE OR REPLACE FUNCTION cache_watch(watched regclass, VARIADIC templates text[]) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    most      constant int := 1000;
    path      constant text := current_setting('search_path');
    home      name;   -- schema of the outbox
    place     name;   -- schema of the table
    self      name;   -- name of the table
    key       text;   -- says that row "other" has the primary key of this one; NULL: there is none
    template  text;
    parts     text[]; -- of the template: up to the last colon, rest of the tag, events
    tag       text;   -- as an SQL expression
    event     text;
    columns   text[];
    changed   text;   -- format of a WHERE clause
    query     text;
    n         int := 0;
    inserts   text[]; -- queries for (number of the template, tag)
    updates   text[];
    deletes   text[];
    truncates text[];
BEGIN
    SELECT nspname INTO STRICT home
    FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass;
    SELECT nspname, relname INTO STRICT place, self
    FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = watched;
    SELECT string_agg(format('other.%1$I = %2$I.%1$I', attname, self), ' AND ') INTO key
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = watched AND indisprimary;
    PERFORM set_config('search_path', format('%I, %I, pg_temp', place, home), true); -- as in the triggers

    FOREACH template IN ARRAY templates LOOP
        n := n + 1;
        parts := regexp_match(template, '^\s*([^{}\s]*:)?((?:\{[^{}]*\}|[^{}\s:])+)(?:\s+ON\s+(.*?))?\s*$', 'i');
        IF parts IS NULL OR parts[2] LIKE '%{%' AND parts[1] IS NULL THEN
            RAISE 'cache_watch(%): "%" is no template: want a tag, with braces only after its last colon, then perhaps ON and events',
                watched, template;
        END IF;
        SELECT string_agg(coalesce('(' || m[1] || ')::text', quote_literal(m[2])), ' || ') INTO tag
        FROM regexp_matches(concat(parts[1], parts[2]), '\{([^{}]*)\}|([^{}]+)', 'g') m;
        query := format('SELECT %s, %s FROM %%s AS %I', n, replace(tag, '%', '%%'), self); -- itself a format
        EXECUTE format(query, watched) || ' LIMIT 0'; -- a mistake fails here, not in somebody's write

        FOREACH event IN ARRAY regexp_split_to_array(coalesce(parts[3], 'INSERT OR UPDATE OR DELETE'), '\s+OR\s+', 'i') LOOP
            CASE
            WHEN event ~* '^INSERT$' THEN
                inserts := inserts || format(query, 'new_rows');
            WHEN event ~* '^DELETE$' THEN
                deletes := deletes || format(query, 'old_rows');
                truncates := truncates || format('SELECT %s, %L', n,
                    concat(parts[1], CASE WHEN parts[2] LIKE '%{%' THEN '*' ELSE parts[2] END));
            WHEN event ~* '^UPDATE$' OR event ~* '^UPDATE\s+OF\s' AND key IS NULL THEN
                updates := updates || format(query, 'old_rows') || format(query, 'new_rows');
            WHEN event ~* '^UPDATE\s+OF\s' THEN
                columns := regexp_split_to_array(regexp_replace(event, '^UPDATE\s+OF\s+', '', 'i'), '\s*,\s*')
                    || ARRAY(SELECT m[1] FROM regexp_matches(parts[2], '\{\s*(\w+)\s*\}', 'g') m);
                -- *= compares bytes: NULL equals NULL, and json can be compared.
                SELECT format(' WHERE NOT EXISTS (SELECT FROM %%s AS other WHERE %s AND (ROW(%s)::record) *= (ROW(%s)::record))',
                    key, string_agg('other.' || c, ', '), string_agg(format('%I.%s', self, c), ', ')) INTO changed FROM unnest(columns) c;
                EXECUTE format(query || changed, watched, watched) || ' LIMIT 0';
                updates := updates || format(query || changed, 'old_rows', 'new_rows') || format(query || changed, 'new_rows', 'old_rows');
            ELSE
                RAISE 'cache_watch(%): "%" names the event "%": want INSERT, UPDATE, UPDATE OF columns, or DELETE',
                    watched, template, event;
            END CASE;
        END LOOP;
    END LOOP;
    PERFORM set_config('search_path', path, true);

    PERFORM cache_watch_event(watched, 'insert', 'REFERENCING NEW TABLE AS new_rows', most, inserts);
    PERFORM cache_watch_event(watched, 'update', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows', most, updates);
    PERFORM cache_watch_event(watched, 'delete', 'REFERENCING OLD TABLE AS old_rows', most, deletes);
    PERFORM cache_watch_event(watched, 'truncate', '', most, truncates);
END
$$;

-- cache_watch_event is the part of cache_watch that makes the trigger of one event, or
-- removes it when there is nothing to record.
CREATE OR REPLACE FUNCTION cache_watch_event(watched regclass, event text, referencing_rows text, most int, queries text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    trigger_name constant text := 'cache_watch_' || event;
    home   name;
    place  name;
    self   name;
    target regclass;
    func   text;
BEGIN
    SELECT nspname INTO STRICT home
    FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass;
    SELECT nspname, relname INTO STRICT place, self
    FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = watched;
    func := concat_ws('_', trigger_name, nullif(place, home), self);
    IF octet_length(func) > 63 THEN -- the longest name
        func := concat_ws('_', trigger_name, md5(func));
    END IF;

    IF queries IS NOT NULL THEN
        -- SECURITY DEFINER lets whoever may write the table record what they touch.
        -- Nested loops are off because the plan is made for the first statement of a
        -- session, which may touch one row, and kept for those that touch a million.
        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION %1$I.%2$I() RETURNS trigger LANGUAGE plpgsql
            SECURITY DEFINER SET search_path = %3$I, %1$I, pg_temp SET enable_nestloop = off AS %4$L
        $f$, home, func, place, format($f$
#variable_conflict use_column
DECLARE
    writer constant bytea := %1$I.cache_mark();
    few    constant int := %3$s;
    n      constant int := %4$s;
BEGIN
    IF n = 0 THEN
        RETURN NULL;
    ELSIF n <= few THEN -- so are the tags, and there is no need to count them
        INSERT INTO %1$I.cache_outbox (tag, mark)
        SELECT tag, writer FROM (
            %5$s
        ) AS touched (tag) WHERE tag IS NOT NULL;
    ELSE
        INSERT INTO %1$I.cache_outbox (tag, mark)
        WITH touched (template, tag) AS MATERIALIZED (
            %2$s
        ), many AS (
            SELECT template FROM touched GROUP BY template HAVING count(*) > 2 * few
        )
        SELECT DISTINCT CASE WHEN template IN (SELECT template FROM many)
            THEN left(tag, length(tag) - strpos(reverse(tag), ':') + 1) || '*' ELSE tag END, writer
        FROM touched WHERE tag IS NOT NULL;
    END IF;
    IF FOUND AND writer IS NULL THEN
        PERFORM pg_notify('cache_outbox', '');
    END IF;
    RETURN NULL;
END
$f$, home,
            array_to_string(queries, E'\n            UNION '),
            most / 2, -- rows: an UPDATE has them before and after
            CASE event WHEN 'truncate' THEN '1' ELSE format('(SELECT count(*) FROM (SELECT FROM %s LIMIT %s) AS counted)',
                CASE event WHEN 'delete' THEN 'old_rows' ELSE 'new_rows' END, most / 2 + 1) END,
            regexp_replace(array_to_string(queries, E'\n            UNION '), 'SELECT \d+, ', 'SELECT ', 'g')));
    END IF;

    FOR target IN -- the table and all that inherit from it
        WITH RECURSIVE family (oid) AS (SELECT watched::oid UNION SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = oid)
        SELECT oid::regclass FROM family JOIN pg_class USING (oid) WHERE relkind IN ('r', 'p')
    LOOP
        IF queries IS NOT NULL THEN
            EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION %I.%I()',
                trigger_name, event, target, referencing_rows, home, func);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', target, trigger_name);
        ELSIF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = target AND tgname = trigger_name) THEN
            EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, target);
        END IF;
    END LOOP;
    IF queries IS NULL THEN
        EXECUTE format('DROP FUNCTION IF EXISTS %I.%I()', home, func);
    END IF;
END
$$;

-- cache_unwatch ends the watch of a table.
CREATE OR REPLACE FUNCTION cache_unwatch(watched regclass) RETURNS void
LANGUAGE sql AS $$
    SELECT cache_watch_event(watched, event, '', 0, NULL) FROM unnest('{insert, update, delete, truncate}'::text[]) event
$$;

-- Functions that run with the rights of their owner must not look for tables where their
-- callers say.
DO $$
DECLARE
    home constant name := (SELECT nspname FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass);
BEGIN
    EXECUTE format('ALTER FUNCTION %I.cache_record(text[]) SET search_path = %1$I, pg_temp', home);
    EXECUTE format('ALTER FUNCTION %I.cache_touched(bytea) SET search_path = %1$I, pg_temp', home);
END
$$;

-- +goose StatementEnd
