package sqlite

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStorage(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		s := storage(t, Config{})
		return storagetest.Harness{
			Storage: s,
			Sink:    s,
			Exec: func(ctx context.Context, statement string) error {
				_, err := s.writePool.ExecContext(ctx, statement)
				return err
			},
			Touched: s.touched,
		}
	})
}

// touched empties the outbox.
func (s *Storage) touched(ctx context.Context) ([]cache.Tag, error) {
	rows, err := s.writePool.QueryContext(ctx, `DELETE FROM cache_outbox RETURNING tag`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tags []cache.Tag
	for rows.Next() {
		var tag cache.Tag
		if err := rows.Scan(&tag); err != nil {
			return nil, err
		}
		tags = append(tags, tag)
	}
	return tags, rows.Err()
}
