package postgres

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// replicatedPair is a primary and its standby, a storage that knows both, and a cache in front of them.
type replicatedPair struct {
	primary, standby *testservers.Postgres
	url              string
	storage          *Storage
	detail           *cache.Cached[learning.CourseID, learning.CourseDetail]
	course           learning.CourseID

	mu   sync.Mutex
	sent []string // statements; guarded by mu
	log  strings.Builder
}

func newReplicatedPair(t *testing.T, wait time.Duration) *replicatedPair {
	t.Helper()
	d := &replicatedPair{primary: testservers.StartPostgres(t, testservers.PostgresConfig{})}
	name, err := d.primary.CreateDatabase(t.Context())
	testservers.Must(t, err)
	d.url = d.primary.DatabaseURL(name)
	first, err := Open(t.Context(), d.url, Config{}) // before the standby is copied
	testservers.Must(t, err)
	testservers.Must(t, first.Close())
	execute(t, d.url, `INSERT INTO courses (id, title) VALUES (md5('c1')::uuid, '0')`)
	d.course = id[learning.Course](t, d.url, "c1")
	d.standby = d.primary.StartStandby(t)

	store := memstore.New(memstore.Config{})
	t.Cleanup(func() { testservers.Must(t, store.Close()) })
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: time.Second})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	d.storage = storage(t, d.url, Config{
		Cache: c, ReplicaURL: d.standby.DatabaseURL(name), ReplicaWait: wait,
		Logger: slog.New(slog.NewTextHandler(d, nil)),
		OnQuery: func(query string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.sent = append(d.sent, query)
		},
	})
	d.detail = cache.Define(c, cache.Query[learning.CourseID, learning.CourseDetail]{
		Name: "test:detail", FreshFor: time.Hour, Key: learning.CourseID.String,
		Tags: func(id learning.CourseID) []cache.Tag { return []cache.Tag{learning.CourseTag(id)} },
		Load: d.storage.CourseDetail,
	})
	return d
}

func (d *replicatedPair) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(b)
}

// logCount returns how often the log says something.
func (d *replicatedPair) logCount(what string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Count(d.log.String(), what)
}

// byReplica loads once, and says whether the standby answered: otherwise the question is sent
// to the primary, too.
func (d *replicatedPair) byReplica(t *testing.T) bool {
	t.Helper()
	d.mu.Lock()
	d.sent = nil
	d.mu.Unlock()
	_, err := d.storage.CourseDetail(t.Context(), d.course)
	testservers.Must(t, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	questions := 0
	for _, q := range d.sent {
		if q == courseDetailQuery {
			questions++
		}
	}
	return slices.Contains(d.sent, caughtUpQuery) && questions == 1
}

func (d *replicatedPair) usesReplica(t *testing.T) {
	t.Helper()
	testservers.Eventually(t, 20*time.Second, func() (bool, string) { return d.byReplica(t), "the primary answers" })
}

// rename writes through the outbox, and returns when that is acknowledged.
func (d *replicatedPair) rename(t *testing.T, title int) {
	t.Helper()
	testservers.Must(t, d.storage.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE courses SET title = $2::text WHERE id = $1::uuid`, d.course.UUID, strconv.Itoa(title))
		return err
	}))
}

func (d *replicatedPair) title(t *testing.T) int {
	t.Helper()
	c, err := d.detail.Get(t.Context(), d.course)
	testservers.Must(t, err)
	n, err := strconv.Atoi(c.Title)
	testservers.Must(t, err)
	return n
}

func TestReplicaThatIsBehindIsNotAsked(t *testing.T) {
	t.Parallel()
	d := newReplicatedPair(t, 20*time.Millisecond)
	d.usesReplica(t)

	behind, again := d.logCount("replica is behind"), d.logCount("replica answers again")
	testservers.Must(t, d.standby.PauseReplay(t.Context()))
	for until, n := time.Now().Add(3*time.Second), 1; time.Now().Before(until); n++ {
		d.rename(t, n)
		for range 3 {
			if got := d.title(t); got != n {
				t.Fatalf("after the write of %d: %d", n, got)
			}
		}
	}
	var old string
	testservers.Must(t, d.storage.replica.pool.QueryRow(t.Context(), `SELECT title FROM courses`).Scan(&old))
	if old != "0" {
		t.Errorf("the standby was not behind: it has %s", old)
	}
	if n := d.logCount("replica is behind") - behind; n != 1 {
		t.Errorf("the log says %d times that the replica is behind, want once", n)
	}
	testservers.Must(t, d.standby.ResumeReplay(t.Context()))
	testservers.Must(t, d.standby.CatchUp(t.Context()))
	d.usesReplica(t)
	if n := d.logCount("replica answers again") - again; n != 1 {
		t.Errorf("the log says %d times that it answers again, want once", n)
	}
}

// With a standby that follows and a wait that is long enough for it, loads are answered by it
// and still contain what was acknowledged before they began.
func TestReadsFromAReplicaContainWhatWasWritten(t *testing.T) {
	t.Parallel()
	d := newReplicatedPair(t, time.Second)
	d.usesReplica(t)
	var acknowledged atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := int(acknowledged.Load())
				if got := d.title(t); got < least {
					t.Errorf("read %d after the write of %d was acknowledged", got, least)
					return
				}
			}
		})
	}
	for n := 1; n <= 150; n++ {
		d.rename(t, n)
		acknowledged.Store(int64(n))
	}
	close(stop)
	readers.Wait()
	d.usesReplica(t) // still
}

func TestReplicaThatIsGone(t *testing.T) {
	t.Parallel()
	d := newReplicatedPair(t, 20*time.Millisecond)
	d.usesReplica(t)
	testservers.Must(t, d.standby.Kill())
	for n := 1; n <= 5; n++ {
		d.rename(t, n)
		if got := d.title(t); got != n {
			t.Errorf("after the write of %d: %d", n, got)
		}
	}
	testservers.Must(t, d.standby.Restart(t.Context()))
	d.usesReplica(t)
}

// A standby that has become a primary has a log of its own.
func TestPromotedReplicaIsNotAsked(t *testing.T) {
	t.Parallel()
	d := newReplicatedPair(t, 20*time.Millisecond)
	d.usesReplica(t)
	testservers.Must(t, d.standby.Promote(t.Context()))
	execute(t, d.standby.DatabaseURL(strings.TrimPrefix(value[string](t, d.url, `SELECT '/' || current_database()`), "/")),
		`CREATE TABLE progress_of_its_own AS SELECT i FROM generate_series(1, 10000) i`)
	for n := 1; n <= 5; n++ {
		d.rename(t, n)
		if d.byReplica(t) {
			t.Error("it is asked")
		}
		if got := d.title(t); got != n {
			t.Errorf("after the write of %d: %d", n, got)
		}
	}
}

func TestPositionIsAskedForOnceForMany(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := storage(t, migrated(t), Config{OnQuery: func(query string) {
		if strings.Contains(query, "pg_current_wal_insert_lsn") {
			asked.Add(1)
		}
	}})
	reader := newWALPositionReader(s.pool, s.goroutines)
	const many = 500
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			if p, err := reader.Do(t.Context(), struct{}{}, struct{}{}); err != nil || p.lsn == "" || p.timeline != 1 {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n < 1 || n > many/2 {
		t.Errorf("%d loads asked the primary %d times", many, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := reader.Do(ctx, struct{}{}, struct{}{}); err == nil {
		t.Error("a cancelled caller was answered")
	}
}
