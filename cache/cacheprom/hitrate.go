package cacheprom

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const rateWindow = 60 // seconds

// hitRate counts hits and misses of the last minute, in one slot a second. Counting is
// one or two atomic operations; two callers that enter a new second at once may lose
// a few counts, which a rate can bear.
type hitRate struct {
	slots [rateWindow]struct {
		second       atomic.Int64
		hits, misses atomic.Int64
	}
}

func (r *hitRate) count(now time.Time, hit bool) {
	second := now.Unix()
	slot := &r.slots[second%rateWindow]
	if old := slot.second.Load(); old != second && slot.second.CompareAndSwap(old, second) {
		slot.hits.Store(0)
		slot.misses.Store(0)
	}
	if hit {
		slot.hits.Add(1)
	} else {
		slot.misses.Add(1)
	}
}

// value returns the share of hits, 0 to 1; ok is false when nothing was counted.
func (r *hitRate) value(now time.Time) (share float64, ok bool) {
	oldest := now.Unix() - rateWindow + 1
	var hits, misses int64
	for i := range r.slots {
		if r.slots[i].second.Load() >= oldest {
			hits += r.slots[i].hits.Load()
			misses += r.slots[i].misses.Load()
		}
	}
	if hits+misses == 0 {
		return 0, false
	}
	return float64(hits) / float64(hits+misses), true
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
			ns, q, _ := strings.Cut(name, ":")
			ch <- prometheus.MustNewConstMetric(hitRateDesc, prometheus.GaugeValue, value, ns, q)
		}
	}
}
