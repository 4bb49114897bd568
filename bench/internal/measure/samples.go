// Package measure runs contenders in turns and keeps what was measured.
package measure

import (
	"encoding/csv"
	"io"
	"slices"
	"strconv"
	"sync"
)

// Row is one measured value.
type Row struct {
	Experiment, Case, Subject, Metric string
	Round                             int
	Value                             float64
}

// Samples are all values of one experiment. It is safe for concurrent use.
type Samples struct {
	Experiment string

	mu   sync.Mutex
	rows []Row // guarded by mu
}

// Add keeps a value.
func (s *Samples) Add(round int, case_, subject, metric string, value float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = append(s.rows, Row{s.Experiment, case_, subject, metric, round, value})
}

// Rows returns all values.
func (s *Samples) Rows() []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows)
}

// series returns the values of one thing by round.
func (s *Samples) series(case_, subject, metric string) map[int]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := map[int]float64{}
	for _, r := range s.rows {
		if r.Case == case_ && r.Subject == subject && r.Metric == metric {
			values[r.Round] = r.Value
		}
	}
	return values
}

// Summary of one thing over all rounds.
type Summary struct {
	N                int
	Median, Min, Max float64
}

// Summary returns a zero N for what was not measured.
func (s *Samples) Summary(case_, subject, metric string) Summary {
	var values []float64
	for _, v := range s.series(case_, subject, metric) {
		values = append(values, v)
	}
	if len(values) == 0 {
		return Summary{}
	}
	return Summary{len(values), Median(values), slices.Min(values), slices.Max(values)}
}

// Median returns the median over the rounds, and false if there were none.
func (s *Samples) Median(case_, subject, metric string) (float64, bool) {
	sum := s.Summary(case_, subject, metric)
	return sum.Median, sum.N > 0
}

// Ratio returns the median of the ratios of two subjects in the same round. Round by
// round, because what disturbs a shared machine lasts longer than a round and so
// disturbs both. It returns false where no round has both.
func (s *Samples) Ratio(case_, metric, subject, base string) (float64, bool) {
	return ratio(s.series(case_, subject, metric), s.series(case_, base, metric))
}

// Growth returns the same ratio of one subject in two cases.
func (s *Samples) Growth(subject, metric, case_, base string) (float64, bool) {
	return ratio(s.series(case_, subject, metric), s.series(base, subject, metric))
}

func ratio(over, under map[int]float64) (float64, bool) {
	var ratios []float64
	for round, v := range over {
		if b, ok := under[round]; ok && b != 0 {
			ratios = append(ratios, v/b)
		}
	}
	return Median(ratios), len(ratios) > 0
}

// Median of values; 0 if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// WriteCSV writes every value, in the order in which they were measured.
func (s *Samples) WriteCSV(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := csv.NewWriter(w)
	_ = out.Write([]string{"experiment", "case", "subject", "metric", "round", "value"}) // Error returns it
	for _, r := range s.rows {
		_ = out.Write([]string{r.Experiment, r.Case, r.Subject, r.Metric,
			strconv.Itoa(r.Round), strconv.FormatFloat(r.Value, 'g', -1, 64)})
	}
	out.Flush()
	return out.Error()
}
