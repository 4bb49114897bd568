package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// shop has products of categories, prices of products, and what reads them.
var shop = []string{
	`CREATE TABLE categories (id int PRIMARY KEY, name text)`,
	`CREATE TABLE products (id int PRIMARY KEY, category_id int REFERENCES categories ON DELETE CASCADE, name text)`,
	`CREATE TABLE prices (product_id int PRIMARY KEY REFERENCES products ON DELETE CASCADE, cents int)`,
	`CREATE TABLE reviews (id int PRIMARY KEY, product_id int, text text)`,
	`CREATE TABLE countries (id int PRIMARY KEY)`,
	`INSERT INTO categories VALUES (10, 'a'), (20, 'b')`,
	`INSERT INTO products VALUES (1, 10, 'one'), (2, 10, 'two'), (3, 20, 'three')`,
	`INSERT INTO prices VALUES (1, 100), (2, 200), (3, 300)`,
	`INSERT INTO reviews VALUES (1, 1, 'good')`,
	`CREATE VIEW offers AS SELECT p.id, p.name, cents FROM products p JOIN prices ON product_id = p.id`,
	`CREATE FUNCTION price_of(of_product int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT cents FROM prices WHERE product_id = of_product); END $$`,
	`CREATE MATERIALIZED VIEW stock AS SELECT id FROM products`,
	`CREATE TABLE sales (id int, region text) PARTITION BY LIST (region)`,
	`CREATE TABLE sales_north PARTITION OF sales FOR VALUES IN ('north')`,
	`CREATE TABLE sales_south PARTITION OF sales FOR VALUES IN ('south')`,
	`INSERT INTO sales VALUES (1, 'north'), (2, 'south')`,
	`SELECT cache_watch('shop', 'products', 'product:{id}', 'names ON UPDATE OF name')`,
	`SELECT cache_watch('shop', 'prices', 'price:{product_id}')`,
	`SELECT cache_watch('shop', 'reviews', 'product:{product_id}')`,
	`SELECT cache_watch('shop', 'sales', 'sale:{id}', 'region:{region}')`,
	`SELECT cache_watch('shop', 'categories', 'category:{id}', 'of-category:{SELECT id FROM products WHERE category_id = categories.id} ON DELETE')`,
}

func shopDB(tb testing.TB, statements ...string) (*DB, string) {
	tb.Helper()
	url := database(tb, slices.Concat(shop, statements)...)
	log := NewLog(pool(tb, url), nil)
	tb.Cleanup(func() { testservers.Must(tb, log.Close()) })
	db, err := NewDB(log, nil, Config{})
	testservers.Must(tb, err)
	return db, url
}

// complaints is a test that does not mind to fail.
type complaints struct {
	testing.TB
	errors, logs []string
}

func (c *complaints) Helper() {}
func (c *complaints) Errorf(format string, args ...any) {
	c.errors = append(c.errors, fmt.Sprintf(format, args...))
}
func (c *complaints) Logf(format string, args ...any) {
	c.logs = append(c.logs, fmt.Sprintf(format, args...))
}

func TestVerifySeesWhatLoadersReadAndWritesTouch(t *testing.T) {
	t.Parallel()
	db, url := shopDB(t)
	other, err := sql.Open("pgx", url) // any driver, any pool
	testservers.Must(t, err)
	t.Cleanup(func() { other.Close() })
	product := func(id int) cache.Tag { return cache.T("product", id) }
	price := func(id int) cache.Tag { return cache.T("price", id) }
	for _, tt := range []struct {
		name   string
		query  string // of a text, for $1
		tags   func(id int) []cache.Tag
		params []int
		parts  []cachetest.Part
		says   []string // of each error, words that are in it
	}{
		{
			name: "right", query: `SELECT name || cents FROM products JOIN prices ON product_id = id WHERE id = $1`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id), price(id)} },
		},
		{
			name: "a joined table is forgotten", query: `SELECT name || cents FROM products JOIN prices ON product_id = id WHERE id = $1`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id)} },
			says: []string{"query shop:one…table prices…1, 3, 99…product:1, product:3, product:99…price:1, price:2, price:3…template"},
		},
		{
			name: "the kind of another table", query: `SELECT name FROM products WHERE id = $1`,
			tags: func(id int) []cache.Tag { return []cache.Tag{price(id)} },
			says: []string{"table products…price:1…product:1"},
		},
		{
			name: "another column", query: `SELECT name FROM products WHERE id = $1`,
			tags: func(id int) []cache.Tag { return cache.Tags("category", 10*id) }, // there is a category 10
			says: []string{"table products…category:10…product:1"},
		},
		{
			name: "a view", query: `SELECT name || cents FROM offers WHERE id = $1`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id)} },
			says: []string{"table prices…price:1"},
		},
		{
			name: "a function", query: `SELECT coalesce(price_of($1), 0)::text`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id)} },
			says: []string{"table prices…price:1"},
		},
		{
			name: "right through a view and a function", query: `SELECT name || cents || price_of($1) FROM offers WHERE id = $1`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id), price(id)} },
		},
		{
			name: "a table that is not watched", query: `SELECT $1::int || coalesce(string_agg(id::text, ''), '') FROM countries`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id)} },
			says: []string{"table countries…no source watches…Unchanging"},
		},
		{
			name: "a table that never changes", query: `SELECT name || (SELECT count(*) FROM countries) FROM products WHERE id = $1`,
			tags:  func(id int) []cache.Tag { return []cache.Tag{product(id)} },
			parts: []cachetest.Part{cachetest.Unchanging("countries")},
		},
		{
			name: "a materialized view", query: `SELECT id::text FROM stock WHERE id = $1`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id)} },
			says: []string{"table stock…no source watches"},
		},
		{
			name: "some answers have no row of a table", query: `SELECT name || (SELECT count(*) FROM reviews WHERE product_id = products.id) FROM products WHERE id = $1`,
			tags: func(id int) []cache.Tag { return []cache.Tag{product(id)} },
		},
		{
			name: "a template of one event only", query: `SELECT $1::int || string_agg(name, ',') FROM products`,
			tags: func(int) []cache.Tag { return cache.Tags("names") },
		},
		{
			name: "a part of a table", query: `SELECT id::text FROM sales_north WHERE id = $1`,
			tags: func(id int) []cache.Tag { return cache.Tags("sale", id) },
		},
		{
			name: "the wrong tag of a whole table", query: `SELECT id::text FROM sales WHERE id = $1`,
			tags: func(id int) []cache.Tag { return cache.Tags("region", id) },
			says: []string{"table sales…region:1…region:north"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, read := range []func(ctx context.Context, v *string, id int) error{
				func(ctx context.Context, v *string, id int) error {
					return db.log.pool.QueryRow(ctx, tt.query, id).Scan(v)
				},
				func(ctx context.Context, v *string, id int) error {
					return other.QueryRowContext(ctx, tt.query, id).Scan(v)
				},
			} {
				c := cachetest.New(t)
				q := cache.Define(c.Cache, cache.Query[int, string]{
					Name: "shop:one", FreshFor: time.Minute, Tags: tt.tags,
					Load: func(ctx context.Context, id int) (v string, err error) {
						if err = read(ctx, &v, id); err != nil && strings.Contains(err.Error(), "no rows") {
							err = cache.ErrNotFound
						}
						return v, err
					},
				})
				heard := &complaints{TB: t}
				cachetest.Verify(heard, c.Cache, append(tt.parts, cachetest.Sample(q, 1, 3, 99), cachetest.From(db))...)
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
			}
		})
	}
}

// A dry run leaves nothing, and tells what it did not look at.
func TestDryRun(t *testing.T) {
	t.Parallel()
	db, _ := shopDB(t,
		`CREATE TABLE many (id int PRIMARY KEY, parent int)`, `INSERT INTO many SELECT n, n / 1000 FROM generate_series(1, 1500) AS n`,
		`SELECT cache_watch('shop', 'many', 'many:{id}', 'all ON INSERT', 'part:{parent} ON UPDATE OF parent')`,
		`SELECT cache_watch('team', 'sales_north', 'north:{id}')`, `CREATE TABLE none (id int)`, `SELECT cache_watch('shop', 'none', 'none:{id}')`)
	run(t, db.log.pool, `DELETE FROM cache_outbox`)
	for _, tt := range []struct {
		table string
		rows  int
		more  bool
		tags  string // some, if there are many
	}{
		{"products", 3, false, "names product:1 product:2 product:3"},
		{"categories", 2, false, "category:10 category:20 of-category:1 of-category:2 of-category:3"},
		{"sales", 2, false, "region:north region:south sale:1 sale:2"},
		{"sales_north", 1, false, "north:1 region:north sale:1"},
		{"many", 1000, true, "all many:1 many:10"},
		{"none", 0, false, ""},
	} {
		p, err := db.DryRun(t.Context(), tt.table)
		testservers.Must(t, err)
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
	if n := ask[int](t, db.log.pool, `SELECT count(*)::int FROM cache_outbox`); n != 0 {
		t.Errorf("%d rows are in the outbox", n)
	}
	if _, err := db.DryRun(t.Context(), `products; DROP TABLE prices`); err == nil {
		t.Error("a name that is no table's is taken")
	}
}

// Traces take turns, end with their context, and leave the tables to others.
func TestTables(t *testing.T) {
	t.Parallel()
	db, _ := shopDB(t)
	read := func(ctx context.Context) (err error) {
		_, err = db.log.pool.Exec(ctx, `SELECT FROM offers`)
		return err
	}
	results := make(chan error, 3)
	for range cap(results) {
		go func() {
			tables, err := db.Tables(t.Context(), read)
			if err == nil && strings.Join(tables, " ") != "prices products" {
				err = fmt.Errorf("tables %v", tables)
			}
			results <- err
		}()
	}
	for range cap(results) {
		testservers.Must(t, <-results)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := db.Tables(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }); err == nil {
		t.Error("a read that does not end ends well")
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = db.Tables(t.Context(), func(context.Context) error { panic("read") })
	}()
	testservers.Must(t, read(t.Context()))
	run(t, db.log.pool, `BEGIN; LOCK TABLE products IN ACCESS EXCLUSIVE MODE NOWAIT; COMMIT`)
	if tables, err := db.Tables(t.Context(), func(context.Context) error { return nil }); err != nil || len(tables) > 0 {
		t.Errorf("a read of nothing reads %v, %v", tables, err)
	}
}
