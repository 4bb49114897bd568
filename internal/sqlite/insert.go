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
	rowsPerStatement      = 50    // rows in one statement
	maxRowsPerTransaction = 5_000 // rows in one transaction, at most
	// A transaction keeps other writers waiting. They try again every 100 ms or sooner, so a
	// bulk insert without pauses would get the lock nearly every time, until they timed out.
	maxTransactionTime = 100 * time.Millisecond
	transactionPause   = 50 * time.Millisecond
)

// Insert stores rows in bulk, as seed.Sink has it. Names of tables and columns must come from
// the program.
func (s *Storage) Insert(ctx context.Context, table string, columns []string, rows iter.Seq[[]any]) (int, error) {
	next, stop := iter.Pull(rows)
	defer stop()
	total := 0
	for {
		var batch [][]any
		for len(batch) < maxRowsPerTransaction {
			row, ok := next()
			if !ok {
				break
			}
			batch = append(batch, row)
		}
		if len(batch) == 0 {
			return total, nil
		}
		for len(batch) > 0 {
			var used, n int
			err := s.db.Write(ctx, func(ctx context.Context, t *sql.Tx) (err error) {
				used, n, err = insertRows(ctx, t, table, columns, batch)
				return err
			})
			if err != nil {
				return total, fmt.Errorf("insert into %s: %w", table, err)
			}
			total += n
			if batch = batch[used:]; len(batch) == 0 && used < maxRowsPerTransaction {
				break // the last: no pause is needed
			}
			select {
			case <-time.After(transactionPause):
			case <-ctx.Done():
				return total, fmt.Errorf("insert into %s: %w", table, context.Cause(ctx))
			}
		}
	}
}

// insertRows stores as many of rows as it can in maxTransactionTime. It returns how many these are, and
// how many of them were new.
func insertRows(ctx context.Context, t *sql.Tx, table string, columns []string, rows [][]any) (used, stored int, err error) {
	began := time.Now()
	statement := func(n int) string {
		row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
		return fmt.Sprintf("INSERT INTO %s (%s) VALUES %s%s ON CONFLICT DO NOTHING",
			table, strings.Join(columns, ", "), row, strings.Repeat(", "+row, n-1))
	}
	full, err := t.PrepareContext(ctx, statement(rowsPerStatement))
	if err != nil {
		return 0, 0, err
	}
	defer full.Close()
	args := make([]any, 0, rowsPerStatement*len(columns))
	for used < len(rows) && (used == 0 || time.Since(began) < maxTransactionTime) {
		some := rows[used:min(len(rows), used+rowsPerStatement)]
		used += len(some)
		args = args[:0]
		for _, row := range some {
			if len(row) != len(columns) {
				return used, stored, fmt.Errorf("%d values for %d columns", len(row), len(columns))
			}
			for _, v := range row {
				args = append(args, columnValue(v))
			}
		}
		var res sql.Result
		if len(some) == rowsPerStatement {
			res, err = full.ExecContext(ctx, args...)
		} else {
			res, err = t.ExecContext(ctx, statement(len(some)), args...)
		}
		if err != nil {
			return used, stored, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return used, stored, err
		}
		stored += int(n)
	}
	return used, stored, nil
}

// columnValue of a column, as the migrations want it.
func columnValue(v any) any {
	switch v := v.(type) {
	case uuid.UUID:
		return v.String()
	case time.Time:
		return formatTime(v)
	case json.RawMessage:
		return string(v)
	default:
		return v
	}
}
