package postgres

import (
	"context"
	"crypto/md5"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// BenchmarkEnroll compares enrolling through the outbox (triggers, fence, commit, bump, and the
// deletion of the rows) with the same statements in a plain transaction on tables without
// triggers. The two take turns, so that other load on the machine slows both. The
// server flushes what it commits, as one in service does. With the shared tier in process what
// the database does shows, with Redis also the two round trips there, and over a network in which
// each takes a millisecond longer, how many there are of all.
//
//	go test -bench Enroll -run '^$' ./internal/postgres
func BenchmarkEnroll(b *testing.B) {
	const trip = time.Millisecond
	server := testservers.StartPostgres(b, testservers.PostgresConfig{Durable: true})
	for _, tier := range []struct {
		name string
		trip time.Duration
		open func(b *testing.B) driver.Store
	}{
		{"in process", 0, func(*testing.B) driver.Store { return memstore.New(memstore.Config{}) }},
		{"Redis", 0, func(b *testing.B) driver.Store { return redis(b, 0, 0) }},
		{"Redis with a million keys", 0, func(b *testing.B) driver.Store { return redis(b, 0, 1_000_000) }},
		{"Redis over a network", trip, func(b *testing.B) driver.Store { return redis(b, trip, 0) }},
		{"Redis with a million keys over a network", trip, func(b *testing.B) driver.Store { return redis(b, trip, 1_000_000) }},
	} {
		b.Run(tier.name, func(b *testing.B) { benchmarkEnroll(b, server, tier.trip, tier.open) })
	}
}

// delayedURL returns a server's URL over a network in which a round trip takes that much longer.
func delayedURL(b *testing.B, url, addr string, trip time.Duration) string {
	b.Helper()
	if trip == 0 {
		return url
	}
	p := testservers.StartProxy(b, addr)
	p.Delay(trip, testservers.Replies)
	return strings.Replace(url, addr, p.Addr(), 1)
}

// redis returns a store on a server that has keys of other programs.
func redis(b *testing.B, trip time.Duration, keys int) driver.Store {
	b.Helper()
	r := testservers.StartRedis(b, testservers.RedisConfig{})
	const fill = `for i = ARGV[1], ARGV[2] do redis.call('SET', 'other:' .. i, 'a value of some length, as values go') end return 1`
	for from := 0; from < keys; from += 10_000 {
		testservers.Must(b, r.Do(b.Context(), "EVAL", fill, "0", strconv.Itoa(from), strconv.Itoa(from+9_999)).Error())
	}
	s, err := redisstore.Open(b.Context(), redisstore.Config{URL: delayedURL(b, r.URL(), r.Addr(), trip), Prefix: "bench:", Timeout: time.Second})
	testservers.Must(b, err)
	return s
}

func benchmarkEnroll(b *testing.B, server *testservers.Postgres, trip time.Duration, open func(*testing.B) driver.Store) {
	b.Helper()
	for _, parallel := range []int{1, 8} {
		b.Run(fmt.Sprintf("%d at once", parallel), func(b *testing.B) {
			store := open(b)
			b.Cleanup(func() { testservers.Must(b, store.Close()) })
			write := [2]func(b *testing.B){enroller(b, store, server, trip, false), enroller(b, store, server, trip, true)}
			var took [2][]time.Duration // plain, through the outbox
			var mu sync.Mutex
			var wg sync.WaitGroup
			b.ResetTimer()
			for g := range parallel {
				wg.Go(func() {
					var mine [2][]time.Duration
					for i := g; i < b.N; i += parallel {
						for kind := range write {
							began := time.Now()
							write[kind](b)
							mine[kind] = append(mine[kind], time.Since(began))
						}
					}
					mu.Lock()
					defer mu.Unlock()
					for kind := range took {
						took[kind] = append(took[kind], mine[kind]...)
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			for kind := range took {
				slices.Sort(took[kind])
			}
			plain, outbox := took[0][len(took[0])/2], took[1][len(took[1])/2]
			b.ReportMetric(float64(plain.Nanoseconds()), "plain-ns")
			b.ReportMetric(float64(outbox.Nanoseconds()), "outbox-ns")
			b.ReportMetric(float64(outbox)/float64(plain), "ratio")
		})
	}
}

// enroller returns a function that enrols a learner in a course, never the same twice.
func enroller(b *testing.B, store driver.Store, server *testservers.Postgres, trip time.Duration, outbox bool) func(b *testing.B) {
	b.Helper()
	url := server.Database(b)
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: time.Second})
	testservers.Must(b, err)
	b.Cleanup(func() { testservers.Must(b, c.Close()) })
	s := storage(b, delayedURL(b, url, server.Addr(), trip), Config{Cache: c})
	const users, courses = 20_000, 100
	execute(b, url,
		fmt.Sprintf(`INSERT INTO courses (id, title) SELECT md5('c' || i)::uuid, 'Course' FROM generate_series(0, %d) i`, courses-1),
		fmt.Sprintf(`INSERT INTO users (id, stellar_address) SELECT md5('u' || i)::uuid, 'G' || i FROM generate_series(0, %d) i`, users-1))
	if !outbox {
		execute(b, url, `SELECT cache_unwatch('chainlearn', 'enrollments')`)
	}
	var n atomic.Int64
	return func(b *testing.B) {
		i := n.Add(1)
		e := learning.Enrollment{
			CourseID: learning.CourseID{UUID: md5.Sum(fmt.Append(nil, "c", i%courses))},
			UserID:   learning.UserID{UUID: md5.Sum(fmt.Append(nil, "u", i/courses%users))}, EnrolledAt: time.Now(),
		}
		enroll := func(ctx context.Context, t learning.Tx) error {
			if active, err := t.CourseActive(ctx, e.CourseID); err != nil || !active {
				return fmt.Errorf("course is active: %t, %w", active, err)
			}
			return t.InsertEnrollment(ctx, e)
		}
		var err error
		if outbox {
			err = s.Write(b.Context(), enroll)
		} else {
			err = pgx.BeginFunc(b.Context(), s.pool, func(t pgx.Tx) error { return enroll(b.Context(), &tx{t}) })
		}
		if err != nil {
			b.Error(err)
		}
	}
}
