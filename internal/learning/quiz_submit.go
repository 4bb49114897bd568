package learning

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// SubmitQuiz grades the user's answers to the user's own quiz; a question without an answer
// is answered wrongly. Passing completes the module, and with the last module the course.
// Refusals: NotFound, Forbidden, Invalid, Conflict.
func (p *Platform) SubmitQuiz(ctx context.Context, user UserID, id QuizID, answers []QuizAnswer) (Submission, error) {
	var submission Submission
	err := p.storage.Write(ctx, func(ctx context.Context, tx Tx) error {
		fail := func(err error) error { return fmt.Errorf("submit quiz %s by %s: %w", id, user, err) }
		quiz, err := tx.Quiz(ctx, id)
		if errors.Is(err, ErrNoRow) || err == nil && (quiz.GeneratedFor == nil || *quiz.GeneratedFor != user) {
			return &Error{Kind: NotFound, Message: "Quiz not found"}
		}
		if err != nil {
			return fail(err)
		}
		// Enrolled locks the enrolment: of two modules passed at once, the second to
		// commit sees the first, and completes the course.
		if enrolled, err := tx.Enrolled(ctx, user, quiz.CourseID); err != nil {
			return fail(err)
		} else if !enrolled {
			return errNotEnrolled
		}
		if problems := checkAnswers(quiz.Questions, answers); problems != nil {
			return invalidBody(problems...)
		}
		submission = Grade(quiz, answers)
		submission.ID, submission.UserID, submission.SubmittedAt = NewID[Submission](), user, p.timestamp()
		err = tx.InsertSubmission(ctx, submission)
		if errors.Is(err, ErrExists) {
			return &Error{Kind: Conflict, Message: "Quiz already submitted"}
		}
		if err != nil {
			return fail(err)
		}
		if submission.Passed() {
			if _, err := tx.CompleteCourse(ctx, user, quiz.CourseID, submission.SubmittedAt); err != nil {
				return fail(err)
			}
		}
		return nil
	})
	if err != nil {
		return Submission{}, err
	}
	return submission, nil
}

func checkAnswers(questions []Question, answers []QuizAnswer) []string {
	options := make(map[string]int, len(questions))
	for _, q := range questions {
		options[q.ID] = len(q.Options)
	}
	var problems []string
	answered := map[string]bool{}
	for i, a := range answers {
		n, known := options[a.QuestionID]
		switch {
		case !known:
			problems = append(problems, fmt.Sprintf("answers[%d].questionId: %q is not a question of this quiz", i, truncate(a.QuestionID)))
		case answered[a.QuestionID]:
			problems = append(problems, fmt.Sprintf("answers[%d].questionId: %q is answered twice", i, truncate(a.QuestionID)))
		case a.SelectedIndex < 0 || a.SelectedIndex >= n:
			problems = append(problems, fmt.Sprintf("answers[%d].selectedIndex: must be between 0 and %d", i, n-1))
		}
		answered[a.QuestionID] = true
	}
	return problems
}

// Grade returns the submission without what only its insertion knows.
func Grade(quiz Quiz, answers []QuizAnswer) Submission {
	selected := make(map[string]int, len(answers))
	for _, a := range answers {
		selected[a.QuestionID] = a.SelectedIndex
	}
	s := Submission{
		QuizID: quiz.ID, CourseID: quiz.CourseID, ModuleID: quiz.ModuleID,
		Answers: answers, TotalQuestions: len(quiz.Questions),
	}
	var missed []Question
	for _, q := range quiz.Questions {
		if i, ok := selected[q.ID]; ok && i == q.CorrectIndex {
			s.Score++
		} else {
			missed = append(missed, q)
		}
	}
	s.Feedback = feedback(s, missed)
	return s
}

// feedback names some of the questions to look at again, never their answers.
func feedback(s Submission, missed []Question) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d right (%d%%). ", s.Score, s.TotalQuestions, s.Percentage())
	switch {
	case len(missed) == 0:
		return b.String() + "Everything right: the module is complete."
	case s.Passed():
		b.WriteString("Passed: the module is complete. ")
	default:
		fmt.Fprintf(&b, "%d%% passes; generate the quiz again for a new attempt. ", PassPercent)
	}
	b.WriteString("Worth another look:")
	const most = 3
	for _, q := range missed[:min(len(missed), most)] {
		fmt.Fprintf(&b, " “%s”", q.Text)
	}
	if more := len(missed) - most; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String() + "."
}
