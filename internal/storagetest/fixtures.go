package storagetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// day returns the n-th day of the suite's own calendar.
func day(n int) time.Time {
	return time.Date(2026, time.March, 1, 12, 30, 15, 250*int(time.Millisecond), time.UTC).AddDate(0, 0, n)
}

// insert puts one row into a table, given as pairs of column and value; of two values for a
// column, the later.
func (s *suite) insert(table string, pairs ...any) {
	s.Helper()
	var columns []string
	var row []any
	for p := range slices.Chunk(pairs, 2) {
		column := p[0].(string)
		if i := slices.Index(columns, column); i >= 0 {
			row[i] = p[1]
			continue
		}
		columns, row = append(columns, column), append(row, p[1])
	}
	n, err := s.Sink.Insert(s.Context(), table, columns, slices.Values([][]any{row}))
	if err != nil {
		s.Fatal(err)
	}
	if n != 1 {
		s.Fatalf("a row of %s exists already: %v", table, row)
	}
}

func (s *suite) user() learning.UserID {
	s.Helper()
	s.rows++
	id := learning.NewID[learning.Profile]()
	s.insert("users", "id", id.UUID, "stellar_address", fmt.Sprintf("G%055d", s.rows), "created_at", day(0))
	return id
}

// course inserts an active course for beginners; pairs may say otherwise.
func (s *suite) course(pairs ...any) learning.CourseID {
	s.Helper()
	s.rows++
	id := learning.NewID[learning.Course]()
	s.insert("courses", append([]any{
		"id", id.UUID, "title", fmt.Sprintf("Course %d", s.rows), "description", "", "created_at", day(s.rows),
	}, pairs...)...)
	return id
}

func (s *suite) enroll(user learning.UserID, course learning.CourseID, completed ...time.Time) {
	s.Helper()
	pairs := []any{"id", uuid.New(), "user_id", user.UUID, "course_id", course.UUID, "enrolled_at", day(1)}
	if len(completed) > 0 {
		pairs = append(pairs, "completed_at", completed[0])
	}
	s.insert("enrollments", pairs...)
}

// questions returns n questions; the first option of each is right.
func questions(n int) []learning.Question {
	list := make([]learning.Question, n)
	for i := range list {
		list[i] = learning.Question{ID: fmt.Sprintf("q%d", i+1), Text: fmt.Sprintf("Question %d?", i+1), Options: []string{"right", "wrong"}}
	}
	return list
}

// quiz inserts a quiz of n questions, without a learner or for one.
func (s *suite) quiz(course learning.CourseID, module learning.ModuleID, n int, learner ...learning.UserID) learning.QuizID {
	s.Helper()
	s.rows++
	id := learning.NewID[learning.Quiz]()
	list, err := json.Marshal(questions(n))
	if err != nil {
		s.Fatal(err)
	}
	pairs := []any{
		"id", id.UUID, "course_id", course.UUID, "module_id", string(module), "questions", json.RawMessage(list), "created_at", day(s.rows),
	}
	if len(learner) > 0 {
		pairs = append(pairs, "generated_for", learner[0].UUID)
	}
	s.insert("quizzes", pairs...)
	return id
}

// submission inserts a submission with a score; pairs add columns.
func (s *suite) submission(quiz learning.QuizID, user learning.UserID, score int, pairs ...any) learning.SubmissionID {
	s.Helper()
	s.rows++
	id := learning.NewID[learning.Submission]()
	s.insert("quiz_submissions", append([]any{
		"id", id.UUID, "quiz_id", quiz.UUID, "user_id", user.UUID, "answers", json.RawMessage(`[]`),
		"score", score, "feedback", "", "submitted_at", day(s.rows),
	}, pairs...)...)
	return id
}

// claim inserts a submission whose reward was claimed at a time.
func (s *suite) claim(quiz learning.QuizID, user learning.UserID, score int, at time.Time) learning.SubmissionID {
	s.Helper()
	return s.submission(quiz, user, score, "reward_claimed", true, "reward_amount", learning.RewardCredits, "claimed_at", at)
}

func (s *suite) credential(user learning.UserID, course learning.CourseID, at time.Time, pairs ...any) learning.CredentialID {
	s.Helper()
	id := learning.NewID[learning.Credential]()
	s.insert("credentials", append([]any{
		"id", id.UUID, "user_id", user.UUID, "course_id", course.UUID, "score", 90, "minted_at", at,
	}, pairs...)...)
	return id
}
