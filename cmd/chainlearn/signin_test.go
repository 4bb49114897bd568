package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stellar/go-stellar-sdk/keypair"
	"github.com/stellar/go-stellar-sdk/network"
	"github.com/stellar/go-stellar-sdk/txnbuild"

	"github.com/chainlearn/chainlearn/internal/openapi/openapitest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// wallet is a learner's: it holds a key, and sends each request to the next replica.
type wallet struct {
	t         *testing.T
	pair      *keypair.Full
	processes []*process
	sent      int
	token     string
}

func newWallet(t *testing.T, processes ...*process) *wallet {
	t.Helper()
	pair, err := keypair.Random()
	testservers.Must(t, err)
	return &wallet{t: t, pair: pair, processes: processes}
}

// send returns the status and what is in data.
func (w *wallet) send(method, path string, body any) (int, json.RawMessage) {
	w.t.Helper()
	w.sent++
	return w.sendTo(w.processes[w.sent%len(w.processes)], method, path, body)
}

func (w *wallet) sendTo(p *process, method, path string, body any) (int, json.RawMessage) {
	w.t.Helper()
	text := ""
	if body != nil {
		b, err := json.Marshal(body)
		testservers.Must(w.t, err)
		text = string(b)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, p.api+path, strings.NewReader(text))
	testservers.Must(w.t, err)
	if w.token != "" {
		req.Header.Set("Authorization", "Bearer "+w.token)
	}
	res, err := http.DefaultClient.Do(req)
	testservers.Must(w.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	testservers.Must(w.t, err)
	testservers.Must(w.t, openapitest.Check(req, text, res.StatusCode, res.Header, raw))
	var answer struct {
		Data    json.RawMessage
		Message string
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		w.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, raw)
	}
	if answer.Data == nil {
		answer.Data = raw
	}
	return res.StatusCode, answer.Data
}

// do sends a request that must succeed, and decodes the data.
func (w *wallet) do(into any, status int, method, path string, body any) {
	w.t.Helper()
	got, data := w.send(method, path, body)
	if got != status {
		w.t.Fatalf("%s %s: %d %s, want %d", method, path, got, data, status)
	}
	if into != nil {
		testservers.Must(w.t, json.Unmarshal(data, into))
	}
}

type fields = map[string]any

// signedChallenge returns the request that ends a sign-in.
func (w *wallet) signedChallenge() fields {
	w.t.Helper()
	var c struct{ Challenge, ChallengeID, NetworkPassphrase string }
	w.do(&c, http.StatusOK, "POST", "/auth/challenge", fields{"stellarAddress": w.pair.Address()})
	parsed, err := txnbuild.TransactionFromXDR(c.Challenge)
	testservers.Must(w.t, err)
	tx, _ := parsed.Transaction()
	if c.NetworkPassphrase != network.TestNetworkPassphrase {
		w.t.Errorf("the network is %q", c.NetworkPassphrase)
	}
	tx, err = tx.Sign(c.NetworkPassphrase, w.pair)
	testservers.Must(w.t, err)
	signed, err := tx.Base64()
	testservers.Must(w.t, err)
	return fields{"stellarAddress": w.pair.Address(), "challengeId": c.ChallengeID, "signedChallenge": signed}
}

func (w *wallet) signIn() (isNew bool) {
	w.t.Helper()
	body := w.signedChallenge()
	var session struct {
		Token string
		User  struct{ IsNewUser bool }
	}
	w.do(&session, http.StatusOK, "POST", "/auth/verify", body)
	for range w.processes { // the same again, to each replica
		if status, data := w.send("POST", "/auth/verify", body); status != http.StatusUnauthorized {
			w.t.Errorf("replayed: %d %s", status, data)
		}
	}
	w.token = session.Token
	return session.User.IsNewUser
}

const (
	walletCourse = "00000000-0000-4000-8000-00000000c001"
	walletSchool = `INSERT INTO courses (id, title) VALUES ('` + walletCourse + `', 'Course')`
	walletQuiz   = `INSERT INTO quizzes (course_id, module_id, questions) VALUES ('` + walletCourse + `', 'module-1',
		'[{"id":"q1","text":"?","options":["right","wrong"],"correctIndex":0},{"id":"q2","text":"?","options":["right","wrong"],"correctIndex":0}]')`
)

// learn is everything that a learner does, from the first sign-in to the logout.
func (w *wallet) learn() {
	w.t.Helper()
	if !w.signIn() {
		w.t.Error("the first sign-in is of a known user")
	}
	w.do(nil, http.StatusCreated, "POST", "/courses/"+walletCourse+"/enroll", nil)
	var course struct{ IsEnrolled bool }
	w.do(&course, http.StatusOK, "GET", "/courses/"+walletCourse, nil)
	var quiz struct {
		ID        string
		Questions []struct{ ID string }
	}
	w.do(&quiz, http.StatusCreated, "POST", "/quizzes/generate", fields{"courseId": walletCourse, "moduleId": "module-1"})
	var answers []fields
	for _, q := range quiz.Questions {
		answers = append(answers, fields{"questionId": q.ID, "selectedIndex": 0})
	}
	var result struct {
		ID     string
		Passed bool
	}
	w.do(&result, http.StatusOK, "POST", "/quizzes/"+quiz.ID+"/submit", fields{"answers": answers})
	if !course.IsEnrolled || !result.Passed {
		w.t.Errorf("enrolled %t, passed %t", course.IsEnrolled, result.Passed)
	}
	w.do(nil, http.StatusOK, "POST", "/rewards/claim", fields{"submissionId": result.ID, "idempotencyKey": "reward-1"})
	w.do(nil, http.StatusCreated, "POST", "/credentials/mint", fields{"courseId": walletCourse, "submissionId": result.ID, "idempotencyKey": "credential-1"})
	for range w.processes {
		var progress struct{ EnrolledCourses, CompletedCourses, CredentialsEarned, RewardsClaimed int }
		w.do(&progress, http.StatusOK, "GET", "/users/me/progress", nil)
		if progress.EnrolledCourses != 1 || progress.CompletedCourses != 1 || progress.CredentialsEarned != 1 || progress.RewardsClaimed != 1 {
			w.t.Errorf("progress: %+v", progress)
		}
		var me struct {
			StellarAddress string
			Credits        int
		}
		w.do(&me, http.StatusOK, "GET", "/users/me", nil)
		if me.StellarAddress != w.pair.Address() || me.Credits == 0 {
			w.t.Errorf("the profile: %+v", me)
		}
	}
	w.do(nil, http.StatusOK, "POST", "/auth/logout", nil)
	w.wantLoggedOut("after the logout")
	if w.token = ""; w.signIn() {
		w.t.Error("the second sign-in is of a new user")
	}
}

// wantLoggedOut asks every replica whether it still takes the token.
func (w *wallet) wantLoggedOut(when string) {
	w.t.Helper()
	for i, p := range w.processes {
		if status, data := w.sendTo(p, "GET", "/users/me", nil); status != http.StatusUnauthorized {
			w.t.Errorf("%s, replica %d: %d %s", when, i, status, data)
		}
	}
}

func TestWalletOnEmbeddedDatabase(t *testing.T) {
	t.Parallel()
	dir, db := migrated(t)
	for _, statement := range []string{walletSchool, walletQuiz} {
		_, err := db.Exec(statement)
		testservers.Must(t, err)
	}
	newWallet(t, serve(t, dir, nil)).learn()
}

// school adds what wallets learn from to the database of a fleet.
func (f *fleet) school() {
	f.t.Helper()
	db, err := pgx.Connect(f.t.Context(), f.database)
	testservers.Must(f.t, err)
	defer db.Close(context.WithoutCancel(f.t.Context()))
	for _, statement := range []string{walletSchool, walletQuiz} {
		_, err := db.Exec(f.t.Context(), statement)
		testservers.Must(f.t, err)
	}
}

// Two replicas are one service for wallets, whichever of them a request reaches, also while
// Redis is away.
func TestWalletsOfAFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, nil)
	f.school()
	newWallet(t, f.processes...).learn()

	// Many first sign-ins at once, with one challenge each and with the same.
	crowd := newWallet(t, f.processes...)
	bodies := []fields{crowd.signedChallenge(), crowd.signedChallenge(), crowd.signedChallenge()}
	var mu sync.Mutex
	created, signedIn := 0, 0
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			w := &wallet{t: t, pair: crowd.pair}
			status, data := w.sendTo(f.processes[i%2], "POST", "/auth/verify", bodies[i%len(bodies)])
			var session struct{ User struct{ IsNewUser bool } }
			mu.Lock()
			defer mu.Unlock()
			switch {
			case status == http.StatusUnauthorized:
			case status != http.StatusOK || json.Unmarshal(data, &session) != nil:
				t.Errorf("%d %s", status, data)
			default:
				signedIn++
				if session.User.IsNewUser {
					created++
				}
			}
		})
	}
	wg.Wait()
	if created != 1 || signedIn != len(bodies) {
		t.Errorf("%d users were created by %d sign-ins, want 1 by %d", created, signedIn, len(bodies))
	}

	// A user who is deleted, by any program, bears no token any more.
	gone := newWallet(t, f.processes...)
	gone.signIn()
	for range 4 { // also from the cache
		gone.do(nil, http.StatusOK, "GET", "/users/me", nil)
	}
	f.psql().run(`DELETE FROM users WHERE stellar_address = '%s'`, gone.pair.Address())
	f.waitSeen(time.Now(), expectation{path: "/users/me", token: gone.token, status: http.StatusUnauthorized})

	// While Redis is away, each replica that answers has asked the database.
	w, early := newWallet(t, f.processes...), newWallet(t, f.processes...)
	w.signIn()
	early.signIn()
	for range 4 {
		w.do(nil, http.StatusOK, "GET", "/users/me", nil)
		early.do(nil, http.StatusOK, "GET", "/users/me", nil)
	}
	testservers.Must(t, f.redis.Kill())
	early.do(nil, http.StatusOK, "POST", "/auth/logout", nil) // before any replica knows
	early.wantLoggedOut("at the moment that Redis stops")
	newWallet(t, f.processes...).learn()
	w.do(nil, http.StatusOK, "POST", "/auth/logout", nil)
	w.wantLoggedOut("while Redis is away")
	testservers.Must(t, f.redis.Restart(t.Context()))
	for _, p := range f.processes {
		testservers.Eventually(t, 30*time.Second, func() (bool, string) {
			w.wantLoggedOut("while Redis comes back")
			early.wantLoggedOut("while Redis comes back")
			_, _, body := p.get(strings.TrimSuffix(p.api, "/api/v1") + "/health/ready")
			return strings.Contains(body, `"status":"ok"`), body
		})
	}
	w.wantLoggedOut("when Redis is back")
	early.wantLoggedOut("when Redis is back")
}

// Replicas count requests together, and each for itself while Redis is away.
func TestRateLimitOfAFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 0, nil)
	f.env["RATE_LIMIT_SIGN_IN"], f.env["RATE_LIMIT_WINDOW"] = "6", "1h"
	f.start()
	f.start()
	w := newWallet(t, f.processes...)
	refusals := func(n int) (refused int) {
		for range n {
			if status, _ := w.send("POST", "/auth/challenge", fields{"stellarAddress": w.pair.Address()}); status == http.StatusTooManyRequests {
				refused++
			}
		}
		return refused
	}
	unshared := func() bool {
		for _, p := range f.processes {
			if _, _, page := p.get(p.private + "/metrics"); !strings.Contains(page, "http_rate_limit_unshared_total 0\n") {
				return true
			}
		}
		return false
	}
	// On a busy machine Redis may seem to be away for a moment, which is counted.
	if n := refusals(10); n != 4 && !unshared() {
		t.Errorf("of 10 requests to two replicas %d were refused, want 4", n)
	}
	testservers.Must(t, f.redis.Kill())
	if n := refusals(20); n < 8 || n > 20 {
		t.Errorf("of 20 requests without Redis %d were refused", n)
	}
	if !unshared() {
		t.Error("no request was counted as one that is not shared")
	}
	for i, p := range f.processes {
		log := p.stderr.String()
		if n := strings.Count(log, "requests are counted in each process for itself") - strings.Count(log, "for all processes together again"); n != 1 {
			t.Errorf("replica %d said so %d times, want once:\n%s", i, n, log)
		}
	}
}

// Replicas that disagree about who signs challenges refuse each other's, and say so.
func TestChallengeOfAnotherKey(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	other, err := keypair.Random()
	testservers.Must(t, err)
	f.env["STELLAR_SERVER_KEY"] = other.Seed()
	f.start()
	w := newWallet(t, f.processes[0])
	if status, data := w.sendTo(f.processes[1], "POST", "/auth/verify", w.signedChallenge()); status != http.StatusUnauthorized || !strings.Contains(string(data), "not valid") {
		t.Errorf("%d %s", status, data)
	}
	for i, address := range []string{"", other.Address()} {
		if log := f.processes[i].stderr.String(); !strings.Contains(log, "signingKey=G") || !strings.Contains(log, fmt.Sprint(address)) {
			t.Errorf("replica %d does not name its key:\n%s", i, log)
		}
	}
}
