package catalogue

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

func courses(t *testing.T) []Course {
	t.Helper()
	all, err := Courses()
	if err != nil {
		t.Fatalf("the embedded catalogue breaks its rules:\n%v", err)
	}
	return all
}

// What the catalogue as a whole must offer. A single file cannot break these
// rules, so the loader does not know them.
func TestCatalogueIsBroad(t *testing.T) {
	all := courses(t)
	if len(all) < 26 {
		t.Errorf("%d courses, want at least 26", len(all))
	}
	active := make(map[string]int)
	inactive := 0
	for _, c := range all {
		if !c.Active {
			inactive++
			continue
		}
		active[c.Difficulty]++
	}
	if inactive != 2 {
		t.Errorf("%d inactive courses, want 2", inactive)
	}
	for _, d := range difficulties {
		if active[d] < 7 {
			t.Errorf("%d active courses are %s, want at least 7", active[d], d)
		}
	}
	first, last := all[0].CreatedAt, all[len(all)-1].CreatedAt
	if first.Year() < 2024 || last.Year() > 2026 || last.Sub(first) < 500*24*time.Hour {
		t.Errorf("courses date from %s to %s, want some 500 days or more within 2024 to 2026", first, last)
	}
}

// A learner must not pass by a habit: always the same position, or always the
// longest option.
func TestRightAnswersFollowNoPattern(t *testing.T) {
	var total, longest int
	var at [maxOptions]int
	for _, c := range courses(t) {
		inCourse, questions := [maxOptions]int{}, 0
		for _, m := range c.Modules {
			inModule := make(map[int]bool)
			for _, q := range m.Questions {
				questions++
				at[q.CorrectIndex]++
				inCourse[q.CorrectIndex]++
				inModule[q.CorrectIndex] = true
				if isLongest(q) {
					longest++
				}
			}
			if len(inModule) == 1 {
				t.Errorf("%s, %s: every right answer stands at the same position", c.Slug, m.ID)
			}
		}
		for i, n := range inCourse {
			if n*2 > questions {
				t.Errorf("%s: %d of %d right answers stand at position %d", c.Slug, n, questions, i)
			}
		}
		total += questions
	}
	for i, n := range at {
		if share := float64(n) / float64(total); share < 0.20 || share > 0.30 {
			t.Errorf("%.0f %% of the right answers stand at position %d, want about a quarter", 100*share, i)
		}
	}
	if share := float64(longest) / float64(total); share > 0.35 {
		t.Errorf("the right answer is the longest option in %.0f %% of the questions, want about a quarter", 100*share)
	}
}

func isLongest(q Question) bool {
	for i, o := range q.Options {
		if i != q.CorrectIndex && utf8.RuneCountInString(o) >= utf8.RuneCountInString(q.Options[q.CorrectIndex]) {
			return false
		}
	}
	return true
}

func TestIDsAreUnique(t *testing.T) {
	seen := make(map[uuid.UUID]string)
	add := func(id uuid.UUID, what string) {
		if first, ok := seen[id]; ok {
			t.Errorf("%s and %s share the id %s", first, what, id)
		}
		seen[id] = what
	}
	for _, c := range courses(t) {
		add(c.ID(), c.Slug)
		for _, m := range c.Modules {
			add(c.QuizID(m.ID), c.Slug+"/"+m.ID)
		}
	}
}

// Seeded databases hold these ids: a change here orphans their rows.
func TestIDsAreFrozen(t *testing.T) {
	c := Course{Slug: "stellar-first-steps", Title: "not part of the id"}
	if got, want := c.ID().String(), "c676f0f6-4393-5381-8aa6-9e471c22f600"; got != want {
		t.Errorf("course id is %s, want %s", got, want)
	}
	if got, want := c.QuizID("module-1").String(), "cc00ce5e-dce2-56e7-9a0a-fd1e740a2d22"; got != want {
		t.Errorf("quiz id is %s, want %s", got, want)
	}
}

func TestLoadingIsDeterministic(t *testing.T) {
	first := courses(t)
	for i, c := range first[1:] {
		if !first[i].CreatedAt.Before(c.CreatedAt) {
			t.Errorf("%s comes before %s, which is not newer", first[i].Slug, c.Slug)
		}
	}
	second := courses(t)
	if !reflect.DeepEqual(first, second) {
		t.Error("two loads differ")
	}
	second[0].Modules[0].Questions[0].Options[0] = "changed by a caller"
	if reflect.DeepEqual(courses(t), second) {
		t.Error("a caller's change shows in the next load")
	}
}

func TestLearnerWords(t *testing.T) {
	// The limits are those of a learner's profile; a display name is two names
	// and a space.
	for _, list := range []struct {
		name         string
		words        []string
		least, limit int
	}{
		{"FirstNames", FirstNames[:], 120, 49},
		{"LastNames", LastNames[:], 120, 50},
		{"Backgrounds", Backgrounds[:], 20, 1000},
		{"Goals", Goals[:], 20, 500},
	} {
		if len(list.words) < list.least {
			t.Errorf("%s: %d entries, want at least %d", list.name, len(list.words), list.least)
		}
		l := &loader{seen: make(map[string]string)}
		for _, w := range list.words {
			p := location{l, list.name}
			p.checkText(w, w, list.limit)
			p.checkUnique(list.name, w, w)
			// Profiles are stripped of markup; these must come through unchanged.
			if strings.ContainsAny(w, `<>&"`) {
				t.Errorf("%s: %q looks like markup", list.name, w)
			}
		}
		for _, err := range l.errs {
			t.Error(err)
		}
	}
}
