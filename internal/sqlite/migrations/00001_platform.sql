-- The platform's tables. Defaults are those of its PostgreSQL schema, so that a row
-- inserted by hand needs no more columns here than there.
--
-- IDs are lower-case UUIDs. Times are ISO 8601 texts, in UTC unless they say otherwise; the
-- service writes them with milliseconds, and reads whatever julianday() understands, such
-- as datetime('now') gives. Indexes and ORDER BY therefore go by julianday().
-- Booleans are 0 and 1.

-- +goose Up
-- +goose StatementBegin
CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    stellar_address TEXT NOT NULL UNIQUE,
    display_name TEXT,
    background TEXT,
    learning_goal TEXT,
    pace TEXT NOT NULL DEFAULT 'medium',
    language TEXT NOT NULL DEFAULT 'en',
    credits INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    CONSTRAINT "users.id is a lower-case UUID" CHECK (length(id) = 36 AND id = lower(id)),
    CONSTRAINT "users.stellar_address has at most 56 characters" CHECK (length(stellar_address) <= 56),
    CONSTRAINT "users.pace is slow, medium or fast" CHECK (pace IN ('slow', 'medium', 'fast')),
    CONSTRAINT "users.created_at is a time" CHECK (julianday(created_at) IS NOT NULL),
    CONSTRAINT "users.updated_at is a time" CHECK (julianday(updated_at) IS NOT NULL)
) STRICT;

CREATE TABLE courses (
    id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    title TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    difficulty TEXT NOT NULL DEFAULT 'beginner',
    content_hash TEXT,
    is_active INTEGER NOT NULL DEFAULT 1,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    CONSTRAINT "courses.id is a lower-case UUID" CHECK (length(id) = 36 AND id = lower(id)),
    CONSTRAINT "courses.difficulty is beginner, intermediate or advanced" CHECK (difficulty IN ('beginner', 'intermediate', 'advanced')),
    CONSTRAINT "courses.is_active is 0 or 1" CHECK (is_active IN (0, 1)),
    CONSTRAINT "courses.created_at is a time" CHECK (julianday(created_at) IS NOT NULL)
) STRICT;

-- The pages of the catalogue, in order, and how many there are.
CREATE INDEX courses_newest ON courses (julianday(created_at) DESC, id) WHERE is_active = 1;
CREATE INDEX courses_newest_of_difficulty ON courses (difficulty, julianday(created_at) DESC, id) WHERE is_active = 1;

-- Titles and order of a course's modules. A module without a row here has them from its id.
CREATE TABLE modules (
    course_id TEXT NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    module_id TEXT NOT NULL,
    title TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (course_id, module_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE enrollments (
    id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    course_id TEXT NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    enrolled_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    completed_at TEXT,
    UNIQUE (user_id, course_id),
    CONSTRAINT "enrollments.id is a lower-case UUID" CHECK (length(id) = 36 AND id = lower(id)),
    CONSTRAINT "enrollments.enrolled_at is a time" CHECK (julianday(enrolled_at) IS NOT NULL),
    CONSTRAINT "enrollments.completed_at is a time" CHECK (completed_at IS NULL OR julianday(completed_at) IS NOT NULL)
) STRICT;

-- Every list and detail counts a course's enrolments: without this, by reading them all.
CREATE INDEX enrollments_of_course ON enrollments (course_id);

CREATE TABLE quizzes (
    id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    course_id TEXT NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    module_id TEXT NOT NULL,
    questions TEXT NOT NULL, -- JSON: [{"id", "text", "options": […], "correctIndex"}]
    generated_for TEXT REFERENCES users (id) ON DELETE CASCADE, -- NULL: defines the module
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    CONSTRAINT "quizzes.id is a lower-case UUID" CHECK (length(id) = 36 AND id = lower(id)),
    CONSTRAINT "quizzes.module_id has at most 100 characters" CHECK (length(module_id) <= 100),
    CONSTRAINT "quizzes.questions is a JSON array" CHECK (json_valid(questions) AND json_type(questions) = 'array'),
    CONSTRAINT "quizzes.created_at is a time" CHECK (julianday(created_at) IS NOT NULL)
) STRICT;

CREATE INDEX quizzes_of_module ON quizzes (course_id, generated_for, module_id);
CREATE INDEX quizzes_of_learner ON quizzes (generated_for) WHERE generated_for IS NOT NULL;

CREATE TABLE quiz_submissions (
    id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    quiz_id TEXT NOT NULL REFERENCES quizzes (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    answers TEXT NOT NULL, -- JSON: [{"questionId", "selectedIndex"}]
    score INTEGER NOT NULL, -- right answers
    feedback TEXT NOT NULL DEFAULT '',
    reward_claimed INTEGER NOT NULL DEFAULT 0,
    reward_pending INTEGER NOT NULL DEFAULT 0,
    reward_failed INTEGER NOT NULL DEFAULT 0,
    reward_amount INTEGER,
    tx_hash TEXT,
    submitted_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    claimed_at TEXT,
    UNIQUE (quiz_id, user_id),
    CONSTRAINT "quiz_submissions.id is a lower-case UUID" CHECK (length(id) = 36 AND id = lower(id)),
    CONSTRAINT "quiz_submissions.answers is a JSON array" CHECK (json_valid(answers) AND json_type(answers) = 'array'),
    CONSTRAINT "quiz_submissions.score is not negative" CHECK (score >= 0),
    CONSTRAINT "quiz_submissions.reward_* are 0 or 1" CHECK (reward_claimed IN (0, 1) AND reward_pending IN (0, 1) AND reward_failed IN (0, 1)),
    CONSTRAINT "at most one of quiz_submissions.reward_* is set" CHECK (reward_claimed + reward_pending + reward_failed <= 1),
    CONSTRAINT "quiz_submissions.submitted_at is a time" CHECK (julianday(submitted_at) IS NOT NULL),
    CONSTRAINT "quiz_submissions.claimed_at is a time" CHECK (claimed_at IS NULL OR julianday(claimed_at) IS NOT NULL)
) STRICT;

CREATE INDEX quiz_submissions_of_user ON quiz_submissions (user_id);
CREATE INDEX quiz_submissions_claimed ON quiz_submissions (user_id, julianday(coalesce(claimed_at, submitted_at)) DESC, id) WHERE reward_claimed = 1;

CREATE TABLE credentials (
    id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    course_id TEXT NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    score INTEGER NOT NULL,
    nft_asset_code TEXT,
    nft_issuer TEXT,
    mint_tx_hash TEXT,
    revoked INTEGER NOT NULL DEFAULT 0,
    minted_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (user_id, course_id),
    CONSTRAINT "credentials.id is a lower-case UUID" CHECK (length(id) = 36 AND id = lower(id)),
    CONSTRAINT "credentials.revoked is 0 or 1" CHECK (revoked IN (0, 1)),
    CONSTRAINT "credentials.minted_at is a time" CHECK (julianday(minted_at) IS NOT NULL)
) STRICT;

CREATE INDEX credentials_of_user ON credentials (user_id, julianday(minted_at) DESC, id);
CREATE INDEX credentials_of_course ON credentials (course_id);

CREATE TABLE idempotency_keys (
    key TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    endpoint TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    response_status INTEGER NOT NULL,
    response_body TEXT NOT NULL, -- JSON
    tx_hash TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    expires_at TEXT NOT NULL,
    PRIMARY KEY (user_id, endpoint, key),
    CONSTRAINT "idempotency_keys.created_at is a time" CHECK (julianday(created_at) IS NOT NULL),
    CONSTRAINT "idempotency_keys.expires_at is a time" CHECK (julianday(expires_at) IS NOT NULL)
) STRICT;

CREATE INDEX idempotency_keys_expiry ON idempotency_keys (julianday(expires_at));

CREATE TABLE revoked_tokens (
    jti TEXT PRIMARY KEY NOT NULL,
    expires_at TEXT NOT NULL,
    CONSTRAINT "revoked_tokens.expires_at is a time" CHECK (julianday(expires_at) IS NOT NULL)
) STRICT;

CREATE INDEX revoked_tokens_expiry ON revoked_tokens (julianday(expires_at));
-- +goose StatementEnd
