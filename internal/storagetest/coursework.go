package storagetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
)

var courseworkRules = []rule{
	{"a course is active or not", func(s *suite) {
		active, inactive := s.course(), s.course("is_active", false)
		s.write(func(ctx context.Context, tx learning.Tx) error {
			for id, want := range map[learning.CourseID]bool{active: true, inactive: false, learning.NewID[learning.Course](): false} {
				if got := must[bool](s)(tx.CourseActive(ctx, id)); got != want {
					s.Errorf("active is %t, want %t", got, want)
				}
			}
			return nil
		})
	}},
	{"a learner enrols once", func(s *suite) {
		user, course := s.user(), s.course()
		enroll := func(ctx context.Context, tx learning.Tx) error {
			return tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: course, UserID: user, EnrolledAt: day(1)})
		}
		s.write(func(ctx context.Context, tx learning.Tx) error {
			before := must[bool](s)(tx.Enrolled(ctx, user, course))
			err := enroll(ctx, tx)
			if after := must[bool](s)(tx.Enrolled(ctx, user, course)); before || !after {
				s.Errorf("in the transaction, enrolled is %t before and %t after", before, after)
			}
			return err
		})
		if err := s.Storage.Write(s.Context(), enroll); !errors.Is(err, learning.ErrExists) {
			s.Errorf("the second time: %v, want ErrExists", err)
		}
		if got := must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), course)).EnrolledCount; got != 1 {
			s.Errorf("%d enrolled, want 1", got)
		}
	}},
	{"what does not exist cannot be referred to", func(s *suite) {
		user, course, unknown := s.user(), s.course(), learning.NewID[learning.Profile]()
		quiz := s.quiz(course, "module-1", 1)
		for name, fn := range map[string]func(context.Context, learning.Tx) error{
			"enrol in no course": func(ctx context.Context, tx learning.Tx) error {
				return tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: learning.NewID[learning.Course](), UserID: user, EnrolledAt: day(1)})
			},
			"enrol an unknown user": func(ctx context.Context, tx learning.Tx) error {
				return tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: course, UserID: unknown, EnrolledAt: day(1)})
			},
			"submit no quiz": func(ctx context.Context, tx learning.Tx) error {
				return tx.InsertSubmission(ctx, learning.Submission{
					ID: learning.NewID[learning.Submission](), QuizID: learning.NewID[learning.Quiz](), UserID: user, SubmittedAt: day(1),
				})
			},
			"submit for an unknown user": func(ctx context.Context, tx learning.Tx) error {
				return tx.InsertSubmission(ctx, learning.Submission{
					ID: learning.NewID[learning.Submission](), QuizID: quiz, UserID: unknown, SubmittedAt: day(1),
				})
			},
		} {
			if err := s.Storage.Write(s.Context(), fn); !errors.Is(err, learning.ErrNoRow) {
				s.Errorf("%s: %v, want ErrNoRow", name, err)
			}
		}
	}},
	{"a module is completed by a pass and by nothing less", func(s *suite) {
		user, course := s.user(), s.course()
		for _, c := range []struct {
			module    learning.ModuleID
			questions int
			score     int
			want      bool
		}{
			{"seven-of-ten", 10, 7, true},
			{"six-of-ten", 10, 6, false},
			{"five-of-seven", 7, 5, true}, // 71 %
			{"two-of-three", 3, 2, false}, // 66 %
			{"none-of-none", 0, 0, false},
		} {
			s.submission(s.quiz(course, c.module, c.questions, user), user, c.score)
			if got := must[bool](s)(s.Storage.CompletedModule(s.Context(), user, course, c.module)); got != c.want {
				s.Errorf("%s: completed is %t, want %t", c.module, got, c.want)
			}
		}
		for what, got := range map[string]bool{
			"another learner's module": must[bool](s)(s.Storage.CompletedModule(s.Context(), s.user(), course, "seven-of-ten")),
			"another course's module":  must[bool](s)(s.Storage.CompletedModule(s.Context(), user, s.course(), "seven-of-ten")),
			"no module":                must[bool](s)(s.Storage.CompletedModule(s.Context(), user, course, "nothing")),
		} {
			if got {
				s.Errorf("%s is completed", what)
			}
		}
		second := s.quiz(course, "six-of-ten", 10) // the module's own quiz does as well as the learner's
		s.submission(second, user, 10)
		if !must[bool](s)(s.Storage.CompletedModule(s.Context(), user, course, "six-of-ten")) {
			s.Error("passing at the second try does not complete the module")
		}
	}},
	{"a course is completed by its last module, once", func(s *suite) {
		user, other, course := s.user(), s.user(), s.course()
		for _, u := range []learning.UserID{user, other} {
			s.enroll(u, course)
		}
		for _, m := range []learning.ModuleID{"module-1", "module-2"} {
			s.quiz(course, m, 4)
		}
		s.quiz(course, "module-3", 4, other) // no module of the course
		try := func() (done bool) {
			s.write(func(ctx context.Context, tx learning.Tx) (err error) {
				done, err = tx.CompleteCourse(ctx, user, course, day(5))
				return err
			})
			return done
		}
		if try() {
			s.Error("completed with no module passed")
		}
		s.submission(s.quiz(course, "module-1", 4, user), user, 4)
		s.submission(s.quiz(course, "module-2", 4, user), user, 2)
		s.submission(s.quiz(course, "module-2", 4, other), other, 4)
		if try() {
			s.Error("completed with the second module failed, though another learner passed it")
		}
		s.submission(s.quiz(course, "module-2", 4, user), user, 3)
		if !try() {
			s.Error("not completed with every module passed")
		}
		if try() {
			s.Error("completed twice")
		}
		for u, want := range map[learning.UserID]int{user: 1, other: 0} {
			if got := must[learning.Progress](s)(s.Storage.Progress(s.Context(), u)).CompletedCourses; got != want {
				s.Errorf("%d courses completed, want %d", got, want)
			}
		}
	}},
	{"a course without modules, or without enrolment, is not completed", func(s *suite) {
		user, empty, notIn := s.user(), s.course(), s.course()
		s.enroll(user, empty)
		s.submission(s.quiz(notIn, "module-1", 1), user, 1)
		s.write(func(ctx context.Context, tx learning.Tx) error {
			for _, id := range []learning.CourseID{empty, notIn} {
				if must[bool](s)(tx.CompleteCourse(ctx, user, id, day(5))) {
					s.Error("completed")
				}
			}
			return nil
		})
	}},
	{"a module's questions are those of its quizzes, in a stable order", func(s *suite) {
		course, user := s.course(), s.user()
		var want []learning.Question
		for _, n := range []int{3, 1, 2} { // the suite's quizzes are each a day younger
			s.quiz(course, "module-1", n)
			want = append(want, questions(n)...)
		}
		s.quiz(course, "module-2", 5)
		s.quiz(course, "module-1", 5, user)
		s.quiz(s.course(), "module-1", 5)
		s.write(func(ctx context.Context, tx learning.Tx) error {
			got := must[[]learning.Question](s)(tx.ModuleQuestions(ctx, course, "module-1"))
			if !reflect.DeepEqual(got, want) {
				s.Errorf("got %+v, want %+v", got, want)
			}
			if got := must[[]learning.Question](s)(tx.ModuleQuestions(ctx, course, "module-9")); len(got) != 0 {
				s.Errorf("an unknown module asks %+v", got)
			}
			return nil
		})
	}},
	{"a quiz is stored and found", func(s *suite) {
		course, user := s.course(), s.user()
		for _, want := range []learning.Quiz{
			{
				ID: learning.NewID[learning.Quiz](), CourseID: course, ModuleID: "module-1", GeneratedFor: &user, CreatedAt: day(2),
				Questions: []learning.Question{{ID: "q1", Text: "¿Qué <b>es</b> \"π\"?\n", Options: []string{"3", "3.14…", ""}, CorrectIndex: 1}},
			},
			{ID: learning.NewID[learning.Quiz](), CourseID: course, ModuleID: "module-1", CreatedAt: day(3), Questions: questions(2)},
		} {
			s.write(func(ctx context.Context, tx learning.Tx) error { return tx.InsertQuiz(ctx, want) })
			s.write(func(ctx context.Context, tx learning.Tx) error {
				got := must[learning.Quiz](s)(tx.Quiz(ctx, want.ID))
				if !got.CreatedAt.Equal(want.CreatedAt) {
					s.Errorf("created at %v, want %v", got.CreatedAt, want.CreatedAt)
				}
				got.CreatedAt = want.CreatedAt
				if !reflect.DeepEqual(got, want) {
					s.Errorf("got %+v, want %+v", got, want)
				}
				if _, err := tx.Quiz(ctx, learning.NewID[learning.Quiz]()); !errors.Is(err, learning.ErrNoRow) {
					s.Errorf("an unknown quiz: %v, want ErrNoRow", err)
				}
				return nil
			})
		}
	}},
	{"a learner's quiz is the latest, with what was submitted", func(s *suite) {
		user, other, course := s.user(), s.user(), s.course()
		find := func() (q learning.Quiz, sub *learning.Submission, err error) {
			s.write(func(ctx context.Context, tx learning.Tx) error {
				q, sub, err = tx.LearnerQuiz(ctx, user, course, "module-1")
				return nil
			})
			return q, sub, err
		}
		s.quiz(course, "module-1", 3)
		s.quiz(course, "module-1", 3, other)
		s.quiz(course, "module-2", 3, user)
		if _, _, err := find(); !errors.Is(err, learning.ErrNoRow) {
			s.Errorf("without a quiz of one's own: %v, want ErrNoRow", err)
		}
		first := s.quiz(course, "module-1", 3, user)
		if q, sub, err := find(); err != nil || q.ID != first || len(q.Questions) != 3 || q.GeneratedFor == nil || *q.GeneratedFor != user || sub != nil {
			s.Errorf("got %+v, %+v, %v; want the quiz and no submission", q, sub, err)
		}
		id := s.submission(first, user, 2)
		if q, sub, err := find(); err != nil || q.ID != first || sub == nil || sub.ID != id || sub.Score != 2 || sub.TotalQuestions != 3 {
			s.Errorf("got %+v, %+v, %v; want the quiz and its submission", q, sub, err)
		}
		second := s.quiz(course, "module-1", 3, user)
		if q, sub, err := find(); err != nil || q.ID != second || sub != nil {
			s.Errorf("got %+v, %+v, %v; want the later quiz", q, sub, err)
		}
	}},
	{"a submission is stored and found", func(s *suite) {
		user, course := s.user(), s.course()
		quiz := s.quiz(course, "module-1", 4, user)
		want := learning.Submission{
			ID: learning.NewID[learning.Submission](), QuizID: quiz, CourseID: course, ModuleID: "module-1", UserID: user,
			Answers: []learning.QuizAnswer{{QuestionID: "q1", SelectedIndex: 1}, {QuestionID: "q2"}},
			Score:   1, TotalQuestions: 4, Feedback: "Schön! 👍\n", SubmittedAt: day(4),
		}
		s.write(func(ctx context.Context, tx learning.Tx) error { return tx.InsertSubmission(ctx, want) })
		s.write(func(ctx context.Context, tx learning.Tx) error {
			got := must[learning.Submission](s)(tx.SubmissionForUpdate(ctx, want.ID))
			if !got.SubmittedAt.Equal(want.SubmittedAt) {
				s.Errorf("submitted at %v, want %v", got.SubmittedAt, want.SubmittedAt)
			}
			got.SubmittedAt = want.SubmittedAt
			if !reflect.DeepEqual(got, want) {
				s.Errorf("got %+v, want %+v", got, want)
			}
			if _, err := tx.SubmissionForUpdate(ctx, learning.NewID[learning.Submission]()); !errors.Is(err, learning.ErrNoRow) {
				s.Errorf("an unknown submission: %v, want ErrNoRow", err)
			}
			return nil
		})
		again := want
		again.ID = learning.NewID[learning.Submission]()
		err := s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error { return tx.InsertSubmission(ctx, again) })
		if !errors.Is(err, learning.ErrExists) {
			s.Errorf("the same quiz again: %v, want ErrExists", err)
		}
	}},
	{"a submission without answers is one", func(s *suite) {
		user := s.user()
		sub := learning.Submission{ID: learning.NewID[learning.Submission](), QuizID: s.quiz(s.course(), "module-1", 4, user), UserID: user, SubmittedAt: day(4)}
		s.write(func(ctx context.Context, tx learning.Tx) error { return tx.InsertSubmission(ctx, sub) })
		s.write(func(ctx context.Context, tx learning.Tx) error {
			if got := must[learning.Submission](s)(tx.SubmissionForUpdate(ctx, sub.ID)); len(got.Answers) != 0 || got.Score != 0 {
				s.Errorf("got %+v", got)
			}
			return nil
		})
	}},
	{"rows that exist are left out of a bulk insert", func(s *suite) {
		id := s.course()
		a, b := uuid.New(), uuid.New()
		rows := [][]any{{a, "GA"}, {b, "GA"}, {a, "GB"}, {uuid.New(), "GC"}}
		n, err := s.Sink.Insert(s.Context(), "users", []string{"id", "stellar_address"}, slices.Values(rows))
		if err != nil || n != 2 {
			s.Errorf("%d new rows, %v; want 2 of 4: one id and one address are there already", n, err)
		}
		if _, err := s.Sink.Insert(s.Context(), "enrollments", []string{"id", "user_id", "course_id"},
			slices.Values([][]any{{uuid.New(), uuid.New(), id.UUID}})); err == nil {
			s.Error("a row without its user was accepted")
		}
		if n, err := s.Sink.Insert(s.Context(), "users", []string{"id"}, func(func([]any) bool) {}); n != 0 || err != nil {
			s.Errorf("no rows: %d, %v", n, err)
		}
	}},
	{"a bulk insert of many rows stores them all", func(s *suite) {
		const many = 6_001
		jti := func(i int) string { return fmt.Sprintf("token-%d", i) }
		n, err := s.Sink.Insert(s.Context(), "revoked_tokens", []string{"jti", "expires_at"}, func(yield func([]any) bool) {
			for i := range many {
				if !yield([]any{jti(i), day(1)}) {
					return
				}
			}
		})
		if err != nil || n != many {
			s.Errorf("%d rows, %v; want %d", n, err, many)
		}
		user := s.user()
		for _, i := range []int{0, many / 2, many - 1} {
			if _, revoked, err := s.Storage.Bearer(s.Context(), user, jti(i)); err != nil || !revoked {
				s.Errorf("row %d is missing: %v", i, err)
			}
		}
	}},
}
