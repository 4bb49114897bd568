package httpapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What one title change ends, and what it would have to: answers that show the title. The
// difference is what named tags could save (decision 49).
func TestWhatATitleChangeEnds(t *testing.T) {
	t.Parallel()
	s := start(t)
	const learners = 20 // of whom one in four has anything to do with the course
	asked := map[string]string{}
	for i := range learners {
		user := fmt.Sprintf("00000000-0000-4000-8000-0000000001%02d", i)
		s.externalWrite(`INSERT INTO users (id, stellar_address) VALUES (?, ?)`, user, "G"+user)
		course := other
		if i%4 == 0 {
			course = golang
		}
		s.mutate("POST", "/courses/"+course+"/enroll", user, "")
		submission := s.passQuiz(user, course, "m-1")
		s.mutate("POST", "/rewards/claim", user, fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"k"}`, submission))
		s.mutate("POST", "/credentials/mint", user, fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"k"}`, course, submission))
		asked["/rewards/history as "+user], asked["/credentials as "+user] = user, user
	}
	for page := 1; page <= 3; page++ {
		asked[fmt.Sprintf("/courses?page=%d", page)] = ""
		for _, d := range []string{"beginner", "advanced"} {
			asked[fmt.Sprintf("/courses?difficulty=%s&page=%d", d, page)] = ""
		}
	}
	for i := 1; i <= courses; i++ {
		asked[fmt.Sprintf("/courses/00000000-0000-4000-8000-00000000c%03d", i)] = ""
	}
	get := func(question string) response {
		path, _, _ := strings.Cut(question, " as ")
		return s.get(path, asked[question])
	}
	eventually(t, time.Minute, func() (problem string) {
		for question := range asked { // all of them each time: each is a hit the next time
			if got := get(question).cacheStatus(); got != "hit" {
				problem = question + " is a " + got
			}
		}
		return problem
	})

	s.externalWrite(`UPDATE courses SET title = 'Another title' WHERE id = ?`, golang)
	eventually(t, 10*time.Second, func() string {
		if strings.Contains(string(get("/courses/"+golang).raw), "Another title") {
			return ""
		}
		return "the new title does not show"
	})
	ended, shows := map[string]int{}, map[string]int{}
	for question := range asked {
		res := get(question)
		kind, _, _ := strings.Cut(question, " as ")
		kind, _, _ = strings.Cut(kind, "?")
		if res.cacheStatus() != "hit" {
			ended[kind]++
		}
		if strings.Contains(string(res.raw), "Another title") {
			shows[kind]++
		}
		if strings.Contains(string(res.raw), `"Course 1"`) {
			t.Errorf("%s still shows the old title (%s)", question, res.cacheStatus())
		}
	}
	t.Logf("ended: %v; show the title: %v", ended, shows)
	if shows["/courses"] != 2 || shows["/credentials"] != learners/4 || shows["/rewards/history"] != learners/4 {
		t.Errorf("the title shows in %v", shows)
	}
}
