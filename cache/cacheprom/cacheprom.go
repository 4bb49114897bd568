// Package cacheprom counts what a cache does, for Prometheus.
//
//	metrics, err := cacheprom.New(prometheus.DefaultRegisterer)
//	c, err := cache.New(cache.Config{Store: store, Observer: metrics})
//	…
//	relay, err := outbox.NewRelay(c, log, outbox.RelayConfig{})
//	err = metrics.Backlog(relay)
//
// Label values are bounded: the names of defined queries, and constants.
package cacheprom

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/event"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Metrics is a cache.Observer. One belongs to one Cache, and to the Relay of its outbox. It
// is safe for concurrent use.
type Metrics struct {
	registerer prometheus.Registerer
	rates      *hitRates

	mu         sync.Mutex
	registered []prometheus.Collector // guarded by mu

	hits, misses, loads *prometheus.CounterVec
	bypasses, notStored *prometheus.CounterVec
	tooLarge            *prometheus.CounterVec
	undecodable         *prometheus.CounterVec
	overloads           *prometheus.CounterVec
	loadTime            *prometheus.HistogramVec
	waiters             *prometheus.GaugeVec
	storeErrors         *prometheus.CounterVec
	invalidations       *prometheus.CounterVec
	panics              *prometheus.CounterVec
	audits              *prometheus.CounterVec
	oldAge              *prometheus.HistogramVec
	downgrades, gaps    prometheus.Counter
	widened, setAside   prometheus.Counter
	undelivered         prometheus.Counter
	breaker, validated  prometheus.Gauge
	delivered           *prometheus.CounterVec
	delay               *prometheus.HistogramVec
}

var _ cache.Observer = (*Metrics)(nil)

// Tiers that answers come from, as the label of cache_hits_total.
const (
	tierNear   = "near"
	tierProven = "near_proven"
	tierShared = "shared"
)

// Results of an invalidation, as the label of cache_invalidations_total.
const (
	resultOK     = "ok"
	resultFailed = "failed"
)

// New returns Metrics that are registered with r. It fails if r has the metrics of another
// cache: give each its own Registerer, or wrap it with labels.
func New(r prometheus.Registerer) (*Metrics, error) {
	perQuery := []string{"namespace", "query"}
	m := &Metrics{registerer: r, rates: &hitRates{queries: map[string]*hitRate{}}}
	var all []prometheus.Collector
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		all = append(all, v)
		return v
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		all = append(all, c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		all = append(all, g)
		return g
	}
	m.hits = counters("cache_hits_total", "Answers served from the cache, fresh or stale, by tier.", "namespace", "query", "tier")
	m.misses = counters("cache_misses_total", "Answers that were not in the cache: loaded, joined, or bypassed.", perQuery...)
	m.loads = counters("cache_loads_total", "Loads from the source, by result.", "namespace", "query", "result")
	m.bypasses = counters("cache_bypasses_total", "Answers taken from the source without storing them, by reason.", "namespace", "query", "reason")
	m.notStored = counters("cache_refused_stores_total", "Loaded answers that were not stored: their tags changed, were fenced, the store failed, or they are too large.", perQuery...)
	m.tooLarge = counters("cache_too_large_total", "Answers that were not stored because they have too many bytes or too many tags.", perQuery...)
	m.undecodable = counters("cache_undecodable_total", "Entries that could not be read: another format, or damaged.", perQuery...)
	m.audits = counters("cache_audits_total", "Fresh answers of the cache that were compared with the source, by result: of those that agreed or were old, the share that was old is how far the cache is from exact.", "namespace", "query", "result")
	m.oldAge = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "cache_old_answer_age_seconds", Help: "Ages of the answers that an audit found to be old.",
		Buckets: prometheus.ExponentialBuckets(1, 4, 9), // to 18 hours
	}, perQuery)
	m.overloads = counters("cache_overloads_total", "Callers refused because too many loads were running and waiting.", perQuery...)
	m.storeErrors = counters("cache_store_errors_total", "Failed calls of the shared tier, by operation.", "op")
	m.panics = counters("cache_panics_total", "Panics of the program's functions that no caller waited for, by function.", "function")
	m.invalidations = counters("cache_invalidations_total", "Tags bumped by this process, by result.", "result")
	m.loadTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "cache_load_duration_seconds", Help: "How long loads from the source took.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12), // 0.5 ms to 12 s
	}, perQuery)
	m.waiters = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cache_waiters", Help: "Callers waiting for a load at this moment.",
	}, perQuery)
	m.downgrades = counter("cache_fence_downgrades_total", "Writes that went on without a fence because the shared tier was out of reach.")
	m.widened = counter("cache_widened_invalidations_total", "Families that were invalidated in place of tags that the shared tier refused.")
	m.undelivered = counter("cache_outbox_undelivered_total", "Statements outside of a transaction whose invalidations could not be delivered before they returned.")
	m.setAside = counter("cache_outbox_set_aside_total", "Outbox rows that could not be delivered for their own sake; their family or everything was invalidated.")
	m.gaps = counter("cache_near_gaps_total", "Times that changes may have been missed, so that every near answer was dropped.")
	m.breaker = gauge("cache_breaker_state", "Circuit breaker of the shared tier: 0 closed, 1 half open, 2 open.")
	m.validated = gauge("cache_trusted", "1 while stored answers are served, 0 during an outage and its recovery.")
	m.delivered = counters("cache_outbox_delivered_total", "Touched tags of committed transactions that this process delivered, as their writer or for others.", "by")
	m.delay = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "cache_invalidation_delay_seconds",
		Help:    "Time from the recording of touched tags to their invalidation, by what delivered it.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 14), // 0.5 ms to 75 s
	}, []string{"by"})
	for _, by := range []string{outbox.ByWriter, outbox.ByRelay} {
		m.delivered.WithLabelValues(by) // there from the start, at 0
		m.delay.WithLabelValues(by)
	}
	all = append(all, m.loadTime, m.waiters, m.delay, m.oldAge, m.rates)
	if err := m.register(all...); err != nil {
		m.Unregister()
		return nil, errors.Join(err, errors.New("cacheprom: are there metrics of another cache on this Registerer? give each its own, or wrap it with labels"))
	}
	return m, nil
}

func (m *Metrics) register(collectors ...prometheus.Collector) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range collectors {
		if err := m.registerer.Register(c); err != nil {
			return err
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

// Unregister takes the metrics off the Registerer.
func (m *Metrics) Unregister() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
	m.registered = nil
}

// Observe implements cache.Observer.
func (m *Metrics) Observe(_ context.Context, e cache.Event) {
	switch e := e.(type) {
	case event.StoreFailed:
		m.storeErrors.WithLabelValues(e.Op).Inc()
	case event.StoreState:
		m.breaker.Set(float64(e.Breaker))
		if e.Validated {
			m.validated.Set(1)
		} else {
			m.validated.Set(0)
		}
	case event.Invalidated:
		result := resultOK
		if e.Err != nil {
			result = resultFailed
		}
		m.invalidations.WithLabelValues(result).Add(float64(len(e.Tags)))
	case event.Panicked:
		m.panics.WithLabelValues(e.Func).Inc()
	case event.Widened:
		m.widened.Add(float64(len(e.Tags)))
	case outbox.SetAside:
		m.setAside.Add(float64(e.Rows))
	case outbox.Undelivered:
		m.undelivered.Inc()
	case event.Unfenced:
		m.downgrades.Inc()
	case event.ChangesMissed:
		m.gaps.Inc()
	case outbox.Delivered:
		m.delivered.WithLabelValues(e.By).Add(float64(e.Rows))
		delay := m.delay.WithLabelValues(e.By)
		for _, d := range e.Delays {
			delay.Observe(d.Seconds())
		}
	}
}

// Query implements cache.Observer.
func (m *Metrics) Query(name string) cache.QueryObserver {
	ns, q, _ := strings.Cut(name, ":")
	qm := &queryMetrics{
		hits: m.hits.WithLabelValues(ns, q, tierShared), nearHits: m.hits.WithLabelValues(ns, q, tierNear), provenHits: m.hits.WithLabelValues(ns, q, tierProven),
		misses:      m.misses.WithLabelValues(ns, q),
		fenced:      m.bypasses.WithLabelValues(ns, q, cache.DetailFenced),
		unavailable: m.bypasses.WithLabelValues(ns, q, cache.DetailUnavailable),
		bypassTags:  m.bypasses.WithLabelValues(ns, q, cache.DetailTooLarge),
		tooLarge:    m.tooLarge.WithLabelValues(ns, q),
		notStored:   m.notStored.WithLabelValues(ns, q), undecodable: m.undecodable.WithLabelValues(ns, q),
		overloads: m.overloads.WithLabelValues(ns, q),
		loads:     map[event.LoadStatus]prometheus.Counter{},
		audits:    map[event.AuditResult]prometheus.Counter{},
		oldAge:    m.oldAge.WithLabelValues(ns, q),
		loadTime:  m.loadTime.WithLabelValues(ns, q), waiters: m.waiters.WithLabelValues(ns, q),
		rate: m.rates.query(name),
	}
	for _, result := range []event.LoadStatus{event.LoadFound, event.LoadNotFound, event.LoadFailed, event.LoadTimedOut, event.LoadPanicked} {
		qm.loads[result] = m.loads.WithLabelValues(ns, q, string(result))
	}
	for _, result := range []event.AuditResult{event.AuditAgreed, event.AuditChanged, event.AuditOld, event.AuditUnsteady, event.AuditFailed} {
		qm.audits[result] = m.audits.WithLabelValues(ns, q, string(result))
	}
	return qm
}

// queryMetrics are the metrics of one query, looked up once.
type queryMetrics struct {
	hits, nearHits         prometheus.Counter
	provenHits             prometheus.Counter
	misses                 prometheus.Counter
	fenced, unavailable    prometheus.Counter
	bypassTags, tooLarge   prometheus.Counter
	notStored, undecodable prometheus.Counter
	overloads              prometheus.Counter
	loads                  map[event.LoadStatus]prometheus.Counter
	audits                 map[event.AuditResult]prometheus.Counter
	oldAge                 prometheus.Observer
	loadTime               prometheus.Observer
	waiters                prometheus.Gauge
	rate                   *hitRate
}

// Served implements cache.QueryObserver.
func (m *queryMetrics) Served(_ context.Context, s cache.Served) {
	m.rate.count(s.At, s.Cached())
	switch {
	case s.Cached() && s.Detail == cache.DetailNear:
		m.nearHits.Inc()
		return
	case s.Cached() && s.Detail == cache.DetailNearProven:
		m.provenHits.Inc()
		return
	case s.Cached():
		m.hits.Inc()
		return
	}
	m.misses.Inc()
	if s.Status == cache.Bypass {
		switch s.Detail {
		case cache.DetailFenced:
			m.fenced.Inc()
		case cache.DetailUnavailable:
			m.unavailable.Inc()
		case cache.DetailTooLarge:
			m.bypassTags.Inc()
		}
	}
	if s.Err != nil {
		var overload *cache.OverloadError
		if errors.As(s.Err, &overload) {
			m.overloads.Inc()
		}
	}
}

// Observe implements cache.QueryObserver.
func (m *queryMetrics) Observe(_ context.Context, e cache.Event) {
	switch e := e.(type) {
	case event.LoadEnded:
		m.loadTime.Observe(e.Took.Seconds())
		for _, result := range e.Results {
			m.loads[result].Inc()
		}
	case event.WaitBegan:
		m.waiters.Inc()
	case event.WaitEnded:
		m.waiters.Dec()
	case event.NotStored:
		m.notStored.Add(float64(e.Answers))
	case event.TooLarge:
		m.tooLarge.Inc()
	case event.Undecodable:
		m.undecodable.Inc()
	case event.Audited:
		m.audits[e.Result].Inc()
		if e.Result == event.AuditOld {
			m.oldAge.Observe(e.Age.Seconds())
		}
	}
}

// Backlog registers cache_outbox_rows and cache_outbox_oldest_age_seconds. They ask the
// outbox of r when metrics are collected, and at no other time; when it does not answer
// within a second, they are absent rather than old.
func (m *Metrics) Backlog(r interface {
	Backlog(ctx context.Context) (rows int, oldest time.Duration, err error)
}) error {
	return m.register(&backlog{r.Backlog})
}

type backlog struct {
	ask func(context.Context) (int, time.Duration, error)
}

const backlogLimit = time.Second

var (
	backlogRows = prometheus.NewDesc("cache_outbox_rows", "Touched tags in the outbox, not yet delivered or not yet deleted, up to a bound.", nil, nil)
	backlogAge  = prometheus.NewDesc("cache_outbox_oldest_age_seconds", "Age of the oldest row in the outbox; 0 when it is empty.", nil, nil)
)

func (b *backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- backlogRows
	ch <- backlogAge
}

func (b *backlog) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), backlogLimit)
	defer cancel()
	rows, oldest, err := b.ask(ctx)
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(backlogRows, prometheus.GaugeValue, float64(rows))
	ch <- prometheus.MustNewConstMetric(backlogAge, prometheus.GaugeValue, oldest.Seconds())
}
