package postgres

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Only what the server itself refused is sure to have had no effect. After anything else the
// fence and the rows must stay.
func TestWhichErrorsOfCommitLeaveTheOutcomeOpen(t *testing.T) {
	for _, test := range []struct {
		severity, code string
		refused        bool
	}{
		{"ERROR", "40001", true},  // serialization failure
		{"ERROR", "23505", true},  // a deferred constraint
		{"FATAL", "25P03", true},  // COMMIT came too late
		{"FATAL", "57P01", false}, // shutdown while it commits
		{"ERROR", "57P01", false}, // as a proxy words it
		{"FATAL", "57P02", false}, // crash
		{"ERROR", "57P03", false},
		{"FATAL", "08006", false}, // connection failure
		{"ERROR", "08P01", false}, // as PgBouncer words it
		{"ERROR", "40003", false}, // statement completion unknown
		{"FATAL", "53300", false},
		{"PANIC", "XX000", false},
	} {
		err := fmt.Errorf("commit: %w", &pgconn.PgError{SeverityUnlocalized: test.severity, Code: test.code})
		if got := refused(err); got != test.refused {
			t.Errorf("%s %s: refused is %v, want %v", test.severity, test.code, got, test.refused)
		}
	}
	if !refused(pgx.ErrTxCommitRollback) {
		t.Error("a COMMIT that the server answered with ROLLBACK leaves the outcome open")
	}
	if refused(errors.New("unexpected EOF")) {
		t.Error("a lost connection is taken for a refusal")
	}
}
