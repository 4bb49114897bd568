package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/pgschema"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// got returns the tags that are delivered to a consumer, sorted.
func got(t *testing.T, l *Log, consumer string) string {
	t.Helper()
	var tags []string
	_, err := l.Deliver(t.Context(), consumer, time.Minute, 100, func(_ context.Context, rows []outbox.Row) error {
		for _, r := range rows {
			tags = append(tags, string(r.Tag))
		}
		return nil
	})
	testservers.Must(t, err)
	slices.Sort(tags)
	return strings.Join(tags, " ")
}

// A row is delivered to each consumer, once, and goes when the last has got it.
func TestEveryConsumerGetsEveryRow(t *testing.T) {
	t.Parallel()
	url := database(t)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	join(t, l, "a", "b")
	markOfA := outbox.NewMark("a")
	run(t, conn, `SELECT cache_record('external:1')`, fmt.Sprintf(`INSERT INTO cache_outbox (tag, mark) VALUES ('of-a:1', '\x%x')`, markOfA))
	if _, err := l.Deliver(t.Context(), "a", 0, 10, func(context.Context, []outbox.Row) error { return errors.New("broken") }); err == nil {
		t.Error("the error of bump was lost")
	}
	for _, c := range []struct{ consumer, want string }{
		{"a", "external:1"}, {"a", ""}, {"b", "external:1 of-a:1"}, {"b", ""}, // b does not wait for the writer of a
	} {
		if got := got(t, l, c.consumer); got != c.want {
			t.Errorf("%s got %q, want %q", c.consumer, got, c.want)
		}
	}
	if rows, _, err := l.Backlog(t.Context(), "a"); err != nil || rows != 1 {
		t.Errorf("a has a backlog of %d (%v), want the row of its writer", rows, err)
	}
	if rows, _, err := l.Backlog(t.Context(), "b"); err != nil || rows != 0 {
		t.Errorf("b has a backlog of %d (%v)", rows, err)
	}
	testservers.Must(t, l.Done(t.Context(), "a", ask[[]int64](t, conn, `SELECT array_agg(id) FROM cache_outbox`)))
	if left := taken(t, conn); len(left) != 0 {
		t.Errorf("left %q", left)
	}
	if n := ask[int](t, conn, `SELECT count(*) FROM cache_delivered`); n != 0 {
		t.Errorf("%d notes were left", n)
	}
}

// A consumer that is not heard of is forgotten, with what was left for it, and told when it
// comes back.
func TestConsumersAreForgotten(t *testing.T) {
	t.Parallel()
	url := database(t)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	for i, want := range []bool{true, false} {
		if joined, gone, err := l.Join(t.Context(), "a"); err != nil || joined != want || len(gone) != 0 {
			t.Errorf("join %d: %t, %v, %v", i, joined, gone, err)
		}
	}
	join(t, l, "b")
	run(t, conn, `SELECT cache_record('t:1')`)
	if got := got(t, l, "a"); got != "t:1" {
		t.Errorf("a got %q", got)
	}
	run(t, conn, fmt.Sprintf(`UPDATE cache_consumers SET seen_at = clock_timestamp() - interval '%f s' WHERE name = 'b'`, outbox.ConsumerLife.Seconds()+1))
	if joined, gone, err := l.Join(t.Context(), "a"); err != nil || joined || !slices.Equal(gone, []string{"b"}) {
		t.Errorf("got %t, %v, %v; want to be told that b is gone", joined, gone, err)
	}
	if left := taken(t, conn); len(left) != 0 {
		t.Errorf("left %q", left)
	}
	if _, err := l.Deliver(t.Context(), "b", 0, 10, nil); !errors.Is(err, outbox.ErrNotJoined) {
		t.Errorf("got %v, want ErrNotJoined", err)
	}
	if joined, _, err := l.Join(t.Context(), "b"); err != nil || !joined {
		t.Errorf("it came back: %t, %v", joined, err)
	}
	for _, c := range []struct{ consumer, want string }{{"a", ""}, {"b", "*"}, {"b", ""}} {
		if got := got(t, l, c.consumer); got != c.want {
			t.Errorf("as b came back %s got %q, want %q", c.consumer, got, c.want)
		}
	}
	join(t, l, "a") // removes the note for the row that is gone
	if n := ask[int](t, conn, `SELECT count(*) FROM cache_delivered`); n != 0 {
		t.Errorf("%d notes were left", n)
	}
}

// What a consumer leaves behind goes with the next Join, however much it is: notes for rows that are gone,
// several for each, and rows that all others have got.
func TestJoinDeletesAllThatIsLeft(t *testing.T) {
	t.Parallel()
	url := database(t)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	join(t, l, "a", "b", "c")
	const rows = 2*pgschema.LeftAtOnce + 500
	run(t, conn, `DELETE FROM cache_outbox`, `DELETE FROM cache_delivered`,
		fmt.Sprintf(`INSERT INTO cache_delivered SELECT -i, name FROM generate_series(1, %d) i, cache_consumers`, rows))
	join(t, l, "a")
	if n := ask[int](t, conn, `SELECT count(*) FROM cache_delivered`); n != 0 {
		t.Errorf("%d notes were left for rows that are gone", n)
	}
	run(t, conn, fmt.Sprintf(`INSERT INTO cache_outbox (tag) SELECT 't:' || i FROM generate_series(1, %d) i`, rows),
		`INSERT INTO cache_delivered SELECT id, name FROM cache_outbox, cache_consumers WHERE name <> 'c'`)
	join(t, l, "a")
	if n := ask[int](t, conn, `SELECT count(*) FROM cache_outbox`); n != rows {
		t.Errorf("%d rows are left of %d that c has not got", n, rows)
	}
	testservers.Must(t, l.Leave(t.Context(), "c"))
	join(t, l, "a")
	if n := ask[int](t, conn, `SELECT count(*) FROM cache_outbox`); n != 0 {
		t.Errorf("%d rows were left that all have got", n)
	}
}

// Relays of several stores, several of each, and writers: each store gets each row, and
// nothing is left.
func TestConsumersAtOnce(t *testing.T) {
	t.Parallel()
	url := database(t)
	p := pool(t, url)
	l := openLog(t, p, nil)
	names := []string{"a", "b", "c"}
	const rows = 600
	var mu sync.Mutex
	seen := map[string]map[cache.Tag]bool{}
	var relays, writers sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for _, name := range names {
		seen[name] = map[cache.Tag]bool{}
		join(t, l, name)
	}
	for _, name := range append(names, names...) {
		relays.Go(func() {
			for ctx.Err() == nil {
				_, err := l.Deliver(t.Context(), name, 0, 50, func(_ context.Context, rows []outbox.Row) error {
					mu.Lock()
					defer mu.Unlock()
					for _, r := range rows {
						seen[name][r.Tag] = true
					}
					return nil
				})
				testservers.Must(t, err)
				_, _, err = l.Join(t.Context(), name)
				testservers.Must(t, err)
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			for i := range rows / 3 {
				run(t, p, fmt.Sprintf(`SELECT cache_record('t:%d')`, w*rows+i))
			}
		})
	}
	writers.Wait()
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		n := ask[int](t, p, `SELECT count(*) FROM cache_outbox`)
		return n == 0, fmt.Sprint(n, " rows are left")
	})
	stop()
	relays.Wait()
	for _, name := range names {
		if len(seen[name]) != rows {
			t.Errorf("%s got %d rows of %d", name, len(seen[name]), rows)
		}
	}
}

// A consumer that leaves is waited for no longer.
func TestConsumerThatLeaves(t *testing.T) {
	t.Parallel()
	url := database(t)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	join(t, l, "a")
	join(t, l, "b")
	run(t, conn, `DELETE FROM cache_outbox`, `SELECT cache_record('t:1')`)
	if got := got(t, l, "a"); got != "t:1" {
		t.Errorf("got %q", got)
	}
	testservers.Must(t, l.Leave(t.Context(), "b"))
	testservers.Must(t, l.Leave(t.Context(), "nobody"))
	if _, _, err := l.Join(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if n := ask[int](t, conn, `SELECT count(*) FROM cache_outbox`); n != 0 {
		t.Errorf("%d rows are kept for it", n)
	}
	if _, err := l.Deliver(t.Context(), "b", 0, 10, nil); !errors.Is(err, outbox.ErrNotJoined) {
		t.Errorf("it is served: error %v", err)
	}
}

// The clock of the database was set back, so rows come from its future: they are delivered.
func TestRowsOfTheFutureAreDelivered(t *testing.T) {
	t.Parallel()
	url := database(t)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	join(t, l, "a")
	run(t, conn, fmt.Sprintf(`INSERT INTO cache_outbox (tag, mark, recorded_at) VALUES ('t:1', '\x%x', clock_timestamp() + interval '1 hour')`, outbox.NewMark("a")))
	if _, oldest, err := l.Backlog(t.Context(), "a"); err != nil || oldest < 50*time.Minute {
		t.Errorf("the oldest is %v old (%v): a drain would not wait for it", oldest, err)
	}
	if got := got(t, l, "a"); got != "t:1" {
		t.Errorf("got %q", got)
	}
}

// Two services with two stores on one database: both show what an external program writes, and
// what the other writes.
func TestTwoStoresOnOneDatabase(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	a := newProcess(t, pool(t, url), nil, outbox.RelayConfig{Poll: 20 * time.Millisecond}, Config{})
	b := newProcess(t, pool(t, url), nil, outbox.RelayConfig{Poll: 20 * time.Millisecond}, Config{})
	a.relay.Start()
	b.relay.Start()
	conn := connect(t, url)
	for value := 1; value <= 10; value += 2 {
		a.warm(t, "1", value-1)
		b.warm(t, "1", value-1)
		run(t, conn, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = 1`, value))
		for _, p := range []*process{a, b} {
			testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, "1") == value, "the old value is served" })
			p.warm(t, "1", value)
		}
		testservers.Must(t, a.db.Write(t.Context(), set("1", value+1)))
		if got := a.get(t, "1"); got != value+1 {
			t.Errorf("the writer read %d after writing %d", got, value+1)
		}
		testservers.Eventually(t, 20*time.Second, func() (bool, string) { return b.get(t, "1") == value+1, "the old value is served" })
	}
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		return ask[int](t, conn, `SELECT count(*) FROM cache_outbox`) == 0, "rows are left"
	})
}

// A program that writes, and has a cache, and no relay anywhere, is told so by its first write.
func TestWriteNeedsARelay(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	store := memstore.New(memstore.Config{})
	t.Cleanup(func() { testservers.Must(t, store.Close()) })
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: time.Second})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	log := openLog(t, pool(t, url), nil)
	db, err := NewDB(log, c, Config{})
	testservers.Must(t, err)
	if err := db.Write(t.Context(), set("1", 1)); !errors.Is(err, ErrNoRelay) {
		t.Errorf("got %v, want ErrNoRelay", err)
	}
	if got := ask[int](t, log.pool, `SELECT value FROM items WHERE id = 1`); got != 0 {
		t.Errorf("wrote %d", got)
	}
	other := newProcess(t, pool(t, url), store, outbox.RelayConfig{}, Config{}) // shares the store
	testservers.Must(t, other.relay.Drain(t.Context()))
	testservers.Must(t, db.Write(t.Context(), set("1", 2)))
	run(t, log.pool, `DELETE FROM cache_consumers`)
	testservers.Must(t, db.Write(t.Context(), set("1", 3))) // it asks once
}

// The marks of a process tell whose writer they are of, also while its store cannot say its name.
func TestMarksSayWhose(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, database(t, items...)), nil, outbox.RelayConfig{}, Config{})
	name, err := p.db.cache.StoreName(t.Context())
	testservers.Must(t, err)
	mark, err := p.db.newMark(t.Context())
	testservers.Must(t, err)
	again, _ := p.db.newMark(t.Context())
	if [8]byte(mark[:8]) != outbox.MarkOf(name) || mark == again || mark == driver.NoMark {
		t.Errorf("marks %x and %x of %q", mark, again, name)
	}
}

// Answers carry the families of their tags by themselves: what is too much to be named is seen.
func TestWhatIsTooMuchToNameIsSeen(t *testing.T) {
	t.Parallel()
	const many = 5000
	url := database(t, append(slices.Clone(items), fmt.Sprintf(`INSERT INTO items SELECT i, 0 FROM generate_series(3, %d) i`, many), `TRUNCATE cache_outbox`)...)
	p := newProcess(t, pool(t, url), nil, outbox.RelayConfig{Poll: 20 * time.Millisecond}, Config{})
	p.relay.Start()
	conn := connect(t, url)
	value := 0
	ids := []string{"1", "2", "999", "1001", "5000"}
	for name, change := range map[string]func(){
		"an update of all by another program": func() { run(t, conn, fmt.Sprintf(`UPDATE items SET value = %d`, value)) },
		"an update of all in Write": func() {
			testservers.Must(t, p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				return onlyErr(tx.Exec(ctx, `UPDATE items SET value = $1`, value))
			}))
		},
		"a statement for each row, in Write": func() {
			testservers.Must(t, p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				return onlyErr(tx.Exec(ctx, fmt.Sprintf(`DO 'BEGIN FOR i IN 1..%d LOOP UPDATE items SET value = %d WHERE id = i; END LOOP; END'`, many, value)))
			}))
		},
		"TRUNCATE": func() {
			run(t, conn, fmt.Sprintf(`BEGIN; CREATE TEMP TABLE saved ON COMMIT DROP AS SELECT id FROM items; ALTER TABLE items DISABLE TRIGGER cache_watch_insert;
				TRUNCATE items; INSERT INTO items SELECT id, %d FROM saved; ALTER TABLE items ENABLE ALWAYS TRIGGER cache_watch_insert; COMMIT`, value))
		},
		"many transactions while no relay ran": func() {
			testservers.Must(t, p.relay.Close())
			run(t, conn, fmt.Sprintf(`DO 'BEGIN FOR i IN 1..%d LOOP UPDATE items SET value = %d WHERE id = i; COMMIT; END LOOP; END'`, many, value))
			relay, err := outbox.NewRelay(p.db.cache, p.log, outbox.RelayConfig{})
			testservers.Must(t, err)
			t.Cleanup(func() { testservers.Must(t, relay.Close()) })
			relay.Start()
			p.relay = relay
		},
	} {
		value++
		for _, id := range ids {
			p.warm(t, id, value-1)
		}
		change()
		for _, id := range ids {
			testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, id) == value, name + ": the old value is served of " + id })
		}
	}
}

// A store joins, and the process that registered it dies before it has invalidated anything: the
// next process of the store, which finds it registered, serves nothing of before.
func TestAJoinerThatDiesLeavesNothingStale(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	store := memstore.New(memstore.Config{})
	t.Cleanup(func() { testservers.Must(t, store.Close()) })
	first := newProcess(t, pool(t, url), store, outbox.RelayConfig{}, Config{})
	first.warm(t, "1", 0)
	name, err := first.db.cache.StoreName(t.Context())
	testservers.Must(t, err)
	testservers.Must(t, first.relay.Close())
	// The store is forgotten, and what was left for it is deleted.
	run(t, first.pool, `DELETE FROM cache_consumers`, `UPDATE items SET value = 1`, `DELETE FROM cache_outbox`)
	if joined, _, err := first.log.Join(t.Context(), name); err != nil || !joined {
		t.Fatalf("joined %t, %v", joined, err)
	}

	next := newProcess(t, pool(t, url), store, outbox.RelayConfig{}, Config{})
	if got := next.get(t, "1"); got != 1 {
		t.Errorf("read %d, which is what the store held before it joined", got)
	}
}
