package learning

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzQuiz takes a pool of questions as a database may hold it, draws a quiz, and grades hostile
// answers to it. What is accepted names each question once and an option that there is; the
// score is the number of right ones; and a learner with every answer right passes.
func FuzzQuiz(f *testing.F) {
	const pool = `[{"id":"q1","text":"A?","options":["a","b"],"correctIndex":0},{"id":"q2","text":"B?","options":["c","d","e"],"correctIndex":2}]`
	for _, seed := range [][2]string{
		{pool, `[{"questionId":"q1","selectedIndex":0},{"questionId":"q2","selectedIndex":2}]`},
		{pool, `[{"questionId":"q1","selectedIndex":0},{"questionId":"q1","selectedIndex":0}]`},
		{pool, `[{"questionId":"q1","selectedIndex":-1},{"questionId":"q2","selectedIndex":3},{"questionId":"","selectedIndex":0}]`},
		{pool, `[]`},
		{`[{"id":"","text":"","options":[""],"correctIndex":0},{"id":"","text":"x","options":[""],"correctIndex":0}]`, `[{"questionId":"-2","selectedIndex":0}]`},
		{`[{"id":"q","text":"1","options":["a"],"correctIndex":0},{"id":"q","text":"2","options":["a"],"correctIndex":0},{"id":"q-2","text":"3","options":["a"],"correctIndex":0}]`, `[{"questionId":"q-2","selectedIndex":0}]`},
		{`[{"id":"q1","text":"A?","options":null,"correctIndex":0},{"id":"q1","text":"A?","options":["x"],"correctIndex":1},{"id":"q1","text":"A?","options":["x"],"correctIndex":-1}]`, `null`},
		{`[` + strings.Repeat(`{"id":"q","text":"A?","options":["x"],"correctIndex":0},`, 20) + `{"id":"é","text":"\u0000","options":["x"],"correctIndex":9223372036854775807}]`, `[]`},
	} {
		f.Add(seed[0], seed[1], uint64(1))
	}
	f.Fuzz(func(t *testing.T, pool, given string, random uint64) {
		var questions []Question
		var answers []QuizAnswer
		if json.Unmarshal([]byte(pool), &questions) != nil || json.Unmarshal([]byte(given), &answers) != nil || len(questions) > 200 {
			t.Skip("not what a database or a client can hold")
		}
		quiz := Quiz{Questions: drawQuestions(slices.Clone(questions), rand.New(rand.NewPCG(random, 0)).Shuffle)}
		checkDrawn(t, quiz.Questions, questions)

		problems := checkAnswers(quiz.Questions, answers)
		right, valid := score(quiz.Questions, answers)
		if (problems == nil) != valid {
			t.Fatalf("%s is answered by %s: %q", pool, given, problems)
		}
		for _, p := range problems {
			if len(p) > 400 {
				t.Errorf("a problem takes %d bytes to say: %q", len(p), p)
			}
		}
		if !valid {
			return
		}
		s := Grade(quiz, answers)
		if s.Score != right || s.TotalQuestions != len(quiz.Questions) || s.Percentage() < 0 || s.Percentage() > 100 {
			t.Errorf("%s answered by %s has score %d of %d (%d%%), want %d", pool, given, s.Score, s.TotalQuestions, s.Percentage(), right)
		}
		if want := right*100 >= PassPercent*len(quiz.Questions) && len(quiz.Questions) > 0; s.Passed() != want {
			t.Errorf("%d of %d right passes: %t", right, len(quiz.Questions), s.Passed())
		}
		checkFeedback(t, quiz.Questions, answers, s)

		perfect := make([]QuizAnswer, len(quiz.Questions))
		for i, q := range quiz.Questions {
			perfect[i] = QuizAnswer{q.ID, q.CorrectIndex}
		}
		if problems := checkAnswers(quiz.Questions, perfect); problems != nil {
			t.Errorf("the right answers are refused: %q", problems)
		}
		if s := Grade(quiz, perfect); s.Score != len(perfect) || s.Passed() != (len(perfect) > 0) {
			t.Errorf("with everything right the score is %d of %d", s.Score, len(perfect))
		}
	})
}

// checkDrawn fails unless drawn is a quiz that can be answered: some questions of the pool,
// each once, under ids of their own.
func checkDrawn(t *testing.T, drawn, pool []Question) {
	t.Helper()
	if len(drawn) > MaxQuestions {
		t.Errorf("drew %d questions", len(drawn))
	}
	ids := map[string]bool{}
	for i, q := range drawn {
		if q.ID == "" || ids[q.ID] {
			t.Errorf("the id %q is empty or used twice", q.ID)
		}
		ids[q.ID] = true
		if q.CorrectIndex < 0 || q.CorrectIndex >= len(q.Options) {
			t.Errorf("no option is right in %+v", q)
		}
		same := func(p Question) bool {
			return p.Text == q.Text && slices.Equal(p.Options, q.Options)
		}
		if !slices.ContainsFunc(pool, func(p Question) bool {
			return same(p) && p.CorrectIndex == q.CorrectIndex && strings.HasPrefix(q.ID, p.ID)
		}) {
			t.Errorf("%+v is not of the pool", q)
		}
		if slices.ContainsFunc(drawn[:i], same) {
			t.Errorf("%+v was drawn twice", q)
		}
	}
}

// score says how many answers are right, and whether all of them are answers to the questions.
func score(questions []Question, answers []QuizAnswer) (right int, valid bool) {
	for i, a := range answers {
		at := slices.IndexFunc(questions, func(q Question) bool { return q.ID == a.QuestionID })
		if at < 0 || slices.ContainsFunc(answers[:i], func(b QuizAnswer) bool { return b.QuestionID == a.QuestionID }) {
			return 0, false
		}
		if a.SelectedIndex < 0 || a.SelectedIndex >= len(questions[at].Options) {
			return 0, false
		}
		if a.SelectedIndex == questions[at].CorrectIndex {
			right++
		}
	}
	return right, true
}

// checkFeedback fails if the feedback could depend on what the right options are called: it
// must not tell them.
func checkFeedback(t *testing.T, questions []Question, answers []QuizAnswer, s Submission) {
	t.Helper()
	if s.Feedback == "" || !utf8.ValidString(s.Feedback) {
		t.Errorf("the feedback is %q", s.Feedback)
	}
	renamed := slices.Clone(questions)
	for i, q := range renamed {
		renamed[i].Options = make([]string, len(q.Options))
	}
	if other := Grade(Quiz{Questions: renamed}, answers); other.Feedback != s.Feedback {
		t.Errorf("the feedback tells the options: %q", s.Feedback)
	}
}
