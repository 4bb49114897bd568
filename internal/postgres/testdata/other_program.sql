-- A database made by another program: the columns that are documented, other types and names where
-- nothing is said, no foreign keys, and rows.

CREATE TABLE users (id uuid PRIMARY KEY, stellar_address varchar(56) UNIQUE, display_name text, background text, learning_goal text,
    pace text DEFAULT 'medium', language text DEFAULT 'en', credits int DEFAULT 0, created_at timestamp DEFAULT now(), updated_at timestamp DEFAULT now());
CREATE TABLE courses (id uuid PRIMARY KEY, title text NOT NULL, description text, difficulty text DEFAULT 'beginner',
    content_hash text, is_active boolean DEFAULT true, created_at timestamp DEFAULT now());
CREATE TABLE enrollments (id uuid PRIMARY KEY, user_id uuid, course_id uuid, enrolled_at timestamp DEFAULT now(), completed_at timestamp);
CREATE UNIQUE INDEX one_enrollment ON enrollments (user_id, course_id);
CREATE TABLE quizzes (id uuid PRIMARY KEY, course_id uuid, module_id varchar(100), questions jsonb, generated_for uuid, created_at timestamp DEFAULT now());
CREATE TABLE quiz_submissions (id uuid PRIMARY KEY, quiz_id uuid, user_id uuid, answers jsonb, score int, feedback text,
    reward_claimed boolean DEFAULT false, reward_pending boolean DEFAULT false, reward_failed boolean DEFAULT false,
    reward_amount int, tx_hash text, submitted_at timestamp DEFAULT now(), UNIQUE (quiz_id, user_id));
CREATE TABLE credentials (id uuid PRIMARY KEY, user_id uuid, course_id uuid, score int, nft_asset_code text, nft_issuer text,
    mint_tx_hash text, revoked boolean DEFAULT false, minted_at timestamp DEFAULT now(), UNIQUE (user_id, course_id));
CREATE TABLE idempotency_keys (key text PRIMARY KEY, user_id uuid, endpoint text, request_hash text, response_status int,
    response_body jsonb, tx_hash text, created_at timestamp DEFAULT now(), expires_at timestamp);

INSERT INTO users (id, stellar_address) SELECT md5('u' || i)::uuid, 'G' || i FROM generate_series(1, 5000) i;
INSERT INTO courses (id, title) SELECT md5('c' || i)::uuid, 'Course ' || i FROM generate_series(1, 100) i;
INSERT INTO enrollments (id, user_id, course_id) SELECT md5('e' || i)::uuid, md5('u' || i % 5000 + 1)::uuid, md5('c' || i / 5000 + 1)::uuid FROM generate_series(0, 24999) i;
INSERT INTO quizzes (id, course_id, module_id, questions) SELECT md5('q' || i)::uuid, md5('c' || i)::uuid, 'module-1', '[{"id":"q1","text":"?","options":["a","b"],"correctIndex":0}]' FROM generate_series(1, 100) i;
INSERT INTO quiz_submissions (id, quiz_id, user_id, answers, score, reward_claimed, submitted_at) SELECT md5('s' || i)::uuid, md5('q1')::uuid, md5('u' || i)::uuid, '[]', 1, i % 2 = 0, '2026-01-02 03:04:05' FROM generate_series(1, 5000) i;
