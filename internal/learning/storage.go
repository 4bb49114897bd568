package learning

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Storage keeps the platform's data. Packages sqlite and postgres implement it and share
// one suite, storagetest. It is safe for concurrent use. A row that does not exist is
// ErrNoRow; trouble that may pass, such as a database that cannot be reached, matches
// ErrUnavailable; every other error is a defect.
type Storage interface {
	Reads

	// Write runs fn in one transaction that sees the latest committed data, and
	// commits it unless fn returns an error, which Write then returns as it is. When
	// Write returns nil, the change is committed and every cached answer it touched has
	// been invalidated (or, with the shared cache out of reach, will be as soon as it
	// is back). fn may run more than once when the database asks for a retry, so it
	// changes nothing outside of tx.
	Write(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error

	// Ping says whether the database may be read and written. ErrReadOnly says that it can be
	// read only.
	Ping(ctx context.Context) error
}

// Reads are the questions asked outside transactions. Each costs one round trip to the
// database, and an index serves it.
type Reads interface {
	ListCourses(ctx context.Context, p ListParams) (CoursePage, error)
	// CountCourses returns the number of active courses of a difficulty; "" is any.
	CountCourses(ctx context.Context, d Difficulty) (int, error)
	// CourseDetail returns an active course, or ErrNoRow.
	CourseDetail(ctx context.Context, id CourseID) (CourseDetail, error)
	// Enrolled returns those of courses in which the user is enrolled.
	Enrolled(ctx context.Context, user UserID, courses []CourseID) (map[CourseID]bool, error)
	// CompletedModule says whether the user has passed a quiz on the module.
	CompletedModule(ctx context.Context, user UserID, course CourseID, module ModuleID) (bool, error)
	// Profile returns a user, or ErrNoRow.
	Profile(ctx context.Context, id UserID) (Profile, error)
	// Progress of a user; zeros for one who does not exist.
	Progress(ctx context.Context, id UserID) (Progress, error)
	RewardHistory(ctx context.Context, p RewardParams) (RewardPage, error)
	// Credentials of a user, newest first, ties broken by id, revoked ones too.
	Credentials(ctx context.Context, id UserID) ([]Credential, error)
	// Bearer returns the user whom a token names, or ErrNoRow, and whether the token's ID is
	// on the revocation list.
	Bearer(ctx context.Context, id UserID, jti string) (p Profile, revoked bool, err error)
}

// Tx is a transaction. Reads in it lock what they return against other writers until the
// end of the transaction, where the database would otherwise let two of them pass.
type Tx interface {
	// CourseActive returns whether the course exists and is active.
	CourseActive(ctx context.Context, id CourseID) (bool, error)
	// InsertEnrollment fails with ErrExists when the learner is already enrolled.
	InsertEnrollment(ctx context.Context, e Enrollment) error
	Enrolled(ctx context.Context, user UserID, course CourseID) (bool, error)
	// CompleteCourse sets completed_at of the enrolment, if it is unset and every module of
	// the course has a passed submission by the user. It returns whether it did.
	CompleteCourse(ctx context.Context, user UserID, course CourseID, at time.Time) (bool, error)

	// UseChallenge records that a challenge was signed in with, and forgets a few of those
	// whose time was over. It fails with ErrExists when the challenge was used before.
	UseChallenge(ctx context.Context, id ChallengeID, expires, now time.Time) error
	// EnsureUser returns the user who owns the address, and whether it had to be created.
	EnsureUser(ctx context.Context, address string, now time.Time) (p Profile, created bool, err error)
	// RevokeToken puts a token's ID on the revocation list, unless it is there, and forgets a
	// few of those whose time was over.
	RevokeToken(ctx context.Context, jti string, expires, now time.Time) error

	// ProfileForUpdate returns a locked user, or ErrNoRow.
	ProfileForUpdate(ctx context.Context, id UserID) (Profile, error)
	// UpdateProfile stores the fields that ProfileChange can change, and updated_at.
	UpdateProfile(ctx context.Context, p Profile, at time.Time) error
	// AddCredits adds n to the user's credits.
	AddCredits(ctx context.Context, user UserID, n int, at time.Time) error

	// ModuleQuestions returns all questions of the quizzes that define the module, in a
	// stable order; none if there is no such module.
	ModuleQuestions(ctx context.Context, course CourseID, module ModuleID) ([]Question, error)
	// LearnerQuiz returns the user's latest own quiz on the module and, if the user has
	// submitted it, the submission; ErrNoRow if there is no quiz.
	LearnerQuiz(ctx context.Context, user UserID, course CourseID, module ModuleID) (Quiz, *Submission, error)
	InsertQuiz(ctx context.Context, q Quiz) error
	// Quiz returns a quiz, or ErrNoRow.
	Quiz(ctx context.Context, id QuizID) (Quiz, error)
	// InsertSubmission fails with ErrExists when the user has submitted the quiz before.
	InsertSubmission(ctx context.Context, s Submission) error
	// SubmissionForUpdate returns a locked submission with its quiz's course, module and
	// number of questions, or ErrNoRow.
	SubmissionForUpdate(ctx context.Context, id SubmissionID) (Submission, error)
	// MarkClaimed records that the submission's reward was claimed.
	MarkClaimed(ctx context.Context, id SubmissionID, amount int, at time.Time) error

	// StoredCourses returns those of the courses that exist, active or not, in no order, and keeps
	// other imports from changing courses until the end of the transaction.
	StoredCourses(ctx context.Context, ids []CourseID) ([]StoredCourse, error)
	// SaveCourses inserts courses, or updates those that exist. It leaves their modules alone.
	SaveCourses(ctx context.Context, courses []StoredCourse) error
	// SaveModules inserts or updates the titles and positions of modules.
	SaveModules(ctx context.Context, modules []StoredModule) error
	// ReplaceQuizzes puts quizzes in the place of those that define their modules, none of which has been
	// submitted.
	ReplaceQuizzes(ctx context.Context, quizzes []Quiz) error

	// InsertCredential fails with ErrExists when the user has one for the course.
	InsertCredential(ctx context.Context, user UserID, c Credential) error

	// Remembered returns what was answered under the key, locking the key against
	// another use until the transaction ends; ErrNoRow if it is new or has expired.
	StoredResponse(ctx context.Context, key IdempotencyKey, now time.Time) (StoredResponse, error)
	StoreResponse(ctx context.Context, key IdempotencyKey, r StoredResponse, now time.Time) error
}

var (
	// ErrNoRow says that what was asked for does not exist.
	ErrNoRow = errors.New("no such row")
	// ErrExists says that a unique row exists already.
	ErrExists = errors.New("row exists already")
	// ErrUnavailable says that the database, or what a write needs, could not be reached or was
	// too busy, and that the same may succeed a moment later. The cache does not remember it.
	ErrUnavailable = fmt.Errorf("the database is unavailable: %w", cache.ErrTransient)
	// ErrReadOnly is ErrUnavailable of a database that takes no writes: it was set so, or its disk
	// is full.
	ErrReadOnly = fmt.Errorf("it takes no writes: %w", ErrUnavailable)
)
