package learning

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// MaxQuestions is the most questions that a learner's quiz has.
const MaxQuestions = 10

// GenerateQuiz returns the user's quiz on a module: the one there is, or, if there is none or
// the user has submitted and failed it, a new one. Refusals: NotFound, Forbidden.
func (p *Platform) GenerateQuiz(ctx context.Context, user UserID, course CourseID, module ModuleID) (Quiz, error) {
	var quiz Quiz
	err := p.storage.Write(ctx, func(ctx context.Context, tx Tx) error {
		fail := func(err error) error {
			return fmt.Errorf("generate quiz on %s of %s for %s: %w", module, course, user, err)
		}
		if active, err := tx.CourseActive(ctx, course); err != nil {
			return fail(err)
		} else if !active {
			return errNoCourse
		}
		// Enrolled locks the enrolment: of two calls at once, the second finds the
		// quiz of the first.
		if enrolled, err := tx.Enrolled(ctx, user, course); err != nil {
			return fail(err)
		} else if !enrolled {
			return errNotEnrolled
		}
		latest, submission, err := tx.LearnerQuiz(ctx, user, course, module)
		switch {
		case err == nil && (submission == nil || submission.Passed()):
			quiz = latest
			return nil
		case err != nil && !errors.Is(err, ErrNoRow):
			return fail(err)
		}
		pool, err := tx.ModuleQuestions(ctx, course, module)
		if err != nil {
			return fail(err)
		}
		questions := drawQuestions(pool, rand.Shuffle)
		if len(questions) == 0 {
			return errNoModule
		}
		quiz = Quiz{
			ID: NewID[Quiz](), CourseID: course, ModuleID: module,
			Questions: questions, GeneratedFor: &user, CreatedAt: p.timestamp(),
		}
		if err := tx.InsertQuiz(ctx, quiz); err != nil {
			return fail(err)
		}
		return nil
	})
	if err != nil {
		return Quiz{}, err
	}
	return quiz, nil
}

var errNotEnrolled = &Error{Kind: Forbidden, Message: "You are not enrolled in this course"}

// drawQuestions picks at most MaxQuestions of pool, in shuffled order. Questions without a
// right option are left out, and so is one that appears twice. The quizzes that define a module
// may have been written apart and use the same id for different questions: one quiz must
// not, or an answer would be to both.
func drawQuestions(pool []Question, shuffle func(n int, swap func(i, j int))) []Question {
	var drawn []Question
	ids := map[string]bool{}
	for _, q := range pool {
		if q.CorrectIndex < 0 || q.CorrectIndex >= len(q.Options) ||
			slices.ContainsFunc(drawn, func(d Question) bool { return d.Text == q.Text && slices.Equal(d.Options, q.Options) }) {
			continue
		}
		id := q.ID
		for n := 2; q.ID == "" || ids[q.ID]; n++ {
			q.ID = fmt.Sprintf("%s-%d", id, n)
		}
		ids[q.ID] = true
		drawn = append(drawn, q)
	}
	shuffle(len(drawn), func(i, j int) { drawn[i], drawn[j] = drawn[j], drawn[i] })
	return drawn[:min(len(drawn), MaxQuestions)]
}
