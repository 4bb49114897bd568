package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/sqlite"
)

// A title is cached for an hour, and wrong for no moment after it was changed.
func ExampleDB_Write() {
	if err := renameLesson(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// First steps
	// Walking
}

func renameLesson(ctx context.Context) error {
	folder, err := os.MkdirTemp("", "lessons")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file := "file:" + filepath.Join(folder, "lessons.db") + "?_busy_timeout=5000"
	write, err := sql.Open("sqlite", file+"&_journal_mode=WAL&_txlock=immediate")
	if err != nil {
		return err
	}
	defer write.Close()
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	defer read.Close()

	_, err = write.ExecContext(ctx, sqlite.Schema+`
CREATE TABLE lessons (id INTEGER PRIMARY KEY, title TEXT NOT NULL);
INSERT INTO lessons VALUES (1, 'First steps')`)
	if err != nil {
		return err
	}
	if err := sqlite.Watch(ctx, write, "lessons", "lessons", "lesson:{id}"); err != nil {
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
		Key:  func(id int) string { return cache.Key(id) },
		Tags: func(id int) []cache.Tag { return cache.Tags("lesson", id) },
		Load: func(ctx context.Context, id int) (title string, err error) {
			err = read.QueryRowContext(ctx, `SELECT title FROM lessons WHERE id = ?`, id).Scan(&title)
			return title, err
		},
		FreshFor: time.Hour,
	})

	outboxLog := sqlite.NewLog(read, write)
	relay, err := outbox.NewRelay(c, outboxLog, outbox.RelayConfig{}) // for what other programs write
	if err != nil {
		return err
	}
	relay.Start()
	defer relay.Close()
	db := sqlite.NewDB(outboxLog, c, outbox.Options{Relay: relay})

	title, err := titles.Get(ctx, 1)
	if err != nil {
		return err
	}
	fmt.Println(title)
	err = db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE lessons SET title = 'Walking' WHERE id = 1`)
		return err
	})
	if err != nil {
		return err
	}
	title, err = titles.Get(ctx, 1)
	fmt.Println(title)
	return err
}
