package postgres

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// statements keeps what a pool is asked.
type statements struct {
	mu  sync.Mutex
	all []pgx.TraceQueryStartData
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, data)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// PostgreSQL compiles a statement whose plan looks dear before it runs it, which takes a processor
// 0.1 s and more. Nothing that relays do all the time may look so, to a planner that knows
// nothing of the tables: rows come and go before it gathers statistics.
func TestPlansAreCheap(t *testing.T) {
	t.Parallel()
	const compiled = 100_000 // jit_above_cost
	url := database(t)
	conn := connect(t, url)
	asked := &statements{}
	cfg, err := pgxpool.ParseConfig(url)
	testservers.Must(t, err)
	cfg.ConnConfig.Tracer = asked
	p, err := pgxpool.NewWithConfig(t.Context(), cfg)
	testservers.Must(t, err)
	t.Cleanup(p.Close)
	l := openLog(t, p, nil)

	const batch = 10_000
	for _, consumers := range [][]string{{"a"}, {"a", "b", "c"}} {
		join(t, l, consumers...)
		run(t, conn, `INSERT INTO cache_outbox (tag) SELECT 't:' || i FROM generate_series(1, 20000) i`)
		for _, c := range consumers {
			_, _, err := l.Backlog(t.Context(), c)
			testservers.Must(t, err)
			_, err = l.Deliver(t.Context(), c, time.Minute, batch, func(context.Context, []outbox.Row) error { return nil })
			testservers.Must(t, err)
			join(t, l, c)
		}
	}

	seen := map[string]bool{}
	for _, s := range asked.all {
		if seen[s.SQL] || !strings.Contains(s.SQL, "cache_") {
			continue
		}
		seen[s.SQL] = true
		var plans []struct {
			Plan struct {
				Cost float64 `json:"Total Cost"`
			}
		}
		testservers.Must(t, conn.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+s.SQL, s.Args...).Scan(&plans))
		if cost := plans[0].Plan.Cost; cost > compiled/2 {
			t.Errorf("looks as if it cost %.0f: %s", cost, s.SQL)
		}
	}
	if len(seen) < 8 {
		t.Errorf("only %d statements were seen", len(seen))
	}
}
