package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/seed"
)

var _ seed.Sink = (*Storage)(nil)

const (
	insertTogether = 50    // rows in one statement
	insertAtOnce   = 5_000 // rows in one transaction, which keeps other writers waiting
)

// Insert stores rows in bulk, as seed.Sink has it. Names of tables and columns must come from
// the program.
func (s *Storage) Insert(ctx context.Context, table string, columns []string, rows iter.Seq[[]any]) (int, error) {
	next, stop := iter.Pull(rows)
	defer stop()
	total := 0
	for {
		var batch [][]any
		for len(batch) < insertAtOnce {
			row, ok := next()
			if !ok {
				break
			}
			batch = append(batch, row)
		}
		if len(batch) == 0 {
			return total, nil
		}
		n := 0
		err := s.db.Write(ctx, func(ctx context.Context, t *sql.Tx) (err error) {
			n, err = insert(ctx, t, table, columns, batch)
			return err
		})
		if err != nil {
			return total, fmt.Errorf("insert into %s: %w", table, err)
		}
		total += n
	}
}

func insert(ctx context.Context, t *sql.Tx, table string, columns []string, rows [][]any) (int, error) {
	statement := func(n int) string {
		row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
		return fmt.Sprintf("INSERT INTO %s (%s) VALUES %s%s ON CONFLICT DO NOTHING",
			table, strings.Join(columns, ", "), row, strings.Repeat(", "+row, n-1))
	}
	full, err := t.PrepareContext(ctx, statement(insertTogether))
	if err != nil {
		return 0, err
	}
	defer full.Close()
	total := 0
	args := make([]any, 0, insertTogether*len(columns))
	for len(rows) > 0 {
		some := rows[:min(len(rows), insertTogether)]
		rows = rows[len(some):]
		args = args[:0]
		for _, row := range some {
			if len(row) != len(columns) {
				return 0, fmt.Errorf("%d values for %d columns", len(row), len(columns))
			}
			for _, v := range row {
				args = append(args, value(v))
			}
		}
		var res sql.Result
		if len(some) == insertTogether {
			res, err = full.ExecContext(ctx, args...)
		} else {
			res, err = t.ExecContext(ctx, statement(len(some)), args...)
		}
		if err != nil {
			return 0, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return 0, err
		}
		total += int(n)
	}
	return total, nil
}

// value of a column, as the migrations want it.
func value(v any) any {
	switch v := v.(type) {
	case uuid.UUID:
		return v.String()
	case time.Time:
		return text(v)
	case json.RawMessage:
		return string(v)
	default:
		return v
	}
}
