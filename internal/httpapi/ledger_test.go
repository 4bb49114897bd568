package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// jti reads the ID of a token.
func jti(t *testing.T, token string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	must(t, err)
	var c struct{ Jti string }
	must(t, json.Unmarshal(b, &c))
	return c.Jti
}

// A reward is paid once, whatever races for it.
func TestRewardIsPaidOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	submission := s.passQuiz(ada, golang, "m-1")
	count := map[int]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			res, err := s.try(request{method: "POST", path: "/rewards/claim", user: ada, body: fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"key %d"}`, submission, i)})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			count[res.status]++
		})
	}
	wg.Wait()
	if count[http.StatusOK] != 1 || count[http.StatusConflict] != 19 {
		t.Errorf("answers by status: %v", count)
	}
	if got := data[struct{ Credits int }](t, s.get("/users/me", ada)).Credits; got != 10 {
		t.Errorf("%d credits, want 10", got)
	}
}

// The same request under the same key is answered as it was; another one is refused.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	first, second := s.passQuiz(ada, golang, "m-1"), s.passQuiz(ada, golang, "m-2")
	for _, tt := range []struct {
		path, body, again, other string
		status                   int
	}{
		{
			"/rewards/claim", fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"k"}`, first),
			fmt.Sprintf(`{"idempotencyKey":"k", "submissionId":%q}`, strings.ToUpper(first)), fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"k"}`, second), 200,
		},
		{
			"/credentials/mint", fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"k"}`, golang, first),
			fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"k"}`, golang, first), fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"k"}`, golang, second), 201,
		},
	} {
		var wg sync.WaitGroup
		answers := make([]response, 11)
		for i := range 10 { // even when they race
			wg.Go(func() {
				var err error
				if answers[i], err = s.try(request{method: "POST", path: tt.path, user: ada, body: tt.body}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		answers[10] = s.do(request{method: "POST", path: tt.path, user: ada, body: tt.again})
		for _, res := range answers {
			if res.status != tt.status || string(res.body.Data) != string(answers[0].body.Data) {
				t.Errorf("%s: %d %s", tt.path, res.status, res.raw)
			}
		}
		if res := s.do(request{method: "POST", path: tt.path, user: ada, body: tt.other}); res.status != http.StatusConflict {
			t.Errorf("%s: another request under the same key: %d %s", tt.path, res.status, res.raw)
		}
	}
	// The key is the learner's own, and so is the submission.
	if res := s.do(request{method: "POST", path: "/rewards/claim", user: bob, body: fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"k"}`, first)}); res.status != http.StatusNotFound {
		t.Errorf("bob claims ada's reward: %d %s", res.status, res.raw)
	}
	if got := data[struct{ Credits int }](t, s.get("/users/me", ada)).Credits; got != 10 {
		t.Errorf("%d credits, want 10", got)
	}
}

// The books know nothing of a chain until something is posted to it.
func TestMint(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, course := range []string{golang, other} {
		s.mutate("POST", "/courses/"+course+"/enroll", ada, "")
	}
	failed := data[struct{ ID string }](t, s.submit(ada, golang, "m-2", 1)).ID
	passed, elsewhere := s.passQuiz(ada, golang, "m-1"), s.passQuiz(ada, other, "m-1")
	mint := func(user, course, submission, key string) response {
		return s.do(request{method: "POST", path: "/credentials/mint", user: user, body: fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":%q}`, course, submission, key)})
	}
	for _, tt := range []struct {
		name string
		res  response
		want int
	}{
		{"not passed", mint(ada, golang, failed, "1"), 403},
		{"of another course", mint(ada, golang, elsewhere, "2"), 400},
		{"another's", mint(bob, golang, passed, "3"), 404},
		{"unknown", mint(ada, golang, unknownID, "4"), 404},
		{"good", mint(ada, golang, passed, "5"), 201},
		{"a second one", mint(ada, golang, passed, "6"), 409},
	} {
		if tt.res.status != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.name, tt.res.status, tt.res.raw, tt.want)
		}
		if tt.want == 201 {
			minted := data[object](t, tt.res)
			if minted["nftIssuer"] != nil || minted["mintTxHash"] != nil || minted["nftAssetCode"] == "" {
				t.Errorf("minted %v", minted)
			}
		}
	}
	if res := s.do(request{method: "POST", path: "/rewards/claim", user: ada, body: fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"7"}`, failed)}); res.status != http.StatusForbidden {
		t.Errorf("a reward for a failed quiz: %d", res.status)
	}
}

func TestQuizzes(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	type quiz struct {
		ID        string
		Questions []struct {
			ID      string
			Options []string
		}
	}
	generate := func() (quiz, response) {
		res := s.mutate("POST", "/quizzes/generate", ada, fmt.Sprintf(`{"courseId":%q,"moduleId":"m-1"}`, golang))
		return data[quiz](t, res), res
	}
	first, res := generate()
	if res.status != http.StatusCreated || len(first.Questions) != 3 || strings.Contains(strings.ToLower(string(res.raw)), "correct") {
		t.Errorf("generate: %d %s", res.status, res.raw)
	}
	if again, _ := generate(); again.ID != first.ID {
		t.Error("a second call makes a second quiz")
	}
	if res := s.do(request{method: "POST", path: "/quizzes/generate", user: ada, body: fmt.Sprintf(`{"courseId":%q,"moduleId":"m-9"}`, golang)}); res.status != http.StatusNotFound {
		t.Errorf("an unknown module: %d", res.status)
	}
	submit := func(user, id, answers string) response {
		return s.do(request{method: "POST", path: "/quizzes/" + id + "/submit", user: user, body: `{"answers":` + answers + `}`})
	}
	for _, tt := range []struct {
		name string
		res  response
		want int
	}{
		{"another's quiz", submit(bob, first.ID, "[]"), 404},
		{"an unknown question", submit(ada, first.ID, `[{"questionId":"q9","selectedIndex":0}]`), 400},
		{"a question twice", submit(ada, first.ID, `[{"questionId":"q1","selectedIndex":0},{"questionId":"q1","selectedIndex":0}]`), 400},
		{"an option that is none", submit(ada, first.ID, `[{"questionId":"q1","selectedIndex":3}]`), 400},
	} {
		if tt.res.status != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.name, tt.res.status, tt.res.raw, tt.want)
		}
	}
	// An unanswered question is a wrong one: two of three are not 70 %.
	failed := data[struct {
		Score, TotalQuestions, Percentage int
		Passed, RewardAvailable           bool
		Feedback                          string
	}](t, submit(ada, first.ID, `[{"questionId":"q1","selectedIndex":0},{"questionId":"q2","selectedIndex":0}]`))
	if failed.Score != 2 || failed.TotalQuestions != 3 || failed.Percentage != 66 || failed.Passed || failed.RewardAvailable || !strings.Contains(failed.Feedback, "2 of 3") {
		t.Errorf("submitted: %+v", failed)
	}
	if res := submit(ada, first.ID, "[]"); res.status != http.StatusConflict {
		t.Errorf("twice: %d %s", res.status, res.raw)
	}
	second, _ := generate()
	if second.ID == first.ID {
		t.Error("after a failure there is no new attempt")
	}
	if res := submit(ada, second.ID, `[{"questionId":"q1","selectedIndex":0},{"questionId":"q2","selectedIndex":0},{"questionId":"q3","selectedIndex":0}]`); !data[struct{ Passed, RewardAvailable bool }](t, res).RewardAvailable {
		t.Errorf("passed: %s", res.raw)
	}
	if third, _ := generate(); third.ID != second.ID {
		t.Error("a passed quiz is generated again")
	}
	// Leaving the course takes the right to submit with it.
	s.mutate("POST", "/courses/"+other+"/enroll", ada, "")
	left := data[quiz](t, s.mutate("POST", "/quizzes/generate", ada, fmt.Sprintf(`{"courseId":%q,"moduleId":"m-1"}`, other)))
	s.externalWrite(`DELETE FROM enrollments WHERE user_id = ? AND course_id = ?`, ada, other)
	if res := submit(ada, left.ID, "[]"); res.status != http.StatusForbidden {
		t.Errorf("not enrolled any more: %d %s", res.status, res.raw)
	}
}

// Two modules passed at the same moment complete the course all the same.
func TestCourseIsCompletedByARace(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	var wg sync.WaitGroup
	for _, module := range []string{"m-1", "m-2"} {
		quiz := data[struct{ ID string }](t, s.mutate("POST", "/quizzes/generate", ada, fmt.Sprintf(`{"courseId":%q,"moduleId":%q}`, golang, module)))
		wg.Go(func() {
			body := `{"answers":[{"questionId":"q1","selectedIndex":0},{"questionId":"q2","selectedIndex":0},{"questionId":"q3","selectedIndex":0}]}`
			if res, err := s.try(request{method: "POST", path: "/quizzes/" + quiz.ID + "/submit", user: ada, body: body}); err != nil || res.status != http.StatusOK {
				t.Errorf("%s: %v %s", module, err, res.raw)
			}
		})
	}
	wg.Wait()
	if got := data[struct{ CompletedCourses int }](t, s.get("/users/me/progress", ada)).CompletedCourses; got != 1 {
		t.Errorf("%d courses are complete, want 1", got)
	}
	if res := s.do(request{method: "POST", path: "/courses/" + golang + "/enroll", user: ada}); res.status != http.StatusConflict || res.body.Message != "Already enrolled in this course" {
		t.Errorf("enrolling twice: %d %s", res.status, res.raw)
	}
}
