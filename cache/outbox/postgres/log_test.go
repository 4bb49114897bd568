package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func openLog(t *testing.T, p *pgxpool.Pool, logger *slog.Logger) *Log {
	t.Helper()
	l := NewLog(p, logger)
	t.Cleanup(func() { testservers.Must(t, l.Close()) })
	return l
}

// join registers consumers, and removes the row that invalidates everything.
func join(t *testing.T, l *Log, consumers ...string) {
	t.Helper()
	for _, c := range consumers {
		if _, _, err := l.Join(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		run(t, l.pool, `WITH gone AS (DELETE FROM cache_outbox WHERE tag = '*' RETURNING id)
			DELETE FROM cache_delivered WHERE row_id IN (SELECT id FROM gone)`)
	}
}

// deliver collects what is delivered.
func deliver(t *testing.T, l *Log, grace time.Duration, most int) (rows []outbox.Row) {
	t.Helper()
	n, err := l.Deliver(t.Context(), "a", grace, most, func(_ context.Context, r []outbox.Row) error {
		rows = r
		return nil
	})
	testservers.Must(t, err)
	if n != len(rows) {
		t.Errorf("Deliver says %d, and delivered %d", n, len(rows))
	}
	return rows
}

func TestDeliver(t *testing.T) {
	t.Parallel()
	url := database(t)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	if _, err := l.Deliver(t.Context(), "a", 0, 10, nil); !errors.Is(err, outbox.ErrNotJoined) {
		t.Errorf("before it joined: %v, want ErrNotJoined", err)
	}
	join(t, l, "a")
	if rows := deliver(t, l, 0, 10); rows != nil {
		t.Errorf("an empty outbox delivered %v", rows)
	}
	run(t, conn,
		`INSERT INTO cache_outbox (tag, mark, recorded_at) VALUES
			('stranger:1', NULL, clock_timestamp()),
			('young:1', substr(sha256('a'), 1, 8) || '\x0101010101010101', clock_timestamp()),
			('old:1', substr(sha256('a'), 1, 8) || '\x0202020202020202', clock_timestamp() - interval '1 hour')`)

	broken := errors.New("broken")
	if _, err := l.Deliver(t.Context(), "a", time.Minute, 10, func(context.Context, []outbox.Row) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want what bump returned", err)
	}
	if n, age, err := l.Backlog(t.Context(), "a"); err != nil || n != 3 || age < time.Hour || age > time.Hour+time.Minute {
		t.Errorf("backlog: %d rows, oldest %v (%v); want 3, an hour", n, age, err)
	}

	rows := deliver(t, l, time.Minute, 10)
	slices.SortFunc(rows, func(a, b outbox.Row) int { return strings.Compare(string(a.Tag), string(b.Tag)) })
	if len(rows) != 2 || rows[0].Tag != "old:1" || rows[0].Mark[15] != 2 || rows[0].Age < time.Hour ||
		rows[1].Tag != "stranger:1" || rows[1].Mark != driver.NoMark {
		t.Fatalf("delivered %v, want the stranger's and the old one", rows)
	}
	if got := taken(t, conn); !slices.Equal(got, []string{"young:1"}) {
		t.Errorf("left %v", got)
	}
	if n, age, err := l.Backlog(t.Context(), "a"); err != nil || n != 0 || age != 0 {
		t.Errorf("backlog of nothing: %d, %v, %v", n, age, err)
	}
}

// Two relays of one store never hold the same row while it is alone, and neither waits for the
// other; nor does a writer that is done with its rows.
func TestClaimsDoNotOverlap(t *testing.T) {
	t.Parallel()
	url := database(t, `SELECT cache_record(VARIADIC array_agg('t:' || i)) FROM generate_series(1, 10) i`)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	join(t, l, "a")
	ids := ask[[]int64](t, conn, `SELECT array_agg(id) FROM cache_outbox`)
	seen := map[int64]bool{}
	n, err := l.Deliver(t.Context(), "a", 0, 4, func(ctx context.Context, first []outbox.Row) error {
		for _, r := range first {
			seen[r.ID] = true
		}
		for _, r := range deliver(t, l, 0, 3) {
			if seen[r.ID] {
				t.Errorf("row %d was claimed twice", r.ID)
			}
			seen[r.ID] = true
		}
		return l.Done(ctx, "a", ids)
	})
	testservers.Must(t, err)
	if n != 4 || len(seen) != 7 {
		t.Errorf("claimed %d rows, in all %d; want 4 and 7", n, len(seen))
	}
	if got := taken(t, conn); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// A transaction that records first and commits last is found after those that overtook it.
func TestLateCommitIsFound(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	slow, quick, l := connect(t, url), connect(t, url), openLog(t, pool(t, url), nil)
	join(t, l, "a")
	run(t, slow, `BEGIN`, `INSERT INTO items VALUES (11)`)
	run(t, quick, `INSERT INTO items VALUES (12)`)
	if rows := deliver(t, l, 0, 10); len(rows) != 1 || rows[0].Tag != "item:12" {
		t.Fatalf("delivered %v beside an open transaction", rows)
	}
	run(t, slow, `COMMIT`)
	if rows := deliver(t, l, 0, 10); len(rows) != 1 || rows[0].Tag != "item:11" {
		t.Errorf("delivered %v after the late commit", rows)
	}
}

func TestDoneInBatches(t *testing.T) {
	t.Parallel()
	url := database(t, `INSERT INTO cache_outbox (tag) SELECT 't:' || i FROM generate_series(1, 2500) i`)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	testservers.Must(t, l.Done(t.Context(), "a", nil))
	testservers.Must(t, l.Done(t.Context(), "a", ask[[]int64](t, conn, `SELECT array_agg(id) || 999999 FROM cache_outbox WHERE id <> 7`)))
	if got := taken(t, conn); !slices.Equal(got, []string{"t:7"}) {
		t.Errorf("left %d rows", len(got))
	}
}

// listening waits until the log hears, and takes the signal that says so.
func listening(t *testing.T, l *Log) {
	t.Helper()
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := l.Wait(ctx)
		return err == nil, "notifications do not arrive yet"
	})
}

func TestWaitHearsStrangers(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	if err := l.Wait(t.Context()); !errors.Is(err, ErrNotListening) {
		t.Errorf("before it is connected: %v, want ErrNotListening", err)
	}
	listening(t, l)

	silence, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Wait(silence); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing happened, and Wait returned %v", err)
	}
	var woken time.Duration
	var wg sync.WaitGroup
	began := time.Now()
	wg.Go(func() {
		if err := l.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		woken = time.Since(began)
	})
	run(t, conn, `INSERT INTO items VALUES (11)`)
	wg.Wait()
	t.Logf("woken after %v", woken)

	// What is announced while no caller waits is not lost.
	run(t, conn, `INSERT INTO items VALUES (12)`)
	testservers.Must(t, l.Wait(t.Context()))
}

func TestListenerIsReplacedWhenItsConnectionDies(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	var out lockedBuffer
	conn, l := connect(t, url), openLog(t, pool(t, url), slog.New(slog.NewTextHandler(&out, nil)))
	_ = l.Wait(t.Context())
	listening(t, l)
	run(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND query ILIKE 'listen cache_outbox;%'`)
	// No process heard what happened meanwhile, so Wait says that there may be something.
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		return strings.Contains(out.String(), "listened to again"), "notifications do not arrive yet"
	})
	testservers.Must(t, l.Wait(t.Context()))
	silence, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Wait(silence); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing happened, and Wait returned %v", err)
	}
	run(t, conn, `INSERT INTO items VALUES (11)`)
	testservers.Must(t, l.Wait(t.Context()))
	testservers.Must(t, l.Close())
	for _, want := range []string{"polled instead of listened to", "listened to again"} {
		if n := strings.Count(out.String(), want); n != 1 {
			t.Errorf("the log says %d times %q, want once:\n%s", n, want, &out)
		}
	}
	if err := l.Wait(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A program that handles notifications of its own does not take the outbox's.
func TestPoolWithAHandlerHears(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	config, err := pgxpool.ParseConfig(url)
	testservers.Must(t, err)
	config.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	p, err := pgxpool.NewWithConfig(t.Context(), config)
	testservers.Must(t, err)
	t.Cleanup(p.Close)
	l := openLog(t, p, nil)
	listening(t, l)
	run(t, connect(t, url), `INSERT INTO items VALUES (11)`)
	testservers.Must(t, l.Wait(t.Context()))
}

func TestUnusedLogCloses(t *testing.T) {
	t.Parallel()
	l := NewLog(pool(t, database(t)), nil)
	testservers.Must(t, l.Close())
	testservers.Must(t, l.Close())
}

// A proxy that pools transactions accepts LISTEN and passes no notification on: the outbox is
// polled, which is said once, and everything else works.
func TestThroughPgBouncer(t *testing.T) {
	t.Parallel()
	bouncer := testservers.SharedPostgres(t).StartPgBouncer(t, "default_pool_size = 1")
	url := database(t, items...)
	var out lockedBuffer
	p := newProcess(t, pool(t, bouncer.URL(url)+"&default_query_exec_mode=exec"), nil, outbox.RelayConfig{}, Config{})
	l := openLog(t, p.pool, slog.New(slog.NewTextHandler(&out, nil)))
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		err := l.Wait(t.Context())
		return errors.Is(err, errNoProof) && errors.Is(err, ErrNotListening), "Wait returned something else"
	})
	for range 10 {
		if err := l.Wait(t.Context()); !errors.Is(err, ErrNotListening) {
			t.Errorf("got %v, want ErrNotListening", err)
		}
	}
	// The session that everybody uses is not left listening.
	if n := ask[int](t, p.pool, `SELECT count(*) FROM pg_listening_channels() WHERE pg_listening_channels = 'cache_outbox'`); n != 0 {
		t.Error("it listens")
	}

	p.relay.Start()
	conn := connect(t, url)
	for value := 1; value <= 5; value++ {
		p.warm(t, "1", 2*value-2)
		testservers.Must(t, p.db.Write(t.Context(), set("1", 2*value-1)))
		if got := p.get(t, "1"); got != 2*value-1 {
			t.Errorf("read %d after writing %d", got, 2*value-1)
		}
		p.warm(t, "1", 2*value-1)
		began := time.Now()
		run(t, conn, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = 1`, 2*value))
		testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, "1") == 2*value, "the old value is served" })
		t.Logf("a stranger's write was seen after %v", time.Since(began).Round(time.Millisecond))
	}
	testservers.Must(t, l.Close())
	if n := strings.Count(out.String(), "polled instead of listened to"); n != 1 {
		t.Errorf("said so %d times, want once:\n%s", n, &out)
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// The connection that listens is made as those of the pool are, such as with a password that rotates.
func TestListenerConnectsAsThePoolDoes(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(database(t))
	testservers.Must(t, err)
	user := config.ConnConfig.User
	config.ConnConfig.User = "outdated"
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		c.User = user
		return nil
	}
	p, err := pgxpool.NewWithConfig(t.Context(), config)
	testservers.Must(t, err)
	t.Cleanup(p.Close)
	l := openLog(t, p, nil)
	testservers.Eventually(t, 10*time.Second, func() (bool, string) {
		err := l.Wait(t.Context())
		return err == nil, fmt.Sprint(err)
	})
}
