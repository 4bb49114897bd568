package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"

	"github.com/chainlearn/chainlearn/bench/internal/child"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const (
	heapRole = "heap"

	memoryValue     = 1000 // bytes, of all on average
	memorySpread    = 900  // the largest difference of one from the average
	memoryInRedis   = 20_000
	memoryInProcess = 50_000
)

var memory = experiment{
	name:  "memory",
	title: "Memory",
	about: fmt.Sprintf("What an answer of about %d bytes takes beside these bytes. In Redis: %d answers of different sizes, so that rounding "+
		"by the allocator does not favour any library, each in a server of its own; "+
		"MEMORY USAGE of the key that holds the answer, of all keys that its library keeps for it, and the growth of used_memory, "+
		"which has the tables of Redis in it. Keys are as long as the identity in them and a prefix of about 30 bytes. "+
		"In process: the growth of the heap by %d answers that are a number each, in a process of its own; "+
		"with a number there is nothing to share, so what the libraries keep can be compared, whether they keep values or bytes.",
		memoryValue, memoryInRedis, memoryInProcess),
	run: runMemory,
}

const (
	entryBytes = "B of the entry's key, beside the value"
	keysBytes  = "B of all keys, beside the value"
	usedBytes  = "B of used_memory, beside the value"
	heapBytes  = "B of heap, beside the value"
)

func runMemory(ctx context.Context, x *experimentRun) error {
	for _, e := range inRedis("") {
		err := withRedis(ctx, func(r *testservers.Redis) error {
			e.addr = r.Addr()
			return x.memoryInRedis(ctx, e, r)
		})
		if err != nil {
			return err
		}
	}
	near := peers.NamesWhere(func(lib peers.Library) bool { return lib.Process })
	for _, name := range near {
		err := withRedis(ctx, func(r *testservers.Redis) error {
			heaps, err := child.RunTogether[heapResult](ctx, heapRole, 1, func(int) any { return heapSpec{name, r.Addr()} }, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if off := heaps[0].Off; off != "" {
				x.section.Notes = append(x.section.Notes, fmt.Sprintf("%s keeps nothing in process: %s.", name, off))
				return nil
			}
			x.Add(0, "in process", name, heapBytes, heaps[0].PerAnswer)
			return nil
		})
		if err != nil {
			return err
		}
		x.logf("%s in process", name)
	}
	bytes := func(v float64) string { return fmt.Sprintf("%.0f B", v) }
	t := report.Table{Head: []string{"", "entry in Redis", "all keys for it", "used_memory", "in process"}}
	for _, lib := range peers.All {
		row := []string{lib.Name}
		for _, m := range []struct{ case_, metric string }{
			{"in Redis", entryBytes}, {"in Redis", keysBytes}, {"in Redis", usedBytes}, {"in process", heapBytes},
		} {
			v, ok := x.Median(m.case_, lib.Name, m.metric)
			row = append(row, orDash(ok, bytes(v)))
		}
		t.Rows = append(t.Rows, row)
	}
	x.section.Tables = append(x.section.Tables, t)

	entry, _ := x.Median("in Redis", ours, entryBytes)
	bare, _ := x.Median("in Redis", peers.BareGet, entryBytes)
	heap, kept := x.Median("in process", ours, heapBytes)
	otter, _ := x.Median("in process", peers.Otter, heapBytes)
	x.section.Bars = append(x.section.Bars,
		report.Bar{Subject: "memory of a Redis entry beside the value", Limit: "at most 200 B", Ours: bytes(entry),
			Alternative: "a bare SET " + bytes(bare), Ratio: report.Times(entry / bare), Verdict: report.Judge(entry <= 200),
			Remark: "The key itself and what the allocator rounds up are in it, as the bare SET shows."},
		report.Bar{Subject: "memory of a near entry beside the value, 2 tags, of which one is its own", Limit: "at most 250 B", Ours: bytes(heap),
			Alternative: "bare otter " + bytes(otter), Ratio: report.Times(heap / otter), Verdict: report.Judge(heap <= 250)})
	if bar := &x.section.Bars[1]; !kept {
		bar.Ours, bar.Ratio, bar.Verdict = "–", "–", report.NotMeasured
	}
	return nil
}

func (x *experimentRun) memoryInRedis(ctx context.Context, e contenderSpec, r *testservers.Redis) (err error) {
	c, err := newContender(ctx, e, memoryInRedis, func(_ context.Context, id uuid.UUID) ([]byte, error) { return sized(id), nil }, peers.Raw)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.cache.Close()) }()
	before, err := usedMemory(ctx, r)
	if err != nil {
		return err
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.Addr()}, DisableCache: true})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := c.fill(ctx); err != nil {
		return err
	}
	kept, err := c.allInRedis(ctx, client)
	if err != nil {
		return err
	}
	after, err := usedMemory(ctx, r)
	if err != nil {
		return err
	}
	values := 0
	for i := range c.keys {
		values += len(sized(c.keys[i].ID))
	}
	x.Add(0, "in Redis", c.name, entryBytes, float64(kept.entryBytes-values)/memoryInRedis)
	x.Add(0, "in Redis", c.name, keysBytes, float64(kept.allBytes-values)/memoryInRedis)
	x.Add(0, "in Redis", c.name, usedBytes, float64(after-before-values)/memoryInRedis)
	x.logf("%s in Redis", c.name)
	return nil
}

// sized returns the answer of an identity, whose size depends on it.
func sized(id uuid.UUID) []byte {
	n := (int(id[0])<<8 + int(id[1])) * 2 * memorySpread / (1 << 16)
	return make([]byte, memoryValue-memorySpread+n)
}

func usedMemory(ctx context.Context, r *testservers.Redis) (int, error) {
	text, err := r.Do(ctx, "INFO", "memory").ToString()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(info(text, "used_memory"))
}

// allInRedis waits until there are as many entries as there are keys, asking again for all
// of them, for some libraries store in the background, and we not while a call of the
// store took too long on a busy machine.
func (c *contender[V]) allInRedis(ctx context.Context, client rueidis.Client) (k keyMemory, err error) {
	const passes = 20
	for range passes {
		if k, err = measureKeys(ctx, client); err != nil || k.entries == len(c.keys) {
			return k, err
		}
		if c.library != peers.BareGet {
			if err := c.fillNear(ctx); err != nil {
				return k, err
			}
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return k, err
		}
	}
	return k, fmt.Errorf("%s has %d entries for %d answers", c.name, k.entries, len(c.keys))
}

// keyMemory is what keys take. Entries are those that hold answers.
type keyMemory struct{ entries, entryBytes, allBytes int }

func measureKeys(ctx context.Context, client rueidis.Client) (k keyMemory, err error) {
	cursor := uint64(0)
	seen := map[string]bool{} // a scan may return a key twice
	for {
		page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Count(1000).Build()).AsScanEntry()
		if err != nil {
			return k, err
		}
		usages := make(rueidis.Commands, len(page.Elements))
		for i, key := range page.Elements {
			usages[i] = client.B().MemoryUsage().Key(key).Samples(0).Build()
		}
		for i, r := range client.DoMulti(ctx, usages...) {
			n, err := r.AsInt64()
			key := page.Elements[i]
			switch {
			case rueidis.IsRedisNil(err) || seen[key]: // or it has expired since the scan
				continue
			case err != nil:
				return k, fmt.Errorf("memory of %s: %w", key, err)
			}
			seen[key] = true
			k.allBytes += int(n)
			// Beside entries, we keep tags and leases, and rueidisaside a sign of life.
			if !strings.Contains(key, ":tag:") && !strings.Contains(key, ":lease:") && !strings.HasPrefix(key, rueidisaside.PlaceholderPrefix) {
				k.entries++
				k.entryBytes += int(n)
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return k, nil
		}
	}
}

type heapSpec struct{ Library, Addr string }

type heapResult struct {
	PerAnswer float64
	Off       string // why nothing is kept in process, if so
}

// heapOfNear measures what answers kept in process take beside the answers themselves.
func heapOfNear(ctx context.Context, parent *child.Parent) (any, error) {
	var spec heapSpec
	if err := parent.Spec(&spec); err != nil {
		return nil, err
	}
	c, err := newContender(ctx, contenderSpec{library: spec.Library, addr: spec.Addr, near: true}, memoryInProcess,
		func(_ context.Context, id uuid.UUID) (uint64, error) { return binary.BigEndian.Uint64(id[:]), nil }, peers.JSON[uint64]())
	if err != nil {
		return nil, err
	}
	if _, err := parent.Ready(); err != nil {
		return nil, err
	}
	before := heap()
	if err := c.fill(ctx); err != nil {
		return nil, err
	}
	if err := c.waitUntilStored(ctx); err != nil {
		return nil, err
	}
	var result heapResult
	if o, ok := c.cache.(*peers.Ours[uint64]); ok {
		if err := o.NearWorks(ctx, &c.keys[0], nearTimeout); err != nil {
			result.Off = err.Error()
		}
	}
	if err := c.fillNear(ctx); err != nil {
		return nil, err
	}
	const number = 8
	result.PerAnswer = float64(heap()-before)/memoryInProcess - number
	return result, c.cache.Close()
}

func heap() int64 {
	for range 3 { // a finalizer may delay freeing to the next collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
