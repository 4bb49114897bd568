-- What transactions have touched and nobody has delivered yet.
CREATE TABLE cache_outbox (
    -- Never reused: whoever delivered an old row of a tag must not delete a newer one.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- One row for each tag, its latest: the table is bounded by the number of tags.
    tag TEXT NOT NULL UNIQUE,
    -- Of the writer that fences and bumps the tag itself; NULL for any other.
    mark BLOB,
    -- Unix time in milliseconds.
    recorded_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
);

-- Triggers record tags through this view: INSERT INTO cache_touch VALUES ('course:' || new.id);
-- NULL is no tag and is ignored.
CREATE VIEW cache_touch (tag) AS SELECT tag FROM cache_outbox;

-- Not INSERT OR REPLACE: inside a trigger, the conflict clause of the outermost statement
-- takes the place of the trigger's own, so an INSERT OR IGNORE into a watched table
-- would lose the invalidation. DELETE and INSERT mean the same under each of them.
CREATE TRIGGER cache_touch_records INSTEAD OF INSERT ON cache_touch WHEN new.tag IS NOT NULL
BEGIN
    DELETE FROM cache_outbox WHERE tag = new.tag;
    INSERT INTO cache_outbox (tag) VALUES (new.tag);
END;
