package seed

import (
	"context"
	"iter"
)

// Sink takes rows in bulk. The storages implement it.
type Sink interface {
	// Insert stores rows, each with one value for each column, and returns how many were
	// new: a row that breaks a unique constraint, because it is there already, is left
	// out. Values are uuid.UUID, string, int, bool, time.Time, json.RawMessage and nil.
	//
	// The rows are stored in several transactions, so that other writers get their turn in between; after
	// an error some are stored. Answers that depend on the rows are invalidated as after
	// any other write.
	Insert(ctx context.Context, table string, columns []string, rows iter.Seq[[]any]) (int, error)
}
