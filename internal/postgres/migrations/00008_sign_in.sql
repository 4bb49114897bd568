-- Challenges that wallets have signed in with: each serves once. One that was not used has no
-- row, so asking for challenges fills nothing.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE IF NOT EXISTS used_challenges (
    id         uuid        PRIMARY KEY,
    expires_at timestamptz NOT NULL -- the row is of no use after it
);

CREATE INDEX IF NOT EXISTS used_challenges_expiry ON used_challenges (expires_at);
