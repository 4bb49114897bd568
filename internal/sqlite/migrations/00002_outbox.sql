-- Which change of which row touches which tag. The tags are those of package learning; what
-- is recorded here in the transaction of whoever makes the change, this service or any
-- other program, invalidates the answers that carry the tag as it commits.
--
--   users              user:{id}
--   courses            course:{id}  catalog:all  catalog:{difficulty}
--                      courses:titles, when a title changes or a course goes
--   modules            course:{course_id}
--   enrollments        progress:{user_id}
--                      course:{course_id}  catalog:all  catalog:{its difficulty}, when a
--                      course gains or loses a learner: completing it changes no count
--   quizzes            course:{course_id}, of those that define a module
--                      courses:titles, when submissions may come to belong to another course
--   quiz_submissions   progress:{user_id}  rewards:{user_id}
--   credentials        progress:{user_id}  credentials:{user_id}
--   revoked_tokens     token:{jti}
--
-- An update touches the tags of the old row and of the new. Rows deleted by a cascade fire
-- the triggers of their own table. REPLACE deletes the row in its way without firing
-- anything, so what an insert might replace is touched before it.

-- +goose Up
-- +goose StatementBegin
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

CREATE TRIGGER users_replace BEFORE INSERT ON users BEGIN
    INSERT INTO cache_touch SELECT 'user:' || id FROM users WHERE id = new.id OR stellar_address = new.stellar_address;
END;
CREATE TRIGGER users_insert AFTER INSERT ON users BEGIN
    INSERT INTO cache_touch VALUES ('user:' || new.id);
END;
CREATE TRIGGER users_update_replace BEFORE UPDATE OF id, stellar_address ON users BEGIN
    INSERT INTO cache_touch SELECT 'user:' || id FROM users WHERE id = new.id OR stellar_address = new.stellar_address;
END;
CREATE TRIGGER users_update AFTER UPDATE ON users BEGIN
    INSERT INTO cache_touch VALUES ('user:' || old.id), ('user:' || new.id);
END;
CREATE TRIGGER users_delete AFTER DELETE ON users BEGIN
    INSERT INTO cache_touch VALUES ('user:' || old.id);
END;

CREATE TRIGGER courses_replace BEFORE INSERT ON courses BEGIN
    INSERT INTO cache_touch SELECT 'catalog:' || difficulty FROM courses WHERE id = new.id;
    INSERT INTO cache_touch SELECT 'courses:titles' FROM courses WHERE id = new.id AND title IS NOT new.title;
END;
CREATE TRIGGER courses_insert AFTER INSERT ON courses BEGIN
    INSERT INTO cache_touch VALUES ('course:' || new.id), ('catalog:all'), ('catalog:' || new.difficulty);
END;
CREATE TRIGGER courses_update AFTER UPDATE ON courses BEGIN
    INSERT INTO cache_touch VALUES
        ('course:' || old.id), ('course:' || new.id),
        ('catalog:all'), ('catalog:' || old.difficulty), ('catalog:' || new.difficulty);
    INSERT INTO cache_touch SELECT 'courses:titles' WHERE old.title IS NOT new.title OR old.id IS NOT new.id;
END;
CREATE TRIGGER courses_delete AFTER DELETE ON courses BEGIN
    INSERT INTO cache_touch VALUES ('course:' || old.id), ('catalog:all'), ('catalog:' || old.difficulty), ('courses:titles');
END;

CREATE TRIGGER modules_insert AFTER INSERT ON modules BEGIN
    INSERT INTO cache_touch VALUES ('course:' || new.course_id);
END;
CREATE TRIGGER modules_update AFTER UPDATE ON modules BEGIN
    INSERT INTO cache_touch VALUES ('course:' || old.course_id), ('course:' || new.course_id);
END;
CREATE TRIGGER modules_delete AFTER DELETE ON modules BEGIN
    INSERT INTO cache_touch VALUES ('course:' || old.course_id);
END;

-- When a course is deleted its enrolments follow, and its difficulty can no longer be asked
-- for; the course's own trigger knew it.
CREATE TRIGGER enrollments_replace BEFORE INSERT ON enrollments BEGIN
    INSERT INTO cache_touch SELECT 'progress:' || user_id FROM enrollments WHERE id = new.id;
    INSERT INTO cache_touch SELECT 'course:' || course_id FROM enrollments WHERE id = new.id;
    INSERT INTO cache_touch SELECT 'catalog:' || difficulty FROM courses WHERE id = (SELECT course_id FROM enrollments WHERE id = new.id);
END;
CREATE TRIGGER enrollments_insert AFTER INSERT ON enrollments BEGIN
    INSERT INTO cache_touch VALUES
        ('progress:' || new.user_id), ('course:' || new.course_id), ('catalog:all'),
        ((SELECT 'catalog:' || difficulty FROM courses WHERE id = new.course_id));
END;
CREATE TRIGGER enrollments_update AFTER UPDATE ON enrollments BEGIN
    INSERT INTO cache_touch VALUES ('progress:' || old.user_id), ('progress:' || new.user_id);
END;
CREATE TRIGGER enrollments_move AFTER UPDATE OF course_id ON enrollments BEGIN
    INSERT INTO cache_touch VALUES
        ('course:' || old.course_id), ('course:' || new.course_id), ('catalog:all'),
        ((SELECT 'catalog:' || difficulty FROM courses WHERE id = old.course_id)),
        ((SELECT 'catalog:' || difficulty FROM courses WHERE id = new.course_id));
END;
CREATE TRIGGER enrollments_delete AFTER DELETE ON enrollments BEGIN
    INSERT INTO cache_touch VALUES
        ('progress:' || old.user_id), ('course:' || old.course_id), ('catalog:all'),
        ((SELECT 'catalog:' || difficulty FROM courses WHERE id = old.course_id));
END;

CREATE TRIGGER quizzes_replace BEFORE INSERT ON quizzes BEGIN
    INSERT INTO cache_touch SELECT 'course:' || course_id FROM quizzes WHERE id = new.id AND generated_for IS NULL;
    INSERT INTO cache_touch SELECT 'courses:titles' FROM quizzes WHERE id = new.id AND course_id IS NOT new.course_id;
END;
CREATE TRIGGER quizzes_insert AFTER INSERT ON quizzes WHEN new.generated_for IS NULL BEGIN
    INSERT INTO cache_touch VALUES ('course:' || new.course_id);
END;
CREATE TRIGGER quizzes_update AFTER UPDATE ON quizzes WHEN old.generated_for IS NULL OR new.generated_for IS NULL BEGIN
    INSERT INTO cache_touch VALUES ('course:' || old.course_id), ('course:' || new.course_id);
END;
CREATE TRIGGER quizzes_move AFTER UPDATE OF id, course_id ON quizzes BEGIN
    INSERT INTO cache_touch VALUES ('courses:titles');
END;
CREATE TRIGGER quizzes_delete AFTER DELETE ON quizzes BEGIN
    INSERT INTO cache_touch SELECT 'course:' || old.course_id WHERE old.generated_for IS NULL;
    INSERT INTO cache_touch SELECT 'courses:titles' WHERE EXISTS (SELECT 1 FROM quiz_submissions WHERE quiz_id = old.id);
END;

CREATE TRIGGER quiz_submissions_replace BEFORE INSERT ON quiz_submissions BEGIN
    INSERT INTO cache_touch SELECT 'progress:' || user_id FROM quiz_submissions WHERE id = new.id;
    INSERT INTO cache_touch SELECT 'rewards:' || user_id FROM quiz_submissions WHERE id = new.id;
END;
CREATE TRIGGER quiz_submissions_insert AFTER INSERT ON quiz_submissions BEGIN
    INSERT INTO cache_touch VALUES ('progress:' || new.user_id), ('rewards:' || new.user_id);
END;
CREATE TRIGGER quiz_submissions_update AFTER UPDATE ON quiz_submissions BEGIN
    INSERT INTO cache_touch VALUES
        ('progress:' || old.user_id), ('rewards:' || old.user_id),
        ('progress:' || new.user_id), ('rewards:' || new.user_id);
END;
CREATE TRIGGER quiz_submissions_delete AFTER DELETE ON quiz_submissions BEGIN
    INSERT INTO cache_touch VALUES ('progress:' || old.user_id), ('rewards:' || old.user_id);
END;

CREATE TRIGGER credentials_replace BEFORE INSERT ON credentials BEGIN
    INSERT INTO cache_touch SELECT 'progress:' || user_id FROM credentials WHERE id = new.id;
    INSERT INTO cache_touch SELECT 'credentials:' || user_id FROM credentials WHERE id = new.id;
END;
CREATE TRIGGER credentials_insert AFTER INSERT ON credentials BEGIN
    INSERT INTO cache_touch VALUES ('progress:' || new.user_id), ('credentials:' || new.user_id);
END;
CREATE TRIGGER credentials_update AFTER UPDATE ON credentials BEGIN
    INSERT INTO cache_touch VALUES
        ('progress:' || old.user_id), ('credentials:' || old.user_id),
        ('progress:' || new.user_id), ('credentials:' || new.user_id);
END;
CREATE TRIGGER credentials_delete AFTER DELETE ON credentials BEGIN
    INSERT INTO cache_touch VALUES ('progress:' || old.user_id), ('credentials:' || old.user_id);
END;

CREATE TRIGGER revoked_tokens_insert AFTER INSERT ON revoked_tokens BEGIN
    INSERT INTO cache_touch VALUES ('token:' || new.jti);
END;
CREATE TRIGGER revoked_tokens_update AFTER UPDATE ON revoked_tokens BEGIN
    INSERT INTO cache_touch VALUES ('token:' || old.jti), ('token:' || new.jti);
END;
CREATE TRIGGER revoked_tokens_delete AFTER DELETE ON revoked_tokens BEGIN
    INSERT INTO cache_touch VALUES ('token:' || old.jti);
END;
-- +goose StatementEnd
