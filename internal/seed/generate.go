package seed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning/catalogue"
)

// Spec says how much Generate makes.
type Spec struct {
	Courses, Users, Enrollments, Submissions, Credentials int
	RandomSeed                                            int64
	Progress                                              func(done, total int) // about every thousand rows; may be nil
}

// modulesEach is how many modules a generated course has, each with a quiz.
const modulesEach = 3

// check names every amount that is negative, or that the others do not allow.
func (s Spec) check() error {
	var errs []error
	for _, f := range []struct {
		flag  string
		value int
	}{{"courses", s.Courses}, {"users", s.Users}, {"enrollments", s.Enrollments}, {"submissions", s.Submissions}, {"credentials", s.Credentials}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %d: must not be negative", f.flag, f.value))
		}
	}
	for _, f := range []struct {
		flag        string
		value, most int
		why         string
	}{
		{"enrollments", s.Enrollments, s.Users * s.Courses, fmt.Sprintf("%d users can each join %d courses once", s.Users, s.Courses)},
		{"submissions", s.Submissions, s.Enrollments * modulesEach, fmt.Sprintf("each of %d enrollments has %d quizzes to submit", s.Enrollments, modulesEach)},
		{"credentials", s.Credentials, min(s.Enrollments, s.Submissions), "each needs an enrollment with a submission"},
	} {
		if f.value > f.most {
			errs = append(errs, fmt.Errorf("%s is %d: at most %d are possible, for %s", f.flag, f.value, f.most, f.why))
		}
	}
	return errors.Join(errs...)
}

// Generate stores generated courses, users and histories, exactly as many of each as spec
// says, and returns how many were new: rows of an earlier run with the same random seed
// are the same rows. An impossible spec is refused before anything is stored.
func Generate(ctx context.Context, sink Sink, spec Spec) (Counts, error) {
	if err := spec.check(); err != nil {
		return Counts{}, err
	}
	d, err := spec.dataset()
	if err != nil {
		return Counts{}, err
	}
	return d.fill(ctx, sink, spec.Progress)
}

func (s Spec) dataset() (*dataset, error) {
	samples, err := catalogue.Courses()
	if err != nil {
		return nil, err
	}
	d := &dataset{seed: uint64(s.RandomSeed), users: s.Users}
	for i := range s.Courses {
		c := samples[i%len(samples)]
		c.Title += " " + strconv.Itoa(i/len(samples)+2) // the sequels of the catalogue's own
		c.Active = true
		c.CreatedAt = lastDay.AddDate(-2, 0, 0).Add(time.Duration(i) * 17 * time.Minute)
		c.Modules = c.Modules[:modulesEach]
		id := d.id("courses", i)
		entry, err := newCourse(id, c, func(module string) uuid.UUID { return uuid.NewSHA1(id, []byte(module)) })
		if err != nil {
			return nil, err
		}
		d.courses = append(d.courses, entry)
	}
	d.coursesOf = func(user int) []int {
		from, to := portion(s.Enrollments, s.Users, user)
		if to == from {
			return nil
		}
		// Every course is met once before any is met again: a step that has no divisor
		// in common with the number of courses goes round all of them.
		rng := d.random("joined", user)
		step := coprime(1+rng.IntN(s.Courses), s.Courses)
		list := make([]int, to-from)
		for i, c := 0, rng.IntN(s.Courses); i < len(list); i, c = i+1, (c+step)%s.Courses {
			list[i] = c
		}
		return list
	}
	d.submittedBy = func(user, nth int) (int, bool) {
		from, _ := portion(s.Enrollments, s.Users, user)
		first, last := portion(s.Submissions, s.Enrollments, from+nth)
		// The enrollments that have a submission come first if not all have one.
		return last - first, from+nth < s.Credentials
	}
	return d, nil
}

// portion divides total among n, as evenly as can be, the first ones getting more. It returns
// what the ith gets, as a range.
func portion(total, n, i int) (from, to int) {
	each, more := total/n, total%n
	from = i*each + min(i, more)
	to = from + each
	if i < more {
		to++
	}
	return from, to
}

// coprime returns the least number from n on that has no divisor in common with m.
func coprime(n, m int) int {
	for ; ; n++ {
		a, b := n, m
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return n
		}
	}
}
