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
// What is enough? A load must see every write whose invalidation it will outlive, that is
// every write that was bumped before the load's guard was captured. Such a write was
// committed before its bump, the guard was captured before the load began, and only then
// does the load ask the primary how far its log reaches: so that position lies past the
// commit. (The position is that of insertion, not of flushing: with synchronous_commit
// off a commit is visible before it is flushed.) Once the standby has replayed the log up
// to there, whatever it answers contains the write. Writes bumped later change the
// guard, and what was loaded meanwhile is dead.
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
	pool *pgxpool.Pool
	wait time.Duration
	log  *slog.Logger
	tip  *tip

	mu       sync.Mutex
	restTill time.Time // it is not asked before; guarded by mu
	failing  bool      // the last try failed; guarded by mu
}

func newReplica(primary, pool *pgxpool.Pool, wait time.Duration, log *slog.Logger, crew *crew) *replica {
	return &replica{pool: pool, wait: wait, log: log, tip: newTip(primary, crew)}
}

const (
	// replicaRest is how long a standby that is behind or broken is left alone: loads do
	// not all pay for finding out.
	replicaRest = 250 * time.Millisecond
	// replayPause is between two looks at a standby that is behind.
	replayPause = 2 * time.Millisecond

	caughtUp = `
SELECT pg_is_in_recovery() AND coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)
    AND (SELECT timeline_id FROM pg_control_checkpoint()) = $2::bigint`
)

// load returns false when the primary must answer, whatever the error.
func (r *replica) load(ctx context.Context, query string, args []any, fields []any) (bool, error) {
	if !r.worthAsking() {
		return false, nil
	}
	position, err := r.tip.Do(ctx, struct{}{}, struct{}{})
	if err != nil {
		return false, err
	}
	for deadline := time.Now().Add(r.wait); ; {
		ok, err := r.try(ctx, position, query, args, fields)
		if ok || ctx.Err() != nil {
			return ok, err
		}
		if err != nil || time.Now().After(deadline) {
			r.rest(err)
			return false, err
		}
		if err := pause(ctx, replayPause); err != nil {
			return false, err
		}
	}
}

// try asks once. It returns true if the standby had replayed the position; the error is then
// that of the question, and at most pgx.ErrNoRows.
func (r *replica) try(ctx context.Context, p position, query string, args []any, fields []any) (bool, error) {
	var b pgx.Batch
	var ok bool
	var answer error
	b.Queue(caughtUp, p.lsn, p.timeline).QueryRow(func(row pgx.Row) error { return row.Scan(&ok) })
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
		r.works()
	}
	return ok, answer
}

func (r *replica) close() {
	r.pool.Close()
}

func (r *replica) worthAsking() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().After(r.restTill)
}

// rest leaves the standby alone for a while. err is nil when it is merely behind.
func (r *replica) rest(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restTill = time.Now().Add(replicaRest)
	if !r.failing {
		r.failing = true
		r.log.Warn("replica is behind or broken, the primary answers", "err", err)
	}
}

func (r *replica) works() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failing {
		r.failing = false
		r.log.Info("replica answers again")
	}
}

// position in the primary's log.
type position struct {
	lsn      string
	timeline int64
}

// tip asks the primary how far its log reaches. One question is under way; whoever comes
// meanwhile shares the next, since an answer to one that was asked before they came may
// be too old for them.
type tip = coalesce.Calls[struct{}, struct{}, position]

const tipTimeout = 2 * time.Second

func newTip(primary *pgxpool.Pool, crew *crew) *tip {
	ask := func(ctx context.Context) (p position, err error) {
		ctx, cancel := context.WithTimeout(ctx, tipTimeout)
		defer cancel()
		err = primary.QueryRow(ctx, `
SELECT lsn::text, ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::bigint
FROM pg_current_wal_insert_lsn() AS lsn`).Scan(&p.lsn, &p.timeline)
		return p, err
	}
	return &tip{
		Alone: 1, Most: 1, Wait: tipTimeout,
		One: func(ctx context.Context, _, _ struct{}) (position, error) { return ask(ctx) },
		Many: func(ctx context.Context, _, _ []struct{}) ([]position, error) {
			p, err := ask(ctx)
			return []position{p}, err
		},
		Spawn: crew.spawn, Closed: errClosed,
	}
}
