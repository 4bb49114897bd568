package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// While the requests of a few learners are blocked, later requests wait and are one statement;
// each learner gets their own enrolments, also of two pages at once, and what was written
// before they asked.
func TestLearnersShareABatch(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	var mu sync.Mutex
	asked := 0
	s := storage(t, url, Config{OnQuery: func(query string) {
		if query == enrolledQuery {
			mu.Lock()
			asked++
			mu.Unlock()
		}
	}})
	execute(t, url,
		`INSERT INTO users (id, stellar_address) SELECT md5('u' || i)::uuid, 'G' || i FROM generate_series(1, 12) i`,
		`INSERT INTO courses (id, title, difficulty) SELECT md5('c' || i)::uuid, 'Course ' || i, 'beginner' FROM generate_series(1, 20) i`,
		`INSERT INTO enrollments (user_id, course_id) SELECT md5('u' || i)::uuid, md5('c' || j)::uuid FROM generate_series(1, 12) i, generate_series(1, 20) j WHERE (i * j) % 3 = 0`,
	)
	var users []learning.UserID
	var courses []learning.CourseID
	for i := range 20 {
		courses = append(courses, id[learning.Course](t, url, fmt.Sprint("c", i+1)))
		if i < 12 {
			users = append(users, id[learning.Profile](t, url, fmt.Sprint("u", i+1)))
		}
	}
	pages := [][]learning.CourseID{courses[:12], courses[6:], {learning.NewID[learning.Course]()}}
	s.enrolmentBatcher.Wait = time.Hour // not a matter of time here

	conn, err := pgx.Connect(t.Context(), url)
	testservers.Must(t, err)
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	testservers.Must(t, err)
	_, err = tx.Exec(t.Context(), `LOCK TABLE enrollments`)
	testservers.Must(t, err)

	var callers sync.WaitGroup
	for range enrolmentConcurrency {
		callers.Go(func() {
			if _, err := s.Enrolled(t.Context(), users[0], courses); err != nil {
				t.Error(err)
			}
		})
	}
	testservers.Eventually(t, time.Minute, func() (bool, string) {
		waiting := value[int](t, url, `SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		return waiting == enrolmentConcurrency, fmt.Sprintf("%d requests wait for the table", waiting)
	})
	sharing := &waiter{Context: t.Context(), waits: make(chan struct{}, enrolmentBatchSize)}
	shared := 0
	for i := range users {
		for _, page := range pages[:1+i%3] {
			shared++
			callers.Go(func() {
				got, err := s.Enrolled(sharing, users[i], page)
				if err != nil {
					t.Error(err)
				}
				for j, c := range courses {
					if want := ((i+1)*(j+1)%3 == 0 || i == 1) && slices.Contains(page, c); got[c] != want {
						t.Errorf("user %d in course %d: %v, want %v", i+1, j+1, got[c], want)
					}
				}
			})
		}
	}
	for range shared {
		<-sharing.waits
	}
	// Written before the batch begins.
	_, err = tx.Exec(t.Context(), `INSERT INTO enrollments (user_id, course_id) SELECT $1, id FROM courses ON CONFLICT DO NOTHING`, users[1].UUID)
	testservers.Must(t, err)
	testservers.Must(t, tx.Commit(t.Context()))
	callers.Wait()
	mu.Lock()
	defer mu.Unlock()
	if asked != enrolmentConcurrency+1 {
		t.Errorf("%d statements for %d requests, want one for each of the first and one for the rest", asked, enrolmentConcurrency+shared)
	}
}

// waiter is a context that reports each caller that begins to wait for its batch.
type waiter struct {
	context.Context
	waits chan struct{}
}

func (w *waiter) Done() <-chan struct{} {
	select {
	case w.waits <- struct{}{}:
	default:
	}
	return w.Context.Done()
}

func TestEnrolledAfterCloseFails(t *testing.T) {
	t.Parallel()
	s := storage(t, migrated(t), Config{})
	testservers.Must(t, s.Close())
	if _, err := s.Enrolled(t.Context(), learning.NewID[learning.Profile](), []learning.CourseID{learning.NewID[learning.Course]()}); err == nil {
		t.Error("a closed storage answers")
	}
}
