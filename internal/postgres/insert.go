package postgres

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/seed"
)

var _ seed.Sink = (*Storage)(nil)

// insertBatchSize is how many rows one transaction inserts: enough to be fast, and few enough to
// stay well inside the limits of a transaction.
const insertBatchSize = 5000

// Insert stores rows in bulk, as seed.Sink has it.
func (s *Storage) Insert(ctx context.Context, table string, columns []string, rows iter.Seq[[]any]) (int, error) {
	next, stop := iter.Pull(rows)
	defer stop()
	total := 0
	for {
		var batch [][]any
		for len(batch) < insertBatchSize {
			row, ok := next()
			if !ok {
				break
			}
			batch = append(batch, row)
		}
		if len(batch) == 0 {
			return total, nil
		}
		n, err := s.insertRows(ctx, table, columns, batch)
		total += n
		if err != nil {
			return total, fmt.Errorf("insert into %s: %w", table, err)
		}
	}
}

// insertRows copies rows into a table of their own first: COPY cannot leave out the ones
// that are there already.
func (s *Storage) insertRows(ctx context.Context, table string, columns []string, rows [][]any) (n int, err error) {
	into := pgx.Identifier{table}.Sanitize()
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = pgx.Identifier{c}.Sanitize()
	}
	list := strings.Join(quoted, ", ")
	err = s.db.Write(ctx, func(ctx context.Context, tx pgx.Tx) error {
		// Without constraints: what the rows lack comes from defaults when they move on.
		if _, err := tx.Exec(ctx, `CREATE TEMP TABLE seed_rows ON COMMIT DROP AS SELECT `+list+` FROM `+into+` WITH NO DATA`); err != nil {
			return err
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"seed_rows"}, columns, pgx.CopyFromRows(rows)); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO `+into+` (`+list+`) SELECT `+list+` FROM seed_rows ON CONFLICT DO NOTHING`)
		n = int(tag.RowsAffected())
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
