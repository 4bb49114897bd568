package exactness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/postgres"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// Result is what a run did.
type Result struct {
	Schemas, Refused int
	Writes           map[string]int
	Comparisons      int
	Hits             int // of the answers compared, those from the cache
	Stale            []string
}

// question is one parameter: a place in the values of a table.
type question struct {
	about string // "row", "group", "category"
	index int
}

// process is one of the two that answer.
type process struct {
	store   *storetest.Faulty
	cache   *cache.Cache
	log     *postgres.Log
	db      *postgres.DB
	relay   *outbox.Relay
	answers *cache.Cached[question, string]
}

// alone is the process that has a store of its own.
const alone = 2

// run is one schema under writes.
type run struct {
	rnd    *rand.Rand
	pool   *pgxpool.Pool // of the library
	other  *pgx.Conn     // of a program that knows nothing of caches
	t      *table
	fleet  []*process // the first two share a store
	result *Result
	writes []string // the last of this schema
}

// mostWrites is how many writes are told of a stale answer.
const mostWrites = 12

func (r *run) wrote(how, sql string) {
	if len(r.writes) == mostWrites {
		r.writes = r.writes[1:]
	}
	r.writes = append(r.writes, how+": "+sql)
}

// Servers are the real parts of a run. It is given a database of its own for each schema, and
// handles of one store, which two processes share.
type Servers struct {
	Database func() (url string, err error)
	Store    func() (handles []driver.Store, err error)
	Progress func(Result) // after each schema
}

// Run draws schemas until comparisons answers have been compared.
func Run(ctx context.Context, seed uint64, comparisons int, servers Servers) (*Result, error) {
	result := &Result{Writes: map[string]int{}}
	rnd := rand.New(rand.NewPCG(seed, seed))
	for result.Comparisons < comparisons && len(result.Stale) == 0 {
		url, err := servers.Database()
		if err != nil {
			return result, err
		}
		handles, err := servers.Store()
		if err != nil {
			return result, err
		}
		r := &run{rnd: rnd, t: draw(rnd, rnd.IntN(1000)), result: result}
		if err := r.run(ctx, url, handles, min(comparisons-result.Comparisons, 4000)); err != nil {
			return result, fmt.Errorf("seed %d: %w\n%s", seed, err, r.story())
		}
		result.Schemas++
		servers.Progress(*result)
	}
	return result, nil
}

func (r *run) run(ctx context.Context, url string, handles []driver.Store, comparisons int) (err error) {
	if r.pool, err = pgxpool.New(ctx, url); err != nil {
		return err
	}
	defer r.pool.Close()
	if r.other, err = pgx.Connect(ctx, url); err != nil {
		return err
	}
	defer r.other.Close(ctx)
	refused, err := r.create(ctx)
	if err != nil || refused {
		for _, handle := range slices.Backward(handles) {
			err = errors.Join(err, handle.Close())
		}
		return err
	}
	for _, handle := range handles {
		p, err := r.start(ctx, storetest.NewFaulty(handle))
		if err != nil {
			return err
		}
		defer p.stop()
		r.fleet = append(r.fleet, p)
	}
	// A third process has a store of its own: another consumer of the same outbox.
	p, err := r.start(ctx, storetest.NewFaulty(memstore.New(memstore.Config{})))
	if err != nil {
		return err
	}
	defer p.stop()
	r.fleet = append(r.fleet, p)

	for end := r.result.Comparisons + comparisons; r.result.Comparisons < end && len(r.result.Stale) == 0; {
		if err := r.compare(ctx, 12); err != nil { // and so the answers are in the cache
			return err
		}
		if err := r.write(ctx); err != nil {
			return err
		}
		if err := r.compare(ctx, 24); err != nil {
			return err
		}
	}
	return nil
}

// create makes the schema and watches it. It reports whether Watch refused it, which is right
// for types without a canonical text only.
func (r *run) create(ctx context.Context) (refused bool, err error) {
	statements := []string{postgres.Migration(), "CREATE SCHEMA other"}
	for _, c := range []columnType{r.t.key, r.t.group} {
		if c.setup != "" && (len(statements) < 3 || statements[len(statements)-1] != c.setup) {
			statements = append(statements, c.setup)
		}
	}
	for _, s := range append(statements, r.t.create()...) {
		if _, err := r.pool.Exec(ctx, s); err != nil {
			return false, fmt.Errorf("%s: %w", s, err)
		}
	}
	own, categories := r.t.templates()
	err = postgres.Watch(ctx, r.pool, "exactness", r.t.name, own...)
	if err == nil && categories != nil {
		err = postgres.Watch(ctx, r.pool, "exactness", r.t.categories, categories...)
	}
	switch {
	case r.t.refused && err == nil:
		return false, fmt.Errorf("watched, and its values have no canonical text: %v", own)
	case r.t.refused:
		r.result.Refused++
		return true, nil
	}
	return false, err
}

func (r *run) start(ctx context.Context, store *storetest.Faulty) (p *process, err error) {
	p = &process{store: store}
	if p.cache, err = cache.New(cache.Config{Store: store, StoreTimeout: 250 * time.Millisecond}); err != nil {
		return nil, err
	}
	p.log = postgres.NewLog(r.pool, slog.New(slog.DiscardHandler))
	if err := r.startRelay(p); err != nil {
		return nil, err
	}
	if p.db, err = postgres.NewDB(p.log, p.cache, postgres.Config{Options: outbox.Options{Relay: p.relay}}); err != nil {
		return nil, err
	}
	p.answers = cache.Define(p.cache, cache.Query[question, string]{
		Name:     "rows:all",
		Tags:     func(q question) []cache.Tag { return []cache.Tag{r.tag(q)} },
		Load:     func(ctx context.Context, q question) (string, error) { return r.ask(ctx, r.pool, q) },
		FreshFor: 24 * time.Hour,
	})
	return p, r.drained(ctx, p)
}

func (r *run) startRelay(p *process) (err error) {
	if p.relay, err = outbox.NewRelay(p.cache, p.log, outbox.RelayConfig{Poll: 20 * time.Millisecond, Grace: 50 * time.Millisecond}); err != nil {
		return err
	}
	p.relay.Start()
	return nil
}

func (p *process) stop() {
	_ = p.relay.Close()
	_ = p.log.Close()
	_ = p.cache.Close()
	_ = p.store.Close()
}

// drained waits until what was committed has been delivered to a process's store, and the cache
// serves from it.
func (r *run) drained(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		rows, _, err := p.relay.Backlog(ctx)
		if err == nil && rows == 0 && p.cache.Health().State == "ok" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d rows are left in the outbox (error %w), and the cache is %+v", rows, err, p.cache.Health())
		case <-time.After(time.Millisecond):
		}
	}
}

// tag is how a program spells what a question depends on.
func (r *run) tag(q question) cache.Tag {
	switch q.about {
	case "row":
		return cache.T(r.t.kind, r.t.key.values[q.index].go_)
	case "group":
		return cache.T(r.t.kind+".group", r.t.group.values[q.index].go_)
	default:
		return cache.T(r.t.kind+".category", categoryNames[q.index])
	}
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ask asks the database.
func (r *run) ask(ctx context.Context, db querier, q question) (answer string, err error) {
	switch q.about {
	case "row":
		err = db.QueryRow(ctx, fmt.Sprintf(`SELECT coalesce(string_agg(v::text, ',' ORDER BY v), '') FROM %s WHERE id = %s::%s`,
			r.t.name, r.t.key.values[q.index].literal, r.t.key.sql)).Scan(&answer)
	case "group":
		err = db.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) || ',' || coalesce(sum(v), 0) FROM %s WHERE "group" = %s::%s`,
			r.t.name, r.t.group.values[q.index].literal, r.t.group.sql)).Scan(&answer)
	default:
		err = db.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) || ',' || coalesce(sum(v), 0) FROM %s t JOIN %s c ON c.id = t.id WHERE c.category = $1`,
			r.t.name, r.t.categories), categoryNames[q.index]).Scan(&answer)
	}
	return answer, err
}

func (r *run) question() question {
	switch n := r.rnd.IntN(5); {
	case n < 2:
		return question{"row", r.rnd.IntN(len(r.t.key.values))}
	case n < 4 || !r.t.manyToMany:
		return question{"group", r.rnd.IntN(len(r.t.group.values))}
	default:
		return question{"category", r.rnd.IntN(len(categoryNames))}
	}
}

// compare asks every process n questions, and the database the same.
func (r *run) compare(ctx context.Context, n int) error {
	for range n {
		q := r.question()
		want, err := r.ask(ctx, r.pool, q)
		if err != nil {
			return err
		}
		for i, p := range r.fleet {
			a, err := p.answers.Lookup(ctx, q)
			if err != nil {
				return err
			}
			r.result.Comparisons++
			if a.Status == cache.Hit {
				r.result.Hits++
			}
			if a.Value != want {
				r.result.Stale = append(r.result.Stale, fmt.Sprintf("process %d: %+v is %q (%v %s), and the database says %q; tag %q\n%s",
					i, q, a.Value, a.Status, a.Detail, want, r.tag(q), r.story()))
			}
		}
	}
	return nil
}

// story tells how the table came to be what it is: its definition, and the last writes.
func (r *run) story() string {
	own, categories := r.t.templates()
	var b strings.Builder
	for _, line := range slices.Concat(r.t.create(), []string{fmt.Sprintf("watched as %q %q", own, categories)}, r.writes) {
		fmt.Fprintf(&b, "\t%.400s\n", line)
	}
	return b.String()
}

func pick(r *rand.Rand, vs []value) value { return vs[r.IntN(len(vs))] }

// statement draws a statement that writes, with every value a literal that any session reads
// alike.
func (r *run) statement() (what, sql string) {
	id := func() string { return pick(r.rnd, r.t.key.values).literal + "::" + r.t.key.sql }
	group := func() string { return pick(r.rnd, r.t.group.values).literal + "::" + r.t.group.sql }
	v := r.rnd.IntN(1000)
	target := r.t.name
	if r.t.partitions > 0 && r.rnd.IntN(3) == 0 {
		target = r.t.partition(r.rnd.IntN(r.t.partitions)) // as its own writers name it
	}
	category := quote(categoryNames[r.rnd.IntN(len(categoryNames))])
	conflict := ""
	if r.t.hasKey {
		conflict = " ON CONFLICT (id) DO UPDATE SET v = excluded.v, \"group\" = excluded.\"group\""
	}
	switch n := r.rnd.IntN(16); {
	case n < 5:
		return "insert", fmt.Sprintf(`INSERT INTO %s (id, "group", v) VALUES (%s, %s, %d)%s`, r.t.name, id(), group(), v, conflict)
	case n < 7:
		return "update", fmt.Sprintf(`UPDATE %s SET v = %d WHERE id = %s`, target, v, id())
	case n < 8:
		return "move", fmt.Sprintf(`UPDATE %s SET "group" = %s WHERE id = %s`, target, group(), id())
	case n < 9:
		return "delete", fmt.Sprintf(`DELETE FROM %s WHERE id = %s`, target, id())
	case n < 10:
		return "update all", fmt.Sprintf(`UPDATE %s SET v = v + 1`, target)
	case n < 11 && r.rnd.IntN(4) == 0:
		return "truncate", fmt.Sprintf(`TRUNCATE %s`, target)
	case n < 12 && !r.t.hasKey && r.t.partitions == 0:
		return "rename", fmt.Sprintf(`UPDATE %s SET id = %s WHERE id = %s`, target, id(), id())
	case n < 13 && !r.t.hasKey:
		return "bulk insert", fmt.Sprintf(`INSERT INTO %s (id, "group", v) SELECT %s, %s, n FROM generate_series(1, 1500) n`, r.t.name, id(), group())
	case n < 15 && r.t.manyToMany:
		if r.rnd.IntN(3) == 0 {
			return "leave a category", fmt.Sprintf(`DELETE FROM %s WHERE category = %s`, r.t.categories, category)
		}
		return "join a category", fmt.Sprintf(`INSERT INTO %s VALUES (%s, %s)`, r.t.categories, id(), category)
	default:
		return "two in one", fmt.Sprintf(`WITH gone AS (DELETE FROM %s WHERE id = %s RETURNING 1) INSERT INTO %[1]s (id, "group", v) SELECT %[3]s, %[4]s, %[5]d WHERE NOT EXISTS (SELECT FROM %[1]s WHERE id = %[3]s)`,
			r.t.name, id(), id(), group(), v)
	}
}

// write writes in one of the ways there are, and returns when the answers must show it.
func (r *run) write(ctx context.Context) error {
	what, sql := r.statement()
	switch n := r.rnd.IntN(20); {
	case n < 8:
		r.result.Writes["library: "+what]++
		writer, err := r.byLibrary(ctx, sql)
		if err != nil {
			return err
		}
		return r.acknowledged(ctx, writer)
	case n < 16:
		r.result.Writes["other program: "+what]++
		if err := r.byOther(ctx, sql); err != nil {
			return err
		}
		return r.allDrained(ctx)
	case n < 17:
		r.result.Writes["relays are off: "+what]++
		for _, p := range r.fleet {
			if err := p.relay.Close(); err != nil {
				return err
			}
		}
		for range 3 {
			_, sql := r.statement()
			if err := r.byOther(ctx, sql); err != nil {
				return err
			}
		}
		for _, p := range r.fleet {
			if err := r.startRelay(p); err != nil {
				return err
			}
		}
		return r.allDrained(ctx)
	default:
		r.result.Writes["shared tier is away: "+what]++
		for _, p := range r.fleet {
			p.store.Fail(errors.New("unplugged"))
		}
		var err error
		for range 4 {
			_, sql := r.statement()
			if r.rnd.IntN(2) == 0 {
				_, failed := r.byLibrary(ctx, sql)
				err = errors.Join(err, failed)
			} else {
				err = errors.Join(err, r.byOther(ctx, sql))
			}
		}
		for _, p := range r.fleet {
			p.store.Heal()
		}
		return errors.Join(err, r.allDrained(ctx))
	}
}

func (r *run) allDrained(ctx context.Context) error {
	for _, p := range r.fleet {
		if err := r.drained(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// byLibrary writes through one process, and returns which.
func (r *run) byLibrary(ctx context.Context, sql string) (writer int, err error) {
	writer = r.rnd.IntN(len(r.fleet))
	r.wrote(fmt.Sprintf("process %d", writer), sql)
	err = r.fleet[writer].db.Write(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql)
		return err
	})
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "25P03" {
		r.result.Writes["rolled back"]++ // the machine is so busy that the transaction was idle for too long
		return writer, nil
	}
	if err != nil {
		return writer, fmt.Errorf("%s: %w", sql, err)
	}
	return writer, nil
}

// acknowledged returns when the processes that do not share the writer's store have got a write.
// Those that do see it at once.
func (r *run) acknowledged(ctx context.Context, writer int) error {
	for i, p := range r.fleet {
		if (i == alone) != (writer == alone) {
			if err := r.drained(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// byOther writes as a program that knows nothing of caches, in a session with settings of its
// own.
func (r *run) byOther(ctx context.Context, sql string) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		values := settings[name]
		if r.rnd.IntN(2) == 0 {
			fmt.Fprintf(&b, "SET LOCAL %s = %s; ", name, setting(name, values[r.rnd.IntN(len(values))]))
		}
	}
	// One simple query: a transaction of its own, in which the statement comes first that would
	// otherwise be read under the settings.
	r.wrote("other program", b.String()+sql)
	if _, err := r.other.Exec(ctx, "BEGIN; "+b.String()+sql+"; COMMIT"); err != nil {
		_, _ = r.other.Exec(ctx, "ROLLBACK")
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func setting(name, value string) string {
	if name == "search_path" {
		return value
	}
	return "'" + value + "'"
}
