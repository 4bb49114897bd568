package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellar/go-stellar-sdk/keypair"
	"github.com/stellar/go-stellar-sdk/txnbuild"

	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/sep10"
)

// wallet signs challenges with a key.
type wallet struct {
	t    *testing.T
	pair *keypair.Full
}

func newWallet(t *testing.T) wallet {
	t.Helper()
	pair, err := keypair.Random()
	must(t, err)
	return wallet{t, pair}
}

type challenge struct{ Challenge, ChallengeID, NetworkPassphrase string }

func (s *testService) challenge(w wallet) challenge {
	s.t.Helper()
	return data[challenge](s.t, s.mutate("POST", "/auth/challenge", "", fmt.Sprintf(`{"stellarAddress":%q}`, w.pair.Address())))
}

// answer is the body of the request that ends a sign-in.
func (w wallet) answer(c challenge) string {
	w.t.Helper()
	parsed, err := txnbuild.TransactionFromXDR(c.Challenge)
	must(w.t, err)
	tx, _ := parsed.Transaction()
	tx, err = tx.Sign(c.NetworkPassphrase, w.pair)
	must(w.t, err)
	signed, err := tx.Base64()
	must(w.t, err)
	return verifyBody(w.pair.Address(), c.ChallengeID, signed)
}

func verifyBody(address, id, signed string) string {
	body, _ := json.Marshal(object{"stellarAddress": address, "challengeId": id, "signedChallenge": signed})
	return string(body)
}

type session struct {
	Token string
	User  struct {
		ID, StellarAddress string
		DisplayName        *string
		IsNewUser          bool
	}
}

func (s *testService) signInAs(w wallet) session {
	s.t.Helper()
	return data[session](s.t, s.mutate("POST", "/auth/verify", "", w.answer(s.challenge(w))))
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	s, w := start(t), newWallet(t)
	first := s.signInAs(w)
	if first.User.StellarAddress != w.pair.Address() || !first.User.IsNewUser || first.User.DisplayName != nil {
		t.Errorf("the first time: %+v", first.User)
	}
	profile := data[learning.Profile](t, s.do(request{path: "/users/me", token: first.Token}))
	if profile.ID.String() != first.User.ID || profile.StellarAddress != w.pair.Address() || profile.Pace != learning.Medium || profile.Credits != 0 {
		t.Errorf("the profile: %+v", profile)
	}
	s.externalWrite(`UPDATE users SET display_name = 'Ada' WHERE stellar_address = ?`, w.pair.Address())
	second := s.signInAs(w)
	if second.User.ID != first.User.ID || second.User.IsNewUser || second.User.DisplayName == nil || *second.User.DisplayName != "Ada" || second.Token == first.Token {
		t.Errorf("the second time: %+v", second.User)
	}
	if other := s.signInAs(newWallet(t)); other.User.ID == first.User.ID || !other.User.IsNewUser {
		t.Errorf("another: %+v", other.User)
	}
}

// wantProblem fails unless a response has a status and says something.
func wantProblem(t *testing.T, res response, status int, says string) {
	t.Helper()
	if res.status != status || !strings.Contains(string(res.raw), says) {
		t.Errorf("%d %s, want %d with %q", res.status, res.raw, status, says)
	}
}

func TestSignInRefuses(t *testing.T) {
	t.Parallel()
	s, w, eve := start(t), newWallet(t), newWallet(t)
	post := func(path, body string) response {
		return s.do(request{method: "POST", path: path, body: body})
	}
	address := w.pair.Address()
	for body, says := range map[string]string{
		``:                       "must be a JSON object",
		`{}`:                     "stellarAddress: is required",
		`{"stellarAddress":7}`:   "stellarAddress: must be a text",
		`{"stellarAddress":""}`:  "stellarAddress: must be the address of a Stellar account",
		`{"stellarAddress":"G"}`: "stellarAddress: must be the address of a Stellar account",
		`{"stellarAddress":"MA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJUAAAAAAAAAAAACJUQ"}`: "Muxed accounts (M…), memos and contracts",
		fmt.Sprintf(`{"stellarAddress":%q,"memo":"7"}`, address):                                     "memo: is not supported",
		fmt.Sprintf(`{"stellarAddress":%q,"client_domain":"w.example"}`, address):                    "client_domain: is not supported",
		fmt.Sprintf(`{"stellarAddress":%q}`, strings.Repeat("G", 99_000)):                            "stellarAddress: must be",
	} {
		wantProblem(t, post("/auth/challenge", body), http.StatusBadRequest, says)
	}
	wantProblem(t, post("/auth/challenge", strings.Repeat(" ", 200<<10)), http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	wantProblem(t, post("/auth/verify", `{"signedChallenge":"`+strings.Repeat("A", 200<<10)+`"}`), http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")

	c := s.challenge(w)
	if res := post("/auth/verify", `{}`); res.status != http.StatusBadRequest || len(res.body.Details["body"]) != 3 {
		t.Errorf("nothing: %d %s", res.status, res.raw)
	}
	for name, tt := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"not signed":             {verifyBody(address, c.ChallengeID, c.Challenge), 401, "The signed challenge is not valid"},
		"signed by another":      {strings.Replace(eve.answer(c), eve.pair.Address(), address, 1), 401, "The signed challenge is not valid"},
		"of another address":     {eve.answer(c), 401, "The signed challenge is not valid"},
		"of another ID":          {strings.Replace(w.answer(c), c.ChallengeID, s.challenge(w).ChallengeID, 1), 401, "The signed challenge is not valid"},
		"an ID that is none":     {verifyBody(address, "7", c.Challenge), 400, "challengeId: must be a UUID"},
		"an envelope of rubbish": {verifyBody(address, c.ChallengeID, "rubbish"), 400, "signedChallenge: must be"},
		"an address of rubbish":  {verifyBody("rubbish", c.ChallengeID, c.Challenge), 400, "stellarAddress: must be"},
		"an envelope of 90 KB":   {verifyBody(address, c.ChallengeID, strings.Repeat("AAAA", 22_000)), 400, "signedChallenge: must be"},
	} {
		t.Run(name, func(t *testing.T) {
			wantProblem(t, post("/auth/verify", tt.body), tt.status, tt.says)
		})
	}
	// What failed has not used the challenge. In capitals it is the same ID.
	s.mutate("POST", "/auth/verify", "", strings.Replace(w.answer(c), c.ChallengeID, strings.ToUpper(c.ChallengeID), 1))
	wantProblem(t, post("/auth/verify", w.answer(c)), http.StatusUnauthorized, "The challenge has been used")
	if n := s.count(`SELECT count(*) FROM users WHERE stellar_address IN (?, ?)`, address, eve.pair.Address()); n != 1 {
		t.Errorf("%d users were created, want 1", n)
	}
}

func (s *testService) count(query string, args ...any) (n int) {
	s.t.Helper()
	must(s.t, s.db.QueryRowContext(s.t.Context(), query, args...).Scan(&n))
	return n
}

func TestSignInExpires(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s, w := startWith(t, learning.Config{Now: now}), newWallet(t)
	c, used := s.challenge(w), s.challenge(w)
	s.mutate("POST", "/auth/verify", "", w.answer(used))
	ahead.Store(int64(sep10.ChallengeTTL))
	wantProblem(t, s.do(request{method: "POST", path: "/auth/verify", body: w.answer(c)}), http.StatusUnauthorized, "The challenge has expired")
	ahead.Store(0)
	s.mutate("POST", "/auth/verify", "", w.answer(c)) // a refusal has not used it

	// What a process forgets whose clock is ahead, no other takes again.
	must(t, s.storage.Write(t.Context(), func(ctx context.Context, tx learning.Tx) error {
		return tx.UseChallenge(ctx, learning.NewID[learning.Challenge](), time.Now(), time.Now().Add(sep10.ChallengeTTL+30*time.Minute))
	}))
	wantProblem(t, s.do(request{method: "POST", path: "/auth/verify", body: w.answer(used)}), http.StatusUnauthorized, "The challenge has been used")
}

// Of many requests with one challenge, one signs in; of many first sign-ins with an address, one
// creates the user.
func TestSignInAtOnce(t *testing.T) {
	t.Parallel()
	s, w := start(t, withCrowd), newWallet(t)
	same := w.answer(s.challenge(w))
	var bodies []string
	for range 8 {
		bodies = append(bodies, same, w.answer(s.challenge(w)))
	}
	var mu sync.Mutex
	var created, ofSame int
	var ids []string
	var wg sync.WaitGroup
	for _, body := range bodies {
		wg.Go(func() {
			res, err := s.try(request{method: "POST", path: "/auth/verify", body: body})
			mu.Lock()
			defer mu.Unlock()
			var got session
			switch {
			case err != nil:
				t.Error(err)
			case res.status == http.StatusUnauthorized && body == same:
			case res.status != http.StatusOK || json.Unmarshal(res.body.Data, &got) != nil:
				t.Errorf("%d %s", res.status, res.raw)
			default:
				ids = append(ids, got.User.ID)
				if got.User.IsNewUser {
					created++
				}
				if body == same {
					ofSame++
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(ids)
	if created != 1 || ofSame != 1 || len(slices.Compact(ids)) != 1 {
		t.Errorf("%d created, %d signed in with the same challenge, users %v", created, ofSame, ids)
	}
}

func TestLogout(t *testing.T) {
	t.Parallel()
	s, w := start(t), newWallet(t)
	session, other := s.signInAs(w), s.signInAs(w)
	me := func(token string) response { return s.do(request{path: "/users/me", token: token}) }
	for range 2 { // the second from the cache
		if res := me(session.Token); res.status != http.StatusOK {
			t.Fatalf("before: %d %s", res.status, res.raw)
		}
	}
	out := func() response { return s.do(request{method: "POST", path: "/auth/logout", token: session.Token}) }
	res := out()
	if got := data[struct{ Message string }](t, res); res.status != http.StatusOK || got.Message != "Logged out" {
		t.Errorf("logout: %d %s", res.status, res.raw)
	}
	wantProblem(t, me(session.Token), http.StatusUnauthorized, "UNAUTHORIZED")
	wantProblem(t, out(), http.StatusUnauthorized, "UNAUTHORIZED")
	wantProblem(t, s.do(request{method: "POST", path: "/auth/logout"}), http.StatusUnauthorized, "A token is required")
	if res := s.do(request{path: "/courses", token: session.Token}); res.status != http.StatusOK {
		t.Errorf("the catalogue with a token that has ended: %d", res.status)
	}
	if res := me(other.Token); res.status != http.StatusOK {
		t.Errorf("another token of the same user: %d %s", res.status, res.raw)
	}

	// A user who is deleted bears no token any more, whatever the cache holds.
	if res := s.do(request{path: "/users/me/progress", token: other.Token}); res.status != http.StatusOK {
		t.Errorf("before: %d", res.status)
	}
	s.externalWrite(`DELETE FROM users WHERE stellar_address = ?`, w.pair.Address())
	eventually(t, 5*time.Second, func() string {
		if res := me(other.Token); res.status != http.StatusUnauthorized {
			return fmt.Sprintf("of a user who was deleted: %d", res.status)
		}
		return ""
	})
	again := s.signInAs(w)
	if !again.User.IsNewUser || again.User.ID == other.User.ID {
		t.Errorf("the address again: %+v", again.User)
	}
	wantProblem(t, me(other.Token), http.StatusUnauthorized, "UNAUTHORIZED")
}

// A token ends although the cache is out of reach, and stays ended when the cache is back.
func TestLogoutWhileTheCacheIsAway(t *testing.T) {
	t.Parallel()
	s, w := start(t), newWallet(t)
	session := s.signInAs(w)
	for range 2 {
		if res := s.do(request{path: "/users/me", token: session.Token}); res.status != http.StatusOK {
			t.Fatalf("before: %d %s", res.status, res.raw)
		}
	}
	s.store.Hang()
	s.mutateAs("POST", "/auth/logout", session.Token)
	wantProblem(t, s.do(request{path: "/users/me", token: session.Token}), http.StatusUnauthorized, "UNAUTHORIZED")
	s.store.Heal()
	for began := time.Now(); s.cache.Health().State != "ok"; {
		wantProblem(t, s.do(request{path: "/users/me", token: session.Token}), http.StatusUnauthorized, "UNAUTHORIZED")
		if time.Since(began) > 20*time.Second {
			t.Fatal("the cache does not recover")
		}
	}
	wantProblem(t, s.do(request{path: "/users/me", token: session.Token}), http.StatusUnauthorized, "UNAUTHORIZED")
}

func (s *testService) mutateAs(method, path, token string) {
	s.t.Helper()
	if res := s.do(request{method: method, path: path, token: token}); res.status != http.StatusOK {
		s.t.Fatalf("%s %s: %d %s", method, path, res.status, res.raw)
	}
}
