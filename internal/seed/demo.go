// Package seed fills an empty platform: with the demonstration catalogue and its learners, or
// with any amount of generated data, the same for the same random seed.
package seed

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning/catalogue"
)

// DemoLearner is the learner with a name and a fixed history in the demonstration data.
var DemoLearner = uuid.MustParse("00000000-0000-4000-8000-000000000001")

const demoUsers = 360

// Demo stores the embedded catalogue and a few hundred learners with their histories.
func Demo(ctx context.Context, sink Sink, progress func(done, total int)) (Counts, error) {
	d, err := demoDataset()
	if err != nil {
		return Counts{}, err
	}
	return d.fill(ctx, sink, progress)
}

func demoDataset() (*dataset, error) {
	courses, err := catalogue.Courses()
	if err != nil {
		return nil, err
	}
	d := &dataset{users: demoUsers}
	var active []int
	for i, c := range courses {
		entry, err := newCourse(c.ID(), c, c.QuizID)
		if err != nil {
			return nil, err
		}
		d.courses = append(d.courses, entry)
		if c.Active {
			active = append(active, i)
		}
	}
	d.namedUser = func(user int) (profile, bool) {
		return profile{
			id: DemoLearner, name: "Demo Learner",
			background: "Back-end engineer, five years of Go and PostgreSQL.",
			goal:       "Ship a payment service on Stellar.",
		}, user == 0
	}
	// Some courses are popular: the smaller of two draws wins.
	d.coursesOf = func(user int) []int {
		rng := d.random("joined", user)
		n := rng.IntN(7)
		if user == 0 {
			n = 6
		}
		var list []int
		for len(list) < n {
			c := active[min(rng.IntN(len(active)), rng.IntN(len(active)))]
			if !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
		return list
	}
	d.submittedBy = func(user, nth int) (int, bool) {
		joined := d.coursesOf(user)
		modules := len(d.courses[joined[nth]].modules)
		if user == 0 { // two courses completed, two half way, one begun, one not
			return []int{modules, modules, modules / 2, modules / 2, 1, 0}[nth], nth < 2
		}
		rng := d.random("taken", user, nth)
		n := rng.IntN(modules + 2) // the last module is reached by two of the draws
		return min(n, modules), n >= modules && rng.IntN(2) == 0
	}
	return d, nil
}
