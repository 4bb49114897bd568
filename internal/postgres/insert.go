package postgres

import (
	"context"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/seed"
)

var _ seed.Sink = (*Storage)(nil)

// insertBatch is how many rows one transaction inserts: enough to be fast, and few enough to
// stay well inside the limits of a transaction.
const insertBatch = 5000

// Insert stores rows in bulk, as seed.Sink has it.
func (s *Storage) Insert(ctx context.Context, table string, columns []string, rows iter.Seq[[]any]) (int, error) {
	next, stop := iter.Pull(rows)
	defer stop()
	total := 0
	for {
		batch := make([][]any, 0, 64)
		for len(batch) < insertBatch {
			row, more := next()
			if !more {
				break
			}
			batch = append(batch, row)
		}
		if len(batch) == 0 {
			return total, nil
		}
		n, err := s.insertBatch(ctx, table, columns, batch)
		total += n
		if err != nil {
			return total, fmt.Errorf("insert into %s: %w", table, err)
		}
	}
}

// insertBatch copies rows into a table of their own first: COPY cannot leave out the ones
// that are there already.
func (s *Storage) insertBatch(ctx context.Context, table string, columns []string, rows [][]any) (n int, err error) {
	into := pgx.Identifier{table}.Sanitize()
	list := ""
	for i, c := range columns {
		if i > 0 {
			list += ", "
		}
		list += pgx.Identifier{c}.Sanitize()
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx pgx.Tx) error {
		// Without constraints: what a column needs but the rows lack comes from its default.
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
