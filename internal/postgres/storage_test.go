package postgres

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/storagetest"
	"github.com/chainlearn/chainlearn/internal/testservers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Main(m)) }

func TestStorage(t *testing.T) {
	for _, mode := range []string{"cache_statement", "exec"} { // the latter as proxies want it
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := storage(t, migrated(t)+"&default_query_exec_mode="+mode, Config{})
			storagetest.Run(t, func(t *testing.T) storagetest.Harness {
				// Rules run one after another, and emptying a database is faster than making one.
				_, err := s.pool.Exec(t.Context(), `TRUNCATE users, courses, revoked_tokens CASCADE; TRUNCATE cache_outbox`)
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
