package postgres_test

import (
	"context"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/postgres"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// The example of docs/depending.md: products in categories, many to many.
const shopSchema = `
CREATE TABLE categories (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE products (id int PRIMARY KEY, title text NOT NULL);
CREATE TABLE product_categories (product_id int REFERENCES products, category_id int REFERENCES categories, PRIMARY KEY (product_id, category_id));
INSERT INTO categories VALUES (1, 'wine'), (2, 'gifts'), (3, 'empty');
INSERT INTO products VALUES (7, 'red'), (8, 'white'), (9, 'basket');
INSERT INTO product_categories VALUES (7, 1), (8, 1), (8, 2), (9, 2);

SELECT cache_watch('shop', 'categories', 'category:{id}');
SELECT cache_watch('shop', 'products', 'product:{id}');
SELECT cache_watch('shop', 'product_categories', 'listing:{category_id}');`

// Page is what a visitor of a category sees.
type Page struct {
	Category string
	Titles   []string
}

func categoryPage(pool *pgxpool.Pool) cache.Query[int, Page] {
	return cache.Query[int, Page]{
		Name:     "shop:category",
		FreshFor: time.Hour,
		Tags: func(id int) []cache.Tag { // known beforehand: its name, and which products are in it
			return []cache.Tag{cache.T("category", id), cache.T("listing", id)}
		},
		Load: func(ctx context.Context, id int) (page Page, err error) {
			if err := pool.QueryRow(ctx, `SELECT name FROM categories WHERE id = $1`, id).Scan(&page.Category); err != nil {
				return page, err
			}
			rows, err := pool.Query(ctx, `SELECT id, title FROM products JOIN product_categories ON id = product_id
				WHERE category_id = $1 ORDER BY id`, id)
			if err != nil {
				return page, err
			}
			var product int
			var title string
			_, err = pgx.ForEachRow(rows, []any{&product, &title}, func() error {
				cache.DependOn(ctx, cache.T("product", product)) // known now
				page.Titles = append(page.Titles, title)
				return nil
			})
			return page, err
		},
	}
}

func psql(t *testing.T, url, sql string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, url).CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
}

func TestManyToManyExample(t *testing.T) {
	t.Parallel()
	testservers.Require(t, "postgresql-client", "psql")
	url := testservers.SharedPostgres(t).Database(t)
	pool, err := pgxpool.New(t.Context(), url)
	testservers.Must(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), postgres.Migration()+shopSchema)
	testservers.Must(t, err)

	store := memstore.New(memstore.Config{})
	t.Cleanup(func() { testservers.Must(t, store.Close()) })
	c, err := cache.New(cache.Config{Store: store})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	log := postgres.NewLog(pool, nil)
	t.Cleanup(func() { testservers.Must(t, log.Close()) })
	relay, err := outbox.NewRelay(c, log, outbox.RelayConfig{})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, relay.Close()) })
	relay.Start()
	db, err := postgres.NewDB(log, c, postgres.Config{Options: outbox.Options{Relay: relay}})
	testservers.Must(t, err)
	pages := cache.Define(c, categoryPage(pool))
	cachetest.Verify(t, c, cachetest.Sample(pages, 1, 2, 3), cachetest.From(db))
	serving, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	testservers.Must(t, c.WaitServing(serving))

	shows := func(id int, want string) bool {
		t.Helper()
		page, err := pages.Get(t.Context(), id)
		testservers.Must(t, err)
		return fmt.Sprint(page.Category, page.Titles) == want
	}
	// hit says that nothing has ended a page.
	hit := func(id int) {
		t.Helper()
		if a, err := pages.Lookup(t.Context(), id); err != nil || a.Status != cache.Hit {
			t.Errorf("category %d is a %v (error %v): a write ended what it did not change", id, a.Status, err)
		}
	}
	steps := []struct {
		sql    string
		want   [4]string // by category
		spared []int     // pages that do not show it
	}{
		{`SELECT 1`, [4]string{1: "wine[red white]", 2: "gifts[white basket]", 3: "empty[]"}, []int{1, 2, 3}},
		{`UPDATE categories SET name = 'wines' WHERE id = 1`, [4]string{1: "wines[red white]"}, []int{2, 3}},
		{`UPDATE products SET title = 'rosé' WHERE id = 7`, [4]string{1: "wines[rosé white]"}, []int{2, 3}},
		{`UPDATE products SET title = 'blanc' WHERE id = 8`, [4]string{1: "wines[rosé blanc]", 2: "gifts[blanc basket]"}, []int{3}},
		{`UPDATE product_categories SET category_id = 3 WHERE (product_id, category_id) = (7, 1)`, [4]string{1: "wines[blanc]", 3: "empty[rosé]"}, []int{2}},
		{`UPDATE products SET title = 'moved' WHERE id = 7`, [4]string{3: "empty[moved]"}, []int{1, 2}},
		{`INSERT INTO products VALUES (10, 'new'); INSERT INTO product_categories VALUES (10, 2)`, [4]string{2: "gifts[blanc basket new]"}, []int{1, 3}},
		{`DELETE FROM product_categories WHERE product_id = 8`, [4]string{1: "wines[]", 2: "gifts[basket new]"}, []int{3}},
		{`UPDATE products SET title = upper(title)`, [4]string{2: "gifts[BASKET NEW]", 3: "empty[MOVED]"}, nil},
	}
	for n, step := range steps {
		if n%2 == 0 {
			psql(t, url, step.sql)
		} else { // acknowledged: seen at once
			testservers.Must(t, db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, step.sql)
				return err
			}))
		}
		for id, want := range step.want {
			switch {
			case want == "":
			case n%2 == 1:
				if !shows(id, want) {
					page, _ := pages.Get(t.Context(), id)
					t.Errorf("%s: category %d is %v, want %s", step.sql, id, page, want)
				}
			default:
				testservers.Eventually(t, 20*time.Second, func() (bool, string) { return shows(id, want), step.sql + " does not show" })
			}
		}
		for _, id := range step.spared {
			if n > 0 {
				hit(id)
			}
		}
		for id := 1; id <= 3; id++ {
			_, err := pages.Get(t.Context(), id)
			testservers.Must(t, err)
		}
	}
}
