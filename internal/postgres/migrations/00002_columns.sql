-- Columns that an adopted database lacks. A column without a default is added without
-- rewriting the table, however large.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- When the reward was claimed; NULL for those claimed before this column, which count as
-- claimed when submitted. It has the type of submitted_at, because an index cannot hold
-- what depends on the time zone of the session, as a mixture of the two types would.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER TABLE quiz_submissions ADD COLUMN IF NOT EXISTS claimed_at %s', (
        SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'quiz_submissions'::regclass AND attname = 'submitted_at'));
END
$$;
-- +goose StatementEnd
