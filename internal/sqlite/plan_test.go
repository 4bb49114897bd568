package sqlite

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// queries collects what reaches the driver.
type queries struct {
	mu   sync.Mutex
	list []string
}

func (q *queries) record(query string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, query)
}

// take returns what was seen since the last take.
func (q *queries) take() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	return list
}

var (
	anyUser   = learning.NewID[learning.Profile]()
	anyCourse = learning.NewID[learning.Course]()
)

// everyRead asks each question once.
var everyRead = map[string]func(ctx context.Context, r learning.Reads) error{
	"ListCourses": func(ctx context.Context, r learning.Reads) error {
		_, err := r.ListCourses(ctx, learning.ListParams{Page: 1, Limit: 20})
		return err
	},
	"ListCourses of a difficulty": func(ctx context.Context, r learning.Reads) error {
		_, err := r.ListCourses(ctx, learning.ListParams{Page: 1, Limit: 20, Difficulty: learning.Advanced})
		return err
	},
	"CountCourses": func(ctx context.Context, r learning.Reads) error { _, err := r.CountCourses(ctx, ""); return err },
	"CountCourses of a difficulty": func(ctx context.Context, r learning.Reads) error {
		_, err := r.CountCourses(ctx, learning.Advanced)
		return err
	},
	"CourseDetail": func(ctx context.Context, r learning.Reads) error {
		_, err := r.CourseDetail(ctx, anyCourse)
		return err
	},
	"Enrolled": func(ctx context.Context, r learning.Reads) error {
		_, err := r.Enrolled(ctx, anyUser, []learning.CourseID{anyCourse})
		return err
	},
	"CompletedModule": func(ctx context.Context, r learning.Reads) error {
		_, err := r.CompletedModule(ctx, anyUser, anyCourse, "module-1")
		return err
	},
	"Profile":  func(ctx context.Context, r learning.Reads) error { _, err := r.Profile(ctx, anyUser); return err },
	"Progress": func(ctx context.Context, r learning.Reads) error { _, err := r.Progress(ctx, anyUser); return err },
	"RewardHistory": func(ctx context.Context, r learning.Reads) error {
		_, err := r.RewardHistory(ctx, learning.RewardParams{User: anyUser, Page: 1, Limit: 20})
		return err
	},
	"Credentials": func(ctx context.Context, r learning.Reads) error { _, err := r.Credentials(ctx, anyUser); return err },
	"Bearer": func(ctx context.Context, r learning.Reads) error {
		_, _, err := r.Bearer(ctx, anyUser, "jti")
		return err
	},
}

func TestEachReadIsOneStatement(t *testing.T) {
	var seen queries
	s := storage(t, Config{OnQuery: seen.record})
	for name, read := range everyRead {
		seen.take()
		if err := read(t.Context(), s); err != nil && !errors.Is(err, learning.ErrNoRow) {
			t.Errorf("%s: %v", name, err)
		}
		if list := seen.take(); len(list) != 1 {
			t.Errorf("%s took %d statements: %q", name, len(list), list)
		}
	}
}

func TestHookSeesTransactions(t *testing.T) {
	var seen queries
	s := storage(t, Config{OnQuery: seen.record})
	seen.take()
	refused := errors.New("refused")
	for _, result := range []error{nil, refused} {
		err := s.Write(t.Context(), func(ctx context.Context, tx learning.Tx) error {
			_, err := tx.CourseActive(ctx, anyCourse)
			return errors.Join(err, result)
		})
		if !errors.Is(err, result) {
			t.Fatal(err)
		}
	}
	var kinds []string
	for _, q := range seen.take() {
		kinds = append(kinds, strings.Fields(q)[0])
	}
	if want := []string{"BEGIN", "SELECT", "SELECT", "COMMIT", "BEGIN", "SELECT", "SELECT", "ROLLBACK"}; !slices.Equal(kinds, want) {
		t.Errorf("saw %q, want %q", kinds, want)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.readPool.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := seen.take(); len(list) != 2 {
		t.Errorf("two pings sent %q", list)
	}
}

// No statement reads a whole table, however large, but the index of active courses, which
// pages and counts go along.
func TestNoStatementReadsAWholeTable(t *testing.T) {
	var seen queries
	s := storage(t, Config{OnQuery: seen.record})
	ctx := t.Context()
	seen.take() // migrations do as they must
	for _, read := range everyRead {
		_ = read(ctx, s)
	}
	quiz, sub := learning.NewID[learning.Quiz](), learning.NewID[learning.Submission]()
	key, at := learning.IdempotencyKey{Key: "k", User: anyUser, Endpoint: "e"}, time.Now()
	for _, fn := range []func(tx learning.Tx) error{
		func(tx learning.Tx) error { _, err := tx.CourseActive(ctx, anyCourse); return err },
		func(tx learning.Tx) error { _, err := tx.Enrolled(ctx, anyUser, anyCourse); return err },
		func(tx learning.Tx) error { _, err := tx.CompleteCourse(ctx, anyUser, anyCourse, at); return err },
		func(tx learning.Tx) error { _, err := tx.ProfileForUpdate(ctx, anyUser); return err },
		func(tx learning.Tx) error {
			return tx.UpdateProfile(ctx, learning.Profile{ID: anyUser, Pace: learning.Fast}, at)
		},
		func(tx learning.Tx) error { return tx.AddCredits(ctx, anyUser, 1, at) },
		func(tx learning.Tx) error { _, err := tx.ModuleQuestions(ctx, anyCourse, "m"); return err },
		func(tx learning.Tx) error { _, _, err := tx.LearnerQuiz(ctx, anyUser, anyCourse, "m"); return err },
		func(tx learning.Tx) error { _, err := tx.Quiz(ctx, quiz); return err },
		func(tx learning.Tx) error { _, err := tx.SubmissionForUpdate(ctx, sub); return err },
		func(tx learning.Tx) error { return tx.MarkClaimed(ctx, sub, 1, at) },
		func(tx learning.Tx) error { _, err := tx.StoredResponse(ctx, key, at); return err },
		func(tx learning.Tx) error {
			return tx.StoreResponse(ctx, key, learning.StoredResponse{Body: []byte(`{}`)}, at)
		},
	} {
		_ = s.Write(ctx, func(_ context.Context, tx learning.Tx) error { return fn(tx) }) // most find nothing
	}
	statements := seen.take()
	slices.Sort(statements)
	statements = slices.Compact(statements)
	// What is scanned but no table: subqueries of one row or one page, and lists of parameters.
	whole := regexp.MustCompile(`^SCAN (page|defined|joined|answered|earned|CONSTANT|json_each|courses USING (COVERING )?INDEX courses_newest)\b`)
	checked := 0
	for _, q := range statements {
		if strings.Contains(q, "cache_outbox") || strings.Contains(q, "cache_consumers") || strings.Contains(q, "cache_delivered") || !regexp.MustCompile(`^\s*(SELECT|WITH|UPDATE|DELETE|INSERT)`).MatchString(q) {
			continue
		}
		for _, step := range plan(t, s, q) {
			if strings.HasPrefix(step, "SCAN") && !whole.MatchString(step) {
				t.Errorf("%s\n\t%s", q, step)
			}
		}
		checked++
	}
	if checked < len(everyRead)+12 {
		t.Errorf("only %d statements were checked", checked)
	}
}

func plan(t *testing.T, s *Storage, query string) []string {
	t.Helper()
	params := 0
	for _, m := range regexp.MustCompile(`\?(\d)`).FindAllStringSubmatch(query, -1) {
		params = max(params, int(m[1][0]-'0'))
	}
	rows, err := s.writePool.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, make([]any, params)...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}
