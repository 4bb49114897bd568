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

-- A program may record tags through this view: INSERT INTO cache_touch VALUES ('catalog').
-- NULL is no tag and is ignored.
CREATE VIEW IF NOT EXISTS cache_touch (tag) AS SELECT tag FROM cache_outbox;

-- A tag that is not well formed is refused here, in the statement that makes it. The first
-- test lets pass what has neither % nor # nor *, which is nearly everything.
--
-- Decision 18. DELETE and INSERT instead of INSERT OR REPLACE: inside a trigger, the conflict clause of the
-- outermost statement takes the place of the trigger's own, so an INSERT OR IGNORE into a
-- watched table would lose the invalidation. DELETE and INSERT mean the same under each of them.
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
    DELETE FROM cache_outbox WHERE tag = new.tag;
    INSERT INTO cache_outbox (tag) VALUES (new.tag);
END;

-- The tag of a kind and of the first n values, spelled as cache.T spells it: the triggers of
-- watches record through this view.
--
--     INSERT INTO cache_touch_values (kind, n, v1) VALUES ('page', 1, 'red wine') -- page:red%20wine
--
-- NULL among the values means no tag. What SQLite cannot spell as cache.T does becomes the
-- family of its kind, kind:*, on which every answer of the kind depends: real numbers, and tags
-- of more than 200 bytes, which have a hash.
CREATE VIEW IF NOT EXISTS cache_touch_values (kind, n, v1, v2, v3, v4, v5, v6) AS
SELECT NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL WHERE 0;

DROP TRIGGER IF EXISTS cache_touch_values_records;
CREATE TRIGGER cache_touch_values_records INSTEAD OF INSERT ON cache_touch_values
BEGIN
    INSERT INTO cache_touch
    SELECT CASE
        WHEN widened THEN new.kind || ':*'
        -- Nothing to escape in one value, as nearly always.
        WHEN new.n = 1 AND t1 <> '' AND t1 NOT GLOB '*[^A-Za-z0-9._~@+=,/-]*' AND length(t1) = length(CAST(t1 AS BLOB))
            THEN CASE WHEN length(new.kind) + length(t1) < 200 THEN new.kind || ':' || t1 ELSE new.kind || ':*' END
        WHEN length(h) > 2 * 200 + 6 THEN new.kind || ':*'
        -- In h a value is the hexadecimal digits of its bytes, or % if it has none, with colons
        -- between the values. They are read from the left.
        ELSE (
            WITH RECURSIVE escaped (rest, done) AS (
                SELECT h, new.kind || ':'
                UNION ALL
                SELECT substr(rest, CASE WHEN rest GLOB '[:%]*' THEN 2 ELSE 3 END),
                    done || CASE
                        WHEN rest GLOB '[:%]*' THEN substr(rest, 1, 1)
                        WHEN rest GLOB '2[BCDEF]*' OR rest GLOB '3[0-9D]*' OR rest GLOB '4*'
                            OR rest GLOB '5[0-9AF]*' OR rest GLOB '6[1-9A-F]*' OR rest GLOB '7[0-9AE]*'
                        THEN char(16 * instr('123456789ABCDEF', substr(rest, 1, 1)) + instr('123456789ABCDEF', substr(rest, 2, 1)))
                        ELSE '%' || substr(rest, 1, 2)
                    END
                FROM escaped WHERE rest <> ''
            )
            SELECT CASE WHEN length(done) <= 200 THEN done ELSE new.kind || ':*' END FROM escaped WHERE rest = ''
        )
    END
    FROM (
        SELECT t1, widened,
            CASE t1 WHEN '' THEN '%' ELSE hex(t1) END
            || CASE WHEN new.n > 1 THEN ':' || CASE t2 WHEN '' THEN '%' ELSE hex(t2) END ELSE '' END
            || CASE WHEN new.n > 2 THEN ':' || CASE t3 WHEN '' THEN '%' ELSE hex(t3) END ELSE '' END
            || CASE WHEN new.n > 3 THEN ':' || CASE t4 WHEN '' THEN '%' ELSE hex(t4) END ELSE '' END
            || CASE WHEN new.n > 4 THEN ':' || CASE t5 WHEN '' THEN '%' ELSE hex(t5) END ELSE '' END
            || CASE WHEN new.n > 5 THEN ':' || CASE t6 WHEN '' THEN '%' ELSE hex(t6) END ELSE '' END AS h
        FROM (
            SELECT -- bytes are hexadecimal digits, and everything else is its own text; none of megabytes is made
                CASE WHEN length(CAST(new.v1 AS BLOB)) > 200 THEN '' WHEN typeof(new.v1) = 'blob' THEN lower(hex(new.v1)) ELSE CAST(new.v1 AS TEXT) END AS t1,
                CASE WHEN length(CAST(new.v2 AS BLOB)) > 200 THEN '' WHEN typeof(new.v2) = 'blob' THEN lower(hex(new.v2)) ELSE CAST(new.v2 AS TEXT) END AS t2,
                CASE WHEN length(CAST(new.v3 AS BLOB)) > 200 THEN '' WHEN typeof(new.v3) = 'blob' THEN lower(hex(new.v3)) ELSE CAST(new.v3 AS TEXT) END AS t3,
                CASE WHEN length(CAST(new.v4 AS BLOB)) > 200 THEN '' WHEN typeof(new.v4) = 'blob' THEN lower(hex(new.v4)) ELSE CAST(new.v4 AS TEXT) END AS t4,
                CASE WHEN length(CAST(new.v5 AS BLOB)) > 200 THEN '' WHEN typeof(new.v5) = 'blob' THEN lower(hex(new.v5)) ELSE CAST(new.v5 AS TEXT) END AS t5,
                CASE WHEN length(CAST(new.v6 AS BLOB)) > 200 THEN '' WHEN typeof(new.v6) = 'blob' THEN lower(hex(new.v6)) ELSE CAST(new.v6 AS TEXT) END AS t6,
                'real' IN (typeof(new.v1), typeof(new.v2), typeof(new.v3), typeof(new.v4), typeof(new.v5), typeof(new.v6))
                OR length(CAST(new.v1 AS BLOB)) > 200 OR length(CAST(new.v2 AS BLOB)) > 200 OR length(CAST(new.v3 AS BLOB)) > 200
                OR length(CAST(new.v4 AS BLOB)) > 200 OR length(CAST(new.v5 AS BLOB)) > 200 OR length(CAST(new.v6 AS BLOB)) > 200 AS widened
        )
    )
    WHERE new.v1 IS NOT NULL
        AND (new.n < 2 OR new.v2 IS NOT NULL) AND (new.n < 3 OR new.v3 IS NOT NULL) AND (new.n < 4 OR new.v4 IS NOT NULL)
        AND (new.n < 5 OR new.v5 IS NOT NULL) AND (new.n < 6 OR new.v6 IS NOT NULL);
END;
