package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/sqlite"
)

func newShop(t *testing.T) (*file, *sqlite.DB) {
	t.Helper()
	f := newFile(t)
	f.exec(`
CREATE TABLE categories (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, category_id INTEGER REFERENCES categories ON DELETE CASCADE, name TEXT, upper TEXT AS (upper(name)));
CREATE TABLE prices (product_id INTEGER, currency TEXT, cents INTEGER, PRIMARY KEY (product_id, currency)) WITHOUT ROWID;
CREATE TABLE many (id INTEGER PRIMARY KEY, parent INTEGER);
CREATE TABLE none (id INTEGER PRIMARY KEY);
INSERT INTO categories VALUES (10, 'a'), (20, 'b');
INSERT INTO products (id, category_id, name) VALUES (1, 10, 'one'), (2, 10, 'two'), (3, 20, 'three');
INSERT INTO prices VALUES (1, 'EUR', 100), (2, 'EUR', 200), (3, 'EUR', 300);
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1500) INSERT INTO many SELECT n, n / 1000 FROM n;`)
	f.watch("shop", "products", "product:{id}", "names ON UPDATE OF name", "upper:{upper}")
	f.watch("shop", "prices", "price:{product_id}")
	f.watch("team", "prices", "currency:{currency} ON DELETE")
	f.watch("shop", "categories", "category:{id}", "of-category:{SELECT id FROM products WHERE category_id = categories.id} ON DELETE")
	f.watch("shop", "many", "many:{id}", "all ON INSERT", "part:{parent} ON UPDATE OF parent")
	f.watch("shop", "none", "none:{id}")
	return f, sqlite.NewDB(f.log, nil, outbox.Options{})
}

// A dry run leaves nothing, and tells what it did not look at.
func TestDryRun(t *testing.T) {
	f, db := newShop(t)
	f.touched()
	for _, tt := range []struct {
		table string
		rows  int
		more  bool
		tags  string // some, if there are many
	}{
		{"products", 3, false, "names product:1 product:2 product:3 upper:ONE upper:THREE upper:TWO"},
		{"Prices", 3, false, "currency:EUR price:1 price:2 price:3"},
		{"categories", 2, false, "category:10 category:20 of-category:1 of-category:2 of-category:3"},
		{"many", 1000, true, "all many:1 many:10"},
		{"none", 0, false, ""},
	} {
		p, err := db.DryRun(t.Context(), tt.table)
		if err != nil {
			t.Fatal(err)
		}
		var tags []string
		for _, tag := range p.Tags {
			tags = append(tags, string(tag))
		}
		if got := strings.Join(tags, " "); p.Rows != tt.rows || p.More != tt.more || tt.more && !strings.HasPrefix(got, tt.tags) || !tt.more && got != tt.tags {
			t.Errorf("%s: %d rows, more: %v, %.200s", tt.table, p.Rows, p.More, got)
		}
	}
	if p, err := db.DryRun(t.Context(), "many"); err != nil || len(p.Tags) != 1003 { // with all, part:0 and part:1
		t.Errorf("%d tags, want 1003; %v", len(p.Tags), err)
	}
	if tags := f.touched(); len(tags) > 0 {
		t.Errorf("the outbox has %v", tags)
	}
	if watched, err := db.Watched(t.Context()); err != nil || !slices.Equal(watched, []string{"categories", "lessons", "many", "none", "prices", "products"}) {
		t.Errorf("watched are %v, %v", watched, err)
	}
	if _, err := db.DryRun(t.Context(), "nothing"); err == nil {
		t.Error("a table that does not exist is rows")
	}
}

// complaints is a test that does not mind to fail.
type complaints struct {
	testing.TB
	errors []string
}

func (c *complaints) Helper() {}
func (c *complaints) Errorf(format string, args ...any) {
	c.errors = append(c.errors, fmt.Sprintf(format, args...))
}
func (c *complaints) Logf(string, ...any) {}

func TestVerifySeesWhatWritesTouch(t *testing.T) {
	f, db := newShop(t)
	product := func(id int) cache.Tag { return cache.T("product", id) }
	price := func(id int) cache.Tag { return cache.T("price", id) }
	both := `SELECT name || cents FROM products JOIN prices ON product_id = id WHERE id = ?1`
	for _, tt := range []struct {
		name, query string
		tags        func(id int) []cache.Tag
		says        []string // of each error, words that are in it
	}{
		{name: "right", query: both, tags: func(id int) []cache.Tag { return []cache.Tag{product(id), price(id)} }},
		{
			name: "another column", query: both,
			tags: func(id int) []cache.Tag { return []cache.Tag{cache.T("category", id), price(id)} },
			says: []string{"query shop:one…table products…category:1, category:3…product:1"},
		},
		{
			name: "another column, which has some of the values", query: `SELECT name FROM products WHERE id = ?1`,
			tags: func(id int) []cache.Tag { return cache.Tags("category", id*10) },
			says: []string{"table products…category:10, category:30…product:1"},
		},
		{
			name: "a name instead of a number", query: `SELECT name FROM products WHERE id = ?1`,
			tags: func(id int) []cache.Tag { return cache.Tags("product", map[int]string{1: "one", 3: "three"}[id]) },
			says: []string{"product:one, product:three…product:1"},
		},
		{name: "a template of one event only", query: `SELECT max(name) || ?1 FROM products`, tags: func(int) []cache.Tag { return cache.Tags("names") }},
		{
			name: "a joined table is forgotten", query: both,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id)} },
			says: []string{"query shop:one…table prices…1, 3, 99…product:1, product:3, product:99…price:1, price:2, price:3…template"},
		},
		{
			name: "a table that is not watched", query: `SELECT name || (SELECT count(*) FROM courses) FROM products WHERE id = ?1`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id)} },
			says: []string{"table courses…no source watches…Unchanging"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := cachetest.New(t)
			q := cache.Define(c.Cache, cache.Query[int, string]{
				Name: "shop:one", FreshFor: time.Minute, Tags: tt.tags,
				Load: func(ctx context.Context, id int) (v string, err error) {
					if err = f.read.QueryRowContext(ctx, tt.query, id).Scan(&v); errors.Is(err, sql.ErrNoRows) {
						err = cache.ErrNotFound
					}
					return v, err
				},
			})
			heard := &complaints{TB: t}
			cachetest.Verify(heard, c.Cache, cachetest.Sample(q, 1, 3, 99), cachetest.From(db))
			if len(heard.errors) != len(tt.says) {
				t.Fatalf("Verify found %d mistakes, want %d:\n%s", len(heard.errors), len(tt.says), strings.Join(heard.errors, "\n"))
			}
			for i, says := range tt.says {
				for word := range strings.SplitSeq(says, "…") {
					if !strings.Contains(heard.errors[i], word) {
						t.Errorf("Verify says %q, want it to say %q", heard.errors[i], word)
					}
				}
			}
		})
	}
}
