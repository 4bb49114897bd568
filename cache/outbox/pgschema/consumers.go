package pgschema

import "fmt"

// How rows and consumers meet, and why no consumer loses one.
//
// A row may go when every registered consumer has got it. Writers and triggers know nothing
// of consumers: a new row is one that no consumer has got. Which are registered and which have
// got what is judged by single statements, each in one snapshot:
//
//	A is alone                                  DELETE the rows, unless the snapshot shows
//	                                            another consumer; bump; COMMIT
//	A and B                                     read the rows that A has not got; bump;
//	                                            note that A has got them; DELETE those that
//	                                            the snapshot shows every consumer to have got
//
// A consumer that the snapshot of a DELETE does not show has joined later than all the rows
// that it deletes were committed. The statement that registers a consumer also records a row that
// invalidates everything in its store, so it needs none of these rows. A consumer that the snapshot does show has got the rows, or they stay.
//
// Two consumers may get a row at the same time, and neither DELETE shows what the other noted:
// each notes first, in a transaction of its own, and deletes then, so the later of the two
// sees both. A process that dies between the two leaves a row that all have got; Join removes it.
//
// Relays of one consumer may both deliver a row while there are other consumers: locks would
// make one consumer wait for the store of another. That costs a bump and loses nothing. So does
// a consumer that joins again: it is handed rows that its predecessor by that name has got.
//
// In all statements but those of DeleteLeft $1 is the consumer. In Look, ClaimRows and ReadRows $2 is what the marks of its
// own writers begin with (outbox.MarkOf), $3 the grace in seconds, $4 how many rows at most.
//
// The statements do not trust the planner. It knows nothing of tables that fill and empty between two
// visits of autovacuum, and it may have made its plan when they were empty: then it compares each row
// with each. While a consumer is away there are tens of thousands of both. So rows and notes meet by
// sorting or hashing alone, which EXCEPT, a window and GROUP BY leave no choice about. What finds rows by
// their ids is to be planned each time it runs (Replan), or it reads the whole table for each.
const (
	// Replan has the statements of a transaction planned each time. ClaimRows, NoteRows, DeleteRows
	// and those of DeleteLeft need it.
	Replan = `SELECT set_config('plan_cache_mode', 'force_custom_plan', true)`

	// rowAge is the age of a row in seconds. Any program may have recorded it, at any time: one without an age is
	// as old as can be. An error would keep all other rows from being delivered.
	rowAge = `extract(epoch FROM clock_timestamp() - CASE WHEN isfinite(o.recorded_at) THEN o.recorded_at ELSE 'epoch' END)`

	// due are the rows that no writer will deliver to this consumer's store ($2 is what the
	// marks of its own writers begin with), or that their writer should have delivered by
	// now. A row of the future is one from before the server's clock was set back.
	due = `(o.mark IS NULL OR substr(o.mark, 1, 8) <> $2::bytea
	OR ` + rowAge + ` NOT BETWEEN 0 AND $3::float8)`

	others = `EXISTS (SELECT FROM cache_consumers WHERE name <> $1::text)`

	// Look gives whether the consumer is registered, whether others are, and whether rows are due
	// to it.
	Look = `SELECT EXISTS (SELECT FROM cache_consumers WHERE name = $1::text), ` + others + `,
	EXISTS (SELECT o.id FROM cache_outbox o WHERE ` + due + ` EXCEPT SELECT d.row_id FROM cache_delivered d WHERE d.consumer = $1::text)`

	// One more than driver.MaxTag: what is no tag for its length needs no more of it to show that.
	row = `o.id, left(o.tag, 201) AS tag, o.mark, ` + rowAge + `::float8 AS age`

	// missing begins a list of rows that the consumer has not got: those that stand alone among
	// themselves and what is noted.
	missing = `SELECT id, tag, mark, age FROM (
	SELECT id, tag, mark, age, count(*) OVER (PARTITION BY id) AS n FROM (
		SELECT ` + row + ` FROM cache_outbox o WHERE `
	missingEnd = `
		UNION ALL
		SELECT d.row_id, NULL, NULL, NULL FROM cache_delivered d WHERE d.consumer = $1::text) AS all_of_them) AS counted
	WHERE n = 1 AND tag IS NOT NULL ORDER BY id`

	// ClaimRows deletes and gives up to $4 rows that are due to a consumer that is alone.
	// An array, not IN: a join may run a subquery with a LIMIT more than once. The rows are
	// deleted before they are delivered, because that is a round trip less and keeps
	// other relays off them just as well; nothing is gone before the commit. What is noted is what others
	// have left behind: for one that was never together with another it is nothing.
	ClaimRows = `DELETE FROM cache_outbox o WHERE o.id = ANY (ARRAY(
	SELECT o.id FROM cache_outbox o
	WHERE NOT ` + others + ` AND ` + due + ` AND o.id <> ALL (ARRAY(
		SELECT d.row_id FROM cache_delivered d WHERE d.consumer = $1::text))
	ORDER BY o.id LIMIT $4::int FOR UPDATE OF o SKIP LOCKED))
RETURNING ` + row

	// ReadRows gives up to $4 rows that are due to one of several consumers.
	ReadRows = missing + due + missingEnd + ` LIMIT $4::int`

	// NoteRows notes that the consumer has got rows ($2). It does nothing for a consumer that is alone.
	NoteRows = `INSERT INTO cache_delivered (row_id, consumer)
	SELECT o.id, $1::text FROM cache_outbox o WHERE o.id = ANY ($2::bigint[]) AND ` + others + `
	ON CONFLICT DO NOTHING`

	// everyoneHas is true of a row of which each registered consumer but $1, which has got it
	// in any case, is noted to have got it. It counts: the planner takes an anti-join of two
	// tables it knows nothing of to be so dear that it compiles the statement (jit_above_cost),
	// which takes a hundred times as long as running it.
	everyoneHas = `(NOT ` + others + ` OR
		(SELECT count(*) FROM cache_delivered d WHERE d.row_id = o.id
			AND d.consumer = ANY (ARRAY(SELECT name FROM cache_consumers WHERE name <> $1::text)))
		= (SELECT count(*) FROM cache_consumers WHERE name <> $1::text))`

	// DeleteRows deletes those of the rows ($2) that all have got. It leaves
	// alone what a relay is delivering at this moment.
	DeleteRows = `WITH gone AS (
	DELETE FROM cache_outbox WHERE id = ANY (ARRAY(
		SELECT o.id FROM cache_outbox o WHERE o.id = ANY ($2::bigint[]) AND ` + everyoneHas + `
		FOR UPDATE OF o SKIP LOCKED))
	RETURNING id)
DELETE FROM cache_delivered WHERE row_id = ANY ($2::bigint[]) AND row_id IN (SELECT id FROM gone)`
)

// Register records that the consumer is alive. One that was not registered is left a row that the
// others have got already; one that joins at the same moment gets it too, without harm.
const Register = `WITH me AS (
	INSERT INTO cache_consumers AS c (name) VALUES ($1::text)
	ON CONFLICT (name) DO UPDATE SET seen_at = clock_timestamp()
	RETURNING c.xmax = 0 AS joined
), everything AS (
	INSERT INTO cache_outbox (tag) SELECT $2::text FROM me WHERE joined RETURNING id
), others AS (
	INSERT INTO cache_delivered (row_id, consumer)
	SELECT e.id, c.name FROM everything e, cache_consumers c WHERE c.name <> $1::text
)
SELECT joined FROM me`

const (
	// Forget gives the names of the consumers that it forgets: those that have been silent for $2
	// seconds.
	Forget = `DELETE FROM cache_consumers
	WHERE name <> $1::text AND seen_at < clock_timestamp() - make_interval(secs => $2::float8) RETURNING name`

	// Leave forgets the consumer itself.
	Leave = `DELETE FROM cache_consumers WHERE name = $1::text`

	// forgetNotes and deleteLeft remove what was noted for rows that are gone, and the rows that all
	// registered consumers have got by now: $1 rows at most.
	forgetNotes = `DELETE FROM cache_delivered WHERE row_id = ANY (ARRAY(
	SELECT row_id FROM cache_delivered EXCEPT SELECT id FROM cache_outbox ORDER BY 1 LIMIT $1::int))`
	deleteLeft = `DELETE FROM cache_outbox WHERE id = ANY (ARRAY(
	SELECT o.id FROM cache_outbox o WHERE o.id = ANY (ARRAY(
		SELECT d.row_id FROM cache_delivered d WHERE d.consumer = ANY (ARRAY(SELECT name FROM cache_consumers))
		GROUP BY d.row_id HAVING count(*) = (SELECT count(*) FROM cache_consumers)
		ORDER BY 1 LIMIT $1::int)) FOR UPDATE OF o SKIP LOCKED))`

	// Joined says whether a consumer is registered.
	Joined = `SELECT EXISTS (SELECT FROM cache_consumers WHERE name = $1::text)`

	// Backlog counts the rows that the consumer has not got, up to $2, and gives the age of the oldest.
	Backlog = `SELECT count(*), coalesce(max(abs(age)), 0)::float8
	FROM (` + missing + `true` + missingEnd + ` LIMIT $2::int) AS oldest`

	// CountedRows bounds what Backlog costs.
	CountedRows = 100_000

	// DoneAtOnce is the most rows that NoteRows and DeleteRows take at once: with more the planner would
	// have them compiled.
	DoneAtOnce = 500
)

// LeftAtOnce is how many rows DeleteLeft asks for at a time.
const LeftAtOnce = 1000

// DeleteLeft removes what consumers leave behind. do carries out a statement for some rows, with a plan
// that is made for it (Replan), and returns how many it deleted: of the notes there may be several for each row.
func DeleteLeft(do func(statement string, rows int) (deleted int64, err error)) error {
	for {
		// Notes first, each time: those of rows that are gone would hide what deleteLeft has yet to find.
		forgotten, err := do(forgetNotes, LeftAtOnce)
		if err == nil && forgotten >= LeftAtOnce {
			continue
		}
		var deleted int64
		if err == nil {
			deleted, err = do(deleteLeft, LeftAtOnce)
		}
		if err != nil {
			return fmt.Errorf("delete outbox rows that all consumers have got: %w", err)
		}
		if deleted == 0 {
			return nil
		}
	}
}
