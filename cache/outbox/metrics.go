package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Who delivered an invalidation, as a label.
const (
	byWriter = "writer"
	byRelay  = "relay"
)

type relayMetrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	delivered *prometheus.CounterVec
	delay     *prometheus.HistogramVec
}

func newRelayMetrics(r prometheus.Registerer, log Log) (*relayMetrics, error) {
	m := &relayMetrics{
		registerer: r,
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cache_outbox_delivered_total",
			Help: "Touched tags of committed transactions that this process delivered, as their writer or for others.",
		}, []string{"by"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "cache_invalidation_delay_seconds",
			Help:    "Time from the recording of touched tags to their invalidation, by who delivered it.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 14), // 0.5 ms to 75 s
		}, []string{"by"}),
	}
	for _, by := range []string{byWriter, byRelay} {
		m.delivered.WithLabelValues(by) // there from the start, at 0
		m.delay.WithLabelValues(by)
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.delivered, m.delay, &backlog{log}} {
		if err := r.Register(c); err != nil {
			errs = append(errs, err)
			continue
		}
		m.collectors = append(m.collectors, c)
	}
	if errs != nil {
		m.unregister()
	}
	return m, errors.Join(errs...)
}

func (m *relayMetrics) unregister() {
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
	m.collectors = nil
}

// backlog asks the outbox when metrics are collected, and at no other time. When it does
// not answer, its metrics are absent rather than old.
type backlog struct{ log Log }

const backlogLimit = time.Second

var (
	backlogRows = prometheus.NewDesc("cache_outbox_rows", "Touched tags in the outbox, not yet delivered or not yet forgotten, up to a bound.", nil, nil)
	backlogAge  = prometheus.NewDesc("cache_outbox_oldest_age_seconds", "Age of the oldest row in the outbox; 0 when it is empty.", nil, nil)
)

func (b *backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- backlogRows
	ch <- backlogAge
}

func (b *backlog) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), backlogLimit)
	defer cancel()
	rows, oldest, err := b.log.Backlog(ctx)
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(backlogRows, prometheus.GaugeValue, float64(rows))
	ch <- prometheus.MustNewConstMetric(backlogAge, prometheus.GaugeValue, oldest.Seconds())
}
