package postgres

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var storm = flag.Duration("storm", 2*time.Second, "how long TestOutboxStaysSmall writes")

// However fast transactions come, their rows go as fast: the table holds what a moment leaves,
// and takes the room of what autovacuum finds dead, which by default looks once a minute.
//
//	go test ./cache/outbox/postgres -run TestOutboxStaysSmall -v -storm 2m
func TestOutboxStaysSmall(t *testing.T) {
	const (
		writers  = 8
		mostRows = 5_000
		mostSize = 64 << 20 // bytes, with the index
	)
	url := database(t, items...)
	p := newProcess(t, pool(t, url), nil, outbox.RelayConfig{}, Config{})
	run(t, p.pool, `INSERT INTO items SELECT generate_series(3, 1000)`, `TRUNCATE cache_outbox`)
	p.relay.Start()

	ctx, cancel := context.WithTimeout(t.Context(), *storm)
	defer cancel()
	var written atomic.Int64
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprint(1 + (i*writers+w)%1000)
				testservers.Must(t, p.db.Write(t.Context(), set(id, i)))
				written.Add(1)
			}
		})
	}
	conn := connect(t, url)
	var rows, size int64
	began, minutes := time.Now(), 0
	for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
		rows = max(rows, ask[int64](t, conn, `SELECT count(*) FROM cache_outbox`))
		size = max(size, ask[int64](t, conn, `SELECT pg_total_relation_size('cache_outbox')`))
		if int(time.Since(began).Minutes()) > minutes {
			minutes++
			t.Logf("after %d min: %d writes, at most %d rows and %d KiB", minutes, written.Load(), rows, size>>10)
		}
	}
	writing.Wait()
	t.Logf("%d writes a second left at most %d rows and %d KiB", written.Load()/max(1, int64(storm.Seconds())), rows, size>>10)
	if rows > mostRows || size > mostSize {
		t.Errorf("the outbox had %d rows in %d bytes, want at most %d in %d", rows, size, mostRows, mostSize)
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		n := ask[int](t, conn, `SELECT count(*) FROM cache_outbox`)
		return n == 0, fmt.Sprint(n, " rows are left")
	})
}
