package cache_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// uuid says what it is, as the types of UUID packages do.
type uuid [16]byte

func (u uuid) String() string { return fmt.Sprintf("%x-…", u[:2]) }

type slug string

func TestTagsAreSpelledOneWay(t *testing.T) {
	seven := 7
	berlin := time.FixedZone("", 3600)
	for _, c := range []struct {
		tag  cache.Tag
		want cache.Tag
	}{
		{cache.T("catalog"), "catalog"},
		{cache.T("product", 7), "product:7"},
		{cache.T("product", int8(-7)), "product:-7"},
		{cache.T("product", uint64(math.MaxUint64)), "product:18446744073709551615"},
		{cache.T("product", &seven), "product:7"},
		{cache.T("product", slug("red wine")), "product:red%20wine"},
		{cache.T("product", "urn:isbn:1"), "product:urn%3Aisbn%3A1"},
		{cache.T("product", ""), "product:%"},
		{cache.T("product", "*"), "product:%2A"},
		{cache.T("page", "a\tb\n\x7f\u0085"), "page:a%09b%0A%7F%C2%85"},
		{cache.T("stock", "north", 7), "stock:north:7"},
		{cache.T("flag", true), "flag:true"},
		{cache.T("hash", []byte{0, 255}), "hash:00ff"},
		{cache.T("hash", [2]byte{0, 255}), "hash:00ff"},
		{cache.T("user", uuid{0xab, 0xcd}), "user:abcd-%E2%80%A6"},
		{cache.T("user", sql.NullInt64{Int64: 3, Valid: true}), "user:3"},
		{cache.T("day", cache.Date(time.Date(2026, 3, 1, 0, 30, 0, 0, berlin))), "day:2026-03-01"},
		{cache.T("at", time.Date(2026, 3, 1, 0, 30, 0, 1500, berlin)), "at:2026-02-28T23%3A30%3A00.000001Z"},
	} {
		if c.tag != c.want {
			t.Errorf("got %q, want %q", c.tag, c.want)
		}
		if err := c.tag.Check(); err != nil {
			t.Errorf("%q: %v", c.tag, err)
		}
	}
}

func TestLongTagsAreHashed(t *testing.T) {
	long := strings.Repeat("x", 8<<20)
	a, b := cache.T("page", long), cache.T("page", long+"y")
	if len(a) > driver.MaxTag || a == b || !strings.HasPrefix(string(a), "page:#") || a.Check() != nil {
		t.Errorf("%q and %q", a, b)
	}
	if a.Family() != "page:*" {
		t.Errorf("the family is %q", a.Family())
	}
	if fits := cache.T("page", strings.Repeat("x", driver.MaxTag-len("page:"))); strings.Contains(string(fits), "#") {
		t.Errorf("%q was hashed and need not be", fits)
	}
	if many := cache.T("page", strings.Repeat("x", 100), strings.Repeat("y", 100)); many.Check() != nil || len(many) > driver.MaxTag {
		t.Errorf("%q: %v", many, many.Check())
	}
}

func TestMalformedTagsAreErrors(t *testing.T) {
	var none *int
	for _, c := range []struct {
		tag  cache.Tag
		says string
	}{
		{"", "kind"}, {":7", "kind"}, {"a b:7", "kind"}, {"é:7", "kind"}, {"%:7", "kind"},
		{cache.Tag(strings.Repeat("k", 65) + ":1"), "kind"},
		{"product:", "cache.T"}, {"product:red wine", "cache.T"}, {"product:a:*", "cache.T"}, {"product:7:", "cache.T"},
		{"product:%2f", "cache.T"}, {"product:%41", "cache.T"}, {"product:%", ""}, {"product:%%", "cache.T"},
		{"product:tab\t", "cache.T"}, {"product:#abc", "hash"},
		{cache.Tag("product:" + strings.Repeat("x", driver.MaxTag)), "cache.T"},
		{cache.T("product", nil), "nil"}, {cache.T("product", none), "nil pointer"},
		{cache.T("price", 1.5), "float64"}, {cache.T("d", time.Second), "Duration"},
		{cache.T("user", sql.NullInt64{}), "NULL"}, {cache.T("user", struct{ A int }{1}), "struct"},
		{cache.T("two words"), "kind"},
		{cache.T("user", [16]byte{1}), "UUID"},
	} {
		err := c.tag.Check()
		if c.says == "" {
			if err != nil {
				t.Errorf("%q: %v", c.tag, err)
			}
			continue
		}
		if !errors.Is(err, driver.ErrTag) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: error %v, want one that says %q", c.tag, err, c.says)
		}
	}
}

func TestFamilyFollowsFromTheKind(t *testing.T) {
	for tag, want := range map[cache.Tag]cache.Tag{
		"course:7": "course:*", "a:b:c": "a:*", "alone": "alone:*", "course:*": "course:*", cache.Everything: cache.Everything,
		cache.T("item", "urn:isbn:1"): "item:*",
	} {
		if got := tag.Family(); got != want {
			t.Errorf("family of %q is %q, want %q", tag, got, want)
		}
	}
}

func TestMalformedTagIsAnErrorOfItsUser(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.Tags = func(id int) []cache.Tag { return []cache.Tag{"red wine"} }
		q := cache.Define(c.Cache, query)
		if _, err := q.Get(t.Context(), 1); !errors.Is(err, driver.ErrTag) || !strings.Contains(err.Error(), "rows:one") {
			t.Errorf("Get: %v", err)
		}
		if results, err := q.GetMany(t.Context(), []int{1, 2}); err != nil || !errors.Is(results[0].Err, driver.ErrTag) || !errors.Is(results[1].Err, driver.ErrTag) {
			t.Errorf("GetMany: %v, %v", results, err)
		}
		wantLoads(t, s, 0)
		if err := c.Invalidate(t.Context(), rowTag(1), "item:%d"); !errors.Is(err, driver.ErrTag) {
			t.Errorf("Invalidate: %v", err)
		}
	})
}

// What cannot name its tags bumps families, and what cannot name families bumps Everything.
func TestAnswersDependOnFamiliesUnasked(t *testing.T) {
	for _, wide := range []cache.Tag{"row:*", cache.Everything} {
		virtual(t, func(t *testing.T) {
			s, c := newSource(), newCache(t)
			query := s.query()
			query.Tags = func(id int) []cache.Tag { return cache.Tags("row", id) }
			q := cache.Define(c.Cache, query)
			mustGet(t, q, 1, "one")
			mustLookup(t, q, 1, cache.Hit)
			s.set(1, "uno")
			mustInvalidate(t, c, "other:*")
			mustLookup(t, q, 1, cache.Hit)
			mustInvalidate(t, c, wide)
			mustGet(t, q, 1, "uno")
		})
	}
}

// More invalidations than are remembered, while the store is away.
func TestInvalidationsBeyondEveryBoundAreNotLost(t *testing.T) {
	for name, tag := range map[string]func(i int) cache.Tag{
		"of one kind": func(i int) cache.Tag { return cache.T("row", i) },
		"of many":     func(i int) cache.Tag { return cache.T(fmt.Sprint("kind", i), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				query := s.query()
				query.FreshFor = time.Hour
				query.Tags = func(id int) []cache.Tag { return []cache.Tag{tag(id)} }
				q := cache.Define(c.Cache, query)
				mustGet(t, q, 1, "one")
				time.Sleep(time.Second)
				mustLookup(t, q, 1, cache.Hit)
				c.store.Fail(errDown)
				s.set(1, "uno")
				for i := range 20_000 {
					_ = c.Invalidate(t.Context(), tag(i))
				}
				c.store.Heal()
				time.Sleep(time.Minute)
				for range 3 {
					mustGet(t, q, 1, "uno")
				}
				if h := c.Health(); h.State != "ok" {
					t.Errorf("the store is %s: %v", h.State, h.Err)
				}
			})
		})
	}
}
