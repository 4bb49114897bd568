package postgres

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/storagetest"
	"github.com/chainlearn/chainlearn/internal/testservers"
)

func TestMain(m *testing.M) {
	code := testservers.Main(m).Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

// storage opens a storage on the database at url, for the time of the test.
func storage(tb testing.TB, url string, cfg Config) *Storage {
	tb.Helper()
	s, err := Open(tb.Context(), url, cfg)
	testservers.Must(tb, err)
	tb.Cleanup(func() { testservers.Must(tb, s.Close()) })
	return s
}

func TestStorage(t *testing.T) {
	for _, mode := range []string{"cache_statement", "exec"} {
		t.Run(mode, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storagetest.Harness {
				url := testservers.SharedPostgres(t).Database(t) + "&default_query_exec_mode=" + mode
				s := storage(t, url, Config{})
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
