package learning

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func asWritten(int, func(i, j int)) {}

func TestDraw(t *testing.T) {
	t.Parallel()
	options := []string{"yes", "no"}
	for _, tt := range []struct {
		name string
		pool []Question
		want []string // ids
	}{
		{"nothing", nil, nil},
		{"ids are kept", []Question{{"a", "A?", options, 0}, {"b", "B?", options, 1}}, []string{"a", "b"}},
		{"a question that appears twice", []Question{{"a", "A?", options, 0}, {"b", "A?", options, 0}}, []string{"a"}},
		{"one id for different questions", []Question{{"q1", "A?", options, 0}, {"q1", "B?", options, 0}, {"q1", "C?", options, 0}}, []string{"q1", "q1-2", "q1-3"}},
		{"an id that is taken by a rename", []Question{{"q1", "A?", options, 0}, {"q1", "B?", options, 0}, {"q1-2", "C?", options, 0}}, []string{"q1", "q1-2", "q1-2-2"}},
		{"questions without a right option", []Question{{"a", "A?", nil, 0}, {"b", "B?", options, 2}, {"c", "C?", options, -1}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, q := range drawQuestions(tt.pool, asWritten) {
				got = append(got, q.ID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("drew %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDrawShufflesAndBounds(t *testing.T) {
	t.Parallel()
	var pool []Question
	for i := range 30 {
		pool = append(pool, Question{fmt.Sprint("q", i), fmt.Sprint(i, "?"), []string{"a", "b"}, i % 2})
	}
	drawn := drawQuestions(pool, rand.New(rand.NewPCG(1, 2)).Shuffle)
	if len(drawn) != MaxQuestions {
		t.Fatalf("drew %d questions of 30, want %d", len(drawn), MaxQuestions)
	}
	if slices.IsSortedFunc(drawn, func(a, b Question) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("the questions are in the order of the pool")
	}
	for _, q := range drawn {
		if i := slices.IndexFunc(pool, func(p Question) bool { return p.ID == q.ID }); pool[i].CorrectIndex != q.CorrectIndex {
			t.Errorf("question %s lost its right answer", q.ID)
		}
	}
}

func TestCheckAnswers(t *testing.T) {
	t.Parallel()
	questions := []Question{{"a", "A?", []string{"1", "2"}, 0}, {"b", "B?", []string{"1", "2", "3"}, 0}}
	got := checkAnswers(questions, []QuizAnswer{{"a", 2}, {"b", -1}, {"b", 0}, {"c", 0}})
	want := []string{
		"answers[0].selectedIndex: must be between 0 and 1",
		"answers[1].selectedIndex: must be between 0 and 2",
		`answers[2].questionId: "b" is answered twice`,
		`answers[3].questionId: "c" is not a question of this quiz`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := checkAnswers(questions, []QuizAnswer{{"b", 2}}); got != nil {
		t.Errorf("an unanswered question is refused: %q", got)
	}
}

func TestGrade(t *testing.T) {
	t.Parallel()
	var quiz Quiz
	for i := range 10 {
		quiz.Questions = append(quiz.Questions, Question{fmt.Sprint("q", i), fmt.Sprint("Question ", i, "?"), []string{"right", "wrong"}, 0})
	}
	for _, tt := range []struct {
		right  int
		passed bool
		says   string
	}{
		{10, true, "Everything right"},
		{7, true, "Passed"},
		{6, false, "70% passes"},
		{0, false, "and 7 more"},
	} {
		var answers []QuizAnswer
		for i := range tt.right { // the others are left unanswered
			answers = append(answers, QuizAnswer{fmt.Sprint("q", i), 0})
		}
		s := Grade(quiz, answers)
		if s.Score != tt.right || s.TotalQuestions != 10 || s.Passed() != tt.passed || !strings.Contains(s.Feedback, tt.says) {
			t.Errorf("%d right: score %d of %d, passed %v, %q", tt.right, s.Score, s.TotalQuestions, s.Passed(), s.Feedback)
		}
	}
	// 69.9 % is not 70.
	if s := (Submission{Score: 699, TotalQuestions: 1000}); s.Passed() {
		t.Error("699 of 1000 passed")
	}
}

func TestAssetCode(t *testing.T) {
	t.Parallel()
	valid := regexp.MustCompile(`^[A-Z0-9]{1,12}$`)
	seen := map[string]bool{}
	for range 100 {
		id := NewID[Credential]()
		code := AssetCode(id)
		if !valid.MatchString(code) || AssetCode(id) != code || seen[code] {
			t.Fatalf("asset code of %s is %q", id, code)
		}
		seen[code] = true
	}
}

func TestCheckIdempotencyKey(t *testing.T) {
	t.Parallel()
	for key, ok := range map[string]bool{
		"": false, "  ": false, "k": true, strings.Repeat("é", 255): true, strings.Repeat("x", 256): false, "a\nb": false, "a\x00": false,
	} {
		if got := CheckIdempotencyKey(key); (got == "") != ok {
			t.Errorf("key %q: %q", key, got)
		}
	}
}
