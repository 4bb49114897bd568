-- The platform's tables, where they are not there yet. A database that already holds them
-- keeps its own, constraints and defaults included; the next migrations add what it lacks.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE IF NOT EXISTS users (
    id              uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    stellar_address varchar(56)  NOT NULL UNIQUE,
    display_name    varchar(100),
    background      text,
    learning_goal   text,
    pace            varchar(20)  NOT NULL DEFAULT 'medium' CHECK (pace IN ('slow', 'medium', 'fast')),
    language        varchar(10)  NOT NULL DEFAULT 'en',
    credits         integer      NOT NULL DEFAULT 0,
    created_at      timestamptz  NOT NULL DEFAULT now(),
    updated_at      timestamptz  NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS courses (
    id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    title        text        NOT NULL,
    description  text        NOT NULL DEFAULT '',
    difficulty   varchar(20) NOT NULL DEFAULT 'beginner' CHECK (difficulty IN ('beginner', 'intermediate', 'advanced')),
    content_hash text,
    is_active    boolean     NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Titles and order of a course's modules. A module without a row here has them from its id.
CREATE TABLE IF NOT EXISTS modules (
    course_id uuid         NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    module_id varchar(100) NOT NULL,
    title     text         NOT NULL,
    position  integer      NOT NULL,
    PRIMARY KEY (course_id, module_id)
);

CREATE TABLE IF NOT EXISTS enrollments (
    id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id      uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    course_id    uuid        NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    enrolled_at  timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    UNIQUE (user_id, course_id)
);

CREATE TABLE IF NOT EXISTS quizzes (
    id            uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    course_id     uuid         NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    module_id     varchar(100) NOT NULL,
    questions     jsonb        NOT NULL CHECK (jsonb_typeof(questions) = 'array'), -- of {"id", "text", "options", "correctIndex"}
    generated_for uuid         REFERENCES users (id) ON DELETE CASCADE, -- NULL: defines the module
    created_at    timestamptz  NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS quiz_submissions (
    id             uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    quiz_id        uuid        NOT NULL REFERENCES quizzes (id) ON DELETE CASCADE,
    user_id        uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    answers        jsonb       NOT NULL, -- of {"questionId", "selectedIndex"}
    score          integer     NOT NULL CHECK (score >= 0), -- right answers
    feedback       text        NOT NULL DEFAULT '',
    reward_claimed boolean     NOT NULL DEFAULT false,
    reward_pending boolean     NOT NULL DEFAULT false,
    reward_failed  boolean     NOT NULL DEFAULT false,
    reward_amount  integer,
    tx_hash        text,
    submitted_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (quiz_id, user_id),
    CHECK (reward_claimed::integer + reward_pending::integer + reward_failed::integer <= 1)
);

CREATE TABLE IF NOT EXISTS credentials (
    id             uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id        uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    course_id      uuid        NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    score          integer     NOT NULL,
    nft_asset_code text,
    nft_issuer     text,
    mint_tx_hash   text,
    revoked        boolean     NOT NULL DEFAULT false,
    minted_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, course_id)
);

CREATE TABLE IF NOT EXISTS idempotency_keys (
    key             varchar(255) NOT NULL,
    user_id         uuid         NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    endpoint        varchar(255) NOT NULL,
    request_hash    varchar(64)  NOT NULL,
    response_status integer      NOT NULL,
    response_body   json         NOT NULL, -- json, not jsonb: the same answer again is the same to the byte
    tx_hash         text,
    created_at      timestamptz  NOT NULL DEFAULT now(),
    expires_at      timestamptz  NOT NULL,
    PRIMARY KEY (user_id, endpoint, key)
);

CREATE TABLE IF NOT EXISTS revoked_tokens (
    jti        text        PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
