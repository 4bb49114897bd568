package cacheprom_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cacheprom"
	"github.com/chainlearn/chainlearn/cache/event"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is a cache with metrics, and a query of rows that can fail.
type process struct {
	*cache.Cached[int, string]
	registry *prometheus.Registry
	metrics  *cacheprom.Metrics
	err      error
}

func newProcess(t *testing.T) *process {
	t.Helper()
	p := &process{registry: prometheus.NewRegistry()}
	var err error
	if p.metrics, err = cacheprom.New(p.registry); err != nil {
		t.Fatal(err)
	}
	store := memstore.New(memstore.Config{})
	c, err := cache.New(cache.Config{Store: store, Observer: p.metrics})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = store.Close()
	})
	p.Cached = cache.Define(c, cache.Query[int, string]{
		Name: "rows:one",
		Key:  func(id int) string { return cache.Key(id) },
		Tags: func(id int) []cache.Tag { return []cache.Tag{"row:*"} },
		Load: func(_ context.Context, id int) (string, error) {
			if id == 99 {
				return "", cache.ErrNotFound
			}
			return fmt.Sprint(id), p.err
		},
		FreshFor: time.Minute,
	})
	return p
}

// value returns a counter, gauge or the count of a histogram, of the labels given.
func (p *process) value(t *testing.T, name string, labels ...string) (v float64, ok bool) {
	t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetName()+"="+l.GetValue())
			}
			if strings.Join(has, ",") == strings.Join(labels, ",") {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
			}
		}
	}
	return 0, false
}

func (p *process) want(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	if got, ok := p.value(t, name, labels...); !ok || got != want {
		t.Errorf("%s%v is %v (there: %v), want %v", name, labels, got, ok, want)
	}
}

func TestMetricsCountWhatIsTooLargeOrRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t)
		q := p.metrics.Query("rows:one")
		q.Observe(t.Context(), event.TooLarge{Key: "rows:one:1", Tags: 2000})
		q.Served(t.Context(), cache.Served{Status: cache.Bypass, Detail: cache.DetailTooLarge})
		p.metrics.Observe(t.Context(), event.Widened{Tags: []cache.Tag{"a:*", "b:*"}})
		p.metrics.Observe(t.Context(), outbox.SetAside{Row: 7, Rows: 3, Instead: "a:*"})
		p.metrics.Observe(t.Context(), outbox.Undelivered{Err: errors.New("injected")})
		p.want(t, 1, "cache_outbox_undelivered_total")
		p.want(t, 1, "cache_too_large_total", "namespace=rows", "query=one")
		p.want(t, 1, "cache_bypasses_total", "namespace=rows", "query=one", "reason=too_large")
		p.want(t, 2, "cache_widened_invalidations_total")
		p.want(t, 3, "cache_outbox_set_aside_total")
	})
}

func TestMetricsCountAudits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t)
		q := p.metrics.Query("rows:one")
		for _, a := range []event.Audited{
			{Result: event.AuditAgreed}, {Result: event.AuditAgreed}, {Result: event.AuditChanged},
			{Result: event.AuditUnsteady}, {Result: event.AuditFailed}, {Result: event.AuditOld, Age: 10 * time.Second},
		} {
			q.Observe(t.Context(), a)
		}
		for result, want := range map[string]float64{"agreed": 2, "changed": 1, "unsteady": 1, "error": 1, "old": 1} {
			p.want(t, want, "cache_audits_total", "namespace=rows", "query=one", "result="+result)
		}
		p.want(t, 1, "cache_old_answer_age_seconds", "namespace=rows", "query=one")
	})
}

func TestMetricsCountWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t)
		ctx := t.Context()
		for range 4 {
			_, _ = p.Get(ctx, 1)
			synctest.Wait()
		}
		_, _ = p.Get(ctx, 99)
		p.err = errors.New("down")
		_, _ = p.Get(ctx, 2)
		synctest.Wait()
		p.want(t, 3, "cache_hits_total", "namespace=rows", "query=one", "tier=shared")
		p.want(t, 0, "cache_hits_total", "namespace=rows", "query=one", "tier=near")
		p.want(t, 3, "cache_misses_total", "namespace=rows", "query=one")
		for _, result := range []string{"found", "not_found", "error"} {
			p.want(t, 1, "cache_loads_total", "namespace=rows", "query=one", "result="+result)
		}
		p.want(t, 3, "cache_load_duration_seconds", "namespace=rows", "query=one")
		p.want(t, 0.5, "cache_hit_rate", "namespace=rows", "query=one")
		p.want(t, 1, "cache_trusted")
		p.want(t, 0, "cache_breaker_state")
		p.want(t, 0, "cache_waiters", "namespace=rows", "query=one")
		p.want(t, 0, "cache_fence_downgrades_total")
	})
}

func TestHitRateIsOfTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(t)
		twice := func() {
			for range 2 {
				if _, err := p.Get(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		labels := []string{"namespace=rows", "query=one"}
		twice()
		p.want(t, 0.5, "cache_hit_rate", labels...)
		time.Sleep(30 * time.Second)
		twice()
		p.want(t, 0.75, "cache_hit_rate", labels...)
		time.Sleep(31 * time.Second)
		p.want(t, 1, "cache_hit_rate", labels...) // the first half left the window
		time.Sleep(time.Minute)
		if _, ok := p.value(t, "cache_hit_rate", labels...); ok {
			t.Error("a rate of nothing is reported")
		}
	})
}

func TestTwoCachesOnOneRegistererAreRefused(t *testing.T) {
	registry := prometheus.NewRegistry()
	first, err := cacheprom.New(registry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cacheprom.New(registry); err == nil || !strings.Contains(err.Error(), "Registerer") {
		t.Errorf("error is %v, want one that says what to do", err)
	}
	if families, _ := registry.Gather(); len(families) == 0 {
		t.Error("the refusal took the first one's metrics away")
	}
	first.Unregister()
	again, err := cacheprom.New(registry)
	if err != nil {
		t.Fatalf("after Unregister the names are free, but: %v", err)
	}
	again.Unregister()
}

// outboxOf answers what a Relay answers of its outbox.
type outboxOf struct {
	rows int
	age  time.Duration
	err  error
}

func (o *outboxOf) Backlog(context.Context) (int, time.Duration, error) { return o.rows, o.age, o.err }

func TestOutboxIsMeasured(t *testing.T) {
	p := newProcess(t)
	for _, by := range []string{"writer", "relay"} {
		p.want(t, 0, "cache_outbox_delivered_total", "by="+by) // there from the start
	}
	p.metrics.Observe(t.Context(), outbox.Delivered{By: outbox.ByRelay, Rows: 3, Delays: []time.Duration{1, 2, 3}})
	p.metrics.Observe(t.Context(), outbox.Delivered{By: outbox.ByWriter, Rows: 2, Delays: []time.Duration{time.Second}})
	p.want(t, 3, "cache_outbox_delivered_total", "by=relay")
	p.want(t, 2, "cache_outbox_delivered_total", "by=writer")
	p.want(t, 3, "cache_invalidation_delay_seconds", "by=relay")
	p.want(t, 1, "cache_invalidation_delay_seconds", "by=writer")

	o := &outboxOf{rows: 7, age: 1500 * time.Millisecond}
	if err := p.metrics.Backlog(o); err != nil {
		t.Fatal(err)
	}
	if err := p.metrics.Backlog(o); err == nil {
		t.Error("two outboxes share their metrics")
	}
	p.want(t, 7, "cache_outbox_rows")
	p.want(t, 1.5, "cache_outbox_oldest_age_seconds")
	o.err = errors.New("down")
	if _, ok := p.value(t, "cache_outbox_rows"); ok {
		t.Error("an outbox that does not answer has rows")
	}
}
