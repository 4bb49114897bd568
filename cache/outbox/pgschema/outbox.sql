-- +goose Up
-- +goose StatementBegin

-- The outbox of a cache: what transactions of this database touch, whichever program runs
-- them, is recorded here, in the same transaction, as tags that cached answers depend on.
--
--   SELECT cache_watch('shop', 'enrollments',
--       'course:{course_id}',
--       'progress:{user_id}');
--
-- Plain SQL for psql or any migration tool; goose takes the file as it is. It may be applied
-- again, also over an earlier version: tables that an earlier version watches stay watched
-- until cache_watch is called for them again, and cache_check lists them. It needs
-- PostgreSQL 14, and everything goes into the first schema of the search path. The role that
-- applies it owns what the triggers do: they run with its rights, so that a writer needs
-- none on the outbox.

-- cache_version is what cache_check and programs compare: the release of this file.
CREATE OR REPLACE FUNCTION cache_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2';

-- A row lives from the commit that it belongs to until its tag has been invalidated in each
-- store, usually for less than a second. At 1,000 writes a second that leaves 1,000 dead
-- rows a second, so vacuum starts early, goes at full speed, and does not care for statistics.
CREATE TABLE IF NOT EXISTS cache_outbox (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tag         text        NOT NULL,
    -- Of the writer, if it invalidates its tags itself as soon as it has committed: then
    -- relays of its store wait a while before they do it in its place. NULL: no writer will.
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

-- The stores that invalidations are delivered to, and when a relay of each was last seen. A row
-- goes when all of them have got it.
CREATE TABLE IF NOT EXISTS cache_consumers (
    name    text        PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Which of them has got which row. It stays empty while there is one. There is no foreign key:
-- it would cost a trigger for every row that is deleted, and lock the rows.
CREATE TABLE IF NOT EXISTS cache_delivered (
    row_id   bigint NOT NULL,
    consumer text   NOT NULL,
    PRIMARY KEY (row_id, consumer)
) WITH (
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_threshold = 100000
);

-- What is watched. A regclass is dumped as a name and restored as the oid that the name has
-- then; id names the functions that are made for a watch.
CREATE TABLE IF NOT EXISTS cache_watches (
    id        bigint   GENERATED ALWAYS AS IDENTITY,
    relation  regclass NOT NULL,
    watch     text     NOT NULL,
    templates text[]   NOT NULL,
    name      text     NOT NULL, -- of the table, when it was declared
    PRIMARY KEY (relation, watch)
);

CREATE SEQUENCE IF NOT EXISTS cache_watch_numbers;

-- cache_mark returns the mark of the transaction, or NULL. A writer sets it with
--   SELECT set_config('cache.mark', '32 hexadecimal digits', true)
CREATE OR REPLACE FUNCTION cache_mark() RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT decode(nullif(current_setting('cache.mark', true), ''), 'hex')
$$;

-- Literals with a backslash are E'': without standard_conforming_strings, the session of a writer reads
-- a backslash in others, too.
--
-- The definition of a tag is that of cache/driver/tag.go; these functions are the same in SQL.
--
--   tag   = kind | kind ":" parts | kind ":*" | "*"
--   kind  = 1 to 64 of A-Z a-z 0-9 . _ -
--   parts = part { ":" part } | "#" 64 hexadecimal digits
--   part  = "%" | 1 or more of ( A-Z a-z 0-9 - . _ ~ @ + = , / | "%" 2 hexadecimal digits )

-- cache_escape returns a text as a part of a tag: a byte that a part may not hold becomes % and
-- two hexadecimal digits, and the empty text a lone %.
CREATE OR REPLACE FUNCTION cache_escape(t text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    rest text; -- what is left to escape
    c    text;
BEGIN
    IF t ~ '^[-A-Za-z0-9._~@+=,/]+$' COLLATE "C" THEN
        RETURN t;
    ELSIF t = '' THEN
        RETURN '%';
    END IF;
    -- Each character once, wherever it stands, and % first: it is in every escape. A query over the
    -- bytes would take ten times as long.
    rest := '%' || regexp_replace(t, '[-A-Za-z0-9._~@+=,/]+' COLLATE "C", '', 'g');
    WHILE rest <> '' LOOP
        c := left(rest, 1);
        rest := replace(rest, c, '');
        t := replace(t, c, regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', E'%\\1', 'g'));
    END LOOP;
    RETURN t;
END
$$;

-- cache_tag returns the tag of a kind and of the texts of values, as cache.T does: NULL if one
-- of them is NULL, with a hash instead of the values if it has more than 200 bytes. A text
-- that is very long gives the family, which every answer of the kind depends on, too.
CREATE OR REPLACE FUNCTION cache_tag(kind text, VARIADIC parts text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    tag  text := kind;
    part text;
    huge boolean := false;
BEGIN
    FOREACH part IN ARRAY parts LOOP
        IF part IS NULL THEN
            RETURN NULL;
        ELSIF octet_length(part) > 8192 THEN
            huge := true;
        ELSE
            tag := tag || ':' || cache_escape(part);
        END IF;
    END LOOP;
    IF huge THEN
        RETURN kind || ':*';
    ELSIF octet_length(tag) > 200 THEN
        RETURN kind || ':#' || encode(sha256(convert_to(tag, 'UTF8')), 'hex');
    END IF;
    RETURN tag;
END
$$;

-- cache_text returns the text that a value has in a tag, in every session the same, for the types
-- whose own text depends on the session's settings or on how the value was written.
CREATE OR REPLACE FUNCTION cache_text(v timestamp) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    year int;
BEGIN
    IF NOT isfinite(v) THEN
        RETURN v::text; -- infinity, -infinity
    END IF;
    year := extract(year FROM v);
    year := year + (year < 0)::int; -- there is a year 0 before 1
    RETURN CASE WHEN year > 9999 THEN year::text WHEN year < 0 THEN '-' || lpad((-year)::text, 4, '0') ELSE lpad(year::text, 4, '0') END
        || to_char(v, '-MM-DD"T"HH24:MI:SS.US"Z"');
END
$$;

CREATE OR REPLACE FUNCTION cache_text(v timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE BEGIN ATOMIC SELECT cache_text(v AT TIME ZONE 'UTC'); END;

CREATE OR REPLACE FUNCTION cache_text(v date) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE BEGIN ATOMIC SELECT split_part(cache_text(v::timestamp), 'T', 1); END;

-- cache_check_tag returns what is wrong with a tag, or NULL.
CREATE OR REPLACE FUNCTION cache_check_tag(tag text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    kind  constant text := split_part(tag, ':', 1);
    parts constant text := substr(tag, length(kind) + 2);
BEGIN
    RETURN CASE
    WHEN tag = '*' THEN NULL
    WHEN octet_length(tag) > 200 THEN 'it has more than 200 bytes'
    WHEN kind !~ '^[A-Za-z0-9._-]{1,64}$' COLLATE "C" THEN 'its kind must be 1 to 64 of letters, digits and ._-'
    WHEN kind = tag OR parts = '*' THEN NULL
    WHEN parts LIKE '#%' THEN CASE WHEN parts !~ '^#[0-9a-f]{64}$' COLLATE "C" THEN '# begins a hash' END
    WHEN parts !~ '^(%|([-A-Za-z0-9._~@+=,/]|%[0-9A-F]{2})+)(:(%|([-A-Za-z0-9._~@+=,/]|%[0-9A-F]{2})+))*$' COLLATE "C"
        OR parts ~ '%(2[B-F]|3[0-9D]|4[0-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])' COLLATE "C" THEN 'a value in it is not escaped'
    END;
END
$$;

-- cache_record records tags that no watched row shows; make them with cache_tag. One that is
-- malformed is an error. Transactions without a mark wake the relays when they commit, once,
-- whatever they recorded: PostgreSQL drops notifications that are equal. Those with a mark
-- must not, because commits that notify queue up behind one lock of the whole server. (Nor
-- can one that is to be prepared for a two-phase commit: give it a mark.)
CREATE OR REPLACE FUNCTION cache_record(VARIADIC tags text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY tags LOOP
        IF cache_check_tag(t) IS NOT NULL THEN
            RAISE 'cache_record: "%" is no tag: %: make it with cache_tag(kind, values as text)', left(t, 100), cache_check_tag(t)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
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

-- Of an earlier version. What they made stays until the table is watched again.
DROP FUNCTION IF EXISTS cache_watch(regclass, text[]);
DROP FUNCTION IF EXISTS cache_watch_event(regclass, text, text, int, text[]);
DROP FUNCTION IF EXISTS cache_unwatch(regclass);

-- cache_parse takes a template apart: pieces are {"part": number, "text": literal} and
-- {"part": number, "sql": expression}; constant is the tag of a template without expressions;
-- of_columns is NULL if every update counts.
CREATE OR REPLACE FUNCTION cache_parse(template text, OUT kind text, OUT pieces jsonb, OUT constant text,
    OUT inserts boolean, OUT updates boolean, OUT deletes boolean, OUT of_columns text[])
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    halves text[]; -- the tag, the events
    token  text[];
    event  text;
    part   int := 1;
    filled int := 0; -- the last part that has a piece
    texts  text[] := '{}'; -- of the parts, if constant
    every  boolean := false; -- UPDATE without columns
BEGIN
    halves := regexp_match(template, E'^\\s*((?:[^{}\\s]|\\{[^{}]*\\})+)(?:\\s+ON\\s+(.*?))?\\s*$', 'i');
    kind := substring(halves[1] FROM '^[^:{]*');
    IF halves IS NULL OR kind IS NULL OR kind = '' THEN
        RAISE 'cache_watch: "%" is no template: want kind:{column}, or another list of parts after a kind, then perhaps ON and events', template
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF kind !~ '^[A-Za-z0-9._-]{1,64}$' COLLATE "C" OR substr(halves[1], length(kind) + 1, 1) = '{' THEN
        RAISE 'cache_watch: template "%": the kind, before the first colon, must be 1 to 64 of letters, digits and ._-, without braces: write kind:{column}', template
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    pieces := '[]';
    FOR token IN SELECT regexp_matches(substr(halves[1], length(kind) + 2), E'\\{([^{}]*)\\}|([^{}:]+)|(:)', 'g') LOOP
        IF token[3] IS NOT NULL THEN
            EXIT WHEN filled < part; -- an empty part
            part := part + 1;
            CONTINUE;
        ELSIF token[2] !~ '^[-A-Za-z0-9._~@+=,/]+$' COLLATE "C" THEN
            RAISE 'cache_watch: template "%": "%" is no literal part of a tag, which has letters, digits and -._~@+=,/: a column or an expression stands in braces, as in %:{id}',
                template, token[2], kind USING ERRCODE = 'invalid_parameter_value';
        ELSIF token[2] IS NULL AND token[1] !~ E'\\S' THEN
            RAISE 'cache_watch: template "%": the braces are empty: want a column or an expression', template
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        filled := part;
        pieces := pieces || CASE WHEN token[2] IS NULL THEN jsonb_build_object('part', part, 'sql', token[1]) ELSE jsonb_build_object('part', part, 'text', token[2]) END;
        texts[part] := coalesce(texts[part], '') || token[2];
    END LOOP;
    IF filled < part AND halves[1] <> kind THEN
        RAISE 'cache_watch: template "%": a part is empty: want a literal, a column or an expression after each colon', template
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pieces = '[]' THEN
        constant := kind;
    ELSIF NOT pieces @? '$[*].sql' THEN
        constant := cache_tag(kind, VARIADIC texts);
    END IF;

    inserts := halves[2] IS NULL;
    updates := inserts;
    deletes := inserts;
    FOREACH event IN ARRAY CASE WHEN halves[2] IS NULL THEN '{}' ELSE regexp_split_to_array(halves[2], E'\\s+OR\\s+', 'i') END LOOP
        CASE
        WHEN event ~* '^INSERT$' THEN
            inserts := true;
        WHEN event ~* '^DELETE$' THEN
            deletes := true;
        WHEN event ~* '^UPDATE$' THEN
            updates := true;
            every := true;
        WHEN event ~* E'^UPDATE\\s+OF\\s+\\S' THEN
            updates := true;
            of_columns := of_columns || regexp_split_to_array(regexp_replace(event, E'^UPDATE\\s+OF\\s+', '', 'i'), E'\\s*,\\s*');
        ELSE
            RAISE 'cache_watch: template "%" names the event "%": want INSERT, UPDATE, UPDATE OF columns, or DELETE', template, event
                USING ERRCODE = 'invalid_parameter_value';
        END CASE;
    END LOOP;
    IF every THEN
        of_columns := NULL;
    END IF;
END
$$;

-- cache_query_of returns what an expression has between its outer parentheses if that is a query.
CREATE OR REPLACE FUNCTION cache_query_of(expression text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    inner_sql text := btrim(expression, E' \t\n\r\f\v');
    depth     int;
    m         text[];
    rest      text;
BEGIN
    WHILE inner_sql LIKE '(%)' LOOP
        depth := 0;
        rest := '';
        -- Literals, quoted names, parentheses, and what is between them.
        FOR m IN SELECT regexp_matches(inner_sql, '(''[^'']*''|"[^"]*"|[^''"()]+)|(.)', 'g') LOOP
            IF depth = 0 AND rest <> '' THEN
                RETURN NULL; -- the first parenthesis does not enclose everything
            END IF;
            depth := depth + CASE m[2] WHEN '(' THEN 1 WHEN ')' THEN -1 ELSE 0 END;
            rest := 'begun';
        END LOOP;
        inner_sql := btrim(substr(inner_sql, 2, length(inner_sql) - 2), E' \t\n\r\f\v');
    END LOOP;
    RETURN CASE WHEN inner_sql ~* E'^(SELECT|WITH|VALUES)\\M' THEN inner_sql END;
END
$$;

-- cache_as_text returns the SQL that spells a value of a type, or raises what is wrong with it;
-- plain says that its text is short and needs no escape.
CREATE OR REPLACE FUNCTION cache_as_text(template text, value text, type oid, collation_of_it oid, OUT as_text text, OUT plain boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    home   constant name := (SELECT nspname FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass);
    base   oid := type; -- of a domain
    t      pg_type;
    remedy text;
BEGIN
    LOOP
        SELECT * INTO STRICT t FROM pg_type WHERE oid = base;
        EXIT WHEN t.typtype <> 'd';
        base := t.typbasetype;
    END LOOP;
    plain := base IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype, 'uuid'::regtype, 'bool'::regtype);
    CASE
    WHEN plain OR t.typtype = 'e' THEN
        as_text := format('(%s)::text', value);
    WHEN base IN ('text'::regtype, 'varchar'::regtype, 'name'::regtype) THEN
        as_text := format('(%s)::text', value);
        IF NOT coalesce((SELECT collisdeterministic FROM pg_collation WHERE oid = collation_of_it), true) THEN
            remedy := 'its collation takes different texts for equal: use a normalised text, as in {lower(column) COLLATE "C"}, on both sides';
        END IF;
    WHEN base = 'numeric'::regtype THEN
        as_text := format('trim_scale(%s)::text', value);
    WHEN base = 'bytea'::regtype THEN
        as_text := format('encode(%s, ''hex'')', value);
    WHEN base = 'date'::regtype THEN
        as_text := format('%I.cache_text((%s)::date)', home, value);
    WHEN base = 'timestamp'::regtype THEN
        as_text := format('%I.cache_text((%s)::timestamp)', home, value);
    WHEN base = 'timestamptz'::regtype THEN
        as_text := format('%I.cache_text((%s)::timestamptz)', home, value);
    WHEN base = 'bpchar'::regtype THEN
        remedy := 'blanks at its end are no part of the value, and a reader has them: use {column::text} here and the trimmed text there, or a column of type text';
    WHEN base IN ('float4'::regtype, 'float8'::regtype, 'money'::regtype) THEN
        remedy := 'use an integer or a numeric: {round(column::numeric, 2)}';
    WHEN base = 'interval'::regtype THEN
        remedy := 'use a number: {extract(epoch FROM column)::bigint}';
    WHEN base IN ('json'::regtype, 'jsonb'::regtype, 'xml'::regtype) THEN
        remedy := 'name a value in it: {column->>''id''}';
    WHEN t.typcategory = 'A' THEN
        remedy := 'name its elements, each of which gives a tag: {SELECT unnest(column)}';
    WHEN t.typtype IN ('c', 'p') THEN
        remedy := 'name a field of it: {(column).field}';
    WHEN t.typtype IN ('r', 'm') THEN
        remedy := 'name its bounds: {lower(column)}';
    WHEN t.typname = 'citext' THEN
        remedy := 'its texts are equal in upper and in lower case: use {lower(column::text)} here, and lower case there';
    ELSE
        remedy := 'spell it as a text that readers spell alike: {column::text}';
    END CASE;
    IF remedy IS NOT NULL THEN
        RAISE 'cache_watch: template "%": % is of type %, which has no one text for a tag: %', template, value, format_type(type, NULL), remedy
            USING ERRCODE = 'datatype_mismatch';
    END IF;
END
$$;

-- cache_execute runs a statement with names found as in the triggers: in the schema of the table,
-- then in that of the outbox.
CREATE OR REPLACE FUNCTION cache_execute(path text, statement text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('search_path', path, true); -- until this function ends
    EXECUTE statement;
END
$$;

-- cache_compile makes the functions of the watch with this id: for template number n
--
--   cache_tags_<id>_<n>(row)  the tags of a row, as a function with a parsed body: PostgreSQL
--                             knows which columns it uses, follows when one is renamed, and
--                             refuses to drop one or to change its type
--   cache_same_<id>_<n>(row)  for UPDATE OF: a text that two versions of a row have in common
--                             if they have one key and the same in these columns
--
-- They are inlined into the statements of the triggers, and cost nothing there.
CREATE OR REPLACE FUNCTION cache_compile(watch_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    w       cache_watches;
    home    name;
    place   name;
    self    name;
    path    text;
    view    regclass; -- of the expressions, for their types and the columns they use
    t       record;   -- the template
    n       int := 0;
    piece   jsonb;
    query   text;     -- of an expression that gives any number of values
    probe   text[];   -- the select list of the view
    froms   text;     -- queries, joined to the row
    parts   text[];   -- texts of the parts, as SQL
    plain   boolean;  -- the tag is short and needs no escape
    longest int;
    simple  boolean;  -- expressions are columns, and may be repeated
    short   text;     -- joins the parts without escape
    tag     text;
    spelled record;
    column_of_probe record;
    names   text[];
    columns text;     -- of the row, which the expressions use
    key     text[];
    fixed   boolean;
BEGIN
    SELECT * INTO STRICT w FROM cache_watches WHERE id = watch_id;
    SELECT nspname INTO STRICT home FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass;
    SELECT nspname, relname INTO STRICT place, self FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = w.relation;
    SELECT array_agg(attname::text ORDER BY attnum) INTO key FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = w.relation AND indisprimary;
    path := format('%I, %I, pg_temp', place, home);

    FOR t IN SELECT p.*, template FROM unnest(w.templates) WITH ORDINALITY AS u (template, number), cache_parse(template) AS p ORDER BY number LOOP
        n := n + 1;
        names := '{}';
        IF t.of_columns IS NOT NULL THEN
            SELECT array_agg(coalesce(attname::text, '') ORDER BY number), string_agg(name, ', ') FILTER (WHERE attname IS NULL) INTO names, columns
            FROM unnest(t.of_columns) WITH ORDINALITY AS u (name, number)
            LEFT JOIN pg_attribute ON attrelid = w.relation AND attnum > 0 AND NOT attisdropped AND (attname = name OR attname = lower(name) OR quote_ident(attname) = name);
            IF columns IS NOT NULL THEN
                RAISE 'cache_watch: template "%": column % does not exist in table %', t.template, columns, w.relation USING ERRCODE = 'undefined_column';
            END IF;
        END IF;
        -- A table without a key does not tell which row became which: every update counts.
        IF t.updates AND t.of_columns IS NOT NULL AND key IS NOT NULL THEN
            SELECT bool_and(typlen > 0) INTO fixed FROM pg_attribute JOIN pg_type y ON y.oid = atttypid
            WHERE attrelid = w.relation AND attname = ANY (key || names);
            columns := (SELECT string_agg(format('($1).%I', name), ', ') FROM unnest(key || names) AS name);
            PERFORM cache_execute(path, format('CREATE FUNCTION %I.cache_same_%s_%s(%I.%I) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT %s; END',
                home, w.id, n, place, self, format(CASE WHEN fixed THEN 'ROW(%s)::text' ELSE 'encode(sha256(convert_to(ROW(%s)::text, ''UTF8'')), ''hex'')' END, columns)));
        END IF;
        CONTINUE WHEN t.constant IS NOT NULL;

        -- A mistake fails here, not in a writer's statement.
        probe := '{}';
        FOR piece IN SELECT e FROM jsonb_array_elements(t.pieces) AS e WHERE e ? 'sql' LOOP
            probe := probe || format(E'(%s\n) AS c%s', coalesce(E'(' || cache_query_of(piece->>'sql') || E'\n)', piece->>'sql'), cardinality(probe) + 1);
        END LOOP;
        PERFORM cache_execute(path, format('CREATE VIEW %I.cache_probe AS SELECT %s FROM %I.%I AS %4$I', home, array_to_string(probe, ', '), place, self));
        view := format('%I.cache_probe', home);
        -- The columns that the expressions use. For a whole row that is all of them.
        SELECT string_agg(format('($1).%1$I AS %1$I', attname), ', ' ORDER BY attnum), string_agg(attname, ', ') FILTER (WHERE to_jsonb(a)->>'attgenerated' = 'v')
        INTO columns, query
        FROM pg_attribute a
        WHERE attrelid = w.relation AND attnum > 0 AND NOT attisdropped AND (pg_get_viewdef(view) LIKE '%.*%' OR attnum IN (
            SELECT refobjsubid FROM pg_depend JOIN pg_rewrite r ON r.oid = objid
            WHERE classid = 'pg_rewrite'::regclass AND ev_class = view AND refclassid = 'pg_class'::regclass AND refobjid = w.relation));
        IF query IS NOT NULL THEN
            RAISE 'cache_watch: template "%": column % is generated when it is read, and a trigger does not see it: write its expression in braces instead', t.template, query
                USING ERRCODE = 'feature_not_supported';
        END IF;

        froms := format('(SELECT %s) AS %I', coalesce(columns, ''), self);
        parts := '{}';
        plain := true;
        simple := true;
        longest := length(t.kind);
        names := '{}';
        FOR piece IN SELECT e FROM jsonb_array_elements(t.pieces) AS e LOOP
            IF piece ? 'text' THEN
                query := quote_literal(piece->>'text');
                longest := longest + 1 + length(piece->>'text');
            ELSE
                names := names || (piece->>'sql');
                query := cache_query_of(piece->>'sql');
                IF query IS NULL THEN
                    simple := simple AND piece->>'sql' ~ E'^\\s*(\\w+|"[^"]+")\\s*$';
                    query := format(E'%s\n', piece->>'sql');
                ELSE
                    froms := froms || format(E' CROSS JOIN LATERAL (%s\n) AS cache_query_%s (v)', query, cardinality(names));
                    query := format('cache_query_%s.v', cardinality(names));
                END IF;
                SELECT atttypid, attcollation INTO STRICT column_of_probe FROM pg_attribute
                WHERE attrelid = view AND attnum = cardinality(names);
                SELECT * INTO spelled FROM cache_as_text(t.template, query, column_of_probe.atttypid, column_of_probe.attcollation);
                query := spelled.as_text;
                plain := plain AND spelled.plain;
                longest := longest + 37; -- a colon and a UUID
            END IF;
            parts[(piece->>'part')::int] := concat_ws(' || ', parts[(piece->>'part')::int], query);
        END LOOP;
        EXECUTE format('DROP VIEW %I.cache_probe', home);
        -- Values that need no escape are joined without a call, which would cost a bulk statement
        -- several times as much.
        short := format('%L || %s', t.kind || ':', array_to_string(parts, ' || '':'' || '));
        tag := format('%I.cache_tag(%L, %s)', home, t.kind, array_to_string(parts, ', '));
        tag := CASE WHEN plain AND longest <= 200 THEN short
            WHEN simple THEN format($f$CASE WHEN octet_length(%s) <= 200 AND (%s) ~ '^[-A-Za-z0-9._~@+=,/]+(:[-A-Za-z0-9._~@+=,/]+){%s}$' COLLATE "C" THEN %1$s ELSE %4$s END$f$,
                short, array_to_string(parts, ' || '':'' || '), cardinality(parts) - 1, tag)
            ELSE tag END;
        PERFORM cache_execute(path, format('CREATE FUNCTION %I.cache_tags_%s_%s(%I.%I) RETURNS SETOF text LANGUAGE sql STABLE BEGIN ATOMIC SELECT %s FROM %s; END',
            home, w.id, n, place, self, tag, froms));
    END LOOP;
END
$$;

-- cache_lineage returns a table and all that it inherits from; cache_members a table and all
-- that inherit from it.
CREATE OR REPLACE FUNCTION cache_lineage(member oid) RETURNS SETOF oid LANGUAGE sql STABLE AS $$
    WITH RECURSIVE up (relation) AS (SELECT member UNION SELECT inhparent FROM pg_inherits JOIN up ON inhrelid = relation)
    SELECT relation FROM up
$$;

CREATE OR REPLACE FUNCTION cache_members(root oid) RETURNS SETOF oid LANGUAGE sql STABLE AS $$
    WITH RECURSIVE down (relation) AS (SELECT root UNION SELECT inhrelid FROM pg_inherits JOIN down ON inhparent = relation)
    SELECT relation FROM down JOIN pg_class ON oid = relation WHERE relkind IN ('r', 'p') ORDER BY relation
$$;

-- cache_covering returns the watches that concern the rows of a table, its own and those of all
-- that it inherits from.
CREATE OR REPLACE FUNCTION cache_covering(member oid) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM cache_watches WHERE relation IN (SELECT cache_lineage(member))
$$;

-- cache_query returns the query for the tags (repeated, and NULL) of a statement with an event on
-- a table; NULL if there are none. In a child, a row goes to the parent's functions as one of the
-- parent's, by names: "cache_row::child", which PostgreSQL takes for a parent, too.
CREATE OR REPLACE FUNCTION cache_query(member oid, event text) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    home    constant text := (SELECT quote_ident(nspname) FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass);
    type_of constant text := (SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = member);
    queries text[] := '{}';
    t       record;
    row_sql text;
    tags    text;
    half    text;
BEGIN
    FOR t IN
        SELECT id, relation, number, p.* FROM cache_watches, unnest(templates) WITH ORDINALITY AS u (template, number), cache_parse(template) AS p
        WHERE id = ANY (cache_covering(member)) ORDER BY id, number
    LOOP
        row_sql := 'cache_row' || CASE WHEN t.relation <> member THEN '::' || type_of ELSE '' END;
        tags := CASE WHEN t.constant IS NULL THEN format('%s.cache_tags_%s_%s(%s)', home, t.id, t.number, row_sql)
            ELSE format('(VALUES (%L))', t.constant) END;
        CASE
        WHEN t.constant IS NOT NULL AND (event = 'insert' AND t.inserts OR event = 'update' AND t.updates AND t.of_columns IS NULL OR event = 'delete' AND t.deletes) THEN
            queries := queries || format('SELECT %L WHERE EXISTS (SELECT FROM %s)', t.constant, CASE event WHEN 'delete' THEN 'old_rows' ELSE 'new_rows' END);
        WHEN event = 'insert' AND t.inserts THEN
            queries := queries || format('SELECT tags.tag FROM new_rows AS cache_row CROSS JOIN LATERAL %s AS tags (tag)', tags);
        WHEN event = 'delete' AND t.deletes THEN
            queries := queries || format('SELECT tags.tag FROM old_rows AS cache_row CROSS JOIN LATERAL %s AS tags (tag)', tags);
        WHEN event = 'truncate' AND t.deletes THEN
            queries := queries || format('SELECT %L', coalesce(t.constant, t.kind || ':*'));
        WHEN event = 'update' AND t.updates AND to_regproc(format('%s.cache_same_%s_%s', home, t.id, t.number)) IS NOT NULL THEN
            -- What a row has in common with its other version is left out: the same tag, under the
            -- same key, with the same in the listed columns. EXCEPT hashes or sorts; a join
            -- would be planned for the first statement of a session, which may touch one row,
            -- and kept for one that touches a million.
            half := format('SELECT %s.cache_same_%s_%s(%s) AS same, tags.tag FROM %%s AS cache_row CROSS JOIN LATERAL %s AS tags (tag)',
                replace(home, '%', '%%'), t.id, t.number, replace(row_sql, '%', '%%'), replace(tags, '%', '%%'));
            queries := queries || format('SELECT changed.tag FROM (WITH o AS MATERIALIZED (%s), n AS MATERIALIZED (%s) '
                '(TABLE o EXCEPT TABLE n) UNION ALL (TABLE n EXCEPT TABLE o)) AS changed', format(half, 'old_rows'), format(half, 'new_rows'));
        WHEN event = 'update' AND t.updates THEN
            queries := queries || format('SELECT tags.tag FROM old_rows AS cache_row CROSS JOIN LATERAL %s AS tags (tag)', tags)
                || format('SELECT tags.tag FROM new_rows AS cache_row CROSS JOIN LATERAL %s AS tags (tag)', tags);
        ELSE
            NULL;
        END CASE;
    END LOOP;
    RETURN CASE WHEN queries <> '{}' THEN array_to_string(queries, E'\n        UNION ALL ') END;
END
$$;

-- cache_source returns the body of the trigger function of an event on a table; NULL if
-- nothing is to be recorded.
CREATE OR REPLACE FUNCTION cache_source(member oid, event text) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    most      constant int := 1000; -- tags of a kind that one statement records by name
    home      constant text := (SELECT quote_ident(nspname) FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass);
    query     constant text := cache_query(member, event);
    -- Of too many tags: the families of the kinds that have more.
    widened   constant text := format('WITH touched (kind, tag) AS MATERIALIZED (SELECT DISTINCT split_part(t.tag, '':'', 1), t.tag FROM (%%s) AS t (tag) WHERE t.tag IS NOT NULL), '
        'many AS (SELECT kind FROM touched GROUP BY kind HAVING count(*) > %s) '
        'SELECT DISTINCT CASE WHEN kind IN (SELECT kind FROM many) THEN kind || '':*'' ELSE tag END FROM touched', most);
    named     constant text := format('SELECT t.tag FROM (%%s) AS t (tag) WHERE t.tag IS NOT NULL LIMIT %s', most + 1);
    this      record;
    inherited boolean;
    static    text;
    at_once   text;
BEGIN
    IF query IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT nspname, relname INTO STRICT this FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = member;
    inherited := EXISTS (SELECT FROM cache_watches WHERE id = ANY (cache_covering(member)) AND relation <> member);
    static := format($f$
    touched := ARRAY(%s);
    IF cardinality(touched) > %s THEN
        touched := ARRAY(%s);
    END IF;$f$, format(named, query), most, format(widened, query));
    IF inherited THEN
        -- A child is sent to its parent's functions by its name. When it got another name, or was
        -- detached, or attached to another parent, that is found out as the statement runs.
        at_once := format($f$
    query := %s.cache_query(TG_RELID, %L);
    IF query IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE 'SELECT ARRAY(' || format(%L, query) || ')' INTO touched;
    IF cardinality(touched) > %s THEN
        EXECUTE 'SELECT ARRAY(' || format(%L, query) || ')' INTO touched;
    END IF;$f$, home, event, named, most, widened);
        static := format($f$
    IF TG_TABLE_SCHEMA = %L AND TG_TABLE_NAME = %L AND %s.cache_covering(TG_RELID) = %L::bigint[] THEN%s
    ELSE%s
    END IF;$f$, this.nspname, this.relname, home, cache_covering(member), replace(static, E'\n', E'\n    '), replace(at_once, E'\n', E'\n    '));
    END IF;
    RETURN format($f$
#variable_conflict use_column
DECLARE
    writer  constant bytea := %1$s.cache_mark();
    touched text[];
    query   text;
BEGIN%2$s
    IF cardinality(touched) = 0 THEN
        RETURN NULL;
    END IF;
    INSERT INTO %1$s.cache_outbox (tag, mark) SELECT DISTINCT t.tag, writer FROM unnest(touched) AS t (tag);
    IF writer IS NULL THEN
        PERFORM pg_notify('cache_outbox', '');
    END IF;
    RETURN NULL;
END
$f$, home, static);
END
$$;

-- cache_install brings the triggers of a table in line with the watches that concern it.
CREATE OR REPLACE FUNCTION cache_install(member oid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    home   name;
    place  name;
    self   name;
    event  text;
    source text;
    made   record; -- the trigger there is
    func   text;
    pinned text;
BEGIN
    SELECT nspname INTO STRICT home FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass;
    SELECT nspname, relname INTO STRICT place, self FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = member;
    -- A name, a date, a number in an expression mean the same in every session. What stands alone
    -- in braces needs none of this.
    IF EXISTS (
        SELECT FROM cache_watches, unnest(templates) AS template, cache_parse(template) AS p
        WHERE id = ANY (cache_covering(member)) AND (p.of_columns IS NOT NULL
            OR EXISTS (SELECT FROM jsonb_array_elements(p.pieces) AS e WHERE e ? 'sql' AND e->>'sql' !~ E'^\\s*(\\w+|"[^"]+")\\s*$'))
    ) THEN
        pinned := $f$SET DateStyle = 'ISO, MDY' SET TimeZone = 'UTC' SET IntervalStyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1$f$;
    END IF;
    FOREACH event IN ARRAY '{insert, update, delete, truncate}'::text[] LOOP
        source := cache_source(member, event);
        SELECT tgfoid, proname, nspname, EXISTS (SELECT FROM pg_trigger other WHERE other.tgfoid = t.tgfoid AND other.oid <> t.oid) AS shared INTO made
        FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid JOIN pg_namespace s ON s.oid = pronamespace
        WHERE tgrelid = member AND tgname = 'cache_watch_' || event;
        IF source IS NOT NULL THEN
            func := CASE WHEN made.nspname = home AND NOT made.shared THEN format('%I.%I', home, made.proname)
                ELSE format('%I.%I', home, format('cache_watch_%s_%s_%s', event, left(self, 20), nextval('cache_watch_numbers'))) END;
            -- SECURITY DEFINER lets every role that may write the table record what it touches.
            EXECUTE format('CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = %I, %I, pg_temp %s AS %L',
                func, place, home, pinned, source);
            EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %I.%I %s FOR EACH STATEMENT EXECUTE FUNCTION %s()', 'cache_watch_' || event, event, place, self,
                CASE event WHEN 'insert' THEN 'REFERENCING NEW TABLE AS new_rows' WHEN 'delete' THEN 'REFERENCING OLD TABLE AS old_rows'
                    WHEN 'update' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows' ELSE '' END, func);
            EXECUTE format('ALTER TABLE ONLY %I.%I ENABLE ALWAYS TRIGGER %I', place, self, 'cache_watch_' || event);
        ELSIF made.tgfoid IS NOT NULL THEN
            EXECUTE format('DROP TRIGGER %I ON %I.%I', 'cache_watch_' || event, place, self);
        END IF;
        IF made.nspname = home AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = made.tgfoid) THEN
            EXECUTE format('DROP FUNCTION %I.%I()', home, made.proname);
        END IF;
    END LOOP;
END
$$;

-- cache_forget removes a watch and the functions that were made for it, but no trigger.
CREATE OR REPLACE FUNCTION cache_forget(watch_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    func regprocedure;
BEGIN
    DELETE FROM cache_watches WHERE id = watch_id;
    FOR func IN SELECT oid FROM pg_proc
        WHERE proname ~ format('^cache_(tags|same)_%s_[0-9]+$', watch_id) AND pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'cache_outbox'::regclass)
    LOOP
        EXECUTE format('DROP FUNCTION %s', func);
    END LOOP;
END
$$;

-- cache_watch makes every statement that changes rows of a table record the tags that the
-- templates give for these rows; for an UPDATE, for the rows before and after. A watch has a name,
-- that of the program or the team that declares it: several watch one table, and to declare
-- one again replaces only what it was. It covers the partitions and children that the
-- table has now: declare it again after adding one, or programs that write to it directly go
-- unseen (those that name the parent are seen). cache_check finds what is missing.
--
-- A template is a kind, or a kind and parts after colons. A part is a literal, a column or an
-- SQL expression over the row in braces, or a mixture. The row goes by the name of the table. An
-- expression that is NULL means no tag. One that is a query may give any number of values, and
-- means a tag for each. Expressions hold no braces.
--
--   'course:{course_id}'
--   'stock:{warehouse}:{sku}'
--   'course:{CASE WHEN generated_for IS NULL THEN course_id END}'
--   'catalog:{SELECT difficulty FROM courses WHERE courses.id = enrollments.course_id}'
--   'learner:{SELECT user_id FROM enrollments WHERE course_id = courses.id}'
--   'catalog:all'
--
-- Values are spelled as cache.T spells them, whatever the settings of the session: integers, texts,
-- enums, uuid and boolean as they are, numeric without zeros at the end of its fraction, bytea in
-- hexadecimal, date as 2006-01-02, timestamp and timestamptz as 2006-01-02T15:04:05.000000Z. A
-- type without such a text is refused. What needs an escape gets it (cache_escape), and a tag of
-- more than 200 bytes becomes a hash (cache_tag).
--
-- An expression that reads another row sees it as of now; make sure that it is not changed
-- at the same time, for instance with FOR KEY SHARE.
--
-- It may end with the events that concern it, as in CREATE TRIGGER; the default is all.
-- UPDATE OF means rows in which one of these columns has another value than before, and besides
-- every tag that a row gave before and does not give any more, or the reverse. (For a table
-- without a primary key it means every updated row.)
--
--   'courses:titles ON DELETE OR UPDATE OF title'
--
-- Each distinct tag is recorded once per statement. A statement that gives more than 1,000 of
-- a kind records the family instead: 'course:*', which every answer of the kind depends
-- on. So does TRUNCATE, for all templates that concern DELETE.
--
-- PostgreSQL knows what a watch uses. A column may be renamed. To drop one or to change its
-- type, or to drop the table, call cache_unwatch first, and cache_watch after, in one transaction.
--
-- No trigger fires for rows that arrive by logical replication (initial copies excepted), and
-- none after ALTER TABLE … DISABLE TRIGGER. A session with session_replication_role =
-- replica is seen like any other, but foreign keys do not cascade in it.
--
-- cache_watch waits for programs that write the table, and then they wait for it, so not for
-- long: after 3 seconds it fails and may be tried again.
CREATE OR REPLACE FUNCTION cache_watch(watch text, watched regclass, VARIADIC templates text[]) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '3s' SET DateStyle = 'ISO, MDY' SET TimeZone = 'UTC' SET IntervalStyle = 'postgres' AS $$
#variable_conflict use_column
DECLARE
    home   name;
    this   record;
    member oid;
    before constant bigint := (SELECT id FROM cache_watches w WHERE w.relation = watched AND w.watch = cache_watch.watch);
    made   bigint;
BEGIN
    SELECT nspname INTO STRICT home FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass;
    SELECT nspname, relname, relkind, relpersistence, format('%I.%I', nspname, relname) AS name INTO this
    FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = watched;
    IF this IS NULL THEN
        RAISE 'cache_watch: no table has the oid %', watched::oid USING ERRCODE = 'undefined_table';
    ELSIF this.relkind NOT IN ('r', 'p') OR this.relpersistence = 't' OR this.nspname = home AND this.relname IN ('cache_outbox', 'cache_consumers', 'cache_delivered', 'cache_watches') THEN
        RAISE 'cache_watch: % is %', watched, CASE
            WHEN this.relkind = 'v' THEN 'a view, in which no row changes: watch the tables that it reads'
            WHEN this.relkind = 'm' THEN 'a materialized view, which no trigger watches: call cache_record in the transaction that refreshes it'
            WHEN this.relkind = 'f' THEN 'a foreign table, which changes elsewhere: watch it there, or call cache_record in the transactions that write it'
            WHEN this.relkind IN ('r', 'p') AND this.relpersistence = 't' THEN 'a temporary table, which no other session reads'
            WHEN this.relkind IN ('r', 'p') THEN 'a table of the outbox itself'
            ELSE 'no table' END
            USING ERRCODE = 'wrong_object_type';
    ELSIF coalesce(watch, '') = '' THEN
        RAISE 'cache_watch: the watch of % has no name: give it that of the program or the team that declares it', watched USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(cardinality(templates), 0) = 0 THEN
        RAISE 'cache_watch: the watch % of % has no templates: to end it, call cache_unwatch', watch, watched USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- First the locks, one after another in one order; then nothing that runs sees half of it.
    LOCK TABLE cache_watches IN SHARE ROW EXCLUSIVE MODE;
    FOR member IN SELECT cache_members(watched) LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', member::regclass);
    END LOOP;
    IF before IS NOT NULL THEN
        UPDATE cache_watches w SET watch = '' WHERE w.id = before; -- out of the way of the new one
    END IF;
    INSERT INTO cache_watches (relation, watch, templates, name) VALUES (watched, watch, templates, this.name) RETURNING id INTO made;
    PERFORM cache_compile(made);
    DELETE FROM cache_watches w WHERE w.id = before;
    PERFORM cache_install(m) FROM cache_members(watched) AS m;
    IF before IS NOT NULL THEN
        PERFORM cache_forget(before);
    END IF;
END
$$;

-- cache_unwatch ends a watch. Of a table that is gone it takes the oid: 16384::regclass.
CREATE OR REPLACE FUNCTION cache_unwatch(watch text, watched regclass) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
#variable_conflict use_column
DECLARE
    gone   constant bigint := (SELECT id FROM cache_watches w WHERE w.relation = watched AND w.watch = cache_unwatch.watch);
    member oid;
BEGIN
    LOCK TABLE cache_watches IN SHARE ROW EXCLUSIVE MODE;
    FOR member IN SELECT cache_members(watched) LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', member::regclass);
    END LOOP;
    DELETE FROM cache_watches WHERE id = gone;
    PERFORM cache_install(m) FROM cache_members(watched) AS m; -- also what an earlier version left
    IF gone IS NOT NULL THEN
        PERFORM cache_forget(gone);
    END IF;
END
$$;

-- cache_check lists what keeps changes of watched tables from being recorded, or will, with what
-- to do about it. It returns nothing when all is well.
CREATE OR REPLACE FUNCTION cache_check() RETURNS TABLE (relation text, watch text, problem text, remedy text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    w      record;
    m      record;
    again  text;
BEGIN
    FOR w IN SELECT id, w.relation AS oid, w.watch AS of_watch, name, templates, to_regclass(name) AS named, c.oid IS NOT NULL AS exists
        FROM cache_watches w LEFT JOIN pg_class c ON c.oid = w.relation ORDER BY name, w.watch
    LOOP
        again := format('declare it again: SELECT cache_watch(%L, %L, %s)', w.of_watch, CASE WHEN w.exists THEN w.oid::regclass::text ELSE w.name END,
            (SELECT string_agg(quote_literal(t), ', ') FROM unnest(w.templates) AS t));
        watch := w.of_watch;
        relation := w.name;
        IF NOT w.exists OR w.named IS NOT NULL AND w.named <> w.oid THEN
            IF w.named IS NULL THEN
                problem := 'the table is gone';
                remedy := format('end the watch: SELECT cache_unwatch(%L, %s::regclass)', w.of_watch, w.oid::oid);
                RETURN NEXT;
            ELSIF NOT EXISTS (SELECT FROM cache_watches other WHERE other.relation = w.named AND other.watch = w.of_watch) THEN
                problem := format('another table has this name now, and it is not watched (the watched one is %s)', CASE WHEN w.exists THEN w.oid::regclass::text ELSE 'gone' END);
                remedy := format('watch it: SELECT cache_watch(%L, %L, %s), and end the watch of the other: SELECT cache_unwatch(%1$L, %4$s::regclass)',
                    w.of_watch, w.name, (SELECT string_agg(quote_literal(t), ', ') FROM unnest(w.templates) AS t), w.oid::oid);
                RETURN NEXT;
            ELSIF NOT w.exists THEN
                problem := 'the table that this watch was declared for is gone; another of its name is watched';
                remedy := format('end the watch of the old one: SELECT cache_unwatch(%L, %s::regclass)', w.of_watch, w.oid::oid);
                RETURN NEXT;
            END IF;
            CONTINUE WHEN NOT w.exists;
        END IF;
        SELECT string_agg(format('cache_tags_%s_%s', w.id, number), ', ') INTO problem
        FROM unnest(w.templates) WITH ORDINALITY AS u (template, number), cache_parse(template) AS p
        WHERE p.constant IS NULL AND NOT EXISTS (SELECT FROM pg_proc
            WHERE proname = format('cache_tags_%s_%s', w.id, number) AND pronamespace = (SELECT relnamespace FROM pg_class WHERE pg_class.oid = 'cache_outbox'::regclass));
        IF problem IS NOT NULL THEN
            problem := 'functions are missing, and writes of the table fail: ' || problem;
            remedy := again;
            RETURN NEXT;
        END IF;
        FOR m IN
            SELECT mem::regclass::text AS name, event, tgenabled, prosrc, cache_source(mem, event) AS source, mem <> w.oid AS child
            FROM cache_members(w.oid) AS mem CROSS JOIN unnest('{insert, update, delete, truncate}'::text[]) AS event
            LEFT JOIN (pg_trigger JOIN pg_proc p ON p.oid = tgfoid) ON tgrelid = mem AND tgname = 'cache_watch_' || event
        LOOP
            relation := m.name;
            remedy := again;
            CASE
            WHEN m.source IS NULL THEN
                CONTINUE; -- nothing to record
            WHEN m.prosrc IS NULL THEN
                problem := format('no trigger records what %s touches%s', upper(m.event),
                    CASE WHEN m.child THEN ', unless it names the parent: it was attached after the table was watched' ELSE '' END);
            WHEN m.tgenabled <> 'A' THEN
                problem := format('the trigger for %s is %s', upper(m.event), CASE m.tgenabled WHEN 'D' THEN 'disabled' ELSE 'not enabled always' END);
                remedy := format('ALTER TABLE %s ENABLE ALWAYS TRIGGER cache_watch_%s', m.name, m.event);
            WHEN m.prosrc <> m.source THEN
                problem := format('the trigger for %s is out of date', upper(m.event));
            ELSE
                CONTINUE;
            END CASE;
            RETURN NEXT;
        END LOOP;
    END LOOP;
    -- What an earlier version watches, and what a partition has kept that was detached.
    watch := NULL;
    problem := 'it has triggers of a watch that is not declared';
    FOR relation, remedy IN
        SELECT DISTINCT tgrelid::regclass::text, format('declare it, or remove them: SELECT cache_unwatch('''', %L)', tgrelid::regclass) FROM pg_trigger
        WHERE tgname ~ '^cache_watch_(insert|update|delete|truncate)$' AND NOT tgisinternal AND cache_covering(tgrelid) = '{}' ORDER BY 1
    LOOP
        RETURN NEXT;
    END LOOP;
END
$$;

-- Functions look for the outbox where it is, not where their callers say: above all those that run
-- with the rights of their owner.
DO $$
DECLARE
    home constant name := (SELECT nspname FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass);
    func regprocedure;
BEGIN
    -- It keeps a function from being inlined, so those that need none are left out.
    FOR func IN SELECT p.oid FROM pg_proc p JOIN pg_namespace s ON s.oid = pronamespace WHERE nspname = home AND proname IN (
        'cache_record', 'cache_touched', 'cache_tag', 'cache_parse', 'cache_execute', 'cache_compile', 'cache_covering', 'cache_query',
        'cache_source', 'cache_install', 'cache_forget', 'cache_watch', 'cache_unwatch', 'cache_check')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', func, home);
    END LOOP;
END
$$;

-- +goose StatementEnd
