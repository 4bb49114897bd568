package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/chainlearn/chainlearn/internal/learning"
)

var errAborted = errors.New("aborted")

var transactionRules = []rule{
	{"the database answers", func(s *suite) {
		if err := s.Storage.Ping(s.Context()); err != nil {
			s.Error(err)
		}
		ended, cancel := context.WithCancel(s.Context())
		cancel()
		if err := s.Storage.Ping(ended); err == nil {
			s.Error("Ping does not obey its context")
		}
	}},
	{"an error leaves nothing behind and comes back as it is", func(s *suite) {
		user, course := s.user(), s.course()
		s.touched()
		err := s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error {
			if err := tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: course, UserID: user, EnrolledAt: day(1)}); err != nil {
				return err
			}
			return errAborted
		})
		if err != errAborted { //nolint:errorlint // as it is
			s.Errorf("got %v, want the function's own error", err)
		}
		s.wantUntouched(user)
	}},
	{"a panic leaves nothing behind and goes on", func(s *suite) {
		user, course := s.user(), s.course()
		s.touched()
		func() {
			defer func() {
				if v := recover(); v != errAborted { //nolint:errorlint // as it is
					s.Errorf("recovered %v", v)
				}
			}()
			_ = s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error {
				if err := tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: course, UserID: user, EnrolledAt: day(1)}); err != nil {
					return err
				}
				panic(errAborted)
			})
		}()
		s.wantUntouched(user)
		s.write(func(ctx context.Context, tx learning.Tx) error { return tx.AddCredits(ctx, user, 1, day(1)) }) // no lock was left
	}},
	{"a caller that leaves commits nothing", func(s *suite) {
		user, course := s.user(), s.course()
		s.touched()
		ctx, cancel := context.WithCancel(s.Context())
		err := s.Storage.Write(ctx, func(ctx context.Context, tx learning.Tx) error {
			if err := tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: course, UserID: user, EnrolledAt: day(1)}); err != nil {
				return err
			}
			cancel()
			_, err := tx.CourseActive(ctx, course)
			return err
		})
		if !errors.Is(err, context.Canceled) {
			s.Errorf("got %v, want context.Canceled", err)
		}
		s.wantUntouched(user)
		if err := s.Storage.Write(ctx, func(context.Context, learning.Tx) error { s.Error("began all the same"); return nil }); !errors.Is(err, context.Canceled) {
			s.Errorf("got %v, want context.Canceled", err)
		}
	}},
	{"a committed write is read at once, and an uncommitted one is not", func(s *suite) {
		user := s.user()
		for i := range 50 {
			s.write(func(ctx context.Context, tx learning.Tx) error {
				if err := tx.AddCredits(ctx, user, 1, day(1)); err != nil {
					return err
				}
				if got := must[learning.Profile](s)(s.Storage.Profile(ctx, user)).Credits; got != i {
					s.Errorf("before commit %d: %d credits", i, got)
				}
				return nil
			})
			if got := must[learning.Profile](s)(s.Storage.Profile(s.Context(), user)).Credits; got != i+1 {
				s.Fatalf("after commit %d: %d credits", i+1, got)
			}
		}
	}},
	{"of two claims that race, one is made", func(s *suite) {
		user := s.user()
		id := s.submission(s.quiz(s.course(), "module-1", 1, user), user, 1)
		claimed := errors.New("claimed")
		won := s.race(8, claimed, func(ctx context.Context, tx learning.Tx) error {
			sub, err := tx.SubmissionForUpdate(ctx, id)
			if err != nil {
				return err
			}
			if sub.RewardClaimed {
				return claimed
			}
			return errors.Join(tx.MarkClaimed(ctx, id, 10, day(1)), tx.AddCredits(ctx, user, 10, day(1)))
		})
		if got := must[learning.Profile](s)(s.Storage.Profile(s.Context(), user)).Credits; won != 1 || got != 10 {
			s.Errorf("%d claims were made, for %d credits; want 1, for 10", won, got)
		}
	}},
	{"of two enrolments that race, one is made", func(s *suite) {
		user, course := s.user(), s.course()
		won := s.race(8, learning.ErrExists, func(ctx context.Context, tx learning.Tx) error {
			return tx.InsertEnrollment(ctx, learning.Enrollment{CourseID: course, UserID: user, EnrolledAt: day(1)})
		})
		if won != 1 {
			s.Errorf("%d were made", won)
		}
	}},
	{"of two uses of a key that race, one is the first", func(s *suite) {
		key := learning.IdempotencyKey{Key: "k", User: s.user(), Endpoint: "rewards/claim"}
		used := errors.New("used")
		won := s.race(8, used, func(ctx context.Context, tx learning.Tx) error {
			if _, err := tx.StoredResponse(ctx, key, day(1)); err == nil {
				return used
			} else if !errors.Is(err, learning.ErrNoRow) {
				return err
			}
			return tx.StoreResponse(ctx, key, learning.StoredResponse{RequestHash: "h", Status: 200, Body: []byte(`{}`), ExpiresAt: day(2)}, day(1))
		})
		if won != 1 {
			s.Errorf("%d were the first", won)
		}
	}},
	{"two last modules passed at once complete the course", func(s *suite) {
		user, course := s.user(), s.course()
		s.enroll(user, course)
		const modules = 6
		var mu sync.Mutex
		completions, next := 0, 0
		var own []learning.QuizID
		for i := range modules {
			module := learning.ModuleID(fmt.Sprintf("module-%d", i))
			s.quiz(course, module, 1)
			own = append(own, s.quiz(course, module, 1, user))
		}
		s.race(modules, nil, func(ctx context.Context, tx learning.Tx) error {
			mu.Lock()
			quiz := own[next%modules]
			next++
			mu.Unlock()
			if _, err := tx.Enrolled(ctx, user, course); err != nil { // locks
				return err
			}
			sub := learning.Submission{ID: learning.NewID[learning.Submission](), QuizID: quiz, UserID: user, Score: 1, SubmittedAt: day(1)}
			if err := tx.InsertSubmission(ctx, sub); err != nil {
				return err
			}
			done, err := tx.CompleteCourse(ctx, user, course, day(1))
			if done {
				mu.Lock()
				completions++
				mu.Unlock()
			}
			return err
		})
		if got := must[learning.Progress](s)(s.Storage.Progress(s.Context(), user)).CompletedCourses; got != 1 || completions != 1 {
			s.Errorf("%d courses completed, %d times; want 1, once", got, completions)
		}
	}},
	{"credits added at once add up", func(s *suite) {
		user := s.user()
		const writers = 20
		if won := s.race(writers, nil, func(ctx context.Context, tx learning.Tx) error { return tx.AddCredits(ctx, user, 1, day(1)) }); won != writers {
			s.Errorf("%d of %d writes succeeded", won, writers)
		}
		if got := must[learning.Profile](s)(s.Storage.Profile(s.Context(), user)).Credits; got != writers {
			s.Errorf("%d credits, want %d", got, writers)
		}
	}},
}

// race runs fn in n transactions at once and returns how many were committed. The others must
// have failed with lost.
func (s *suite) race(n int, lost error, fn func(context.Context, learning.Tx) error) int {
	s.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for range n {
		wg.Go(func() { errs <- s.Storage.Write(s.Context(), fn) })
	}
	wg.Wait()
	won := 0
	for range n {
		switch err := <-errs; {
		case err == nil:
			won++
		case lost == nil || !errors.Is(err, lost):
			s.Errorf("a loser got %v, want %v", err, lost)
		}
	}
	return won
}

// wantUntouched says that a user is enrolled nowhere, and that nothing was touched.
func (s *suite) wantUntouched(user learning.UserID) {
	s.Helper()
	if got := must[learning.Progress](s)(s.Storage.Progress(s.Context(), user)).EnrolledCourses; got != 0 {
		s.Errorf("enrolled in %d courses", got)
	}
	if tags := s.touched(); len(tags) != 0 {
		s.Errorf("touched %v", tags)
	}
}
