package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// newAudited starts a process whose answers are compared with the source, for share of the time.
func newAudited(t *testing.T, share float64) (process, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	store := storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 1 << 20}))
	return newProcess(t, store, cache.Config{AuditShare: share, Logger: slog.New(slog.NewTextHandler(log, nil))}), log
}

// tiers are the ways in which an answer is kept: as bytes in the store, or near as well.
func tiers(t *testing.T, f func(t *testing.T, near time.Duration)) {
	for _, near := range []time.Duration{0, time.Second} {
		t.Run(near.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T) { f(t, near) })
		})
	}
}

// asking are the ways in which a single answer is asked for.
var asking = map[string]func(context.Context, *cache.Cached[int, string]) (string, error){
	"Get": func(ctx context.Context, rows *cache.Cached[int, string]) (string, error) { return rows.Get(ctx, 1) },
	"Lookup": func(ctx context.Context, rows *cache.Cached[int, string]) (string, error) {
		a, err := rows.Lookup(ctx, 1)
		return a.Value, err
	},
}

// A write that nothing told the cache of shows within seconds, and is counted and logged.
func TestAuditEndsAnswersThatNothingTellsOf(t *testing.T) {
	for name, ask := range asking {
		t.Run(name, func(t *testing.T) { testAuditEnds(t, ask) })
	}
}

func testAuditEnds(t *testing.T, ask func(context.Context, *cache.Cached[int, string]) (string, error)) {
	tiers(t, func(t *testing.T, near time.Duration) {
		c, log := newAudited(t, 0.5)
		src := newSource()
		q := src.query()
		q.FreshFor, q.Near = 24*time.Hour, near
		rows := cache.Define(c.Cache, q)
		is := func() string {
			row, err := ask(t.Context(), rows)
			if err != nil {
				t.Fatal(err)
			}
			return row
		}
		for range 2 * 60 { // audits have begun
			is()
			time.Sleep(time.Second)
		}
		if n := c.counts.Total(); n.Audited < 10 || n.Old != 0 || log.Len() > 0 {
			t.Fatalf("%d audits, %d old answers\n%s", n.Audited, n.Old, log)
		}
		src.set(1, "uno") // and nothing else
		began := time.Now()
		for is() != "uno" {
			if time.Since(began) > 10*time.Second {
				t.Fatal("the answer is still old after 10 s")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := c.counts.Total().Old; n != 1 {
			t.Errorf("%d old answers were counted, want 1", n)
		}
		for _, want := range []string{"level=ERROR", "query=rows:one", "key=rows:one:1", "remedy=", "trigger"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, log)
			}
		}
	})
}

// What is asked for in batches is compared, too.
func TestAuditOfABatch(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, _ := newAudited(t, 1)
		src := newSource()
		q := src.query()
		q.FreshFor = 24 * time.Hour
		rows := cache.Define(c.Cache, q)
		for second := range 120 {
			results, err := rows.GetMany(t.Context(), []int{1, 2})
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case second == 100:
				src.set(1, "uno")
			case second > 110 && results[0].Value != "uno":
				t.Fatalf("still %q", results[0].Value)
			}
			time.Sleep(time.Second)
		}
	})
}

// Writers tell the cache up to a second after their writes show in the source, as those do whose rows wait
// in an outbox: nothing is wrong, and nothing is said to be.
func TestAuditTakesNoWriteOnItsWayForAFault(t *testing.T) {
	tiers(t, func(t *testing.T, near time.Duration) {
		c, log := newAudited(t, 1)
		src := newSource()
		q := src.query()
		q.FreshFor, q.Near = time.Hour, near
		rows := cache.Define(c.Cache, q)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			random := rand.New(rand.NewPCG(1, 2))
			for n := 0; ctx.Err() == nil; n++ {
				src.set(1, fmt.Sprint("write ", n))
				time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
				if err := c.Invalidate(ctx, rowTag(1)); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
			}
		}()
		for range 10 * 3600 {
			if _, err := rows.Get(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		stop()
		<-done
		if n := c.counts.Total(); n.Audited < 500 || n.Old != 0 || log.Len() > 0 {
			t.Errorf("%d audits, %d old answers\n%s", n.Audited, n.Old, log)
		}
	})
}

// What is asked of the source costs no more of its time than it may, and nothing at all in the first
// minute, without traffic, and for answers that depend on nothing.
func TestAuditsKeepToTheirShare(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, _ := newAudited(t, 0.005)
		src, untagged := newSource(), newSource()
		q := src.query()
		q.FreshFor = 24 * time.Hour
		rows := cache.Define(c.Cache, q)
		q.Name, q.Load, q.Tags = "rows:untagged", untagged.load, func(int) []cache.Tag { return nil }
		others := cache.Define(c.Cache, q)
		asked := []*cache.Cached[int, string]{rows, others}
		get := func() {
			slices.Reverse(asked) // the first hit after an audit is due is the one that is compared
			for _, d := range asked {
				if _, err := d.Get(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
			}
		}
		get()
		for range 60 {
			time.Sleep(time.Second)
			get()
		}
		if n := src.loads.Load(); n != 1 {
			t.Fatalf("%d loads in the first minute, want 1", n)
		}
		time.Sleep(time.Hour)
		if n := src.loads.Load(); n != 1 {
			t.Fatalf("%d loads without a request, want 1", n)
		}
		const hour = 3600
		for range hour {
			time.Sleep(time.Second)
			get()
		}
		// Of 0.1 s each: 0.005 of an hour is 18 s.
		if n := src.loads.Load(); n < 50 || n > 1+180 {
			t.Errorf("%d loads in an hour, want 0.005 of the time", n)
		}
		if n := untagged.loads.Load(); n != 1 {
			t.Errorf("%d loads of what depends on nothing, want 1", n)
		}
	})
}

// A source that answers otherwise each time, or fails, proves nothing.
func TestAuditOfASourceThatProvesNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, log := newAudited(t, 1)
		var n atomic.Int64
		q := newSource().query()
		q.FreshFor = 24 * time.Hour
		q.Load = func(context.Context, int) (string, error) { return fmt.Sprint(n.Add(1)), nil }
		steady := cache.Define(c.Cache, q)
		failing := newSource()
		q.Name, q.Load = "rows:failing", failing.load
		fails := cache.Define(c.Cache, q)
		for i := range 600 {
			if row, err := steady.Get(t.Context(), 1); err != nil || row != "1" {
				t.Fatal(row, err)
			}
			if row, err := fails.Get(t.Context(), 1); err != nil || row != "one" {
				t.Fatal(row, err)
			}
			if i == 0 {
				failing.fail(errors.New("the source is away"))
			}
			time.Sleep(time.Second)
		}
		if n := c.counts.Total(); n.Audited < 10 || n.Old != 0 {
			t.Errorf("%d audits, %d old answers", n.Audited, n.Old)
		}
		if s := log.String(); strings.Count(s, "gives another answer each time") < 1 || strings.Count(s, "\n") > 3 || !strings.Contains(s, "remedy=") {
			t.Errorf("the log is\n%s", s)
		}
	})
}

func TestAuditShareIsChecked(t *testing.T) {
	store := memstore.New(memstore.Config{MaxBytes: 1 << 20})
	defer store.Close()
	for _, share := range []float64{1.5, math.NaN()} {
		_, err := cache.New(cache.Config{Store: store, AuditShare: share})
		if err == nil || !strings.Contains(err.Error(), "AuditShare is") {
			t.Errorf("%v is accepted: %v", share, err)
		}
	}
}
