-- An idempotency key belongs to a learner and an endpoint. A database in which a key alone is
-- unique would let one learner's key stand in the way of another's. The index
-- on (user_id, endpoint, key), built before, takes its place.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
DO $$
DECLARE
    name text;
    constr text;
BEGIN
    FOR name, constr IN
        SELECT indexrelid::regclass::text, (SELECT conname FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u'))
        FROM pg_index
        WHERE indrelid = 'idempotency_keys'::regclass AND indisunique AND indpred IS NULL AND indnkeyatts = 1
            AND indkey[0] = (SELECT attnum FROM pg_attribute WHERE attrelid = indrelid AND attname = 'key')
    LOOP
        IF constr IS NOT NULL THEN
            EXECUTE format('ALTER TABLE idempotency_keys DROP CONSTRAINT %I', constr);
        ELSE
            EXECUTE format('DROP INDEX %s', name);
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd
