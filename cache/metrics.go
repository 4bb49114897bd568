package cache

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one Cache. Label values are bounded: the names of defined queries, and
// the constants below. Nothing here blocks a request.
type metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	hits, misses, loads *prometheus.CounterVec
	bypasses, refused   *prometheus.CounterVec
	undecodable         *prometheus.CounterVec
	overloads           *prometheus.CounterVec
	loadTime            *prometheus.HistogramVec
	waiters             *prometheus.GaugeVec
	storeErrors         *prometheus.CounterVec
	invalidations       *prometheus.CounterVec
	downgrades, gaps    prometheus.Counter
	breaker, trusted    prometheus.Gauge
	rates               *hitRates
}

// Results of a load, as the label of cache_loads_total.
const (
	resultFound    = "found"
	resultNotFound = "not_found"
	resultError    = "error"
	resultTimeout  = "timeout"
	resultPanic    = "panic"
)

var loadResults = []string{resultFound, resultNotFound, resultError, resultTimeout, resultPanic}

// Tiers that answers come from, as the label of cache_hits_total.
const (
	tierNear   = "near"
	tierShared = "shared"
)

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	perQuery := []string{"namespace", "query"}
	m := &metrics{registerer: r}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.collectors = append(m.collectors, v)
		return v
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		m.collectors = append(m.collectors, g)
		return g
	}
	m.hits = counters("cache_hits_total", "Answers served from the cache, fresh or stale, by tier.", "namespace", "query", "tier")
	m.misses = counters("cache_misses_total", "Answers that were not in the cache: loaded, joined, or bypassed.", perQuery...)
	m.loads = counters("cache_loads_total", "Loads from the source, by result.", "namespace", "query", "result")
	m.bypasses = counters("cache_bypasses_total", "Answers taken from the source without storing them, by reason.", "namespace", "query", "reason")
	m.refused = counters("cache_refused_stores_total", "Loaded answers that were not stored: their tags changed, were fenced, or the store failed.", perQuery...)
	m.undecodable = counters("cache_undecodable_total", "Entries that could not be read: another format, or damaged.", perQuery...)
	m.overloads = counters("cache_overloads_total", "Callers refused because too many loads were running and waiting.", perQuery...)
	m.storeErrors = counters("cache_store_errors_total", "Failed calls of the shared tier, by operation.", "op")
	m.invalidations = counters("cache_invalidations_total", "Tags bumped by this process, by result.", "result")
	m.loadTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "cache_load_duration_seconds", Help: "How long loads from the source took.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12), // 0.5 ms to 12 s
	}, perQuery)
	m.waiters = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cache_waiters", Help: "Callers waiting for a load at this moment.",
	}, perQuery)
	m.downgrades = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cache_fence_downgrades_total", Help: "Writes that went on without a fence because the shared tier was out of reach.",
	})
	m.gaps = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cache_near_gaps_total", Help: "Times that changes may have been missed, so that every near answer was dropped.",
	})
	m.breaker = gauge("cache_breaker_state", "Circuit breaker of the shared tier: 0 closed, 1 half open, 2 open.")
	m.trusted = gauge("cache_trusted", "1 while stored answers are served, 0 during an outage and its recovery.")
	m.rates = &hitRates{queries: map[string]*hitRate{}}
	m.collectors = append(m.collectors, m.loadTime, m.waiters, m.downgrades, m.gaps, m.rates)
	if r == nil {
		return m, nil
	}
	for i, c := range m.collectors {
		if err := r.Register(c); err != nil {
			m.collectors = m.collectors[:i]
			m.unregister()
			return nil, errors.Join(err, errors.New("is there another Cache on this Registerer? give each its own, or wrap it with labels"))
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}

func splitName(name string) (namespace, query string, ok bool) {
	return strings.Cut(name, ":")
}

// queryMetrics are the metrics of one query, looked up once.
type queryMetrics struct {
	hits, nearHits       prometheus.Counter
	misses               prometheus.Counter
	fenced, unavailable  prometheus.Counter
	refused, undecodable prometheus.Counter
	overloads            prometheus.Counter
	loads                map[string]prometheus.Counter // by result
	loadTime             prometheus.Observer
	waiters              prometheus.Gauge
	rate                 *hitRate
}

func (m *metrics) query(name string) *queryMetrics {
	ns, q, _ := splitName(name)
	qm := &queryMetrics{
		hits: m.hits.WithLabelValues(ns, q, tierShared), nearHits: m.hits.WithLabelValues(ns, q, tierNear),
		misses:      m.misses.WithLabelValues(ns, q),
		fenced:      m.bypasses.WithLabelValues(ns, q, DetailFenced),
		unavailable: m.bypasses.WithLabelValues(ns, q, DetailUnavailable),
		refused:     m.refused.WithLabelValues(ns, q), undecodable: m.undecodable.WithLabelValues(ns, q),
		overloads: m.overloads.WithLabelValues(ns, q),
		loads:     map[string]prometheus.Counter{},
		loadTime:  m.loadTime.WithLabelValues(ns, q), waiters: m.waiters.WithLabelValues(ns, q),
		rate: m.rates.query(name),
	}
	for _, result := range loadResults {
		qm.loads[result] = m.loads.WithLabelValues(ns, q, result)
	}
	return qm
}

func (m *queryMetrics) hit(now time.Time) {
	m.hits.Inc()
	m.rate.count(now, true)
}

func (m *queryMetrics) nearHit(now time.Time) {
	m.nearHits.Inc()
	m.rate.count(now, true)
}

func (m *queryMetrics) miss(now time.Time) {
	m.misses.Inc()
	m.rate.count(now, false)
}

// hitRates exports cache_hit_rate, computed when it is collected.
type hitRates struct {
	mu      sync.Mutex
	queries map[string]*hitRate
}

var hitRateDesc = prometheus.NewDesc("cache_hit_rate",
	"Share of answers served from the cache during the last minute, 0 to 1; absent while nothing was asked.",
	[]string{"namespace", "query"}, nil)

func (r *hitRates) query(name string) *hitRate {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queries[name] == nil {
		r.queries[name] = &hitRate{}
	}
	return r.queries[name]
}

func (r *hitRates) Describe(ch chan<- *prometheus.Desc) { ch <- hitRateDesc }

func (r *hitRates) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for name, rate := range r.queries {
		if value, ok := rate.value(now); ok {
			ns, q, _ := splitName(name)
			ch <- prometheus.MustNewConstMetric(hitRateDesc, prometheus.GaugeValue, value, ns, q)
		}
	}
}
