package seed

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/learning/catalogue"
)

// dataset says what is in the data, by number: course 7, user 12, the third course of user 12.
// Nothing of it is kept in memory but the courses; everything else is derived
// from the seed whenever it is needed, always the same.
type dataset struct {
	seed    uint64
	courses []course
	users   int
	// coursesOf returns the courses of a user, in the order of enrolment.
	coursesOf func(user int) []int
	// submittedBy returns how many modules of a user's nth course the user has submitted, and
	// whether there is a credential for it.
	submittedBy func(user, nth int) (modules int, credential bool)
	// namedUser returns the ID, the name and the address of a user where they are not drawn.
	namedUser func(user int) (profile, bool)
}

type course struct {
	id      uuid.UUID
	source  catalogue.Course
	modules []module
}

type module struct {
	source    catalogue.Module
	quiz      learning.Quiz
	questions json.RawMessage
}

type profile struct {
	id         uuid.UUID
	name       string
	background string
	goal       string
}

// lastDay ends the histories. It is fixed, so that the same seed makes the same data at
// any time.
var lastDay = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// ids of generated rows derive from this namespace, the random seed, the table and a number.
var namespace = uuid.MustParse("0b5a6d3e-7f0c-4c58-9d7c-6a35d3a1c1e4")

func (d *dataset) id(table string, n ...int) uuid.UUID {
	return uuid.NewSHA1(namespace, fmt.Appendf(nil, "%d %s %v", d.seed, table, n))
}

// random returns the generator of one row: other rows do not change what it draws.
func (d *dataset) random(table string, n ...int) *rand.Rand {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %v", d.seed, table, n))
	return rand.New(rand.NewChaCha8(sum))
}

func newCourse(id uuid.UUID, c catalogue.Course, quizID func(module string) uuid.UUID) (course, error) {
	out := course{id: id, source: c}
	for _, m := range c.Modules {
		quiz := learning.Quiz{ID: learning.QuizID{UUID: quizID(m.ID)}, CourseID: learning.CourseID{UUID: id}, ModuleID: learning.ModuleID(m.ID)}
		for _, q := range m.Questions {
			quiz.Questions = append(quiz.Questions, learning.Question{ID: q.ID, Text: q.Text, Options: q.Options, CorrectIndex: q.CorrectIndex})
		}
		questions, err := json.Marshal(quiz.Questions)
		if err != nil {
			return out, err
		}
		out.modules = append(out.modules, module{m, quiz, questions})
	}
	return out, nil
}

// contentHash identifies what a course teaches.
func (c course) contentHash() string {
	h := sha256.New()
	for _, m := range c.modules {
		h.Write([]byte(m.source.ID + "\x00" + m.source.Title + "\x00"))
		h.Write(m.questions)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func pick(rng *rand.Rand, words []string) string { return words[rng.IntN(len(words))] }

func (d *dataset) profile(user int) profile {
	if d.namedUser != nil {
		if p, ok := d.namedUser(user); ok {
			return p
		}
	}
	rng := d.random("users", user)
	p := profile{id: d.id("users", user)}
	p.name = pick(rng, catalogue.FirstNames[:]) + " " + pick(rng, catalogue.LastNames[:])
	if rng.IntN(10) < 7 {
		p.background = pick(rng, catalogue.Backgrounds[:])
	}
	if rng.IntN(10) < 7 {
		p.goal = pick(rng, catalogue.Goals[:])
	}
	return p
}

// attempt is one submission, and when things happened to it.
type attempt struct {
	learning.Submission
	claimed   bool
	claimedAt time.Time
}

// history is what a user has done in one course.
type history struct {
	course      course
	enrolledAt  time.Time
	attempts    []attempt
	completedAt time.Time // zero if it is not
	credential  bool
	mintedAt    time.Time
}

// history of a user in the nth of the courses the user has joined.
func (d *dataset) history(user, nth, courseNumber int) history {
	h := history{course: d.courses[courseNumber]}
	rng := d.random("history", user, courseNumber)
	span := max(lastDay.Sub(h.course.source.CreatedAt), 48*time.Hour)
	at := h.course.source.CreatedAt.Add(time.Duration(float64(span) * 0.9 * rng.Float64())).Truncate(time.Millisecond)
	h.enrolledAt = at
	modules, credential := d.submittedBy(user, nth)
	passed := 0
	for i, m := range h.course.modules[:modules] {
		at = between(rng, at, lastDay, 20)
		a := attempt{Submission: learning.Grade(m.quiz, d.answers(rng, m.quiz, credential))}
		a.ID = learning.SubmissionID{UUID: d.id("submissions", user, courseNumber, i)}
		a.SubmittedAt = at
		if a.Passed() {
			passed++
			if a.claimed = rng.IntN(10) < 7; a.claimed {
				a.claimedAt = between(rng, at, lastDay, 50)
			}
		}
		h.attempts = append(h.attempts, a)
	}
	if passed == len(h.course.modules) {
		h.completedAt = at
	}
	if h.credential = credential; credential {
		h.mintedAt = between(rng, at, lastDay, 50)
	}
	return h
}

// between returns a moment after at and before end: the nth part of the way, on average.
func between(rng *rand.Rand, at, end time.Time, nth float64) time.Time {
	left := float64(end.Sub(at))
	return at.Add(time.Duration(left * 2 * rng.Float64() / nth)).Truncate(time.Millisecond)
}

// answers to a quiz: mostly right, sometimes not, and always right enough if it must be passed.
func (d *dataset) answers(rng *rand.Rand, quiz learning.Quiz, pass bool) []learning.QuizAnswer {
	skill := 0.6 + 0.4*rng.Float64()
	answers := make([]learning.QuizAnswer, len(quiz.Questions))
	for i, q := range quiz.Questions {
		answers[i] = learning.QuizAnswer{QuestionID: q.ID, SelectedIndex: q.CorrectIndex}
		if !pass && rng.Float64() > skill {
			answers[i].SelectedIndex = rng.IntN(len(q.Options))
		}
	}
	return answers
}
