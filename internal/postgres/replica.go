package postgres

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache/coalesce"
)

// A replica answers loads in place of the primary, if it knows enough.
//
// What is enough? A load must see every write that was bumped before the load's guard was captured. Such a write was
// committed before its bump, the guard was captured before the load began, and only then
// does the load ask the primary how far its log reaches: so that position lies past the
// commit. (The position is that of insertion, not of flushing: with synchronous_commit
// off a commit is visible before it is flushed.) Once the standby has replayed the log up
// to there, whatever it answers contains the write. Writes bumped later change the
// guard, and what was loaded meanwhile is invalid.
//
// The standby tells how far it is in the same round trip as its answer, but by a statement
// of its own, before: within one statement, the snapshot would be older than the position.
// It must be on the primary's timeline, too: a standby that was left behind by a failover
// has a log of its own, whose positions say nothing. (A standby learns that it has
// moved to a new timeline at its next restart point; until then it is not used.)
//
// So a load costs a cheap question to the primary, shared by all loads that wait for it,
// and one to the standby, which does the work.
type replica struct {
	pool        *pgxpool.Pool
	catchUpWait time.Duration
	log         *slog.Logger
	walPosition *walPositionReader

	mu           sync.Mutex
	backOffUntil time.Time // no calls before; guarded by mu
	failing      bool      // the last try failed; guarded by mu
}

func newReplica(primary, pool *pgxpool.Pool, wait time.Duration, log *slog.Logger, group *goroutineGroup) *replica {
	return &replica{pool: pool, catchUpWait: wait, log: log, walPosition: newWALPositionReader(primary, group)}
}

const (
	// replicaBackOff is how long a standby that is behind or broken is not asked: most
	// loads then do not pay for finding out.
	replicaBackOff = 250 * time.Millisecond
	// replayPollInterval is between two checks of a standby that is behind.
	replayPollInterval = 2 * time.Millisecond

	caughtUpQuery = `
SELECT pg_is_in_recovery() AND coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)
    AND (SELECT timeline_id FROM pg_control_checkpoint()) = $2::bigint`
)

// load returns false when the primary must answer, whatever the error.
func (r *replica) load(ctx context.Context, query string, args []any, fields []any) (bool, error) {
	if !r.available() {
		return false, nil
	}
	position, err := r.walPosition.Do(ctx, struct{}{}, struct{}{})
	if err != nil {
		return false, err
	}
	for deadline := time.Now().Add(r.catchUpWait); ; {
		ok, err := r.loadOnce(ctx, position, query, args, fields)
		if ok || ctx.Err() != nil {
			return ok, err
		}
		if err != nil || time.Now().After(deadline) {
			r.backOff(err)
			return false, err
		}
		if err := sleep(ctx, replayPollInterval); err != nil {
			return false, err
		}
	}
}

// loadOnce asks once. It returns true if the standby had replayed the position; the error is then
// that of the question, and at most pgx.ErrNoRows.
func (r *replica) loadOnce(ctx context.Context, p walPosition, query string, args []any, fields []any) (bool, error) {
	var b pgx.Batch
	var ok bool
	var answer error
	b.Queue(caughtUpQuery, p.lsn, p.timeline).QueryRow(func(row pgx.Row) error { return row.Scan(&ok) })
	b.Queue(query, args...).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		if !ok {
			return nil
		}
		_, answer = pgx.CollectOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
			return struct{}{}, row.Scan(fields...)
		})
		if errors.Is(answer, pgx.ErrNoRows) {
			return nil
		}
		return answer
	})
	if err := r.pool.SendBatch(ctx, &b).Close(); err != nil {
		return false, err
	}
	if ok {
		r.markWorking()
	}
	return ok, answer
}

func (r *replica) close() {
	r.pool.Close()
}

func (r *replica) available() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().After(r.backOffUntil)
}

// backOff stops asking the standby for replicaBackOff. err is nil when it is merely behind.
func (r *replica) backOff(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backOffUntil = time.Now().Add(replicaBackOff)
	if !r.failing {
		r.failing = true
		r.log.Warn("replica is behind or broken, the primary answers", "err", err)
	}
}

func (r *replica) markWorking() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failing {
		r.failing = false
		r.log.Info("replica answers again")
	}
}

// walPosition is a position in the primary's write-ahead log.
type walPosition struct {
	lsn      string
	timeline int64
}

// walPositionReader asks the primary for its WAL position. One call is under way. Callers that
// arrive meanwhile share the next: the result of a call that began before they arrived may be
// too old for them.
type walPositionReader = coalesce.Calls[struct{}, struct{}, walPosition]

const walPositionTimeout = 2 * time.Second

func newWALPositionReader(primary *pgxpool.Pool, group *goroutineGroup) *walPositionReader {
	ask := func(ctx context.Context) (p walPosition, err error) {
		ctx, cancel := context.WithTimeout(ctx, walPositionTimeout)
		defer cancel()
		err = primary.QueryRow(ctx, `
SELECT lsn::text, ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::bigint
FROM pg_current_wal_insert_lsn() AS lsn`).Scan(&p.lsn, &p.timeline)
		return p, err
	}
	return &walPositionReader{
		Alone: 1, Most: 1, Wait: walPositionTimeout,
		One: func(ctx context.Context, _, _ struct{}) (walPosition, error) { return ask(ctx) },
		Many: func(ctx context.Context, _, _ []struct{}) ([]walPosition, error) {
			p, err := ask(ctx)
			return []walPosition{p}, err
		},
		Spawn: group.start, Closed: errClosed,
	}
}
