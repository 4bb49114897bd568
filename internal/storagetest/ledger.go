package storagetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/chainlearn/chainlearn/internal/learning"
)

var ledgerRules = []rule{
	{"history shows claimed rewards, newest claim first", func(s *suite) {
		user, course := s.user(), s.course("title", "Título")
		var quizzes []learning.QuizID
		for i := range 6 {
			quizzes = append(quizzes, s.quiz(course, learning.ModuleID(fmt.Sprintf("module-%d", i)), 10, user))
		}
		first := s.claim(quizzes[0], user, 9, day(1))
		tied := []learning.SubmissionID{s.claim(quizzes[1], user, 8, day(2)), s.claim(quizzes[2], user, 8, day(2))}
		last := s.submission(quizzes[3], user, 7, "reward_claimed", true, "reward_amount", 25, "claimed_at", day(3), "tx_hash", "0xabc")
		s.submission(quizzes[4], user, 10)
		s.submission(quizzes[5], user, 10, "reward_pending", true)
		other := s.user()
		s.claim(quizzes[0], other, 10, day(4))
		slices.SortFunc(tied, compareIDs)

		s.wantRewards(learning.RewardParams{User: user, Page: 1, Limit: 20}, 4, last, tied[0], tied[1], first)
		page := must[learning.RewardPage](s)(s.Storage.RewardHistory(s.Context(), learning.RewardParams{User: user, Page: 1, Limit: 1}))
		want := learning.Reward{ID: last, CourseTitle: "Título", Score: 7, Amount: 25, TxHash: new("0xabc"), ClaimedAt: day(3)}
		if len(page.Rewards) != 1 || !page.Rewards[0].ClaimedAt.Equal(want.ClaimedAt) {
			s.Fatalf("got %+v, want %+v", page.Rewards, want)
		}
		page.Rewards[0].ClaimedAt = want.ClaimedAt
		if !reflect.DeepEqual(page.Rewards[0], want) {
			s.Errorf("got %+v, want %+v", page.Rewards[0], want)
		}
	}},
	{"pages of a history neither overlap nor leave gaps", func(s *suite) {
		user, course := s.user(), s.course()
		var all []learning.SubmissionID
		for i := range 7 {
			all = append(all, s.claim(s.quiz(course, learning.ModuleID(fmt.Sprint(i)), 1, user), user, 1, day(1)))
		}
		slices.SortFunc(all, compareIDs)
		for i, want := range [][]learning.SubmissionID{all[:3], all[3:6], all[6:], {}} {
			s.wantRewards(learning.RewardParams{User: user, Page: i + 1, Limit: 3}, 7, want...)
		}
		s.wantRewards(learning.RewardParams{User: s.user(), Page: 1, Limit: 3}, 0)
	}},
	{"a claim recorded by hand needs neither time nor amount", func(s *suite) {
		user := s.user()
		id := s.submission(s.quiz(s.course(), "module-1", 1, user), user, 1, "reward_claimed", true, "submitted_at", day(6))
		page := must[learning.RewardPage](s)(s.Storage.RewardHistory(s.Context(), learning.RewardParams{User: user, Page: 1, Limit: 3}))
		if len(page.Rewards) != 1 || page.Rewards[0].ID != id || !page.Rewards[0].ClaimedAt.Equal(day(6)) || page.Rewards[0].Amount != 0 {
			s.Errorf("got %+v", page)
		}
	}},
	{"a claim is recorded", func(s *suite) {
		user := s.user()
		id := s.submission(s.quiz(s.course(), "module-1", 1, user), user, 1, "reward_failed", true)
		s.write(func(ctx context.Context, tx learning.Tx) error { return tx.MarkClaimed(ctx, id, 10, day(8)) })
		page := must[learning.RewardPage](s)(s.Storage.RewardHistory(s.Context(), learning.RewardParams{User: user, Page: 1, Limit: 3}))
		if len(page.Rewards) != 1 || page.Rewards[0].Amount != 10 || !page.Rewards[0].ClaimedAt.Equal(day(8)) || page.Rewards[0].TxHash != nil {
			s.Errorf("got %+v", page)
		}
		s.write(func(ctx context.Context, tx learning.Tx) error {
			if !must[learning.Submission](s)(tx.SubmissionForUpdate(ctx, id)).RewardClaimed {
				s.Error("the submission does not say so")
			}
			return nil
		})
		err := s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error {
			return tx.MarkClaimed(ctx, learning.NewID[learning.Submission](), 10, day(8))
		})
		if !errors.Is(err, learning.ErrNoRow) {
			s.Errorf("an unknown submission: %v, want ErrNoRow", err)
		}
	}},
	{"at most one reward flag is set", func(s *suite) {
		user := s.user()
		id := s.submission(s.quiz(s.course(), "module-1", 1, user), user, 1, "reward_claimed", true)
		if err := s.Exec(s.Context(), fmt.Sprintf(`UPDATE quiz_submissions SET reward_pending = TRUE WHERE id = '%s'`, id)); err == nil {
			s.Error("a claimed reward is pending")
		}
	}},
	{"credentials are newest first, revoked ones too", func(s *suite) {
		user := s.user()
		courses := []learning.CourseID{s.course("title", "Curso"), s.course(), s.course(), s.course()}
		old := s.credential(user, courses[0], day(1), "nft_asset_code", "CODE", "nft_issuer", "GI", "mint_tx_hash", "0x1", "revoked", true)
		tied := []learning.CredentialID{s.credential(user, courses[1], day(2)), s.credential(user, courses[2], day(2))}
		young := s.credential(user, courses[3], day(3))
		s.credential(s.user(), courses[0], day(4))
		slices.SortFunc(tied, compareIDs)
		list := must[[]learning.Credential](s)(s.Storage.Credentials(s.Context(), user))
		var got []learning.CredentialID
		for _, c := range list {
			got = append(got, c.ID)
		}
		if want := []learning.CredentialID{young, tied[0], tied[1], old}; !slices.Equal(got, want) {
			s.Fatalf("got %v, want %v", got, want)
		}
		if c := list[0]; c.NFTAssetCode != nil || c.NFTIssuer != nil || c.MintTxHash != nil || c.Revoked {
			s.Errorf("got %+v, want nulls", c)
		}
		want := learning.Credential{
			ID: old, CourseID: courses[0], CourseTitle: "Curso", Score: 90,
			NFTAssetCode: new("CODE"), NFTIssuer: new("GI"), MintTxHash: new("0x1"), Revoked: true, MintedAt: day(1),
		}
		if !list[3].MintedAt.Equal(want.MintedAt) {
			s.Errorf("minted at %v, want %v", list[3].MintedAt, want.MintedAt)
		}
		list[3].MintedAt = want.MintedAt
		if !reflect.DeepEqual(list[3], want) {
			s.Errorf("got %+v, want %+v", list[3], want)
		}
		if none := must[[]learning.Credential](s)(s.Storage.Credentials(s.Context(), s.user())); none == nil || len(none) != 0 {
			s.Errorf("a newcomer has %#v, want an empty list", none)
		}
	}},
	{"a credential is minted once per user and course", func(s *suite) {
		user, course := s.user(), s.course()
		mint := func(u learning.UserID, c learning.CourseID) error {
			return s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error {
				return tx.InsertCredential(ctx, u, learning.Credential{
					ID: learning.NewID[learning.Credential](), CourseID: c, Score: 88, NFTAssetCode: new("C1"), MintedAt: day(3),
				})
			})
		}
		if err := mint(user, course); err != nil {
			s.Fatal(err)
		}
		if err := mint(user, course); !errors.Is(err, learning.ErrExists) {
			s.Errorf("the second time: %v, want ErrExists", err)
		}
		if err := errors.Join(mint(s.user(), course), mint(user, s.course())); err != nil {
			s.Error(err)
		}
		if err := mint(user, learning.NewID[learning.Course]()); !errors.Is(err, learning.ErrNoRow) {
			s.Errorf("for no course: %v, want ErrNoRow", err)
		}
		list := must[[]learning.Credential](s)(s.Storage.Credentials(s.Context(), user))
		if len(list) != 2 || *list[0].NFTAssetCode != "C1" || !list[0].MintedAt.Equal(day(3)) || list[0].Score != 88 {
			s.Errorf("got %+v", list)
		}
	}},
	{"an answer is remembered under its key until it expires", func(s *suite) {
		user := s.user()
		key := learning.IdempotencyKey{Key: "k-1", User: user, Endpoint: "rewards/claim"}
		expires := day(2)
		want := learning.StoredResponse{RequestHash: "abc", Status: 201, Body: []byte(`{"a": [1, "é"]}`), ExpiresAt: expires}
		s.wantStoredResponse(key, day(1), nil)
		s.write(func(ctx context.Context, tx learning.Tx) error { return tx.StoreResponse(ctx, key, want, day(1)) })
		s.wantStoredResponse(key, day(1), &want)
		s.wantStoredResponse(key, expires.Add(-time.Millisecond), &want)
		s.wantStoredResponse(key, expires, nil)
		s.wantStoredResponse(learning.IdempotencyKey{Key: "k-2", User: user, Endpoint: "rewards/claim"}, day(1), nil)
		s.wantStoredResponse(learning.IdempotencyKey{Key: "k-1", User: s.user(), Endpoint: "rewards/claim"}, day(1), nil)
		s.wantStoredResponse(learning.IdempotencyKey{Key: "k-1", User: user, Endpoint: "credentials/mint"}, day(1), nil)

		next := learning.StoredResponse{RequestHash: "def", Status: 200, Body: []byte(`{}`), ExpiresAt: day(4)}
		err := s.Storage.Write(s.Context(), func(ctx context.Context, tx learning.Tx) error { return tx.StoreResponse(ctx, key, next, day(1)) })
		if !errors.Is(err, learning.ErrExists) {
			s.Errorf("a key in use: %v, want ErrExists", err)
		}
		s.write(func(ctx context.Context, tx learning.Tx) error { return tx.StoreResponse(ctx, key, next, day(3)) })
		s.wantStoredResponse(key, day(3), &next)
	}},
	{"expired keys do not pile up", func(s *suite) {
		user := s.user()
		remember := func(name string, now time.Time) {
			s.write(func(ctx context.Context, tx learning.Tx) error {
				return tx.StoreResponse(ctx, learning.IdempotencyKey{Key: name, User: user, Endpoint: "rewards/claim"},
					learning.StoredResponse{RequestHash: "h", Status: 200, Body: []byte(`{}`), ExpiresAt: now.AddDate(0, 0, 1)}, now)
			})
		}
		for i := range 5 {
			remember(fmt.Sprint("old", i), day(1))
		}
		remember("live", day(5))
		for i := range 5 { // would be refused if the old keys were there
			remember(fmt.Sprint("old", i), day(1))
		}
		s.wantStoredResponse(learning.IdempotencyKey{Key: "live", User: user, Endpoint: "rewards/claim"}, day(5),
			&learning.StoredResponse{RequestHash: "h", Status: 200, Body: []byte(`{}`), ExpiresAt: day(6)})
	}},
}

func (s *suite) wantRewards(p learning.RewardParams, total int, ids ...learning.SubmissionID) {
	s.Helper()
	page := must[learning.RewardPage](s)(s.Storage.RewardHistory(s.Context(), p))
	if page.Rewards == nil {
		s.Errorf("%+v: rewards are nil", p)
	}
	got := make([]learning.SubmissionID, len(page.Rewards))
	for i, r := range page.Rewards {
		got[i] = r.ID
	}
	if fmt.Sprint(got) != fmt.Sprint(ids) || page.Total != total {
		s.Errorf("page %d: got %v of %d, want %v of %d", p.Page, got, page.Total, ids, total)
	}
}

// wantStoredResponse looks a key up; nil is for nothing.
func (s *suite) wantStoredResponse(key learning.IdempotencyKey, now time.Time, want *learning.StoredResponse) {
	s.Helper()
	s.write(func(ctx context.Context, tx learning.Tx) error {
		got, err := tx.StoredResponse(ctx, key, now)
		switch {
		case want == nil && !errors.Is(err, learning.ErrNoRow):
			s.Errorf("%+v at %v: %+v, %v; want ErrNoRow", key, now, got, err)
		case want == nil:
		case err != nil:
			s.Errorf("%+v at %v: %v", key, now, err)
		case got.RequestHash != want.RequestHash || got.Status != want.Status || !got.ExpiresAt.Equal(want.ExpiresAt) || !sameJSON(got.Body, want.Body):
			s.Errorf("%+v at %v: got %+v, want %+v", key, now, got, *want)
		}
		return nil
	})
}

// sameJSON lets a database that stores JSON as such reformat it.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
