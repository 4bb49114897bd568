package storagetest

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"time"

	"github.com/chainlearn/chainlearn/internal/learning"
)

var learnerRules = []rule{
	{"profile shows every field", func(s *suite) {
		id := s.user()
		got := must[learning.Profile](s)(s.Storage.Profile(s.Context(), id))
		if got.ID != id || got.DisplayName != nil || got.Background != nil || got.LearningGoal != nil ||
			got.Pace != learning.Medium || got.Language != "en" || got.Credits != 0 || !got.CreatedAt.Equal(day(0)) {
			s.Errorf("a new profile is %+v", got)
		}
		full := learning.NewID[learning.Profile]()
		const address = "GDFULLADDRESSOFFIFTYSIXCHARACTERSXXXXXXXXXXXXXXXXXXXXXXX"
		s.insert("users", "id", full.UUID, "stellar_address", address, "display_name", "Zoë 🌟", "background", "b\n\"b\"",
			"learning_goal", "目標", "pace", "fast", "language", "pt-BR", "credits", 1<<30, "created_at", day(3))
		got = must[learning.Profile](s)(s.Storage.Profile(s.Context(), full))
		want := learning.Profile{
			ID: full, StellarAddress: address, DisplayName: new("Zoë 🌟"), Background: new("b\n\"b\""), LearningGoal: new("目標"),
			Pace: learning.Fast, Language: "pt-BR", Credits: 1 << 30, CreatedAt: day(3),
		}
		if !got.CreatedAt.Equal(want.CreatedAt) {
			s.Errorf("created at %v, want %v", got.CreatedAt, want.CreatedAt)
		}
		got.CreatedAt = want.CreatedAt
		if !reflect.DeepEqual(got, want) {
			s.Errorf("got %+v, want %+v", got, want)
		}
		// What a change locks is what readers have seen, to the last byte of what clients get.
		got = must[learning.Profile](s)(s.Storage.Profile(s.Context(), full))
		bearer, _, err := s.Storage.Bearer(s.Context(), full, "token")
		if err != nil {
			s.Fatal(err)
		}
		s.write(func(ctx context.Context, tx learning.Tx) error {
			locked, err := tx.ProfileForUpdate(ctx, full)
			for name, read := range map[string]learning.Profile{"Profile": got, "Bearer": bearer} {
				if a, b := clientsView(s, locked), clientsView(s, read); a != b {
					s.Errorf("ProfileForUpdate returns %s, and %s %s", a, name, b)
				}
			}
			return err
		})
	}},
	{"an unknown user has no profile", func(s *suite) {
		if _, err := s.Storage.Profile(s.Context(), learning.NewID[learning.Profile]()); !errors.Is(err, learning.ErrNoRow) {
			s.Errorf("%v, want ErrNoRow", err)
		}
	}},
	{"a profile is updated as a whole, credits aside", func(s *suite) {
		id, other := s.user(), s.user()
		s.write(func(ctx context.Context, tx learning.Tx) error {
			p, err := tx.ProfileForUpdate(ctx, id)
			if err != nil {
				return err
			}
			p.DisplayName, p.Background, p.LearningGoal = new("Ana"), new(""), nil
			p.Pace, p.Language, p.Credits = learning.Slow, "es", 999
			return tx.UpdateProfile(ctx, p, day(5))
		})
		got := must[learning.Profile](s)(s.Storage.Profile(s.Context(), id))
		if got.DisplayName == nil || *got.DisplayName != "Ana" || got.Background == nil || *got.Background != "" || got.LearningGoal != nil ||
			got.Pace != learning.Slow || got.Language != "es" || got.Credits != 0 {
			s.Errorf("got %+v", got)
		}
		if got := must[learning.Profile](s)(s.Storage.Profile(s.Context(), other)); got.DisplayName != nil {
			s.Errorf("another user was renamed to %q", *got.DisplayName)
		}
	}},
	{"credits are added", func(s *suite) {
		id := s.user()
		for _, n := range []int{10, 10, -5} {
			s.write(func(ctx context.Context, tx learning.Tx) error { return tx.AddCredits(ctx, id, n, day(1)) })
		}
		if got := must[learning.Profile](s)(s.Storage.Profile(s.Context(), id)).Credits; got != 15 {
			s.Errorf("%d credits, want 15", got)
		}
	}},
	{"an unknown user cannot be changed", func(s *suite) {
		unknown := learning.NewID[learning.Profile]()
		for name, fn := range map[string]func(context.Context, learning.Tx) error{
			"ProfileForUpdate": func(ctx context.Context, tx learning.Tx) error {
				_, err := tx.ProfileForUpdate(ctx, unknown)
				return err
			},
			"UpdateProfile": func(ctx context.Context, tx learning.Tx) error {
				return tx.UpdateProfile(ctx, learning.Profile{ID: unknown, Pace: learning.Fast, Language: "en"}, day(1))
			},
			"AddCredits": func(ctx context.Context, tx learning.Tx) error { return tx.AddCredits(ctx, unknown, 1, day(1)) },
		} {
			if err := s.Storage.Write(s.Context(), fn); !errors.Is(err, learning.ErrNoRow) {
				s.Errorf("%s: %v, want ErrNoRow", name, err)
			}
		}
	}},
	{"enrolled says which courses of many", func(s *suite) {
		user, in, out := s.user(), s.course(), s.course()
		s.enroll(user, in)
		s.enroll(s.user(), out)
		for _, c := range []struct {
			ask  []learning.CourseID
			want map[learning.CourseID]bool
		}{
			{[]learning.CourseID{in, out, learning.NewID[learning.Course]()}, map[learning.CourseID]bool{in: true}},
			{[]learning.CourseID{out}, nil},
			{nil, nil},
		} {
			got := must[map[learning.CourseID]bool](s)(s.Storage.Enrolled(s.Context(), user, c.ask))
			if !maps.Equal(got, c.want) {
				s.Errorf("asked for %v: got %v, want %v", c.ask, got, c.want)
			}
		}
	}},
	{"progress counts only the learner's own work", func(s *suite) {
		user, other := s.user(), s.user()
		done, begun := s.course(), s.course()
		for _, u := range []learning.UserID{user, other} {
			s.enroll(u, done, day(9))
			first, second := s.quiz(done, "module-1", 10, u), s.quiz(begun, "module-1", 10, u)
			s.claim(first, u, 9, day(9))
			s.submission(second, u, 3)
			s.credential(u, done, day(9))
		}
		s.enroll(user, begun)
		s.credential(user, begun, day(10), "revoked", true)
		want := learning.Progress{EnrolledCourses: 2, CompletedCourses: 1, TotalQuizScore: 12, CredentialsEarned: 1, RewardsClaimed: 1}
		if got := must[learning.Progress](s)(s.Storage.Progress(s.Context(), user)); got != want {
			s.Errorf("got %+v, want %+v", got, want)
		}
		if got := must[learning.Progress](s)(s.Storage.Progress(s.Context(), s.user())); got != (learning.Progress{}) {
			s.Errorf("a newcomer has %+v", got)
		}
		if got := must[learning.Progress](s)(s.Storage.Progress(s.Context(), learning.NewID[learning.Profile]())); got != (learning.Progress{}) {
			s.Errorf("an unknown user has %+v", got)
		}
	}},
	{"a token is revoked once it is on the list", func(s *suite) {
		s.insert("revoked_tokens", "jti", "gone", "expires_at", day(1).Add(-24*time.Hour))
		user := s.user()
		profile := must[learning.Profile](s)(s.Storage.Profile(s.Context(), user))
		for jti, want := range map[string]bool{"gone": true, "Gone": false, "": false, "other": false} {
			bearer, revoked, err := s.Storage.Bearer(s.Context(), user, jti)
			if err != nil || revoked != want || !reflect.DeepEqual(bearer, profile) {
				s.Errorf("token %q of %+v: %+v, revoked %t, %v; want %t", jti, profile, bearer, revoked, err, want)
			}
		}
		if _, _, err := s.Storage.Bearer(s.Context(), learning.NewID[learning.Profile](), "other"); !errors.Is(err, learning.ErrNoRow) {
			s.Errorf("an unknown user's token: error is %v, want ErrNoRow", err)
		}
	}},
}

func clientsView(s *suite, p learning.Profile) string {
	s.Helper()
	return string(must[[]byte](s)(learning.AppendJSON(nil, p.View())))
}
