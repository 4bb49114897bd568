package learning

import "time"

// PassPercent is the share of right answers, in percent, from which a quiz is passed.
const PassPercent = 70

// Question of a quiz. CorrectIndex never leaves the server: httpapi has a type of its own
// for what a learner sees.
type Question struct {
	ID           string   `json:"id"`
	Text         string   `json:"text"`
	Options      []string `json:"options"`
	CorrectIndex int      `json:"correctIndex"`
}

// Quiz on a module. GeneratedFor is nil for the quizzes that define the module, and a
// learner's ID for that learner's own copy.
type Quiz struct {
	ID           QuizID
	CourseID     CourseID
	ModuleID     ModuleID
	Questions    []Question
	GeneratedFor *UserID
	CreatedAt    time.Time
}

// QuizAnswer is a learner's choice for one question.
type QuizAnswer struct {
	QuestionID    string `json:"questionId"`
	SelectedIndex int    `json:"selectedIndex"`
}

// Submission of a quiz by a learner. Score counts right answers out of TotalQuestions.
type Submission struct {
	ID             SubmissionID
	QuizID         QuizID
	CourseID       CourseID
	ModuleID       ModuleID
	UserID         UserID
	Answers        []QuizAnswer
	Score          int
	TotalQuestions int
	Feedback       string
	RewardClaimed  bool
	SubmittedAt    time.Time
}

// Percentage of right answers, rounded down, 0 to 100.
func (s Submission) Percentage() int {
	if s.TotalQuestions == 0 {
		return 0
	}
	return s.Score * 100 / s.TotalQuestions
}

// Passed says whether the submission completes its module.
func (s Submission) Passed() bool { return s.TotalQuestions > 0 && s.Percentage() >= PassPercent }
