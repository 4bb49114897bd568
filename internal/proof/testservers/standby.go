package testservers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
)

// StartStandby starts a standby of the server for the time of the test.
func (p *Postgres) StartStandby(tb testing.TB) *Postgres {
	tb.Helper()
	s, err := p.OpenStandby(context.Background())
	check(tb, err)
	tb.Cleanup(func() { closeAfter(tb, s) })
	return s
}

// OpenStandby copies the server and starts the copy as a standby that follows it
// by streaming replication and answers queries. It returns when the standby
// streams. The caller must Close it.
func (p *Postgres) OpenStandby(ctx context.Context) (*Postgres, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	s, err := startOnFreePort(ctx, &Postgres{cfg: p.cfg, install: p.install, primary: p}, func(s *Postgres) error {
		return s.install.run(ctx, s.dir.path, s.install.program("pg_basebackup"),
			"--host=127.0.0.1", "--port="+strconv.Itoa(p.port.number), "--username=postgres",
			"--pgdata="+s.dataDir(), "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync")
	})
	if err != nil {
		return nil, err
	}
	err = Poll(ctx, func() (bool, string) {
		var status string
		err := s.queryValue(ctx, &status, "SELECT coalesce((SELECT status FROM pg_stat_wal_receiver), 'not connected')")
		return status == "streaming", fmt.Sprintf("the standby's receiver is %q (%v)", status, err)
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

var errNoStandby = errors.New("the PostgreSQL server is no standby")

// PauseReplay makes a standby fall behind: it goes on receiving changes but
// shows none of them. It returns when replay stands.
func (p *Postgres) PauseReplay(ctx context.Context) error {
	if p.primary == nil {
		return errNoStandby
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if err := p.exec(ctx, "SELECT pg_wal_replay_pause()"); err != nil {
		return err
	}
	return Poll(ctx, func() (bool, string) {
		var state string // a request takes effect at the next record
		err := p.queryValue(ctx, &state, "SELECT pg_get_wal_replay_pause_state()")
		return state == "paused", fmt.Sprintf("replay is %q (%v)", state, err)
	})
}

// ResumeReplay lets a standby catch up.
func (p *Postgres) ResumeReplay(ctx context.Context) error {
	if p.primary == nil {
		return errNoStandby
	}
	return p.exec(ctx, "SELECT pg_wal_replay_resume()")
}

// CatchUp waits until a standby shows everything its primary had written when
// it was called.
func (p *Postgres) CatchUp(ctx context.Context) error {
	if p.primary == nil {
		return errNoStandby
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	var target string
	if err := p.primary.queryValue(ctx, &target, "SELECT pg_current_wal_lsn()::text"); err != nil {
		return err
	}
	return Poll(ctx, func() (bool, string) {
		var there bool
		err := p.queryValue(ctx, &there, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", target)
		return there, fmt.Sprintf("the standby has not replayed %s (%v)", target, err)
	})
}

// Promote makes a standby a primary. It returns when it accepts writes. The old
// primary is left as it is.
func (p *Postgres) Promote(ctx context.Context) error {
	if p.primary == nil {
		return errNoStandby
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if err := p.exec(ctx, "SELECT pg_promote(wait => false)"); err != nil {
		return err
	}
	return Poll(ctx, func() (bool, string) {
		standby := true
		err := p.queryValue(ctx, &standby, "SELECT pg_is_in_recovery()")
		return !standby, fmt.Sprintf("the server is still a standby (%v)", err)
	})
}
