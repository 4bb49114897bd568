package mysql_test

import (
	"context"
	"database/sql"
	"log"
	"os"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
)

// A title is cached for an hour, and wrong for no moment after it was changed. It is not run here: it
// needs a server.
func ExampleDB_Write() {
	if err := renameLesson(context.Background(), os.Getenv("MARIADB_DSN")); err != nil {
		log.Fatal(err)
	}
}

func renameLesson(ctx context.Context, dsn string) error {
	pool, err := sql.Open("mysql", dsn) // user@tcp(127.0.0.1:3306)/lessons?timeout=5s&readTimeout=30s&writeTimeout=5s
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := mysql.Apply(ctx, pool); err != nil { // in a migration
		return err
	}
	if err := mysql.Watch(ctx, pool, "lessons", "lessons", "lesson:{id}"); err != nil {
		return err
	}

	store := memstore.New(memstore.Config{})
	defer store.Close()
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		return err
	}
	defer c.Close()
	titles := cache.Define(c, cache.Query[int, string]{
		Name: "lessons:title",
		Tags: func(id int) []cache.Tag { return cache.Tags("lesson", id) },
		Load: func(ctx context.Context, id int) (title string, err error) {
			err = pool.QueryRowContext(ctx, `SELECT title FROM lessons WHERE id = ?`, id).Scan(&title)
			return title, err
		},
		FreshFor: time.Hour,
	})

	outboxLog := mysql.NewLog(pool, nil)
	relay, err := outbox.NewRelay(c, outboxLog, outbox.RelayConfig{}) // for what other programs write
	if err != nil {
		return err
	}
	relay.Start()
	defer relay.Close()
	db := mysql.NewDB(outboxLog, c, outbox.Options{Relay: relay})

	err = db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE lessons SET title = 'Walking' WHERE id = 1`)
		return err
	})
	if err != nil {
		return err
	}
	_, err = titles.Get(ctx, 1) // Walking
	return err
}
