package learning

import "time"

// Difficulty of a course. The empty Difficulty means any.
type Difficulty string

const (
	Beginner     Difficulty = "beginner"
	Intermediate Difficulty = "intermediate"
	Advanced     Difficulty = "advanced"
)

// Difficulties in order, for validation and for messages.
var Difficulties = []Difficulty{Beginner, Intermediate, Advanced}

// Course as the catalogue lists it. EnrolledCount is public; whether one learner is
// enrolled is not part of it, because all viewers share a cached course.
type Course struct {
	ID            CourseID   `json:"id"`
	Title         string     `json:"title"`
	Description   string     `json:"description"`
	Difficulty    Difficulty `json:"difficulty"`
	IsActive      bool       `json:"isActive"`
	EnrolledCount int        `json:"enrolledCount"`
}

// CourseDetail is a course with its modules, in order.
type CourseDetail struct {
	Course
	ContentHash *string   `json:"contentHash"`
	Modules     []Module  `json:"modules"`
	CreatedAt   time.Time `json:"createdAt"`
}

// Module of a course. The modules of a course are those of its quizzes that were not generated
// for one learner; title and order come from the modules table where it
// has a row, else from the id, in natural order ("module-2" before "module-10").
type Module struct {
	ID    ModuleID `json:"id"`
	Title string   `json:"title"`
	Order int      `json:"order"` // from 1
}

// ListParams selects a page of the catalogue.
type ListParams struct {
	Difficulty Difficulty
	Page       int // from 1
	Limit      int // 1 to MaxLimit
}

const (
	DefaultLimit = 20
	MaxLimit     = 50
	MaxPage      = 10_000
)

// CoursePage is one page of active courses, newest first, ties broken by id, and the
// number of all that match.
type CoursePage struct {
	Courses []Course `json:"courses"`
	Total   int      `json:"total"`
}

// Enrollment of a learner in a course.
type Enrollment struct {
	CourseID   CourseID  `json:"courseId"`
	UserID     UserID    `json:"userId"`
	EnrolledAt time.Time `json:"enrolledAt"`
}
