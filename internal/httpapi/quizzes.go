package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// questionView has no place for the right answer, which never leaves the server.
type questionView struct {
	ID      string   `json:"id"`
	Text    string   `json:"text"`
	Options []string `json:"options"`
}

type quizView struct {
	ID        learning.QuizID   `json:"id"`
	CourseID  learning.CourseID `json:"courseId"`
	ModuleID  learning.ModuleID `json:"moduleId"`
	Questions []questionView    `json:"questions"`
	CreatedAt learning.Time     `json:"createdAt"`
}

func (s *Server) generateQuiz(r *http.Request, me principal) (reply, error) {
	errs := fieldErrors{}
	o, err := body(r, errs)
	if err != nil {
		return reply{}, err
	}
	course := requiredID[learning.Course](o, "courseId")
	module := o.moduleID("moduleId")
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	quiz, err := s.platform.GenerateQuiz(r.Context(), me.id, course, module)
	if err != nil {
		return reply{}, err
	}
	questions := make([]questionView, len(quiz.Questions))
	for i, q := range quiz.Questions {
		questions[i] = questionView{q.ID, q.Text, nonNil(q.Options)}
	}
	return reply{
		status: http.StatusCreated,
		data:   quizView{quiz.ID, quiz.CourseID, quiz.ModuleID, questions, learning.Time(quiz.CreatedAt)},
	}, nil
}

type submissionView struct {
	ID              learning.SubmissionID `json:"id"`
	Score           int                   `json:"score"`
	TotalQuestions  int                   `json:"totalQuestions"`
	Percentage      int                   `json:"percentage"`
	Passed          bool                  `json:"passed"`
	Feedback        string                `json:"feedback"`
	RewardAvailable bool                  `json:"rewardAvailable"`
}

// MaxAnswers of a submission bounds what is looked at and reported on; no quiz has as many questions.
const MaxAnswers = 100

func (s *Server) submitQuiz(r *http.Request, me principal) (reply, error) {
	errs := fieldErrors{}
	id := idParam[learning.Quiz](r, "id", errs)
	o, err := body(r, errs)
	if err != nil {
		return reply{}, err
	}
	answers := []learning.QuizAnswer{}
	for _, a := range o.objects("answers", MaxAnswers) {
		question, _ := a.requiredText("questionId")
		answers = append(answers, learning.QuizAnswer{QuestionID: question, SelectedIndex: a.requiredInt("selectedIndex")})
	}
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	sub, err := s.platform.SubmitQuiz(r.Context(), me.id, id, answers)
	if err != nil {
		return reply{}, err
	}
	return reply{data: submissionView{
		sub.ID, sub.Score, sub.TotalQuestions, sub.Percentage(), sub.Passed(), sub.Feedback,
		sub.Passed() && !sub.RewardClaimed,
	}}, nil
}

// nonNil makes an empty list of nil, which JSON would write as null.
func nonNil[V any](s []V) []V {
	if s == nil {
		return []V{}
	}
	return s
}
