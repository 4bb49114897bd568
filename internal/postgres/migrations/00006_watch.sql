-- What a changed row invalidates, table by table, whoever changes it. The tags are those
-- of internal/learning/tags.go; cache_watch and its templates are documented in
-- cache/outbox/pgschema/outbox.sql.
--
-- One transaction for each table: the lock that a new trigger takes is not held while
-- waiting for the next.
--
-- A database that has had this migration in the form of an earlier release gets it by
-- migration 7, which applies the outbox again and then this file.

-- +goose NO TRANSACTION
-- +goose Up
SELECT cache_watch('chainlearn', 'users',
    'user:{id}');

-- Answers that show the titles of courses to those with a history: renaming is rare.
SELECT cache_watch('chainlearn', 'courses',
    'course:{id}',
    'catalog:all',
    'catalog:{difficulty}',
    'courses:titles ON DELETE OR UPDATE OF id, title');

SELECT cache_watch('chainlearn', 'modules',
    'course:{course_id}');

-- Enrolling changes the number that the catalogue shows; completing does not. When a course is
-- deleted its enrolments follow, and its difficulty can no longer be asked for; the
-- course's own trigger knew it. The lock is the one that the foreign key takes: it keeps
-- the difficulty as it is until this transaction ends, because (id, difficulty, is_active)
-- is a key of courses (see indexes.go).
SELECT cache_watch('chainlearn', 'enrollments',
    'progress:{user_id}',
    'course:{course_id} ON INSERT OR DELETE OR UPDATE OF course_id',
    'catalog:all ON INSERT OR DELETE OR UPDATE OF course_id',
    'catalog:{SELECT difficulty FROM courses WHERE courses.id = enrollments.course_id FOR KEY SHARE}
        ON INSERT OR DELETE OR UPDATE OF course_id');

-- A learner's own quiz adds no module that everybody sees. Submissions find their course
-- through the quiz; where a foreign key does not make them go with it, they lose its title.
SELECT cache_watch('chainlearn', 'quizzes',
    'course:{CASE WHEN generated_for IS NULL THEN course_id END}
        ON INSERT OR DELETE OR UPDATE OF course_id, module_id, generated_for',
    'courses:titles ON UPDATE OF id, course_id',
    'courses:{SELECT DISTINCT ''titles'' FROM quiz_submissions WHERE quiz_id = quizzes.id} ON DELETE');

SELECT cache_watch('chainlearn', 'quiz_submissions',
    'progress:{user_id}',
    'rewards:{user_id}');

SELECT cache_watch('chainlearn', 'credentials',
    'progress:{user_id}',
    'credentials:{user_id}');

SELECT cache_watch('chainlearn', 'revoked_tokens',
    'token:{jti}');
