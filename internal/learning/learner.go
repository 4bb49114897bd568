package learning

import "time"

// Pace at which a learner wants to go.
type Pace string

const (
	Slow   Pace = "slow"
	Medium Pace = "medium"
	Fast   Pace = "fast"
)

// Paces in order, for validation and for messages.
var Paces = []Pace{Slow, Medium, Fast}

// Profile of a learner, who is also an account: the token's address must be StellarAddress.
type Profile struct {
	ID             UserID    `json:"id"`
	StellarAddress string    `json:"stellarAddress"`
	DisplayName    *string   `json:"displayName"`
	Background     *string   `json:"background"`
	LearningGoal   *string   `json:"learningGoal"`
	Pace           Pace      `json:"pace"`
	Language       string    `json:"language"`
	Credits        int       `json:"credits"`
	CreatedAt      time.Time `json:"createdAt"`
}

// ProfileChange holds what a learner may change; nil leaves a field as it is, and an
// empty text removes it.
type ProfileChange struct {
	DisplayName  *string
	Background   *string
	LearningGoal *string
	Pace         *Pace
	Language     *string
}

// Progress of a learner, in numbers.
type Progress struct {
	EnrolledCourses   int `json:"enrolledCourses"`
	CompletedCourses  int `json:"completedCourses"`
	TotalQuizScore    int `json:"totalQuizScore"`    // right answers over all submissions
	CredentialsEarned int `json:"credentialsEarned"` // not revoked
	RewardsClaimed    int `json:"rewardsClaimed"`
}
