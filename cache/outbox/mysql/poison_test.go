package mysql_test

import (
	"context"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// A row of any size and of any type is handed out like others, and no larger than it must be.
func TestStrangeRowsAreHandedOut(t *testing.T) {
	w := newWorld(t)
	p := w.Process(nil)
	if _, _, err := p.Log.Join(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	w.Stranger(`DELETE FROM cache_outbox`)
	w.Stranger(`SET sql_mode = ''; INSERT INTO cache_outbox (tag) VALUES (?)`, strings.Repeat("x", 8<<20))
	w.Stranger(`INSERT INTO cache_outbox (tag) VALUES (x'6974656d3a310078'), ('')`)
	w.Stranger(`SET sql_mode = ''; INSERT INTO cache_outbox (tag, recorded_at) VALUES ('t:1', '0000-00-00'), ('t:2', 'soon'), ('t:3', '9999-12-31 23:59:59'), ('t:7', '1000-01-01')`)
	w.Stranger(`SET sql_mode = ''; INSERT INTO cache_outbox (tag, mark) VALUES ('t:4', 1.5), ('t:5', ?)`, strings.Repeat("x", 8<<20))
	w.Stranger(`CALL cache_record('t:6')`)
	if rows, oldest, err := p.Log.Backlog(t.Context(), "c"); err != nil || rows != 10 || oldest < 0 {
		t.Errorf("the backlog is %d rows, %v (error %v)", rows, oldest, err)
	}
	n, err := p.Log.Deliver(t.Context(), "c", 0, 100, func(_ context.Context, rows []outbox.Row) error {
		for _, row := range rows {
			if ok := row.Tag.Check() == nil; ok != strings.HasPrefix(string(row.Tag), "t:") || len(row.Tag) > driver.MaxTag+1 {
				t.Errorf("row %d has the tag %.40q of %d bytes", row.ID, row.Tag, len(row.Tag))
			}
		}
		return nil
	})
	if err != nil || n != 10 {
		t.Errorf("%d rows (error %v), want 10", n, err)
	}
}
