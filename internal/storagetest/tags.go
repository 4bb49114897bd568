package storagetest

import (
	"context"
	"fmt"
	"slices"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// Every change touches exactly the tags of the answers it may change: one too few is a
// wrong answer, one too many a load for nothing.
var tagRules = []rule{
	{"a read touches nothing", func(s *suite) {
		user, course := s.user(), s.course()
		s.touched()
		must[learning.CoursePage](s)(s.Storage.ListCourses(s.Context(), learning.ListParams{Page: 1, Limit: 20}))
		must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), course))
		must[learning.Progress](s)(s.Storage.Progress(s.Context(), user))
		s.write(func(ctx context.Context, tx learning.Tx) error {
			must[learning.Profile](s)(tx.ProfileForUpdate(ctx, user))
			must[bool](s)(tx.Enrolled(ctx, user, course))
			return nil
		})
		s.wantTouched("reading")
	}},
	{"what learners do touches what it changes", func(s *suite) {
		user, course := s.user(), s.course("difficulty", "advanced")
		s.quiz(course, "module-1", 1)
		quiz, sub := learning.NewID[learning.Quiz](), learning.NewID[learning.Submission]()
		s.touched()
		for _, c := range []struct {
			what string
			fn   func(context.Context, learning.Tx) error
			want []cache.Tag
		}{
			{
				"enrolling",
				func(ctx context.Context, tx learning.Tx) error {
					return tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: course, UserID: user, EnrolledAt: day(1)})
				},
				[]cache.Tag{learning.ProgressTag(user), learning.CourseTag(course), learning.CatalogTag(""), learning.CatalogTag(learning.Advanced)},
			},
			{
				"generating a quiz",
				func(ctx context.Context, tx learning.Tx) error {
					return tx.InsertQuiz(ctx, learning.Quiz{ID: quiz, CourseID: course, ModuleID: "module-1", Questions: questions(1), GeneratedFor: &user, CreatedAt: day(1)})
				},
				nil,
			},
			{
				"submitting it",
				func(ctx context.Context, tx learning.Tx) error {
					return tx.InsertSubmission(ctx, learning.Submission{ID: sub, QuizID: quiz, UserID: user, Score: 1, SubmittedAt: day(1)})
				},
				[]cache.Tag{learning.ProgressTag(user), learning.RewardsTag(user)},
			},
			{
				"completing the course",
				func(ctx context.Context, tx learning.Tx) error {
					_, err := tx.CompleteCourse(ctx, user, course, day(1))
					return err
				},
				[]cache.Tag{learning.ProgressTag(user)},
			},
			{
				"claiming the reward",
				func(ctx context.Context, tx learning.Tx) error {
					if err := tx.MarkClaimed(ctx, sub, 10, day(1)); err != nil {
						return err
					}
					return tx.AddCredits(ctx, user, 10, day(1))
				},
				[]cache.Tag{learning.ProgressTag(user), learning.RewardsTag(user), learning.UserTag(user)},
			},
			{
				"minting a credential",
				func(ctx context.Context, tx learning.Tx) error {
					return tx.InsertCredential(ctx, user, learning.Credential{ID: learning.NewID[learning.Credential](), CourseID: course, MintedAt: day(1)})
				},
				[]cache.Tag{learning.ProgressTag(user), learning.CredentialsTag(user)},
			},
			{
				"changing the profile",
				func(ctx context.Context, tx learning.Tx) error {
					return tx.UpdateProfile(ctx, learning.Profile{ID: user, Pace: learning.Fast, Language: "en"}, day(1))
				},
				[]cache.Tag{learning.UserTag(user)},
			},
			{
				"remembering a request",
				func(ctx context.Context, tx learning.Tx) error {
					return tx.StoreResponse(ctx, learning.IdempotencyKey{Key: "k", User: user, Endpoint: "e"}, learning.StoredResponse{Body: []byte(`{}`), ExpiresAt: day(2)}, day(1))
				},
				nil,
			},
		} {
			s.write(c.fn)
			s.wantTouched(c.what, c.want...)
		}
	}},
	{"external writes touch the same", func(s *suite) {
		user, other := s.user(), s.user()
		course, second := s.course("title", "One"), s.course("difficulty", "advanced")
		quiz := s.quiz(course, "module-1", 1)
		s.insert("modules", "course_id", course.UUID, "module_id", "module-1", "title", "M", "position", 1)
		s.enroll(user, course)
		s.submission(quiz, user, 1)
		s.credential(user, course, day(1))
		s.touched()
		all, easy, hard := learning.CatalogTag(""), learning.CatalogTag(learning.Beginner), learning.CatalogTag(learning.Advanced)
		for _, c := range []struct {
			statement string
			want      []cache.Tag
		}{
			{fmt.Sprintf(`UPDATE courses SET description = 'new' WHERE id = '%s'`, course),
				[]cache.Tag{learning.CourseTag(course), all, easy}},
			{fmt.Sprintf(`UPDATE courses SET title = 'Uno' WHERE id = '%s'`, course),
				[]cache.Tag{learning.CourseTag(course), all, easy, learning.TitlesTag}},
			{fmt.Sprintf(`UPDATE courses SET difficulty = 'intermediate' WHERE id = '%s'`, course),
				[]cache.Tag{learning.CourseTag(course), all, easy, learning.CatalogTag(learning.Intermediate)}},
			{fmt.Sprintf(`UPDATE courses SET is_active = FALSE, difficulty = 'beginner' WHERE id = '%s'`, course),
				[]cache.Tag{learning.CourseTag(course), all, easy, learning.CatalogTag(learning.Intermediate)}},
			{`UPDATE courses SET title = 'nobody' WHERE title = 'no such title'`, nil},
			{fmt.Sprintf(`INSERT INTO courses (id, title, difficulty) VALUES ('%s', 'T', 'advanced')`, learning.CourseID{UUID: [16]byte{1}}),
				[]cache.Tag{learning.CourseTag(learning.CourseID{UUID: [16]byte{1}}), all, hard}},
			{fmt.Sprintf(`DELETE FROM courses WHERE id = '%s'`, learning.CourseID{UUID: [16]byte{1}}),
				[]cache.Tag{learning.CourseTag(learning.CourseID{UUID: [16]byte{1}}), all, hard, learning.TitlesTag}},

			{`UPDATE modules SET title = 'N'`, []cache.Tag{learning.CourseTag(course)}},
			{fmt.Sprintf(`UPDATE modules SET course_id = '%s'`, second), []cache.Tag{learning.CourseTag(course), learning.CourseTag(second)}},
			{`DELETE FROM modules`, []cache.Tag{learning.CourseTag(second)}},

			{`UPDATE enrollments SET completed_at = '2026-04-01T00:00:00.000Z'`, []cache.Tag{learning.ProgressTag(user)}},
			{fmt.Sprintf(`UPDATE enrollments SET course_id = '%s'`, second),
				[]cache.Tag{learning.ProgressTag(user), learning.CourseTag(course), learning.CourseTag(second), all, easy, hard}},
			{fmt.Sprintf(`UPDATE enrollments SET user_id = '%s'`, other), []cache.Tag{learning.ProgressTag(user), learning.ProgressTag(other)}},
			{`DELETE FROM enrollments`, []cache.Tag{learning.ProgressTag(other), learning.CourseTag(second), all, hard}},

			{`UPDATE quiz_submissions SET score = 0`, []cache.Tag{learning.ProgressTag(user), learning.RewardsTag(user)}},
			{fmt.Sprintf(`UPDATE quiz_submissions SET user_id = '%s'`, other),
				[]cache.Tag{learning.ProgressTag(user), learning.RewardsTag(user), learning.ProgressTag(other), learning.RewardsTag(other)}},
			{`DELETE FROM quiz_submissions`, []cache.Tag{learning.ProgressTag(other), learning.RewardsTag(other)}},

			{`UPDATE quizzes SET module_id = 'module-2'`, []cache.Tag{learning.CourseTag(course)}},
			{fmt.Sprintf(`UPDATE quizzes SET generated_for = '%s'`, user), []cache.Tag{learning.CourseTag(course)}},
			{`UPDATE quizzes SET module_id = 'module-3'`, nil}, // a learner's own
			{`UPDATE quizzes SET generated_for = NULL`, []cache.Tag{learning.CourseTag(course)}},
			{`DELETE FROM quizzes`, []cache.Tag{learning.CourseTag(course)}},

			{`UPDATE credentials SET revoked = TRUE`, []cache.Tag{learning.CredentialsTag(user), learning.ProgressTag(user)}},
			{fmt.Sprintf(`UPDATE credentials SET user_id = '%s'`, other), []cache.Tag{
				learning.CredentialsTag(user), learning.ProgressTag(user), learning.CredentialsTag(other), learning.ProgressTag(other)}},
			{`DELETE FROM credentials`, []cache.Tag{learning.CredentialsTag(other), learning.ProgressTag(other)}},

			{fmt.Sprintf(`UPDATE users SET display_name = 'D' WHERE id = '%s'`, user), []cache.Tag{learning.UserTag(user)}},
			{`INSERT INTO revoked_tokens (jti, expires_at) VALUES ('a', '2030-01-01T00:00:00.000Z')`, []cache.Tag{learning.TokenTag("a")}},
			{`UPDATE revoked_tokens SET jti = 'b'`, []cache.Tag{learning.TokenTag("a"), learning.TokenTag("b")}},
			{`DELETE FROM revoked_tokens`, []cache.Tag{learning.TokenTag("b")}},
		} {
			s.exec(c.statement)
			s.wantTouched(c.statement, c.want...)
		}
	}},
	{"deleting a user touches everything of theirs and nothing else", func(s *suite) {
		user, other, course := s.user(), s.user(), s.course()
		quiz := s.quiz(course, "module-1", 1)
		for _, u := range []learning.UserID{user, other} {
			s.enroll(u, course)
			s.submission(s.quiz(course, "module-1", 1, u), u, 1)
			s.submission(quiz, u, 1)
			s.credential(u, course, day(1))
		}
		s.touched()
		s.exec(fmt.Sprintf(`DELETE FROM users WHERE id = '%s'`, user))
		s.wantTouched("deleting a user", learning.UserTag(user), learning.ProgressTag(user), learning.RewardsTag(user),
			learning.CredentialsTag(user), learning.CourseTag(course), learning.CatalogTag(""), learning.CatalogTag(learning.Beginner))
		if got := must[learning.Progress](s)(s.Storage.Progress(s.Context(), user)); got != (learning.Progress{}) {
			s.Errorf("left behind: %+v", got)
		}
		if got := must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), course)); got.EnrolledCount != 1 || len(got.Modules) != 1 {
			s.Errorf("the course is now %+v", got)
		}
	}},
	{"deleting a course touches all learners with a history in it", func(s *suite) {
		user, other, course, second := s.user(), s.user(), s.course("difficulty", "advanced"), s.course()
		for _, c := range []learning.CourseID{course, second} {
			s.enroll(user, c)
			s.credential(user, c, day(1))
			s.submission(s.quiz(c, "module-1", 1), other, 1)
		}
		s.insert("modules", "course_id", course.UUID, "module_id", "module-1", "title", "M", "position", 1)
		s.touched()
		s.exec(fmt.Sprintf(`DELETE FROM courses WHERE id = '%s'`, course))
		s.wantTouched("deleting a course", learning.CourseTag(course), learning.CatalogTag(""), learning.CatalogTag(learning.Advanced), learning.TitlesTag,
			learning.ProgressTag(user), learning.CredentialsTag(user), learning.ProgressTag(other), learning.RewardsTag(other))
	}},
	{"a bulk insert touches what single inserts touch", func(s *suite) {
		user, course := s.user(), s.course("difficulty", "advanced")
		s.wantTouched("a user and a course", learning.UserTag(user), learning.CourseTag(course), learning.CatalogTag(""), learning.CatalogTag(learning.Advanced))
		s.enroll(user, course)
		s.wantTouched("an enrolment", learning.ProgressTag(user), learning.CourseTag(course), learning.CatalogTag(""), learning.CatalogTag(learning.Advanced))
	}},
}

func (s *suite) wantTouched(what string, want ...cache.Tag) {
	s.Helper()
	got := s.touched()
	slices.Sort(got)
	got = slices.Compact(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.Errorf("%s touched\n\t%v, want\n\t%v", what, got, want)
	}
}
