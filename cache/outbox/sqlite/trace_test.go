package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/sqlite"
)

// newTracedShop has views, a search index, and names that are hard to tell from one another.
func newTracedShop(t *testing.T) (*file, *sqlite.DB) {
	t.Helper()
	f, db := newShop(t)
	f.exec(`
CREATE VIEW offers AS SELECT p.id, name, cents FROM products p JOIN prices ON product_id = p.id;
CREATE INDEX products_by_name ON products (name);
CREATE TABLE "products of old" (id INTEGER PRIMARY KEY, product REFERENCES products (id));
CREATE TABLE Mixed (id INTEGER PRIMARY KEY);
CREATE TABLE cache_own (id INTEGER PRIMARY KEY);
CREATE VIRTUAL TABLE words USING fts5 (name);
CREATE TRIGGER words_of_products AFTER INSERT ON products BEGIN INSERT INTO words (rowid, name) VALUES (new.id, new.name); END;`)
	return f, db
}

func (f *file) schema() string {
	f.Helper()
	rows, err := f.stranger.QueryContext(f.Context(), `SELECT name || ': ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1`)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			f.Fatal(err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// A trace sees what is read through whatever pool and view, and leaves all as it was.
func TestTables(t *testing.T) {
	f, db := newTracedShop(t)
	before := f.schema()
	for _, tt := range []struct{ query, tables string }{
		{`SELECT 1`, ""},
		{`SELECT * FROM products`, "products"},
		{`SELECT * FROM main.PRODUCTS`, "products"},
		{`SELECT * FROM "products of old"`, "products of old"},
		{`SELECT * FROM products JOIN "products of old" o ON o.product = products.id`, "products products of old"},
		{`SELECT * FROM offers`, "prices products"},
		{`SELECT (SELECT count(*) FROM mixed), (SELECT count(*) FROM cache_own)`, "Mixed cache_own"},
		{`WITH products AS (SELECT 1) SELECT * FROM products`, ""},
		{`SELECT * FROM words WHERE words MATCH 'one'`, "words"},
		{`SELECT * FROM cache_watches`, ""},
	} {
		prepared, err := f.stranger.PrepareContext(t.Context(), tt.query)
		if err != nil {
			t.Fatal(err)
		}
		for name, read := range map[string]func(ctx context.Context) (*sql.Rows, error){
			"a pool":               func(ctx context.Context) (*sql.Rows, error) { return f.read.QueryContext(ctx, tt.query) },
			"a prepared statement": func(ctx context.Context) (*sql.Rows, error) { return prepared.QueryContext(ctx) },
		} {
			tables, err := db.Tables(t.Context(), func(ctx context.Context) error {
				rows, err := read(ctx)
				if err != nil {
					return fmt.Errorf("load: %w", err)
				}
				defer rows.Close()
				for rows.Next() {
				}
				return rows.Err()
			})
			if got := strings.Join(tables, " "); err != nil || got != tt.tables {
				t.Errorf("%s, by %s, reads %q, want %q; %v", tt.query, name, got, tt.tables, err)
			}
		}
		if err := prepared.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if after := f.schema(); after != before {
		t.Errorf("the schema was\n%s\nand is\n%s", before, after)
	}
	if findings, err := sqlite.Check(t.Context(), f.read); err != nil || len(findings) > 0 {
		t.Errorf("Check finds %v, %v", findings, err)
	}
	f.touched()
	f.exec(`INSERT INTO products (id, category_id, name) VALUES (4, 10, 'four')`)
	if tags := f.touched(); len(tags) == 0 {
		t.Error("the watch of a table that was renamed records nothing")
	}
	if _, err := f.write.ExecContext(t.Context(), `INSERT INTO products (id, category_id) VALUES (5, 99)`); err == nil {
		t.Error("the foreign key of a table that was renamed is gone")
	}
}

// Traces take turns, end with their context, and give the tables back whatever becomes of the reader.
func TestTracesThatFail(t *testing.T) {
	f, db := newTracedShop(t)
	before := f.schema()
	read := func(ctx context.Context) error { _, err := f.read.ExecContext(ctx, `SELECT * FROM offers`); return err }
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
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if _, err := db.Tables(t.Context(), func(context.Context) error { return errors.New("something went wrong") }); err == nil || !strings.Contains(err.Error(), "does not say which it lacks: something went wrong") {
		t.Errorf("of a read that hides its error, Tables says %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := db.Tables(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read that does not end: %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = db.Tables(t.Context(), func(context.Context) error { panic("read") })
	}()
	if after := f.schema(); after != before {
		t.Errorf("the schema was\n%s\nand is\n%s", before, after)
	}
	if err := read(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a trace that was killed has hidden is found by Check, and given back by the next trace.
func TestTraceThatWasKilled(t *testing.T) {
	f, db := newTracedShop(t)
	left := filepath.Join(t.TempDir(), "left.db")
	if _, err := db.Tables(t.Context(), func(ctx context.Context) error {
		_, err := f.stranger.ExecContext(ctx, `VACUUM INTO ?1`, left)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	pool, err := sql.Open("sqlite", "file:"+left+busy)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	findings, err := sqlite.Check(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	says := fmt.Sprint(findings)
	for _, words := range []string{"table products of old: is hidden by a trace", `ALTER TABLE "cache_hidden_products of old" RENAME TO "products of old"`, "table words: is hidden"} {
		if !strings.Contains(says, words) {
			t.Errorf("Check finds %s, want %q", says, words)
		}
	}
	killed := sqlite.NewDB(sqlite.NewLog(pool, pool), nil, outbox.Options{})
	tables, err := killed.Tables(t.Context(), func(ctx context.Context) error {
		_, err := pool.ExecContext(ctx, `SELECT * FROM offers`)
		return err
	})
	if got := strings.Join(tables, " "); err != nil || got != "prices products" {
		t.Errorf("after one that was killed, a trace sees %q, %v", got, err)
	}
	if findings, err := sqlite.Check(t.Context(), pool); err != nil || len(findings) > 0 {
		t.Errorf("Check finds %v, %v", findings, err)
	}
}
