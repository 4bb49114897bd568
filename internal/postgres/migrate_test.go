package postgres

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/chainlearn/chainlearn/cache"
	outbox "github.com/chainlearn/chainlearn/cache/outbox/postgres"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// otherProgram returns the schema and the rows of a database made by another program.
func otherProgram(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile("testdata/other_program.sql")
	testservers.Must(tb, err)
	return string(text)
}

func id[K any](tb testing.TB, url, seed string) learning.ID[K] {
	tb.Helper()
	v, err := learning.ParseID[K](value[string](tb, url, `SELECT md5($1)::uuid::text`, seed))
	testservers.Must(tb, err)
	return v
}

// value asks for one, on a connection of its own.
func value[T any](tb testing.TB, url, query string, args ...any) (v T) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	testservers.Must(tb, err)
	defer conn.Close(context.Background())
	if err := conn.QueryRow(tb.Context(), query, args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return v
}

func TestAdoption(t *testing.T) {
	t.Parallel()
	url := testservers.SharedPostgres(t).Database(t)
	execute(t, url, otherProgram(t))
	files := `SELECT string_agg(relname || ' ' || pg_relation_filenode(oid), ', ' ORDER BY relname) FROM pg_class
		WHERE relname IN ('users', 'courses', 'enrollments', 'quizzes', 'quiz_submissions', 'credentials', 'idempotency_keys')`
	before := value[string](t, url, files)
	var out bytes.Buffer
	s := storage(t, url, Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if after := value[string](t, url, files); after != before {
		t.Errorf("tables were rewritten: %s, before %s", after, before)
	}
	if strings.Contains(out.String(), "index=enrollments_one_per_user_and_course") || !strings.Contains(out.String(), "index=enrollments_of_course") {
		t.Errorf("want the missing index built, and none that is there by another name:\n%s", &out)
	}

	user, course := id[learning.Profile](t, url, "u2"), id[learning.Course](t, url, "c1")
	detail, err := s.CourseDetail(t.Context(), course)
	testservers.Must(t, err)
	if detail.EnrolledCount != 5000 || len(detail.Modules) != 1 || detail.Description != "" {
		t.Errorf("detail: %+v", detail)
	}
	page, err := s.ListCourses(t.Context(), learning.ListParams{Page: 1, Limit: 20})
	testservers.Must(t, err)
	if page.Total != 100 || len(page.Courses) != 20 {
		t.Errorf("%d of %d courses", len(page.Courses), page.Total)
	}
	rewards, err := s.RewardHistory(t.Context(), learning.RewardParams{User: user, Page: 1, Limit: 20})
	testservers.Must(t, err)
	if want := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC); rewards.Total != 1 || !rewards.Rewards[0].ClaimedAt.Equal(want) {
		t.Errorf("rewards: %+v, want one claimed at %v", rewards, want)
	}

	// It can be written to, and one learner's key does not block another's.
	_, err = s.touched(t.Context())
	testservers.Must(t, err)
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	testservers.Must(t, s.Write(t.Context(), func(ctx context.Context, tx learning.Tx) error {
		return tx.InsertEnrollment(ctx, learning.Enrollment{UserID: user, CourseID: id[learning.Course](t, url, "c50"), EnrolledAt: at})
	}))
	tags, err := s.touched(t.Context())
	testservers.Must(t, err)
	if want := learning.ProgressTag(user); !slices.Contains(tags, want) || len(tags) != 4 {
		t.Errorf("touched %v", tags)
	}
	for _, u := range []learning.UserID{user, id[learning.Profile](t, url, "u3")} {
		testservers.Must(t, s.Write(t.Context(), func(ctx context.Context, tx learning.Tx) error {
			key := learning.IdempotencyKey{Key: "k", User: u, Endpoint: "e"}
			if err := tx.StoreResponse(ctx, key, learning.StoredResponse{Body: []byte(`{"a":1}`), ExpiresAt: at.Add(time.Hour)}, at); err != nil {
				return err
			}
			got, err := tx.StoredResponse(ctx, key, at)
			if !got.ExpiresAt.Equal(at.Add(time.Hour)) {
				t.Errorf("remembered until %v", got.ExpiresAt)
			}
			return err
		}))
	}
}

func TestEveryTableIsWatched(t *testing.T) {
	t.Parallel()
	s := storage(t, migrated(t), Config{})
	got, err := outbox.Watched(t.Context(), s.pool)
	testservers.Must(t, err)
	var tables []string
	for _, w := range got {
		if w.Watch != "chainlearn" {
			t.Errorf("watched by another: %+v", w)
		}
		tables = append(tables, w.Table)
	}
	found, err := outbox.Check(t.Context(), s.pool)
	testservers.Must(t, err)
	if len(found) > 0 {
		t.Errorf("found %v", found)
	}
	want := []string{"courses", "credentials", "enrollments", "modules", "quiz_submissions", "quizzes", "revoked_tokens", "users"}
	if !slices.Equal(tables, want) {
		t.Errorf("watched are %v, want %v", tables, want)
	}
}

// A database that an earlier release has migrated: its outbox and its watches are replaced, and
// in between everything stays watched.
func TestUpgradeOfTheOutbox(t *testing.T) {
	t.Parallel()
	url := testservers.SharedPostgres(t).Database(t)
	config, err := pgx.ParseConfig(url)
	testservers.Must(t, err)
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	db := stdlib.OpenDB(*config)
	defer db.Close()
	p, err := migrationProvider(db, slog.New(slog.DiscardHandler))
	testservers.Must(t, err)
	_, err = p.UpTo(t.Context(), 4)
	testservers.Must(t, err)
	for _, file := range []string{"../../cache/outbox/postgres/testdata/outbox-1.sql", "testdata/00006_watch-1.sql"} {
		statements, err := os.ReadFile(file)
		testservers.Must(t, err)
		execute(t, url, string(statements))
	}
	execute(t, url, `INSERT INTO `+versionTable+` (version_id, is_applied) VALUES (5, true), (6, true)`, `INSERT INTO revoked_tokens VALUES ('a b', now())`)
	s := storage(t, url, Config{})
	execute(t, url, `INSERT INTO revoked_tokens VALUES ('c d', now())`)
	tags, err := s.touched(t.Context())
	testservers.Must(t, err)
	slices.Sort(tags)
	if !slices.Equal(tags, []cache.Tag{"token:a b", "token:c%20d"}) {
		t.Errorf("touched %q", tags)
	}
	found, err := outbox.Check(t.Context(), s.pool)
	testservers.Must(t, err)
	if watches, err := outbox.Watched(t.Context(), s.pool); err != nil || len(watches) != 8 || len(found) > 0 {
		t.Errorf("watched: %v (%v), found %v", watches, err, found)
	}
}

// A definition that is not spelled as the server prints it would be built again and again.
func TestIndexesAreRecognised(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	for _, ix := range indexes {
		n := value[int](t, url, `SELECT count(*) FROM pg_index WHERE indrelid = $1::text::regclass AND indisvalid
			AND pg_get_indexdef(indexrelid) LIKE '% USING ' || replace($2::text, '_', '\_')`, ix.table, ix.using)
		if n != 1 {
			t.Errorf("%d indexes on %s are %s, want 1", n, ix.table, ix.using)
		}
	}
}

func TestProcessesThatMigrateAtOnce(t *testing.T) {
	t.Parallel()
	url := testservers.SharedPostgres(t).Database(t)
	execute(t, url, otherProgram(t))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := Open(t.Context(), url, Config{MaxConns: 4})
			if err != nil {
				t.Error(err)
				return
			}
			testservers.Must(t, s.Close())
		})
	}
	wg.Wait()
	if n, versions := value[int](t, url, `SELECT count(*) FROM `+versionTable), value[int](t, url, `SELECT count(DISTINCT version_id) FROM `+versionTable); n != versions {
		t.Errorf("%d migrations of %d versions", n, versions)
	}
	if n := value[int](t, url, `SELECT count(*) FROM pg_index WHERE NOT indisvalid`); n != 0 {
		t.Errorf("%d invalid indexes", n)
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	execute(t, url, `INSERT INTO `+versionTable+` (version_id, is_applied) VALUES (999, true)`)
	_, err := Open(t.Context(), url, Config{})
	newer, ok := errors.AsType[*NewerError](err)
	if !ok || newer.Found != 999 || newer.Known != 8 {
		t.Errorf("got %v, want a NewerError with 999 and 8", err)
	}
}

func TestInterruptedIndexIsBuiltAgain(t *testing.T) {
	t.Parallel()
	url := testservers.SharedPostgres(t).Database(t)
	execute(t, url, otherProgram(t))
	execute(t, url, `DROP INDEX one_enrollment`, `INSERT INTO enrollments (id, user_id, course_id) SELECT md5('twice')::uuid, user_id, course_id FROM enrollments LIMIT 1`)
	_, err := Open(t.Context(), url, Config{})
	for _, want := range []string{"rows of enrollments are alike in (user_id, course_id)", "delete all but one", "Key (user_id, course_id)="} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if n := value[int](t, url, `SELECT count(*) FROM pg_index WHERE NOT indisvalid`); n != 1 {
		t.Errorf("%d invalid indexes after a failed build, want 1", n)
	}
	execute(t, url, `DELETE FROM enrollments WHERE id = md5('twice')::uuid`)
	storage(t, url, Config{})
	if n := value[int](t, url, `SELECT count(*) FROM pg_index WHERE NOT indisvalid`); n != 0 {
		t.Errorf("%d invalid indexes were left", n)
	}
}

// A migration gives way to sessions that use a table, and tries again.
func TestMigrationWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	url := testservers.SharedPostgres(t).Database(t)
	execute(t, url, otherProgram(t))
	conn, err := pgx.Connect(t.Context(), url)
	testservers.Must(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), `BEGIN; LOCK TABLE quiz_submissions IN ACCESS SHARE MODE`)
	testservers.Must(t, err)
	log := &watchedLog{seen: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		s, err := Open(t.Context(), url, Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Error(err)
			return
		}
		testservers.Must(t, s.Close())
	})
	<-log.seen
	_, err = conn.Exec(t.Context(), `COMMIT`)
	testservers.Must(t, err)
	wg.Wait()
}

// watchedLog closes seen when a migration could not get a lock.
type watchedLog struct {
	once sync.Once
	seen chan struct{}
}

func (l *watchedLog) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("the tables to migrate are in use")) {
		l.once.Do(func() { close(l.seen) })
	}
	return len(b), nil
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	if _, err := Open(t.Context(), "postgres://user:secret@127.0.0.1:1/x?connect_timeout=1", Config{}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error without the password", err)
	}
	_, err := Open(t.Context(), "postgres://127.0.0.1:1/x", Config{MaxConns: 1, ReadTimeout: -time.Second, ReplicaWait: -1})
	for _, want := range []string{"MaxConns is 1", "ReadTimeout is negative: -1s", "ReplicaWait is negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
