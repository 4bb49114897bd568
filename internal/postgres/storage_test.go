package postgres

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
	"github.com/chainlearn/chainlearn/internal/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Main(m)) }

func TestStorage(t *testing.T) {
	for name, url := range map[string]func(t *testing.T) string{
		"directly":          func(t *testing.T) string { return migrated(t) },
		"through PgBouncer": func(t *testing.T) string { return bouncer(t).URL(migrated(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := storage(t, url(t), Config{})
			storagetest.Run(t, func(t *testing.T) storagetest.Harness {
				// Rules run one after another, and emptying a database is faster than making one.
				_, err := s.pool.Exec(t.Context(), `TRUNCATE users, courses, revoked_tokens, used_challenges CASCADE; TRUNCATE cache_outbox`)
				testservers.Must(t, err)
				return storagetest.Harness{
					Storage: s,
					Sink:    s,
					Exec: func(ctx context.Context, statement string) error {
						_, err := s.pool.Exec(ctx, statement)
						return err
					},
					Touched: s.touched,
				}
			})
		})
	}
}

// bouncer starts a PgBouncer with fewer sessions than clients, so that each meets what others
// have left behind in theirs. Migrating takes four at once.
func bouncer(t *testing.T) *testservers.PgBouncer {
	t.Helper()
	return testservers.SharedPostgres(t).StartPgBouncer(t, "default_pool_size = 4")
}

// Through a proxy that pools transactions the schema is made, and everything is as it was
// but for what the log says.
func TestOpenThroughPgBouncer(t *testing.T) {
	t.Parallel()
	direct := testservers.SharedPostgres(t).Database(t)
	url := bouncer(t).URL(direct)
	for _, tt := range []struct {
		name, url string
		mode      pgx.QueryExecMode
		said      int
	}{
		{"through a proxy", url, pgx.QueryExecModeExec, 1}, // the first, which makes the schema
		{"through a proxy, as the URL says", url + "&default_query_exec_mode=cache_describe", pgx.QueryExecModeCacheDescribe, 0},
		{"directly", direct, pgx.QueryExecModeCacheStatement, 0},
	} {
		var log strings.Builder
		s := storage(t, tt.url, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if mode := s.pool.Config().ConnConfig.DefaultQueryExecMode; mode != tt.mode {
			t.Errorf("%s: statements run in mode %v, want %v", tt.name, mode, tt.mode)
		}
		if said := strings.Count(log.String(), "a proxy answers for the database"); said != tt.said {
			t.Errorf("%s: it says so %d times:\n%s", tt.name, said, log.String())
		}
		// More at once than there are sessions: they take turns.
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 20 {
					if _, err := s.CountCourses(t.Context(), learning.Beginner); err != nil {
						t.Errorf("%s: %v", tt.name, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// touched empties the outbox.
func (s *Storage) touched(ctx context.Context) ([]cache.Tag, error) {
	rows, err := s.pool.Query(ctx, `DELETE FROM cache_outbox RETURNING tag`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[cache.Tag])
}

// storage opens a storage on the database at url, for the time of the test.
func storage(tb testing.TB, url string, cfg Config) *Storage {
	tb.Helper()
	s, err := Open(tb.Context(), url, cfg)
	testservers.Must(tb, err)
	tb.Cleanup(func() { testservers.Must(tb, s.Close()) })
	return s
}

// template is a database of the shared server with the platform's schema. Copying it is much
// faster than migrating each.
var template struct {
	once sync.Once
	name string
	err  error
}

// migrated returns the URL of a database with the platform's schema and no rows, for the time
// of the test.
func migrated(tb testing.TB) string {
	tb.Helper()
	server := testservers.SharedPostgres(tb)
	template.once.Do(func() {
		ctx := context.Background()
		if template.name, template.err = server.CreateDatabase(ctx); template.err != nil {
			return
		}
		var s *Storage
		if s, template.err = Open(ctx, server.DatabaseURL(template.name), Config{}); template.err == nil {
			template.err = s.Close()
		}
	})
	testservers.Must(tb, template.err)
	name := "copy_" + strings.ToLower(rand.Text())
	execute(tb, server.URL(), `CREATE DATABASE `+name+` TEMPLATE `+template.name)
	tb.Cleanup(func() { testservers.Must(tb, server.DropDatabase(context.Background(), name)) })
	return server.DatabaseURL(name)
}

// execute runs statements, each by itself, on a connection of its own.
func execute(tb testing.TB, url string, statements ...string) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	testservers.Must(tb, err)
	defer conn.Close(context.Background())
	for _, statement := range statements {
		if _, err := conn.Exec(tb.Context(), statement); err != nil {
			tb.Fatalf("%s: %v", statement, err)
		}
	}
}
