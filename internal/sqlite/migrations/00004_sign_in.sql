-- Challenges that wallets have signed in with: each serves once. One that was not used has no
-- row, so asking for challenges fills nothing.

-- +goose Up
-- +goose StatementBegin
CREATE TABLE used_challenges (
    id TEXT PRIMARY KEY NOT NULL,
    expires_at TEXT NOT NULL, -- the row is of no use after it
    CONSTRAINT "used_challenges.expires_at is a time" CHECK (julianday(expires_at) IS NOT NULL)
) STRICT;

CREATE INDEX used_challenges_expiry ON used_challenges (julianday(expires_at));
-- +goose StatementEnd
