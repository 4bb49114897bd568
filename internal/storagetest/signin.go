package storagetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// address returns a text that has the length of a Stellar address.
func address(n int) string { return fmt.Sprintf("GA%054d", n) }

var signInRules = []rule{
	{"a challenge is used once", func(s *suite) {
		id, other := learning.NewID[learning.Challenge](), learning.NewID[learning.Challenge]()
		use := func(id learning.ChallengeID) error {
			return s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error {
				return tx.UseChallenge(ctx, id, day(2), day(1))
			})
		}
		if err := use(id); err != nil {
			s.Fatal(err)
		}
		if err := use(id); !errors.Is(err, learning.ErrExists) {
			s.Errorf("again: %v, want ErrExists", err)
		}
		if err := use(other); err != nil {
			s.Errorf("another: %v", err)
		}
	}},
	{"a challenge of a transaction that fails is not used", func(s *suite) {
		id, failure := learning.NewID[learning.Challenge](), errors.New("failure")
		err := s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error {
			return errors.Join(tx.UseChallenge(ctx, id, day(2), day(1)), failure)
		})
		if !errors.Is(err, failure) {
			s.Fatal(err)
		}
		s.write(func(ctx context.Context, tx learning.Tx) error { return tx.UseChallenge(ctx, id, day(2), day(1)) })
	}},
	{"of many that use a challenge at once, one may", func(s *suite) {
		id := learning.NewID[learning.Challenge]()
		var used atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				err := s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error {
					return tx.UseChallenge(ctx, id, day(2), day(1))
				})
				if err == nil {
					used.Add(1)
				} else if !errors.Is(err, learning.ErrExists) {
					s.Error(err)
				}
			})
		}
		wg.Wait()
		if n := used.Load(); n != 1 {
			s.Errorf("%d have used it, want 1", n)
		}
	}},
	{"a user is created once, and found again", func(s *suite) {
		ensure := func(address string, at int) (p learning.Profile, created bool) {
			s.write(func(ctx context.Context, tx learning.Tx) (err error) {
				p, created, err = tx.EnsureUser(ctx, address, day(at))
				return err
			})
			return p, created
		}
		first, created := ensure(address(1), 1)
		want := learning.Profile{ID: first.ID, StellarAddress: address(1), Pace: learning.Medium, Language: "en", CreatedAt: first.CreatedAt}
		if !created || !reflect.DeepEqual(first, want) || !first.CreatedAt.Equal(day(1)) {
			s.Errorf("created %t: %+v, want %+v of %v", created, first, want, day(1))
		}
		if got := must[learning.Profile](s)(s.Storage.Profile(s.Context(), first.ID)); !reflect.DeepEqual(got, first) {
			s.Errorf("it was stored as %+v", got)
		}
		if again, created := ensure(address(1), 2); created || !reflect.DeepEqual(again, first) {
			s.Errorf("again: created %t, %+v", created, again)
		}
		if other, created := ensure(address(2), 2); !created || other.ID == first.ID {
			s.Errorf("another address: created %t, %+v", created, other)
		}
	}},
	{"of many first sign-ins at once, one creates the user", func(s *suite) {
		var created atomic.Int32
		var ids sync.Map
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				var p learning.Profile
				var isNew bool
				err := s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) (err error) {
					p, isNew, err = tx.EnsureUser(ctx, address(1), day(1))
					return err
				})
				if err != nil {
					s.Error(err)
				}
				if isNew {
					created.Add(1)
				}
				ids.Store(p.ID, true)
			})
		}
		wg.Wait()
		different := 0
		ids.Range(func(any, any) bool { different++; return true })
		if n := created.Load(); n != 1 || different != 1 {
			s.Errorf("%d users were created, and %d seen", n, different)
		}
	}},
	{"a token may be revoked again", func(s *suite) {
		user := s.user()
		for range 2 {
			s.write(func(ctx context.Context, tx learning.Tx) error { return tx.RevokeToken(ctx, "jti", day(2), day(1)) })
			if _, revoked, err := s.Storage.Bearer(s.Context(), user, "jti"); err != nil || !revoked {
				s.Errorf("revoked %t, %v", revoked, err)
			}
		}
	}},
	{"what has expired is forgotten little by little, and nothing else", func(s *suite) {
		user := s.user()
		const old = 25
		oldChallenges := make([]learning.ChallengeID, old)
		for i := range old {
			oldChallenges[i] = learning.NewID[learning.Challenge]()
			s.insert("revoked_tokens", "jti", fmt.Sprint("old ", i), "expires_at", day(1))
			s.insert("used_challenges", "id", oldChallenges[i].UUID, "expires_at", day(1))
		}
		s.insert("revoked_tokens", "jti", "valid", "expires_at", day(3))
		used := learning.NewID[learning.Challenge]()
		s.insert("used_challenges", "id", used.UUID, "expires_at", day(3))
		revoked := func(jti string) bool {
			_, revoked, err := s.Storage.Bearer(s.Context(), user, jti)
			return must[bool](s)(revoked, err)
		}
		left := func() (n int) {
			for i := range old {
				if revoked(fmt.Sprint("old ", i)) {
					n++
				}
			}
			return n
		}
		for i, want := range []int{15, 5, 0, 0} {
			s.write(func(ctx context.Context, tx learning.Tx) error {
				return errors.Join(
					tx.RevokeToken(ctx, fmt.Sprint("new ", i), day(3), day(2)),
					tx.UseChallenge(ctx, learning.NewID[learning.Challenge](), day(3), day(2)))
			})
			if n := left(); n != want {
				s.Errorf("after %d revocations %d expired ones are left, want %d", i+1, n, want)
			}
		}
		for _, jti := range []string{"valid", "new 0", "new 3"} {
			if !revoked(jti) {
				s.Errorf("%q is forgotten before its time", jti)
			}
		}
		err := s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error {
			return tx.UseChallenge(ctx, used, day(3), day(2))
		})
		if !errors.Is(err, learning.ErrExists) {
			s.Errorf("a used challenge is forgotten before its time: %v", err)
		}
		for i, id := range oldChallenges {
			s.write(func(ctx context.Context, tx learning.Tx) error {
				if err := tx.UseChallenge(ctx, id, day(3), day(2)); err != nil {
					s.Errorf("expired challenge %d is still there: %v", i, err)
				}
				return nil
			})
		}
	}},
}
