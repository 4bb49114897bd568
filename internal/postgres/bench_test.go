package postgres

import (
	"context"
	"crypto/md5"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/testservers"
)

// BenchmarkEnroll compares enrolling through the outbox (triggers, fence, commit, bump, and the
// forgetting of the rows) with the same statements in a plain transaction on tables without
// triggers. The server flushes what it commits, as one in service does. The shared tier
// is in process: its two round trips come on top.
//
//	go test -bench Enroll -run '^$' ./internal/postgres
func BenchmarkEnroll(b *testing.B) {
	server := testservers.StartPostgres(b, testservers.PostgresConfig{Durable: true})
	for _, parallel := range []int{1, 8} {
		for _, kind := range []string{"plain", "outbox"} {
			b.Run(fmt.Sprintf("%s/%d at once", kind, parallel), func(b *testing.B) {
				write := enroller(b, server.Database(b), kind == "outbox")
				b.SetParallelism((parallel + 1) / 2) // for each of GOMAXPROCS
				b.ResetTimer()
				if parallel == 1 {
					for b.Loop() {
						write(b)
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						write(b)
					}
				})
			})
		}
	}
}

// enroller returns a function that enrols a learner in a course, never the same twice.
func enroller(b *testing.B, url string, outbox bool) func(b *testing.B) {
	b.Helper()
	store := memstore.New(memstore.Config{})
	b.Cleanup(func() { testservers.Must(b, store.Close()) })
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: time.Second})
	testservers.Must(b, err)
	b.Cleanup(func() { testservers.Must(b, c.Close()) })
	s := storage(b, url, Config{Cache: c})
	const users, courses = 20_000, 100
	execute(b, url,
		fmt.Sprintf(`INSERT INTO courses (id, title) SELECT md5('c' || i)::uuid, 'Course' FROM generate_series(0, %d) i`, courses-1),
		fmt.Sprintf(`INSERT INTO users (id, stellar_address) SELECT md5('u' || i)::uuid, 'G' || i FROM generate_series(0, %d) i`, users-1))
	if !outbox {
		execute(b, url, `SELECT cache_unwatch('enrollments')`)
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
