package sqlite

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// The platform passes the check of the cache that serves it, and the check finds what is taken
// out.
func TestPlatformPassesTheCheckOfItsCache(t *testing.T) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "chainlearn.db"), Config{Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	learning.New(c, s, learning.Config{})
	findings, err := c.Check(t.Context(), s.Source())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("%v", f)
	}

	if _, err := s.writePool.ExecContext(t.Context(), `DELETE FROM cache_watches WHERE watched = 'revoked_tokens'`); err != nil {
		t.Fatal(err)
	}
	findings, err = c.Check(t.Context(), s.Source())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if strings.Contains(f.Problem, "token") {
			return
		}
	}
	t.Errorf("no trigger records tokens any more, and the check finds %v", findings)
}
