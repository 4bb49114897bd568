-- The outbox of a database. It may be applied over an earlier version of itself, and any
-- program of SQLite 3.8.3 or later may run its triggers.

-- What transactions have touched and some consumer has not got yet.
CREATE TABLE IF NOT EXISTS cache_outbox (
    -- Never reused: a relay that delivered an old row of a tag must not delete a newer one.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- One row for each tag, its latest: the table is bounded by the number of tags.
    tag TEXT NOT NULL UNIQUE,
    -- Of the writer that fences and bumps the tag itself; NULL for any other.
    mark BLOB,
    -- Unix time in milliseconds.
    recorded_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
);

-- The stores that rows are delivered to, and when their relays last said so, in Unix
-- milliseconds.
CREATE TABLE IF NOT EXISTS cache_consumers (
    name TEXT PRIMARY KEY NOT NULL,
    seen_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Which rows of the outbox a consumer has got while another has not.
CREATE TABLE IF NOT EXISTS cache_delivered (
    row_id INTEGER NOT NULL,
    consumer TEXT NOT NULL,
    PRIMARY KEY (row_id, consumer)
) WITHOUT ROWID;

DROP TRIGGER IF EXISTS cache_outbox_deleted;
CREATE TRIGGER cache_outbox_deleted AFTER DELETE ON cache_outbox
BEGIN
    DELETE FROM cache_delivered WHERE row_id = old.id;
END;

-- The watches that were declared, with their templates as a JSON array.
CREATE TABLE IF NOT EXISTS cache_watches (
    watch TEXT NOT NULL,
    watched TEXT NOT NULL COLLATE NOCASE, -- the table
    templates TEXT NOT NULL,
    PRIMARY KEY (watch, watched)
) WITHOUT ROWID;

-- What tags are recorded through. DELETE and INSERT instead of INSERT OR REPLACE: inside a trigger,
-- the conflict clause of the outermost statement takes the place of the trigger's own, so an
-- INSERT OR IGNORE into a watched table would lose the invalidation. DELETE and INSERT mean
-- the same under each of them. Decision 18.
--
-- SQLite compiles these triggers anew with every statement that writes to a watched table, so
-- they do little.
CREATE VIEW IF NOT EXISTS cache_record (tag) AS SELECT tag FROM cache_outbox;

DROP TRIGGER IF EXISTS cache_record_records;
CREATE TRIGGER cache_record_records INSTEAD OF INSERT ON cache_record
BEGIN
    DELETE FROM cache_outbox WHERE tag = new.tag;
    INSERT INTO cache_outbox (tag) VALUES (new.tag);
END;

-- A program may record tags through this view: INSERT INTO cache_touch VALUES ('catalog').
-- NULL is no tag and is ignored. A tag that is not well formed is refused here, in the
-- statement that makes it. The first test lets pass what has neither % nor # nor *, which is
-- nearly everything.
CREATE VIEW IF NOT EXISTS cache_touch (tag) AS SELECT tag FROM cache_outbox;

DROP TRIGGER IF EXISTS cache_touch_records;
CREATE TRIGGER cache_touch_records INSTEAD OF INSERT ON cache_touch WHEN new.tag IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'cache_touch: malformed tag: want kind, kind:value or kind:*, with values escaped as INSERT INTO cache_touch_values does it')
    WHERE new.tag <> '*' AND NOT (
        typeof(new.tag) <> 'blob'
        AND length(new.tag) = length(CAST(new.tag AS BLOB)) -- neither NUL nor a byte beyond ASCII
        AND length(new.tag) <= 200
        AND instr(new.tag || ':', ':') BETWEEN 2 AND 65
        AND substr(new.tag, 1, instr(new.tag || ':', ':') - 1) NOT GLOB '*[^A-Za-z0-9._-]*'
        AND (
            new.tag || ':' NOT GLOB '*[^A-Za-z0-9:._~@+=,/-]*' AND new.tag || ':' NOT GLOB '*::*'
            OR substr(new.tag, instr(new.tag, ':')) = ':*'
            OR length(substr(new.tag, instr(new.tag, ':'))) = 66 AND substr(new.tag, instr(new.tag, ':')) GLOB ':#*'
                AND substr(new.tag, instr(new.tag, ':') + 2) NOT GLOB '*[^0-9a-f]*'
            OR new.tag || ':' NOT GLOB '*[^A-Za-z0-9:._~@+=,/%-]*' AND new.tag || ':' NOT GLOB '*::*'
                -- What follows a % that is not a whole part, and what needs no %.
                AND replace(replace(new.tag || ':', ':%:', ':-:'), ':%:', ':-:') NOT GLOB '*%[^0-9A-F]*'
                AND replace(replace(new.tag || ':', ':%:', ':-:'), ':%:', ':-:') NOT GLOB '*%[0-9A-F][^0-9A-F]*'
                AND new.tag NOT GLOB '*%2[BCDEF]*' AND new.tag NOT GLOB '*%3[0-9D]*' AND new.tag NOT GLOB '*%4*'
                AND new.tag NOT GLOB '*%5[0-9AF]*' AND new.tag NOT GLOB '*%6[1-9A-F]*' AND new.tag NOT GLOB '*%7[0-9AE]*'
        )
    );
    INSERT INTO cache_record VALUES (new.tag);
END;

-- The tag of a kind and a value, spelled as cache.T spells it: the triggers of watches record
-- through this view.
--
--     INSERT INTO cache_touch_value VALUES ('page', 'red wine') -- page:red%20wine
--
-- NULL is no tag. What is not spelled in a few steps becomes the family of its kind, kind:*, on
-- which every answer of the kind depends: texts with other characters than A-Z a-z 0-9, those
-- of ._~@+=,/-%: and the space; real numbers; and tags of more than 200 bytes, which have a hash.
CREATE VIEW IF NOT EXISTS cache_touch_value (kind, v) AS SELECT NULL, NULL WHERE 0;

DROP TRIGGER IF EXISTS cache_touch_value_records;
CREATE TRIGGER cache_touch_value_records INSTEAD OF INSERT ON cache_touch_value WHEN new.v IS NOT NULL
BEGIN
    INSERT INTO cache_record
    SELECT new.kind || CASE WHEN t NOT GLOB '*[^A-Za-z0-9._~@+=,/%-]*' AND length(CAST(t AS BLOB)) BETWEEN 1 AND 199 - length(new.kind)
        AND length(t) = length(CAST(t AS BLOB)) THEN ':' || t ELSE ':*' END
    FROM (SELECT CASE typeof(new.v)
        WHEN 'text' THEN CASE WHEN new.v = '' THEN '%' WHEN length(new.v) > 200 THEN '*'
            ELSE replace(replace(replace(new.v, '%', '%25'), ' ', '%20'), ':', '%3A') END
        WHEN 'integer' THEN new.v
        WHEN 'blob' THEN CASE WHEN length(new.v) = 0 THEN '%' WHEN length(new.v) > 100 THEN '*' ELSE lower(hex(new.v)) END
        ELSE '*'
    END AS t);
END;

-- The same of several values, the first n.
CREATE VIEW IF NOT EXISTS cache_touch_values (kind, n, v1, v2, v3, v4, v5, v6) AS
SELECT NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL WHERE 0;

DROP TRIGGER IF EXISTS cache_touch_values_records;
CREATE TRIGGER cache_touch_values_records INSTEAD OF INSERT ON cache_touch_values
BEGIN
    INSERT INTO cache_record
    SELECT new.kind || CASE WHEN t NOT GLOB '*[^A-Za-z0-9:._~@+=,/%-]*' AND length(CAST(t AS BLOB)) < 200 - length(new.kind)
        AND length(t) = length(CAST(t AS BLOB)) THEN ':' || t ELSE ':*' END
    FROM (SELECT CASE typeof(new.v1) WHEN 'text' THEN CASE WHEN new.v1 = '' THEN '%' WHEN length(new.v1) > 200 THEN '*' ELSE replace(replace(replace(new.v1, '%', '%25'), ' ', '%20'), ':', '%3A') END WHEN 'integer' THEN new.v1 WHEN 'blob' THEN CASE WHEN length(new.v1) = 0 THEN '%' WHEN length(new.v1) > 100 THEN '*' ELSE lower(hex(new.v1)) END ELSE '*' END
        || CASE WHEN new.n < 2 THEN '' ELSE ':' || CASE typeof(new.v2) WHEN 'text' THEN CASE WHEN new.v2 = '' THEN '%' WHEN length(new.v2) > 200 THEN '*' ELSE replace(replace(replace(new.v2, '%', '%25'), ' ', '%20'), ':', '%3A') END WHEN 'integer' THEN new.v2 WHEN 'blob' THEN CASE WHEN length(new.v2) = 0 THEN '%' WHEN length(new.v2) > 100 THEN '*' ELSE lower(hex(new.v2)) END ELSE '*' END END
        || CASE WHEN new.n < 3 THEN '' ELSE ':' || CASE typeof(new.v3) WHEN 'text' THEN CASE WHEN new.v3 = '' THEN '%' WHEN length(new.v3) > 200 THEN '*' ELSE replace(replace(replace(new.v3, '%', '%25'), ' ', '%20'), ':', '%3A') END WHEN 'integer' THEN new.v3 WHEN 'blob' THEN CASE WHEN length(new.v3) = 0 THEN '%' WHEN length(new.v3) > 100 THEN '*' ELSE lower(hex(new.v3)) END ELSE '*' END END
        || CASE WHEN new.n < 4 THEN '' ELSE ':' || CASE typeof(new.v4) WHEN 'text' THEN CASE WHEN new.v4 = '' THEN '%' WHEN length(new.v4) > 200 THEN '*' ELSE replace(replace(replace(new.v4, '%', '%25'), ' ', '%20'), ':', '%3A') END WHEN 'integer' THEN new.v4 WHEN 'blob' THEN CASE WHEN length(new.v4) = 0 THEN '%' WHEN length(new.v4) > 100 THEN '*' ELSE lower(hex(new.v4)) END ELSE '*' END END
        || CASE WHEN new.n < 5 THEN '' ELSE ':' || CASE typeof(new.v5) WHEN 'text' THEN CASE WHEN new.v5 = '' THEN '%' WHEN length(new.v5) > 200 THEN '*' ELSE replace(replace(replace(new.v5, '%', '%25'), ' ', '%20'), ':', '%3A') END WHEN 'integer' THEN new.v5 WHEN 'blob' THEN CASE WHEN length(new.v5) = 0 THEN '%' WHEN length(new.v5) > 100 THEN '*' ELSE lower(hex(new.v5)) END ELSE '*' END END
        || CASE WHEN new.n < 6 THEN '' ELSE ':' || CASE typeof(new.v6) WHEN 'text' THEN CASE WHEN new.v6 = '' THEN '%' WHEN length(new.v6) > 200 THEN '*' ELSE replace(replace(replace(new.v6, '%', '%25'), ' ', '%20'), ':', '%3A') END WHEN 'integer' THEN new.v6 WHEN 'blob' THEN CASE WHEN length(new.v6) = 0 THEN '%' WHEN length(new.v6) > 100 THEN '*' ELSE lower(hex(new.v6)) END ELSE '*' END END AS t)
    WHERE new.v1 IS NOT NULL
        AND (new.n < 2 OR new.v2 IS NOT NULL) AND (new.n < 3 OR new.v3 IS NOT NULL) AND (new.n < 4 OR new.v4 IS NOT NULL)
        AND (new.n < 5 OR new.v5 IS NOT NULL) AND (new.n < 6 OR new.v6 IS NOT NULL);
END;
