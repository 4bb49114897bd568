package learning_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/postgres"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
	"github.com/chainlearn/chainlearn/internal/seed"
	"github.com/chainlearn/chainlearn/internal/sqlite"
)

// storage is what both storages are.
type storage interface {
	learning.Storage
	seed.Sink
	Source() cache.Source
	Close() error
}

// Every query carries a tag of each table that it reads, on both databases.
func TestQueries(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, c *cache.Cache) (storage, error){
		"postgres": func(t *testing.T, c *cache.Cache) (storage, error) {
			return postgres.Open(t.Context(), testservers.SharedPostgres(t).Database(t), postgres.Config{Cache: c})
		},
		"sqlite": func(t *testing.T, c *cache.Cache) (storage, error) {
			return sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "chainlearn.db"), sqlite.Config{Cache: c})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := cachetest.New(t)
			s, err := open(t, c.Cache)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			platform := learning.New(c.Cache, s, learning.Config{})
			cachetest.Verify(t, c.Cache, append(platform.Parts(coursework(t, s)), cachetest.From(s.Source()))...)
		})
	}
}

// coursework inserts two learners with a history in two courses, and returns what to ask.
func coursework(t *testing.T, sink seed.Sink) learning.Samples {
	t.Helper()
	insert := func(table, columns string, rows ...[]any) {
		t.Helper()
		if n, err := sink.Insert(t.Context(), table, strings.Fields(columns), slices.Values(rows)); err != nil || n != len(rows) {
			t.Fatalf("%d rows of %s: %v", n, table, err)
		}
	}
	day := func(n int) time.Time { return time.Date(2026, time.March, n, 12, 0, 0, 0, time.UTC) }
	questions, err := json.Marshal([]learning.Question{{ID: "q1", Text: "Question?", Options: []string{"right", "wrong"}}})
	if err != nil {
		t.Fatal(err)
	}
	var samples learning.Samples
	samples.Difficulties = []learning.Difficulty{"", learning.Beginner, learning.Advanced}
	for n, difficulty := range samples.Difficulties[1:] {
		user, course := learning.NewID[learning.Profile](), learning.NewID[learning.Course]()
		insert("users", "id stellar_address created_at", []any{user.UUID, fmt.Sprintf("G%055d", n), day(1)})
		insert("courses", "id title difficulty created_at", []any{course.UUID, fmt.Sprint("Course ", n), string(difficulty), day(n + 1)})
		insert("enrollments", "id user_id course_id enrolled_at", []any{uuid.New(), user.UUID, course.UUID, day(2)})
		for m := 1; m <= 2; m++ {
			module, quiz := fmt.Sprint("module-", m), uuid.New()
			insert("modules", "course_id module_id title position", []any{course.UUID, module, fmt.Sprint("Module ", m), m})
			insert("quizzes", "id course_id module_id questions created_at", []any{quiz, course.UUID, module, json.RawMessage(questions), day(1)})
			insert("quiz_submissions", "id quiz_id user_id answers score feedback submitted_at reward_claimed reward_amount claimed_at",
				[]any{uuid.New(), quiz, user.UUID, json.RawMessage(`[]`), 1, "", day(2 + m), true, 10 + n, day(4 + m)})
		}
		insert("credentials", "id user_id course_id score minted_at", []any{uuid.New(), user.UUID, course.UUID, 90 + n, day(5)})
		samples.Users = append(samples.Users, user)
		samples.Courses = append(samples.Courses, course)
		samples.Bearers = append(samples.Bearers, learning.BearerParams{User: user, Token: "valid"}, learning.BearerParams{User: user, Token: "revoked"})
		samples.Lists = append(samples.Lists, learning.ListParams{Page: n + 1, Limit: 1}, learning.ListParams{Difficulty: difficulty, Page: 1, Limit: 1})
		samples.Rewards = append(samples.Rewards, learning.RewardParams{User: user, Page: 1, Limit: 1}, learning.RewardParams{User: user, Page: 2, Limit: 1})
	}
	insert("revoked_tokens", "jti expires_at", []any{"revoked", day(30)})
	samples.Courses = append(samples.Courses, learning.NewID[learning.Course]()) // not found
	return samples
}
