package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A place is what a fault harms, and heals. Two faults at the same time harm different places:
// healing one must not heal the other.
type place uint

const (
	redisServer place = 1 << iota
	connections
	processes
	database
)

// A fault is one way to harm a fleet, for about d.
type fault struct {
	name  string
	harms place
	// lossy: Redis may forget fences. Then readers may see a write in flight, and after it the
	// old value again, until the write is acknowledged.
	lossy bool
	// inject harms and heals. When it returns, only what the library has to repair is left.
	inject func(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error
}

var allFaults = []fault{
	{"redis freezes", redisServer, false, freezeRedis},
	{"redis is killed and comes back empty", redisServer, true, emptyRedis},
	{"redis is killed and comes back with an old snapshot", redisServer, true, oldRedis},
	{"redis fails over to a replica without the last writes", redisServer, true, failOver},
	{"redis is flushed", redisServer, true, flushRedis},
	{"redis loses single keys", redisServer, true, evictKeys},
	{"redis evicts under memory pressure", redisServer, true, pressMemory},
	{"redis answers and refuses writes", redisServer, false, refuseWrites},
	{"redis answers slowly", connections, false, slowRedis},
	{"connections to redis are reset", connections, false, resetRedis},
	{"a worker is cut off from redis", connections, false, cutRedis},
	{"a worker's redis accepts and never answers", connections, false, holdRedis},
	{"redis is out of reach for longer than every back-off", connections, false, cutRedisForLong},
	{"workers start while redis is out of reach", connections | processes, false, startWithoutRedis},
	{"workers are killed", processes, false, killWorkers},
	{"a worker is frozen", processes, false, freezeWorker},
	{"clocks are wrong", processes, false, skewClocks},
	{"answers of 16 MB", processes, false, askForLarge},
	{batchesFault, processes, false, askForMany},
	{"connections to the database are reset", connections, false, resetPostgres},
	{"COMMIT is cut off in the middle", connections, false, cutCommits},
	{"a worker is cut off from the database", connections, false, cutPostgres},
	{"COMMIT waits for a standby", database, false, stallCommits},
	{"the clock of the database is set back", database, false, skewDatabase},
	{"rows of the outbox that nothing can deliver", database, false, poisonOutbox},
}

const (
	batchesFault = "batches of 10,000"
	batchSize    = 10_000
)

// Faults returns the names of all faults.
func Faults() []string {
	var names []string
	for _, f := range allFaults {
		names = append(names, f.name)
	}
	return names
}

// wait waits for d, or fails with the cause of ctx.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// repeatedly calls do about once in the interval, for d.
func repeatedly(ctx context.Context, rnd *rand.Rand, every, d time.Duration, do func() error) error {
	for until := time.Now().Add(d); time.Now().Before(until); {
		if err := do(); err != nil {
			return err
		}
		if err := wait(ctx, every/2+time.Duration(rnd.Int64N(int64(every)))); err != nil {
			return err
		}
	}
	return nil
}

// harmFor waits for d between harm and heal. It heals also if the run ends meanwhile.
func harmFor(ctx context.Context, d time.Duration, harm, heal func() error) error {
	if err := harm(); err != nil {
		return err
	}
	return errors.Join(wait(ctx, d), heal())
}

func (f *Fleet) randomSlot(rnd *rand.Rand) (int, *slot) {
	i := rnd.IntN(len(f.slots))
	return i, f.slots[i]
}

func freezeRedis(ctx context.Context, f *Fleet, _ *rand.Rand, d time.Duration) error {
	return harmFor(ctx, d, f.server().Freeze, f.server().Thaw)
}

func emptyRedis(ctx context.Context, f *Fleet, _ *rand.Rand, d time.Duration) error {
	return harmFor(ctx, d, f.server().Kill, func() error { return f.server().RestartEmpty(context.WithoutCancel(ctx)) })
}

func oldRedis(ctx context.Context, f *Fleet, _ *rand.Rand, d time.Duration) error {
	if err := f.server().Do(ctx, "SAVE").Error(); err != nil {
		return fmt.Errorf("SAVE: %w", err)
	}
	if err := wait(ctx, d/2); err != nil { // what happens now will be forgotten
		return err
	}
	return harmFor(ctx, d/2, f.server().Kill, func() error { return f.server().Restart(context.WithoutCancel(ctx)) })
}

func failOver(ctx context.Context, f *Fleet, _ *rand.Rand, d time.Duration) error {
	old := f.server()
	replica, err := old.OpenReplica(ctx)
	if err != nil {
		return err
	}
	// From here on it receives nothing more, like a replica that lags at the wrong time.
	if err := replica.Promote(ctx); err != nil {
		return errors.Join(err, replica.Close())
	}
	err = wait(ctx, d)
	f.mu.Lock()
	f.redis = replica
	f.mu.Unlock()
	err = errors.Join(err, old.Close())
	f.virtualIP.switchTo(replica.Addr())
	return err
}

func flushRedis(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	return repeatedly(ctx, rnd, 100*time.Millisecond, d, func() error {
		return f.server().Do(ctx, "FLUSHALL").Error()
	})
}

// evictKeys removes tags, entries and leases here and there, as an eviction policy may.
func evictKeys(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	return repeatedly(ctx, rnd, 10*time.Millisecond, d, func() error {
		k := rnd.IntN(f.shape.rows())
		names := []string{"tag:" + string(cache.Everything), "tag:#name", "tag:" + string(itemTag(k)), "tag:" + string(itemTag(k).Family()), "tag:" + string(groupTag(f.shape.group(k))),
			fmt.Sprintf("soak:item:%d", k), fmt.Sprintf("lease:soak:item:%d", k)}
		return f.server().Do(ctx, "UNLINK", "soak:"+names[rnd.IntN(len(names))]).Error()
	})
}

// pressMemory makes Redis evict the least recently used keys, while another client fills it.
func pressMemory(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	r := f.server()
	info, err := r.Do(ctx, "INFO", "memory").ToString()
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(info, "used_memory:")
	used, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		return fmt.Errorf("INFO memory: %w", err)
	}
	const room, filler = 256 << 10, `for i = 1, 64 do redis.call('SET', 'filler:' .. ARGV[1] .. ':' .. i, string.rep('x', 4096), 'EX', 60) end return 1`
	harm := func() error {
		return r.Do(ctx, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", strconv.Itoa(used+room)).Error()
	}
	if err := harm(); err != nil {
		return err
	}
	n := 0
	err = repeatedly(ctx, rnd, 20*time.Millisecond, d, func() error {
		n++
		_ = r.Do(ctx, "EVAL", filler, "0", strconv.Itoa(n)).Error() // refused while nothing is left to evict
		return nil
	})
	ctx = context.WithoutCancel(ctx)
	return errors.Join(err,
		r.Do(ctx, "CONFIG", "SET", "maxmemory", "0").Error(),
		r.Do(ctx, "EVAL", `for _, k in ipairs(redis.call('KEYS', 'filler:*')) do redis.call('UNLINK', k) end return 1`, "0").Error())
}

func slowRedis(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	by := make([]time.Duration, len(f.slots))
	for i := range by { // each worker by another time, around the timeout of a call
		by[i] = time.Duration(rnd.Int64N(int64(f.cfg.StoreTimeout)))
	}
	return harmFor(ctx, d, func() error {
		for i, s := range f.slots {
			s.redis.Delay(by[i])
		}
		return nil
	}, f.healProxies)
}

func (f *Fleet) healProxies() error {
	var errs []error
	for _, s := range f.slots {
		errs = append(errs, s.redis.Heal(), s.postgres.Heal())
	}
	return errors.Join(errs...)
}

func resetRedis(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	return repeatedly(ctx, rnd, 100*time.Millisecond, d, func() error {
		_, s := f.randomSlot(rnd)
		s.redis.Reset()
		return nil
	})
}

func cutRedis(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	_, s := f.randomSlot(rnd)
	return harmFor(ctx, d, func() error { s.redis.Cut(); return nil }, s.redis.Heal)
}

func holdRedis(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	_, s := f.randomSlot(rnd)
	// What is held back arrives late: fences, bumps and fills from before the fault.
	ways := [][]testservers.Direction{nil, {testservers.Requests}, {testservers.Replies}}[rnd.IntN(3)]
	return harmFor(ctx, d, func() error { s.redis.Hold(ways...); return nil }, s.redis.Heal)
}

// cutRedisForLong lets every sleep between two attempts grow to its longest.
func cutRedisForLong(ctx context.Context, f *Fleet, _ *rand.Rand, d time.Duration) error {
	return harmFor(ctx, min(12*d, 15*time.Second), f.cutAllRedis, f.healProxies)
}

func (f *Fleet) cutAllRedis() error {
	for _, s := range f.slots {
		s.redis.Cut()
	}
	return nil
}

// startWithoutRedis replaces some workers while Redis is out of reach, and writes are acknowledged
// that it does not know.
func startWithoutRedis(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	var starting errgroup.Group
	err := harmFor(ctx, d/2, f.cutAllRedis, func() error {
		for _, i := range rnd.Perm(len(f.slots))[:1+rnd.IntN(max(len(f.slots)-1, 1))] {
			if err := f.slots[i].process.kill(); err != nil {
				return err
			}
			starting.Go(func() error { return f.start(context.WithoutCancel(ctx), i) })
		}
		_ = wait(ctx, d/2) // a run that ends still needs its workers: they are checked
		return f.healProxies()
	})
	return errors.Join(err, starting.Wait())
}

// refuseWrites makes Redis answer reads and nothing else, as a master does that has lost its replicas.
func refuseWrites(ctx context.Context, f *Fleet, _ *rand.Rand, d time.Duration) error {
	r := f.server()
	return harmFor(ctx, d,
		func() error { return r.Do(ctx, "CONFIG", "SET", "min-replicas-to-write", "3").Error() },
		func() error {
			return r.Do(context.WithoutCancel(ctx), "CONFIG", "SET", "min-replicas-to-write", "0").Error()
		})
}

// killWorkers kills some at a random instant and replaces them, but never all.
func killWorkers(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	slots := rnd.Perm(len(f.slots))[:1+rnd.IntN(max(len(f.slots)-1, 1))]
	for _, i := range slots {
		if err := errors.Join(wait(ctx, time.Duration(rnd.Int64N(int64(20*time.Millisecond)))), f.slots[i].process.kill()); err != nil {
			return err
		}
	}
	_ = wait(ctx, d/2) // a run that ends still needs its workers: they are checked
	var starting errgroup.Group
	for _, i := range slots {
		starting.Go(func() error { return f.start(context.WithoutCancel(ctx), i) })
	}
	return starting.Wait()
}

// freezeWorker stops one for up to twice the lease of a fence.
func freezeWorker(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	_, s := f.randomSlot(rnd)
	if rnd.IntN(3) == 0 {
		d = max(d, f.cfg.Lease+d/2)
	}
	return harmFor(ctx, d, s.process.freeze, s.process.thaw)
}

// skewClocks gives every worker another wrong time: seconds off, or an hour.
func skewClocks(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	set := func(skew func() time.Duration) error {
		var telling errgroup.Group
		for _, m := range f.processes() {
			by := skew()
			telling.Go(func() error {
				_, err := m.call(context.WithoutCancel(ctx), request{Clock: &clockRequest{by}})
				return err
			})
		}
		return telling.Wait()
	}
	return harmFor(ctx, d, func() error {
		return set(func() time.Duration {
			by := time.Duration(rnd.Int64N(int64(8*time.Second))) - 4*time.Second
			if rnd.IntN(3) == 0 {
				by += time.Duration(rnd.IntN(3)-1) * time.Hour
			}
			return by
		})
	}, func() error { return set(func() time.Duration { return 0 }) })
}

// ask has n workers at a time ask for what is big, for d.
func (f *Fleet) ask(ctx context.Context, rnd *rand.Rand, d time.Duration, n int, what bigRequest) error {
	for until := time.Now().Add(d); time.Now().Before(until) && ctx.Err() == nil; {
		var asking errgroup.Group
		what.Key = rnd.IntN(f.shape.rows())
		for _, m := range pick(rnd, f.processes(), n) {
			asking.Go(func() error {
				_, err := m.call(context.WithoutCancel(ctx), request{Big: &what})
				return err
			})
		}
		if err := asking.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func pick(rnd *rand.Rand, of []*Process, n int) []*Process {
	rnd.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
	return of[:min(n, len(of))]
}

func askForLarge(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	return f.ask(ctx, rnd, d, 2, bigRequest{Bytes: 16 << 20})
}

func askForMany(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	return f.ask(ctx, rnd, d, 1, bigRequest{Keys: batchSize})
}

func resetPostgres(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	return repeatedly(ctx, rnd, 100*time.Millisecond, d, func() error {
		_, s := f.randomSlot(rnd)
		s.postgres.Reset()
		return nil
	})
}

// cutCommits holds back what passes between a worker and the database, and then cuts the
// connections: some statements and commits have taken effect, and their writers cannot know.
func cutCommits(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	return repeatedly(ctx, rnd, 150*time.Millisecond, d, func() error {
		_, s := f.randomSlot(rnd)
		way := testservers.Replies
		if rnd.IntN(3) == 0 {
			way = testservers.Requests
		}
		return harmFor(ctx, 20*time.Millisecond+time.Duration(rnd.Int64N(int64(40*time.Millisecond))),
			func() error { s.postgres.Hold(way); return nil },
			func() error { s.postgres.Reset(); return s.postgres.Heal() })
	})
}

func cutPostgres(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	_, s := f.randomSlot(rnd)
	return harmFor(ctx, d, func() error { s.postgres.Cut(); return nil }, s.postgres.Heal)
}

// stallCommits makes COMMIT wait for a standby that is not there, for up to twice the lease of a fence.
func stallCommits(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	if rnd.IntN(2) == 0 {
		d = f.cfg.Lease + d
	}
	set := func(change string) error {
		ctx := context.WithoutCancel(ctx)
		_, err := f.admin.Exec(ctx, `ALTER SYSTEM `+change)
		if err == nil {
			_, err = f.admin.Exec(ctx, `SELECT pg_reload_conf()`)
		}
		return err
	}
	return harmFor(ctx, d,
		func() error { return set(`SET synchronous_standby_names = 'missing'`) },
		func() error { return set(`RESET synchronous_standby_names`) })
}

// skewDatabase has rows of the outbox recorded in what is the future once the clock is set back.
func skewDatabase(ctx context.Context, f *Fleet, _ *rand.Rand, d time.Duration) error {
	set := func(ahead string) error {
		_, err := f.admin.Exec(context.WithoutCancel(ctx), `ALTER TABLE cache_outbox ALTER recorded_at SET DEFAULT clock_timestamp()`+ahead)
		return err
	}
	return harmFor(ctx, d, func() error { return set(` + interval '1 hour'`) }, func() error { return set("") })
}

// poisonOutbox records tags that no store takes: one of 8 MB, and one that is none.
func poisonOutbox(ctx context.Context, f *Fleet, rnd *rand.Rand, d time.Duration) error {
	return repeatedly(ctx, rnd, 200*time.Millisecond, d, func() error {
		tag := []string{`repeat('x', 8388608)`, `E'a\nb'`}[rnd.IntN(2)]
		_, err := f.admin.Exec(context.WithoutCancel(ctx), `INSERT INTO cache_outbox (tag) VALUES (`+tag+`)`)
		return err
	})
}

// injection is one fault of a schedule.
type injection struct {
	fault
	seed     uint64
	duration time.Duration
	with     *fault // at the same time; nil usually
}

// schedule draws injections from a seed: first every fault once, then at random. Two at the same
// time are rare, and harm different places.
type schedule struct {
	rnd   *rand.Rand
	pool  []fault
	queue []fault
	round int
}

func newSchedule(seed uint64, names []string) (*schedule, error) {
	s := &schedule{rnd: rand.New(rand.NewPCG(seed, 1))}
	for _, name := range names {
		found := false
		for _, f := range allFaults {
			if strings.Contains(f.name, name) {
				s.pool, found = append(s.pool, f), true
			}
		}
		if !found {
			return nil, fmt.Errorf("soak: no fault is called %q; there are: %s", name, strings.Join(Faults(), "; "))
		}
	}
	if len(names) == 0 {
		s.pool = allFaults
	}
	return s, nil
}

func (s *schedule) next() injection {
	if len(s.queue) == 0 {
		for _, i := range s.rnd.Perm(len(s.pool)) {
			s.queue = append(s.queue, s.pool[i])
		}
		s.round++
	}
	b := injection{fault: s.queue[0], seed: s.rnd.Uint64()}
	s.queue = s.queue[1:]
	b.duration = 200*time.Millisecond + time.Duration(s.rnd.Int64N(int64(600*time.Millisecond)))
	if s.round > 1 {
		if s.rnd.IntN(4) == 0 {
			b.duration *= 4
		}
		second := s.pool[s.rnd.IntN(len(s.pool))]
		if s.rnd.IntN(5) == 0 && second.harms&b.harms == 0 {
			b.with = &second
		}
	}
	return b
}

// done reports whether every fault has been injected in that many rounds.
func (s *schedule) done(rounds int) bool {
	return s.round > rounds || s.round == rounds && len(s.queue) == 0
}
