// Package storagetest holds the rules that every learning.Storage keeps, as a suite.
package storagetest

import (
	"cmp"
	"context"
	"testing"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/seed"
)

// Harness is an empty storage under test, without a cache, and what the suite needs beside
// it.
type Harness struct {
	Storage learning.Storage
	// Sink inserts into the same database.
	Sink seed.Sink
	// Exec runs SQL as any other program would. The suite keeps to what SQLite and
	// PostgreSQL have in common.
	Exec func(ctx context.Context, statement string) error
	// Touched returns the tags that were recorded since the last call.
	Touched func(ctx context.Context) ([]cache.Tag, error)
}

// Run runs the suite. open returns a storage that lasts for the test and is its alone.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, group := range [][]rule{catalogueRules, signInRules, learnerRules, courseworkRules, ledgerRules, transactionRules, tagRules, importRules} {
		for _, r := range group {
			t.Run(r.name, func(t *testing.T) { r.check(&suite{T: t, Harness: open(t)}) })
		}
	}
}

type rule struct {
	name  string
	check func(s *suite)
}

// suite is one rule's view of the storage under test.
type suite struct {
	*testing.T
	Harness
	rows int // inserted so far, for what must differ
}

// write runs fn in a transaction that must succeed.
func (s *suite) write(fn func(ctx context.Context, tx learning.Tx) error) {
	s.Helper()
	if err := s.Storage.Write(s.Context(), fn); err != nil {
		s.Fatal(err)
	}
}

// exec runs a statement as another program, which must succeed.
func (s *suite) exec(statement string) {
	s.Helper()
	if err := s.Exec(s.Context(), statement); err != nil {
		s.Fatalf("%s: %v", statement, err)
	}
}

// touched returns the tags recorded since the last call.
func (s *suite) touched() []cache.Tag {
	s.Helper()
	tags, err := s.Touched(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return tags
}

// must takes the error of a read that must succeed.
func must[T any](s *suite) func(T, error) T {
	return func(v T, err error) T {
		s.Helper()
		if err != nil {
			s.Fatal(err)
		}
		return v
	}
}

func compareIDs[K any](a, b learning.ID[K]) int { return cmp.Compare(a.String(), b.String()) }
