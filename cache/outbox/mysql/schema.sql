-- +goose Up

-- The outbox of a cache: what transactions of this database touch, whichever program runs
-- them, is recorded here, in the same transaction, as tags that cached answers depend on.
-- For MariaDB 10.11 and MySQL 8.0.29, or later.
--
-- Function Apply of the package runs it, and so does any migration tool that knows goose's comments
-- or sends a file as it is to a connection with multiStatements=true, and a shell:
-- mariadb --delimiter=// db < schema.sql. It may be applied again. A trigger and a routine run with the rights
-- of the account that made them, so that a writer needs none on the outbox. That account should have
-- the privilege PROCESS: without it nothing sees TRUNCATE (cache_table_ids).

-- Routines keep the mode of the session that makes them. It settles how literals are read, and makes an
-- error of what would be cut off.
SET @cache_sql_mode = @@SESSION.sql_mode;
SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION';

-- What transactions have touched and some consumer has not got yet. Rows are appended, and found by
-- their key only: no unique key but it, and no index that a writer searches, so writers do not lock
-- each other out. Bytes, so that no collation takes two tags for one, and one byte more than a tag may
-- have, so that a longer one shows.
CREATE TABLE IF NOT EXISTS cache_outbox (
    id          BIGINT        NOT NULL AUTO_INCREMENT PRIMARY KEY,
    tag         VARBINARY(201) NOT NULL,
    -- Of the writer, if it invalidates its tags itself as soon as it has committed: then
    -- relays of its store wait a while before they do it in its place. NULL: no writer will.
    mark        VARBINARY(16) NULL,
    -- How often its transaction has touched the tag. A relay deletes the row as it has read it.
    touches     BIGINT        NOT NULL DEFAULT 1,
    recorded_at DATETIME(6)   NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    KEY cache_outbox_mark (mark) -- a writer finds its own rows by it
) ENGINE = InnoDB;

-- The stores that invalidations are delivered to, and when a relay of each was last seen.
CREATE TABLE IF NOT EXISTS cache_consumers (
    name    VARBINARY(255) NOT NULL PRIMARY KEY,
    seen_at DATETIME(6)    NOT NULL
) ENGINE = InnoDB;

-- Which of them has got which row, as it was after so many touches. It stays empty while there is one.
CREATE TABLE IF NOT EXISTS cache_delivered (
    row_id   BIGINT         NOT NULL,
    consumer VARBINARY(255) NOT NULL,
    touches  BIGINT         NOT NULL,
    PRIMARY KEY (row_id, consumer)
) ENGINE = InnoDB;

-- The watches that were declared, with their templates as a JSON array. incarnation is that of the
-- table's rows: TRUNCATE makes it another.
CREATE TABLE IF NOT EXISTS cache_watches (
    watch       VARBINARY(64)  NOT NULL,
    watched     VARBINARY(256) NOT NULL,
    templates   MEDIUMBLOB     NOT NULL,
    incarnation VARBINARY(100) NULL,
    PRIMARY KEY (watch, watched)
) ENGINE = InnoDB;

-- The definition of a tag is that of cache/driver/tag.go; these functions are the same in SQL.
--
--   tag   = kind | kind ":" parts | kind ":*" | "*"
--   kind  = 1 to 64 of A-Z a-z 0-9 . _ -
--   parts = part { ":" part } | "#" 64 hexadecimal digits
--   part  = "%" | 1 or more of ( A-Z a-z 0-9 - . _ ~ @ + = , / | "%" 2 hexadecimal digits )
--
-- A part that is * stands for a value that is not spelled: the tag becomes the family.

-- cache_part returns a text as a part: a byte that a part may not hold becomes % and two hexadecimal
-- digits, and the empty text a lone %. No regular expression is anchored: $ matches before a line feed.
-- +goose StatementBegin
CREATE FUNCTION IF NOT EXISTS cache_part(t LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)
    RETURNS VARCHAR(3072) CHARACTER SET ascii COLLATE ascii_bin
    DETERMINISTIC NO SQL
BEGIN
    DECLARE bytes VARCHAR(2048) CHARACTER SET ascii;
    DECLARE part VARCHAR(3072) CHARACTER SET ascii DEFAULT '';
    DECLARE c CHAR(2) CHARACTER SET ascii;
    DECLARE n INT;
    DECLARE i INT DEFAULT 1;
    IF t IS NULL THEN
        RETURN NULL;
    ELSEIF LENGTH(t) = 0 THEN
        RETURN '%';
    ELSEIF LENGTH(t) > 1024 THEN
        RETURN '*';
    ELSEIF t NOT REGEXP '[^-A-Za-z0-9._~@+=,/]' THEN
        RETURN t;
    END IF;
    SET bytes = HEX(t);
    WHILE i < LENGTH(bytes) DO
        SET c = SUBSTRING(bytes, i, 2);
        SET n = CONV(c, 16, 10);
        SET part = CONCAT(part, CASE
            WHEN n BETWEEN 48 AND 57 OR n BETWEEN 65 AND 90 OR n BETWEEN 97 AND 122 OR n IN (45, 46, 95, 126, 64, 43, 61, 44, 47)
            THEN CHAR(n USING ascii) ELSE CONCAT('%', c) END);
        SET i = i + 2;
    END WHILE;
    RETURN part;
END;
-- +goose StatementEnd

-- cache_hex returns bytes as a part.
-- +goose StatementBegin
CREATE FUNCTION IF NOT EXISTS cache_hex(v LONGBLOB)
    RETURNS VARCHAR(2048) CHARACTER SET ascii COLLATE ascii_bin
    DETERMINISTIC NO SQL
BEGIN
    RETURN CASE WHEN v IS NULL THEN NULL WHEN LENGTH(v) = 0 THEN '%' WHEN LENGTH(v) > 1024 THEN '*' ELSE LOWER(HEX(v)) END;
END;
-- +goose StatementEnd

-- cache_tag returns the tag of a kind and of parts, joined by colons: NULL if one is NULL, and with a
-- hash instead of the parts if it has more than 200 bytes.
-- +goose StatementBegin
CREATE FUNCTION IF NOT EXISTS cache_tag(kind VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin, parts LONGTEXT CHARACTER SET ascii COLLATE ascii_bin)
    RETURNS VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin
    DETERMINISTIC NO SQL
BEGIN
    RETURN CASE WHEN parts IS NULL THEN NULL
        WHEN LOCATE('*', parts) > 0 THEN CONCAT(kind, ':*')
        WHEN LENGTH(kind) + 1 + LENGTH(parts) > 200 THEN CONCAT(kind, ':#', LOWER(SHA2(CONCAT(kind, ':', parts), 256)))
        ELSE CONCAT(kind, ':', parts) END;
END;
-- +goose StatementEnd

-- cache_touch records a tag; NULL is none. The triggers of watches call it for each row.
--
-- A statement that touches a tag again counts that in the row that it has appended. What the session
-- remembers of its rows (@cache_seen, since @cache_time, the start of the statement) is a hint only,
-- because a rollback does not undo it and a session may stop its clock: the UPDATE looks whether the row
-- is there, locks it until the end of the transaction, and makes it another than what a relay may
-- be delivering. If it is not there, the tag gets a row. So none is lost. Beyond 1,000 tags of a
-- statement, families are recorded: a mistaken count only widens.
-- +goose StatementBegin
CREATE PROCEDURE IF NOT EXISTS cache_touch(IN t VARBINARY(201))
    MODIFIES SQL DATA
BEGIN
    DECLARE place INT;
    DECLARE this BIGINT;
    DECLARE done BOOLEAN DEFAULT FALSE;
    IF t IS NOT NULL THEN
        IF NOT (@cache_time <=> CAST(UTC_TIMESTAMP(6) AS CHAR)) OR @cache_seen IS NULL OR @cache_count IS NULL THEN
            SET @cache_time = CAST(UTC_TIMESTAMP(6) AS CHAR);
            SET @cache_seen = CAST('' AS BINARY);
            SET @cache_count = 0;
        END IF;
        SET place = COALESCE(LOCATE(CONCAT(';', t, ' '), @cache_seen), 0);
        IF place = 0 AND @cache_count >= 1000 AND t <> '*' THEN
            SET t = CONCAT(SUBSTRING_INDEX(t, ':', 1), ':*');
            SET place = COALESCE(LOCATE(CONCAT(';', t, ' '), @cache_seen), 0);
        END IF;
        IF place > 0 THEN
            -- By the primary key, whatever the optimizer thinks of a small table: what an UPDATE reads it locks.
            SET this = CAST(SUBSTRING_INDEX(SUBSTRING(@cache_seen, place + LENGTH(t) + 2, 20), ';', 1) AS SIGNED);
            UPDATE cache_outbox FORCE INDEX (PRIMARY) SET touches = touches + 1 WHERE id = this AND tag = t AND COALESCE(mark, '') = COALESCE(@cache_mark, '');
            SET done = ROW_COUNT() > 0;
        END IF;
        IF NOT done THEN
            INSERT INTO cache_outbox (tag, mark) VALUES (t, @cache_mark);
            SET @cache_seen = CONCAT(';', t, ' ', LAST_INSERT_ID(), @cache_seen);
            SET @cache_count = @cache_count + 1;
        END IF;
    END IF;
END;
-- +goose StatementEnd

-- A program may record a tag that no watched row shows: CALL cache_record('catalog'), or
-- CALL cache_record(cache_tag('page', cache_part('red wine'))). NULL is no tag and is ignored. A tag that
-- is not well formed is an error.
-- +goose StatementBegin
CREATE PROCEDURE IF NOT EXISTS cache_record(IN t LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)
    MODIFIES SQL DATA
BEGIN
    IF t IS NOT NULL AND NOT (t = '*' AND LENGTH(t) = 1) AND (LENGTH(t) > 200
        OR t REGEXP '[^-A-Za-z0-9._~@+=,/%#*:]'
        OR t NOT REGEXP '^[A-Za-z0-9._-]{1,64}(:[*]|:#[0-9a-f]{64}|(:(%|([-A-Za-z0-9._~@+=,/]|%[0-9A-F]{2})+))+)?$'
        OR t REGEXP '%(2[B-F]|3[0-9D]|4[0-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])')
    THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'cache_record: malformed tag: make it with cache_tag(kind, cache_part(value))';
    END IF;
    CALL cache_touch(CAST(t AS BINARY));
END;
-- +goose StatementEnd

-- cache_table_ids returns the numbers that InnoDB has given the tables and partitions of this database,
-- with names as in file names. TRUNCATE and EXCHANGE PARTITION give new ones. It is a procedure for the sake of
-- the rights of the account that made it.
-- +goose StatementBegin
CREATE PROCEDURE IF NOT EXISTS cache_table_ids()
    READS SQL DATA
BEGIN
    IF VERSION() LIKE '%MariaDB%' THEN
        SELECT name, table_id FROM information_schema.INNODB_SYS_TABLES WHERE name LIKE CONCAT(REPLACE(REPLACE(DATABASE(), '-', '@002d'), '_', '|_'), '/%') ESCAPE '|';
    ELSE
        SELECT name, table_id FROM information_schema.INNODB_TABLES WHERE name LIKE CONCAT(REPLACE(REPLACE(DATABASE(), '-', '@002d'), '_', '|_'), '/%') ESCAPE '|';
    END IF;
END;
-- +goose StatementEnd

SET SESSION sql_mode = @cache_sql_mode;
