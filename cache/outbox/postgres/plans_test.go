package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/pgschema"
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
	conn, asked := askEverything(t)
	for _, s := range asked {
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
}

// askEverything has relays do all they do, on an outbox that has rows, with one consumer and with
// several. It returns a connection to the database and each statement once.
func askEverything(t *testing.T) (conn *pgx.Conn, asked []pgx.TraceQueryStartData) {
	t.Helper()
	url := database(t)
	conn = connect(t, url)
	all := &statements{}
	cfg, err := pgxpool.ParseConfig(url)
	testservers.Must(t, err)
	cfg.ConnConfig.Tracer = all
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
	for _, s := range all.all {
		if !seen[s.SQL] && strings.Contains(s.SQL, " cache_") {
			seen[s.SQL] = true
			asked = append(asked, s)
		}
	}
	if len(asked) < 8 {
		t.Errorf("only %d statements were seen", len(asked))
	}
	for i, s := range all.all {
		if s.SQL == pgschema.ClaimRows && !strings.Contains(all.all[i-1].SQL, pgschema.Replan) {
			t.Error("rows are claimed with a plan of before")
		}
	}
	return conn, asked
}

// Rows stay while a consumer is away, those of some minutes. What relays do all the time must not
// compare each of them with each that is noted. The planner would: it knows nothing of the tables,
// and has often planned when they were empty. So each statement is planned like that here, unless it
// is planned each time, and then what it does is counted.
func TestWorkGrowsWithTheRows(t *testing.T) {
	t.Parallel()
	conn, asked := askEverything(t)
	run(t, conn, `DELETE FROM cache_outbox`, `DELETE FROM cache_delivered`)
	for _, table := range []string{"cache_outbox", "cache_delivered", "cache_consumers"} {
		run(t, conn, "VACUUM ANALYZE "+table)
	}
	execute := func(i int) string {
		var params []string
		for _, arg := range asked[i].Args {
			if _, mode := arg.(pgx.QueryExecMode); !mode {
				params = append(params, literal(t, conn, arg))
			}
		}
		if len(params) == 0 {
			return fmt.Sprintf("EXECUTE s%d", i)
		}
		return fmt.Sprintf("EXECUTE s%d(%s)", i, strings.Join(params, ", "))
	}
	mode := func(s pgx.TraceQueryStartData) string {
		if s.SQL == pgschema.ClaimRows || len(s.Args) > 0 && s.Args[0] == pgx.QueryExecModeCacheDescribe {
			return "SET plan_cache_mode = force_custom_plan"
		}
		return "SET plan_cache_mode = force_generic_plan"
	}
	for i, s := range asked {
		run(t, conn, fmt.Sprintf("PREPARE s%d AS %s", i, s.SQL), mode(s), "BEGIN", execute(i), "ROLLBACK") // now it is planned
	}
	const rows = 5000
	for name, consumers := range map[string]string{"one consumer": "name = 'a'", "several": "true"} {
		run(t, conn, `DELETE FROM cache_outbox`, `DELETE FROM cache_delivered`)
		run(t, conn, fmt.Sprintf(`INSERT INTO cache_outbox (tag) SELECT 't:' || i FROM generate_series(1, %d) i`, rows))
		if name == "several" {
			run(t, conn, `INSERT INTO cache_delivered SELECT id, name FROM cache_outbox, cache_consumers WHERE name < 'c'`)
		}
		for i, s := range asked {
			run(t, conn, mode(s), "BEGIN", "DELETE FROM cache_consumers WHERE NOT "+consumers)
			var plans []struct{ Plan node }
			testservers.Must(t, conn.QueryRow(t.Context(), "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+execute(i), pgx.QueryExecModeSimpleProtocol).Scan(&plans))
			run(t, conn, "ROLLBACK")
			if looked := plans[0].Plan.looked(); looked > 40*rows {
				t.Errorf("%s: looks at rows %.0f times, and there are %d and twice as many notes: %s", name, looked, rows, s.SQL)
			}
		}
	}
}

// node is one of a plan that was carried out.
type node struct {
	Rows     float64 `json:"Actual Rows"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Unjoined float64 `json:"Rows Removed by Join Filter"`
	Loops    float64 `json:"Actual Loops"`
	Filter   string
	Plans    []node
}

// looked is how often it and those below it have looked at a row. A filter that compares each with
// an array that the planner has not seen, and so has not hashed, has looked at some hundreds for each.
func (n *node) looked() float64 {
	total := (n.Rows + n.Filtered + n.Unjoined) * n.Loops
	if strings.Contains(n.Filter, "id = ANY ($") {
		total *= 500
	}
	for i := range n.Plans {
		total += n.Plans[i].looked()
	}
	return total
}

// literal is an argument as SQL.
func literal(t *testing.T, conn *pgx.Conn, arg any) string {
	t.Helper()
	switch arg := arg.(type) {
	case string:
		return "'" + strings.ReplaceAll(arg, "'", "''") + "'"
	case cache.Tag:
		return literal(t, conn, string(arg))
	case []byte:
		return fmt.Sprintf(`'\x%x'`, arg)
	case []int64: // the first of those that there are now
		var ids string
		testservers.Must(t, conn.QueryRow(t.Context(), `SELECT coalesce(array_agg(id), '{}')::text FROM
			(SELECT id FROM cache_outbox ORDER BY id LIMIT $1) AS first`, len(arg)).Scan(&ids))
		return "'" + ids + "'"
	case int, int64, float64:
		return fmt.Sprint(arg)
	}
	t.Fatalf("an argument is a %T", arg)
	return ""
}
