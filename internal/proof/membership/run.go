package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/postgres"
)

const schema = `
CREATE TABLE products (id int PRIMARY KEY, title int NOT NULL DEFAULT 0);
CREATE TABLE memberships (product int PRIMARY KEY REFERENCES products, category int NOT NULL, version int NOT NULL DEFAULT 0);
CREATE INDEX ON memberships (category);
INSERT INTO products (id) SELECT * FROM generate_series(0, %[1]d - 1);
INSERT INTO memberships (product, category) SELECT id, id %% %[2]d FROM products;
SELECT cache_watch('membership', 'products', 'product:{id}');
SELECT cache_watch('membership', 'memberships', 'category:{category}');`

const (
	readers = 4 // of each cache
	writers = 2
	pace    = 10 * time.Millisecond // between two writes of a writer

	// answersPerWrite is how many answers there are at the least for each write of a writer. By time
	// alone a busy machine, which answers slowly, would end most answers before they are asked for again.
	answersPerWrite = 50
)

// Result is what a run did.
type Result struct {
	Answers, Hits      int64 // compared, and those of them that came from the cache
	Titles, Moves      int64 // written by the library
	External, Together int64 // written by another program; of these, every row at once
	RolledBack         int64
	Stale              []string
}

// run is one run.
type run struct {
	pool    *pgxpool.Pool // of the library
	other   *pgxpool.Pool // of a program that knows nothing of caches
	history *history
	most    int64 // answers

	answers, hits, titles, moves, external, together, rolledBack atomic.Int64

	mu    sync.Mutex
	stale []string
}

// process is a cache as one of several processes has it.
type process struct {
	cache *cache.Cache
	log   *postgres.Log
	relay *outbox.Relay
	db    *postgres.DB
	pages *cache.Cached[int, []shown]
}

// Run compares that many answers, or stops at the first that is old. Each of handles is of the same
// store. progress is called now and then.
func Run(ctx context.Context, url string, handles []driver.Store, comparisons int, progress func(Result)) (_ Result, err error) {
	r := &run{history: newHistory(), most: int64(comparisons)}
	if r.pool, err = pgxpool.New(ctx, url); err != nil {
		return Result{}, err
	}
	defer r.pool.Close()
	if r.other, err = pgxpool.New(ctx, url); err != nil {
		return Result{}, err
	}
	defer r.other.Close()
	if _, err := r.pool.Exec(ctx, postgres.Migration()+fmt.Sprintf(schema, products, categories)); err != nil {
		return Result{}, err
	}
	var fleet []*process
	for _, handle := range handles {
		p, err := r.start(ctx, handle)
		if err != nil {
			return Result{}, err
		}
		defer p.stop()
		fleet = append(fleet, p)
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var reading, writing sync.WaitGroup
	fail := func(err error) {
		if err != nil {
			cancel(err)
		}
	}
	stop := make(chan struct{})
	for i, p := range fleet {
		for range readers {
			reading.Go(func() { fail(r.read(ctx, i, p)) })
		}
		for range writers {
			writing.Go(func() { fail(r.write(ctx, p, stop)) })
		}
	}
	writing.Go(func() { fail(r.writeUnseen(ctx, stop)) })
	go func() { reading.Wait(); close(stop) }()
	for told := time.NewTicker(time.Minute); ; {
		select {
		case <-told.C:
			progress(r.result())
			continue
		case <-stop:
			told.Stop()
		}
		break
	}
	writing.Wait()
	if err := context.Cause(ctx); err != nil {
		return r.result(), err
	}
	return r.result(), r.compareAtRest(ctx, fleet)
}

func (r *run) result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Result{
		Answers: r.answers.Load(), Hits: r.hits.Load(), Titles: r.titles.Load(), Moves: r.moves.Load(),
		External: r.external.Load(), Together: r.together.Load(), RolledBack: r.rolledBack.Load(), Stale: r.stale,
	}
}

func (r *run) start(ctx context.Context, store driver.Store) (p *process, err error) {
	p = &process{}
	if p.cache, err = cache.New(cache.Config{Store: store, StoreTimeout: time.Second}); err != nil {
		return nil, err
	}
	p.log = postgres.NewLog(r.pool, slog.New(slog.DiscardHandler))
	if p.relay, err = outbox.NewRelay(p.cache, p.log, outbox.RelayConfig{}); err != nil {
		return nil, err
	}
	p.relay.Start()
	if p.db, err = postgres.NewDB(p.log, p.cache, postgres.Config{Options: outbox.Options{Relay: p.relay}}); err != nil {
		return nil, err
	}
	p.pages = cache.Define(p.cache, cache.Query[int, []shown]{
		Name: "membership:page", FreshFor: time.Hour,
		Tags: func(category int) []cache.Tag { return []cache.Tag{cache.T("category", category)} },
		Load: r.load,
	})
	return p, p.cache.WaitServing(ctx)
}

func (p *process) stop() {
	_ = p.relay.Close()
	_ = p.log.Close()
	_ = p.cache.Close()
}

func (r *run) load(ctx context.Context, category int) ([]shown, error) {
	rows, err := r.pool.Query(ctx, `SELECT id, title, version FROM products JOIN memberships ON product = id WHERE category = $1`, category)
	if err != nil {
		return nil, err
	}
	page := []shown{}
	var s shown
	_, err = pgx.ForEachRow(rows, []any{&s.Product, &s.Title, &s.Membership}, func() error {
		cache.DependOn(ctx, cache.T("product", s.Product))
		page = append(page, s)
		return nil
	})
	return page, err
}

// read asks for pages, one by one and all together, until enough have been compared.
func (r *run) read(ctx context.Context, who int, p *process) error {
	all := make([]int, categories)
	for i := range all {
		all[i] = i
	}
	compare := func(category int, answer []shown, status cache.Status, before [products]acknowledged) {
		r.answers.Add(1)
		if status == cache.Hit {
			r.hits.Add(1)
		}
		if wrong := r.history.check(category, answer, before); wrong != "" {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.stale = append(r.stale, fmt.Sprintf("process %d, category %d (%v): %s", who, category, status, wrong))
		}
	}
	for n := 0; ctx.Err() == nil && r.answers.Load() < r.most && len(r.result().Stale) == 0; n++ {
		before := r.history.acknowledged()
		if n%2 == 0 {
			category := rand.IntN(categories)
			a, err := p.pages.Lookup(ctx, category)
			if err != nil {
				return err
			}
			compare(category, a.Value, a.Status, before)
			continue
		}
		results, err := p.pages.GetMany(ctx, all)
		if err != nil {
			return err
		}
		for category, a := range results {
			if a.Err != nil {
				return a.Err
			}
			compare(category, a.Value, a.Status, before)
		}
	}
	return nil
}

var errUndone = errors.New("the program changes its mind")

// pacer says when a writer may write.
type pacer struct {
	pace time.Duration
	from int64 // answers there were when it wrote last
}

// wait returns false when stop is closed.
func (r *run) wait(p *pacer, stop <-chan struct{}) bool {
	for {
		select {
		case <-stop:
			return false
		case <-time.After(rand.N(2 * p.pace)):
		}
		if now := r.answers.Load(); now-p.from >= answersPerWrite {
			p.from = now
			return true
		}
	}
}

// write writes by the library until stop is closed.
func (r *run) write(ctx context.Context, p *process, stop <-chan struct{}) error {
	for pacing := (pacer{pace: pace}); r.wait(&pacing, stop); {
		product, undo := rand.IntN(products), rand.IntN(20) == 0
		title, moved := 0, move{}
		err := p.db.Write(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
			if rand.IntN(3) == 0 {
				moved, err = r.move(ctx, tx, product)
			} else {
				err = tx.QueryRow(ctx, `UPDATE products SET title = title + 1 WHERE id = $1 RETURNING title`, product).Scan(&title)
			}
			if err == nil && undo {
				err = errUndone
			}
			return err
		})
		switch {
		case errors.Is(err, errUndone):
			r.rolledBack.Add(1)
			continue
		case err != nil:
			return err
		case title > 0:
			r.history.retitled(product, title)
			r.titles.Add(1)
		default:
			r.history.moved(product, moved)
			r.moves.Add(1)
		}
	}
	return nil
}

// move puts a product into another category.
func (r *run) move(ctx context.Context, tx pgx.Tx, product int) (m move, err error) {
	m.to = rand.IntN(categories)
	err = tx.QueryRow(ctx, `SELECT category FROM memberships WHERE product = $1 FOR UPDATE`, product).Scan(&m.from)
	if err == nil {
		err = tx.QueryRow(ctx, `UPDATE memberships SET category = $2, version = version + 1 WHERE product = $1 RETURNING version`, product, m.to).Scan(&m.version)
	}
	if err == nil {
		r.history.moves(product, m.version, m.to)
	}
	return m, err
}

// writeUnseen writes as a program that knows nothing of the cache, until stop is closed. Nothing
// says when what it wrote shows, but what the library writes after it stands on it.
func (r *run) writeUnseen(ctx context.Context, stop <-chan struct{}) error {
	for pacing := (pacer{pace: 2 * pace}); r.wait(&pacing, stop); {
		err := pgx.BeginFunc(ctx, r.other, func(tx pgx.Tx) error {
			switch rand.IntN(12) {
			case 0:
				r.together.Add(1)
				_, err := tx.Exec(ctx, `UPDATE products SET title = title + 1 WHERE id IN (SELECT id FROM products ORDER BY id FOR UPDATE)`)
				return err
			case 1, 2, 3:
				_, err := r.move(ctx, tx, rand.IntN(products))
				return err
			default:
				_, err := tx.Exec(ctx, `UPDATE products SET title = title + 1 WHERE id = $1`, rand.IntN(products))
				return err
			}
		})
		if err != nil {
			return fmt.Errorf("another program: %w", err)
		}
		r.external.Add(1)
	}
	return nil
}

// compareAtRest compares every answer with the database, when all that was written has been
// delivered.
func (r *run) compareAtRest(ctx context.Context, fleet []*process) error {
	for i, p := range fleet {
		if err := p.relay.Drain(ctx); err != nil {
			return err
		}
		for category := range categories {
			want, err := r.load(ctx, category)
			if err != nil {
				return err
			}
			got, err := p.pages.Get(ctx, category)
			if err != nil {
				return err
			}
			if !sameRows(got, want) {
				r.stale = append(r.stale, fmt.Sprintf("process %d, category %d at rest: %v, and the database says %v", i, category, got, want))
			}
		}
	}
	return nil
}

func sameRows(a, b []shown) bool {
	have := map[shown]bool{}
	for _, s := range a {
		have[s] = true
	}
	for _, s := range b {
		if !have[s] {
			return false
		}
	}
	return len(a) == len(b)
}
