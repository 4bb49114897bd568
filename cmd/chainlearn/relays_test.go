package main

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// gauge returns a metric of a process, and false if it is absent.
func (p *process) gauge(name string) (float64, bool) {
	p.t.Helper()
	_, _, page := p.get(p.private + "/metrics")
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(page)
	if found == nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(found[1], 64)
	testservers.Must(p.t, err)
	return v, true
}

const (
	outboxRows = "cache_outbox_rows"
	outboxAge  = "cache_outbox_oldest_age_seconds"
)

// delivered waits until the outbox is empty, as every process reports it.
func (f *fleet) delivered() {
	f.t.Helper()
	for _, p := range f.processes {
		testservers.Eventually(f.t, 2*visibilityTimeout, func() (bool, string) {
			rows, ok1 := p.gauge(outboxRows)
			age, ok2 := p.gauge(outboxAge)
			return ok1 && ok2 && rows == 0 && age == 0, fmt.Sprintf("%v rows are in the outbox, the oldest for %v s", rows, age)
		})
	}
}

// titles expects courses whose titles are numbered as given.
func titles(of []int) (looks []expectation) {
	for course, n := range of {
		looks = append(looks, expectation{path: "/courses/" + courseID(course), contains: fmt.Sprintf(`"title":"Title %d"`, n)})
	}
	return looks
}

func addCourses(external *psql, n int) {
	for course := range n {
		external.run(`INSERT INTO courses (id, title) VALUES ('%s', 'Title 0')`, courseID(course))
	}
}

const retitle = `UPDATE courses SET title = 'Title %d' WHERE id = '%s'`

// Any process may be delivering when it dies. What it had claimed is delivered by another; when
// there is none, by the next, before its first answer.
func TestRelaysAreKilledDuringExternalWrites(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 4, nil)
	const courses, deaths = 6, 4
	external := f.psql()
	addCourses(external, courses)

	last := make([]int, courses)
	enough := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-enough:
				return
			default:
			}
			if _, err := external.try(fmt.Sprintf(retitle, n, courseID(n%courses))); err != nil {
				t.Error(err)
				return
			}
			last[n%courses] = n
		}
	})
	for range deaths {
		for _, e := range titles(make([]int, courses)) { // so that there are answers to be outdated
			for _, p := range f.processes {
				if status, _, body := p.get(p.api + e.path); status != http.StatusOK {
					t.Errorf("during external writes: %d %s", status, body)
				}
			}
		}
		f.kill(0)
		f.start()
	}
	close(enough)
	writing.Wait()
	f.waitSeen(time.Now(), titles(last)...)
	f.delivered()
	t.Logf("%d writes, and %d processes killed meanwhile", slices.Max(last), deaths)

	f.waitOldCached(titles(make([]int, courses))...)
	for len(f.processes) > 0 {
		f.kill(0)
	}
	// A backlog comes first, or all would be delivered before the first request.
	external.run(`SELECT cache_record(VARIADIC array_agg('other:' || i)) FROM generate_series(1, 20000) i`)
	for course := range last {
		last[course]++
		external.run(retitle, last[course], courseID(course))
	}
	if rows := external.run(`SELECT count(*) > 0 FROM cache_outbox`); rows != "t" {
		t.Fatal("a killed process still delivers")
	}
	p := f.start()
	for _, e := range titles(last) {
		if ok, _, got := e.check(t.Context(), p); !ok {
			t.Errorf("the first answer of the next process is without %q: %s", e.contains, got)
		}
	}
	f.delivered()
}

// An outbox that cannot be emptied shows in the metrics of every process, and is made up for
// as soon as it can be.
func TestOutboxIsBlocked(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 4, nil)
	const courses = 3
	external, other := f.psql(), f.psql()
	addCourses(external, courses)
	now := make([]int, courses)
	write := func(by *psql, n, course int) {
		by.run(retitle, n, courseID(course))
		now[course] = n
	}

	t.Log("a transaction stays open for long")
	f.waitSeen(time.Now(), titles(now)...)
	other.run(`BEGIN`)
	other.run(retitle, 1, courseID(0))
	f.waitOldCached(titles([]int{1, 1, 1})...)
	write(external, 1, 1)
	write(external, 1, 2)
	f.waitSeen(time.Now(), titles(now)...) // and nothing of the open one
	f.delivered()
	other.run(`COMMIT`)
	now[0] = 1
	f.waitSeen(time.Now(), titles(now)...)

	t.Log("the table of the outbox is locked")
	f.waitOldCached(titles([]int{2, 2, 2})...)
	other.run(`BEGIN`)
	other.run(`LOCK TABLE cache_outbox`)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := external.try(fmt.Sprintf(retitle, 2, courseID(0))); err != nil {
			t.Error(err)
		}
	})
	testservers.Eventually(t, visibilityTimeout, func() (bool, string) {
		all := other.run(`SELECT count(*) > %d FROM pg_locks WHERE NOT granted AND relation = 'cache_outbox'::regclass`, len(f.processes))
		return all == "t", "not every relay and the external writer wait for the lock yet"
	})
	for _, p := range f.processes {
		for _, e := range titles(now) {
			if ok, hit, got := e.check(t.Context(), p); !ok || !hit {
				t.Errorf("while the outbox is locked: %s", got)
			}
		}
		if rows, ok := p.gauge(outboxRows); ok {
			t.Errorf("it reports %v rows of a table that it cannot read", rows)
		}
	}
	other.run(`COMMIT`)
	waiting.Wait()
	now[0] = 2
	f.waitSeen(time.Now(), titles(now)...)
	f.delivered()

	t.Log("Redis does not answer")
	testservers.Must(t, f.redis.Freeze())
	for course := range courses {
		write(external, 3, course)
	}
	for _, p := range f.processes {
		testservers.Eventually(t, 2*visibilityTimeout, func() (bool, string) {
			rows, _ := p.gauge(outboxRows)
			age, _ := p.gauge(outboxAge)
			return rows >= courses && age > 0.5, fmt.Sprintf("it reports %v rows, the oldest for %v s", rows, age)
		})
	}
	f.waitSeen(time.Now(), titles(now)...) // from the database
	testservers.Must(t, f.redis.Thaw())
	f.delivered()
	f.waitOldCached(titles([]int{4, 4, 4})...)
	f.waitSeen(time.Now(), titles(now)...)
}
