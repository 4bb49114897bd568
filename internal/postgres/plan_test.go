package postgres

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
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// largeDataset fills a migrated database with as many rows as make reading a whole table cost more
// than any index.
var largeDataset = []string{
	`INSERT INTO users (id, stellar_address) SELECT md5('u' || i)::uuid, 'G' || i FROM generate_series(1, 20000) i`,
	`INSERT INTO courses (id, title, description, difficulty, created_at) SELECT md5('c' || i)::uuid, 'Course ' || i, repeat(md5('d' || i), 20),
		(ARRAY['beginner', 'intermediate', 'advanced'])[i % 3 + 1], timestamptz '2026-01-01' + i * interval '1 minute' FROM generate_series(1, 3000) i`,
	`INSERT INTO modules SELECT md5('c' || i)::uuid, 'module-1', 'Module', 1 FROM generate_series(1, 3000) i`,
	`INSERT INTO enrollments (user_id, course_id) SELECT md5('u' || i % 20000 + 1)::uuid, md5('c' || i % 2999 + 1)::uuid FROM generate_series(1, 60000) i ON CONFLICT DO NOTHING`,
	`INSERT INTO quizzes (id, course_id, module_id, questions, generated_for)
		SELECT md5('q' || i)::uuid, md5('c' || i % 3000 + 1)::uuid, 'module-' || i % 5, '[{"id":"q1","text":"?","options":["a","b"],"correctIndex":0}]',
			CASE WHEN i > 15000 THEN md5('u' || i % 20000 + 1)::uuid END FROM generate_series(1, 40000) i`,
	`INSERT INTO quiz_submissions (quiz_id, user_id, answers, score, reward_claimed, submitted_at)
		SELECT md5('q' || i)::uuid, md5('u' || i % 20000 + 1)::uuid, '[]', 1, i % 2 = 0, timestamptz '2026-01-01' + i * interval '1 minute' FROM generate_series(15001, 40000) i`,
	`INSERT INTO credentials (user_id, course_id, score) SELECT md5('u' || i)::uuid, md5('c' || i % 3000 + 1)::uuid, 1 FROM generate_series(1, 20000) i`,
	`INSERT INTO idempotency_keys (key, user_id, endpoint, request_hash, response_status, response_body, expires_at)
		SELECT 'k' || i, md5('u' || i)::uuid, 'e', 'h', 200, '{}', now() + interval '1 day' FROM generate_series(1, 20000) i`,
	`INSERT INTO revoked_tokens SELECT 't' || i, now() FROM generate_series(1, 20000) i`,
	`INSERT INTO used_challenges SELECT md5('h' || i)::uuid, now() FROM generate_series(1, 20000) i`,
	`TRUNCATE cache_outbox`,
	`VACUUM ANALYZE`,
}

// No statement of the platform, its triggers included, reads a whole table. The server itself
// reports the plan of everything that it runs.
func TestIndexesServeEveryStatement(t *testing.T) {
	t.Parallel()
	server := testservers.StartPostgres(t, testservers.PostgresConfig{Settings: map[string]string{
		"session_preload_libraries":          "auto_explain",
		"auto_explain.log_min_duration":      "0",
		"auto_explain.log_nested_statements": "on",
		"jit":                                "off",
	}})
	url := server.Database(t)
	var mu sync.Mutex
	var sent []string
	s := storage(t, url, Config{OnQuery: func(query string) {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, query)
	}})
	execute(t, url, largeDataset...)
	user, course := id[learning.Profile](t, url, "u7"), id[learning.Course](t, url, "c7")
	quiz, own := id[learning.Quiz](t, url, "q7"), id[learning.Quiz](t, url, "q20006") // of user 7
	module := learning.ModuleID("module-1")
	at := time.Date(2026, 5, 5, 5, 5, 5, 0, time.UTC)
	before := len(server.Log())

	ctx := t.Context()
	for name, read := range map[string]func() error{
		"list": func() error { _, err := s.ListCourses(ctx, learning.ListParams{Page: 3, Limit: 20}); return err },
		"list of": func() error {
			_, err := s.ListCourses(ctx, learning.ListParams{Difficulty: "advanced", Page: 1, Limit: 20})
			return err
		},
		"count":    func() error { _, err := s.CountCourses(ctx, ""); return err },
		"count of": func() error { _, err := s.CountCourses(ctx, "advanced"); return err },
		"detail":   func() error { _, err := s.CourseDetail(ctx, course); return err },
		"enrolled": func() error { _, err := s.Enrolled(ctx, user, []learning.CourseID{course}); return err },
		"enrolled, of many": func() error {
			_, err := s.enrolmentBatcher.query(ctx, slices.Repeat([]*enrolmentRequest{{user, slices.Repeat([]learning.CourseID{course}, learning.MaxLimit)}}, enrolmentBatchSize)...)
			return err
		},
		"completed module": func() error { _, err := s.CompletedModule(ctx, user, course, module); return err },
		"profile":          func() error { _, err := s.Profile(ctx, user); return err },
		"progress":         func() error { _, err := s.Progress(ctx, user); return err },
		"rewards": func() error {
			_, err := s.RewardHistory(ctx, learning.RewardParams{User: user, Page: 1, Limit: 20})
			return err
		},
		"credentials": func() error { _, err := s.Credentials(ctx, user); return err },
		"bearer":      func() error { _, _, err := s.Bearer(ctx, user, "t7"); return err },
	} {
		mu.Lock()
		sent = nil
		mu.Unlock()
		if err := read(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if mu.Lock(); len(sent) != 1 {
			t.Errorf("%s sent %d statements, want 1: %q", name, len(sent), sent)
		}
		mu.Unlock()
	}
	var submission learning.SubmissionID
	testservers.Must(t, s.pool.QueryRow(ctx, `SELECT id FROM quiz_submissions WHERE quiz_id = $1`, own.UUID).Scan(&submission.UUID))
	testservers.Must(t, s.Write(ctx, func(ctx context.Context, tx learning.Tx) error {
		fresh := learning.NewID[learning.Quiz]()
		key := learning.IdempotencyKey{Key: "new", User: user, Endpoint: "e"}
		var errs []error
		note := func(_ any, err error) {
			if err != nil && !errors.Is(err, learning.ErrNoRow) && !errors.Is(err, learning.ErrExists) {
				errs = append(errs, err)
			}
		}
		note(tx.CourseActive(ctx, course))
		note(nil, tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: course, UserID: user, EnrolledAt: at}))
		note(tx.Enrolled(ctx, user, course))
		note(tx.ProfileForUpdate(ctx, user))
		note(nil, tx.UpdateProfile(ctx, learning.Profile{ID: user, Pace: learning.Fast, Language: "en"}, at))
		note(nil, tx.AddCredits(ctx, user, 1, at))
		note(tx.ModuleQuestions(ctx, course, module))
		note(nil, tx.InsertQuiz(ctx, learning.Quiz{ID: fresh, CourseID: course, ModuleID: module, Questions: []learning.Question{{ID: "q"}}, GeneratedFor: &user, CreatedAt: at}))
		_, _, err := tx.LearnerQuiz(ctx, user, course, module)
		note(nil, err)
		note(tx.Quiz(ctx, quiz))
		note(nil, tx.InsertSubmission(ctx, learning.Submission{ID: learning.NewID[learning.Submission](), QuizID: fresh, UserID: user, Score: 1, SubmittedAt: at}))
		note(tx.CompleteCourse(ctx, user, course, at))
		note(tx.SubmissionForUpdate(ctx, submission))
		note(nil, tx.MarkClaimed(ctx, submission, 10, at))
		note(nil, tx.InsertCredential(ctx, user, learning.Credential{ID: learning.NewID[learning.Credential](), CourseID: course, MintedAt: at}))
		note(nil, tx.UseChallenge(ctx, learning.NewID[learning.Challenge](), at, at))
		_, _, err = tx.EnsureUser(ctx, "G7", at)
		note(nil, err)
		_, _, err = tx.EnsureUser(ctx, "GNEW", at)
		note(nil, err)
		note(nil, tx.RevokeToken(ctx, "jti", at, at))
		note(tx.StoredResponse(ctx, key, at))
		note(nil, tx.StoreResponse(ctx, key, learning.StoredResponse{Body: []byte(`{}`), ExpiresAt: at}, at))
		return errors.Join(errs...)
	}))
	execute(t, url,
		`DELETE FROM users WHERE id = md5('u9')::uuid`, // and what goes with it
		`DELETE FROM courses WHERE id = md5('c9')::uuid`,
	)

	log := server.Log()[before:]
	if !strings.Contains(log, "cache_watch_insert_enrollments") || strings.Count(log, "Query Text:") < 40 {
		t.Fatalf("the plans are not in the log:\n%.2000s", log)
	}
	whole := regexp.MustCompile(`Seq Scan on (\w+)`)
	for entry := range strings.SplitSeq(log, "Query Text:") {
		for _, m := range whole.FindAllStringSubmatch(entry, -1) {
			if slices.Contains([]string{"users", "courses", "modules", "enrollments", "quizzes", "quiz_submissions", "credentials", "idempotency_keys", "revoked_tokens", "used_challenges"}, m[1]) {
				t.Errorf("the whole table %s is read:\n%s", m[1], entry)
			}
		}
	}
}
