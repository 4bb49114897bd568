package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache/coalesce"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// Each page of the catalogue for a learner needs the learner's enrolments, and they are never
// cached. So concurrent requests share one statement. It begins after all of them have
// arrived, so each sees what was committed before its request.
const (
	enrolmentConcurrency = 2
	enrolmentBatchSize   = 32 // learners, of up to 50 courses each
	enrolmentBatchWait   = time.Millisecond
)

// enrolmentRequest is one learner's request. The pointer is the key: no two are the same.
type enrolmentRequest struct {
	user    learning.UserID
	courses []learning.CourseID
}

type enrolments = map[learning.CourseID]bool

// enrolmentBatcher answers concurrent requests by one statement.
type enrolmentBatcher struct {
	coalesce.Calls[*enrolmentRequest, struct{}, enrolments]
	pool    *pgxpool.Pool
	timeout time.Duration // of a batch
}

func newEnrolmentBatcher(pool *pgxpool.Pool, timeout time.Duration, group *goroutineGroup) *enrolmentBatcher {
	b := &enrolmentBatcher{pool: pool, timeout: timeout}
	b.Alone, b.Most, b.Wait = enrolmentConcurrency, enrolmentBatchSize, enrolmentBatchWait
	b.One = func(ctx context.Context, q *enrolmentRequest, _ struct{}) (enrolments, error) {
		results, err := b.query(ctx, q)
		if err != nil {
			return nil, err
		}
		return results[0], nil
	}
	b.Many = func(ctx context.Context, all []*enrolmentRequest, _ []struct{}) ([]enrolments, error) {
		ctx, cancel := context.WithTimeout(ctx, b.timeout)
		defer cancel()
		return b.query(ctx, all...)
	}
	b.Spawn, b.Closed = group.start, errClosed
	return b
}

// enrolledQuery looks up user $3[n] in each course with the same n. LIMIT makes the planner
// use the index for each row, instead of joining the whole table.
// Decision 30.
const enrolledQuery = `
SELECT asked.n, e.course_id
FROM unnest($1::int[], $2::uuid[]) AS asked (n, course)
CROSS JOIN LATERAL (
    SELECT course_id FROM enrollments
    WHERE user_id = ($3::uuid[])[asked.n] AND course_id = asked.course
    LIMIT 1
) e`

func (b *enrolmentBatcher) query(ctx context.Context, all ...*enrolmentRequest) ([]enrolments, error) {
	var numbers []int32
	var courses, users []pgtype.UUID
	results := make([]enrolments, len(all))
	for i, q := range all {
		users = append(users, pgtype.UUID{Bytes: q.user.UUID, Valid: true})
		for _, c := range q.courses {
			numbers, courses = append(numbers, int32(i+1)), append(courses, pgtype.UUID{Bytes: c.UUID, Valid: true})
		}
		results[i] = enrolments{}
	}
	err := repeated(ctx, func(ctx context.Context) error {
		rows, err := b.pool.Query(ctx, enrolledQuery, numbers, courses, users)
		if err != nil {
			return err
		}
		var n int
		var course learning.CourseID
		_, err = pgx.ForEachRow(rows, []any{&n, &course.UUID}, func() error {
			results[n-1][course] = true // the same again, if the statement is repeated half way
			return nil
		})
		return err
	})
	return results, err
}

// Enrolled asks the primary: the statement is cheap, and a learner must see their own writes.
func (s *Storage) Enrolled(ctx context.Context, user learning.UserID, courses []learning.CourseID) (map[learning.CourseID]bool, error) {
	limited, cancel := context.WithTimeout(ctx, s.readTimeout)
	defer cancel()
	in, err := s.enrolmentBatcher.Do(limited, &enrolmentRequest{user, courses}, struct{}{})
	if err != nil {
		return nil, fmt.Errorf("enrolments of %s: %w", user, unavailable(ctx, err))
	}
	return in, nil
}
