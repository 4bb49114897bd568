package httpapi

import (
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// Auth says whom a route answers.
type Auth uint8

const (
	AuthNone     Auth = iota // anyone; a token makes no difference
	AuthOptional             // anyone, and a learner sees something of their own
	AuthRequired             // the bearer of a valid token
)

// Operation describes a route for the programmers of clients. Package internal/openapi makes
// openapi.json of all operations. What an example holds is of the type that the handler reads or
// answers with, so that the description follows the code.
type Operation struct {
	Method, Path string // the whole path
	Auth         Auth
	ID           string // a name that generated clients can use
	Group        string
	Summary      string
	Description  string
	Query        []string       // parameters that its handler reads
	Body         any            // an example; nil: no body is read
	Status       int            // of success
	Message      string         // of the envelope
	Data         any            // an example of what the envelope holds, or of all if Bare
	Bare         bool           // there is no envelope
	Paged        bool           // with a pagination
	Cached       bool           // with Cache-Status and an entity tag
	Conditional  bool           // honours If-Match and If-None-Match
	Refusals     map[int]string // what it may refuse besides what each route does
}

// Operations returns the description of each of Routes.
func Operations() []Operation {
	s := &Server{mux: http.NewServeMux()}
	s.routes()
	var all []Operation
	for _, r := range s.registered {
		o := descriptions[r.pattern]
		method, path, _ := strings.Cut(r.pattern, " ")
		o.Method, o.Path, o.Auth = method, "/api/v1"+path, r.auth
		all = append(all, o)
	}
	for _, path := range []string{"/health", "/health/live", "/health/ready"} {
		o := descriptions["GET "+path]
		o.Method, o.Path = "GET", path
		all = append(all, o)
	}
	return all
}

// What clients send. Handlers read fields one by one, so that they can say everything that is
// wrong with them at once; these are for the description, and a test holds one to the other.
type (
	profileChange struct {
		DisplayName  *string       `json:"displayName,omitempty"`
		Background   *string       `json:"background,omitempty"`
		LearningGoal *string       `json:"learningGoal,omitempty"`
		Pace         learning.Pace `json:"pace,omitempty"`
		Language     string        `json:"language,omitempty"`
	}
	challengeRequest struct {
		StellarAddress string `json:"stellarAddress"`
	}
	signInRequest struct {
		StellarAddress  string               `json:"stellarAddress"`
		ChallengeID     learning.ChallengeID `json:"challengeId"`
		SignedChallenge string               `json:"signedChallenge"`
	}
	quizRequest struct {
		CourseID learning.CourseID `json:"courseId"`
		ModuleID learning.ModuleID `json:"moduleId"`
	}
	quizAnswers struct {
		Answers []learning.QuizAnswer `json:"answers"`
	}
	claimRequest struct {
		SubmissionID   learning.SubmissionID `json:"submissionId"`
		IdempotencyKey string                `json:"idempotencyKey"`
	}
	mintRequest struct {
		CourseID       learning.CourseID     `json:"courseId"`
		SubmissionID   learning.SubmissionID `json:"submissionId"`
		IdempotencyKey string                `json:"idempotencyKey"`
	}
)

// ExampleMeta is of an answer.
var ExampleMeta = Meta{"v1", exampleTime, exampleRequest}

const exampleRequest = "0199b5c2-5f6e-7c1a-9d3e-6f1a2b3c4d5e"

// ProblemCodes returns all that Problem.Error may be.
func ProblemCodes() []any {
	var codes []any
	for _, k := range problemKinds {
		codes = append(codes, k.code)
	}
	return codes
}

// ExampleProblem returns what a request may be answered with, by status.
func ExampleProblem(status int) Problem {
	p := Problem{StatusCode: status, RequestID: exampleRequest}
	for _, k := range problemKinds {
		if k.status == status {
			p.Error = k.code
		}
	}
	switch status {
	case http.StatusBadRequest:
		p.Message, p.Details = "The request is not valid", map[string][]string{"query": {"limit: must be between 1 and 50"}}
	case http.StatusUnauthorized:
		p.Message = errBadToken.message
	case http.StatusInternalServerError:
		p.Message = errInternal.message
	case http.StatusServiceUnavailable:
		p.Message = "The service cannot reach its database, or write to it, at the moment"
	default:
		p.Message = http.StatusText(status)
	}
	return p
}

func exampleID[K any](last byte) (id learning.ID[K]) {
	id.UUID = uuid.UUID{6: 0x40, 8: 0x80, 15: last}
	return id
}

// Examples.
var (
	exampleAsset  = learning.AssetCode(exampleID[learning.Credential](6))
	exampleTime   = learning.Time(time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC))
	exampleCourse = learning.Course{
		ID: exampleID[learning.Course](1), Title: "Stellar for beginners", Description: "Accounts, assets and payments.",
		Difficulty: learning.Beginner, IsActive: true, EnrolledCount: 128,
	}
	exampleProfile = learning.ProfileView{
		Profile: learning.Profile{
			ID: exampleID[learning.Profile](2), StellarAddress: exampleAddress, DisplayName: new("Ada"),
			LearningGoal: new("Write my first smart contract"), Pace: learning.Medium, Language: "en", Credits: 20,
		},
		CreatedAt: exampleTime,
	}
)

const (
	exampleAddress = "GBRPYHIL2CI3FNQ4BXLFMNDLFJUNPU2HY3ZMFSHONUCEOASW7QC7OX2H"
	exampleModule  = learning.ModuleID("module-1")
	exampleKey     = "3f1c3a52-claim"
)

const (
	noCourse     = "There is no such course, or it is not active."
	onceOnly     = "The same idempotency key with the same body gets the same answer again, for 24 hours."
	otherRequest = "It was done before, or the idempotency key belongs to another request."
)

// descriptions are by route.
var descriptions = map[string]Operation{
	"GET /courses": {
		ID: "listCourses", Group: "courses", Summary: "A page of the active courses, newest first",
		Description: "With a token, each course says whether the learner is enrolled in it. A token that is not valid is ignored.",
		Query:       []string{"difficulty", "page", "limit"},
		Status:      200, Paged: true, Cached: true,
		Data: []learning.CourseView{{Course: exampleCourse}},
	},
	"GET /courses/{id}": {
		ID: "getCourse", Group: "courses", Summary: "A course and its modules",
		Description: "With a token, the course says whether the learner is enrolled in it. A token that is not valid is ignored.",
		Status:      200, Cached: true,
		Data: learning.CourseDetailView{
			Course: exampleCourse, CreatedAt: exampleTime, IsEnrolled: true,
			Modules: []learning.Module{{ID: exampleModule, Title: "Accounts", Order: 1}},
		},
		Refusals: map[int]string{404: noCourse},
	},
	"GET /courses/{id}/modules/{moduleId}": {
		ID: "getModule", Group: "courses", Summary: "A module of a course",
		Description: "With a token, it says whether the learner has completed it. A token that is not valid is ignored.",
		Status:      200, Cached: true,
		Data:     moduleView{exampleModule, exampleCourse.ID, "Accounts", 1, false},
		Refusals: map[int]string{404: "There is no such course, it is not active, or it has no such module."},
	},
	"POST /courses/{id}/enroll": {
		ID: "enroll", Group: "courses", Summary: "Enrol in a course",
		Description: "Needs no body, and reads none.",
		Status:      201, Message: "Enrolled successfully",
		Data:     enrollmentView{exampleCourse.ID, exampleProfile.ID, exampleTime},
		Refusals: map[int]string{404: noCourse, 409: "The learner is enrolled already."},
	},
	"POST /auth/challenge": {
		ID: "getChallenge", Group: "sign-in", Summary: "A challenge for a wallet to sign (SEP-10)",
		Description: "Check it as SEP-10 says, sign it with the key of the address, and send it to /auth/verify within five minutes. It serves once.",
		Body:        challengeRequest{exampleAddress},
		Status:      200,
		Data:        learning.Challenge{ID: exampleID[learning.Challenge](3), Envelope: "AAAAAgAAAA…", NetworkPassphrase: "Test SDF Network ; September 2015"},
	},
	"POST /auth/verify": {
		ID: "signIn", Group: "sign-in", Summary: "Sign in with a signed challenge",
		Description: "The first sign-in of an address creates its user. The token is valid for 24 hours.",
		Body:        signInRequest{exampleAddress, exampleID[learning.Challenge](3), "AAAAAgAAAA…"},
		Status:      200,
		Data:        signedIn{"eyJhbGciOiJIUzI1NiIs…", signedInUser{exampleProfile.ID, exampleAddress, nil, true}},
		Refusals:    map[int]string{401: "The signature, the address, the network or the server is another, or the challenge has expired or has been used."},
	},
	"POST /auth/logout": {
		ID: "signOut", Group: "sign-in", Summary: "End the token",
		Description: "When this is answered, no replica takes the token any more.",
		Status:      200, Data: loggedOut{"Logged out"},
	},
	"GET /users/me": {
		ID: "getProfile", Group: "learners", Summary: "The learner's own profile",
		Status: 200, Cached: true, Data: exampleProfile,
	},
	"PUT /users/me": {
		ID: "putProfile", Group: "learners", Summary: "Change the profile",
		Description: "Changes the fields that are named. null or an empty text removes a text; markup is stripped. With If-Match, the change is made only to the profile that the client has seen.",
		Body:        profileChange{DisplayName: new("Ada"), Pace: learning.Fast},
		Status:      200, Conditional: true, Data: exampleProfile,
		Refusals: map[int]string{412: "The profile is not in the state that If-Match or If-None-Match demands."},
	},
	"GET /users/me/progress": {
		ID: "getProgress", Group: "learners", Summary: "What the learner has reached",
		Status: 200, Cached: true,
		Data: learning.Progress{EnrolledCourses: 3, CompletedCourses: 1, TotalQuizScore: 17, CredentialsEarned: 1, RewardsClaimed: 2},
	},
	"POST /quizzes/generate": {
		ID: "generateQuiz", Group: "quizzes", Summary: "The learner's quiz on a module",
		Description: "A second call gets the same quiz, until it was submitted and not passed: then another. The right answers never leave the server.",
		Body:        quizRequest{exampleCourse.ID, exampleModule},
		Status:      201,
		Data: quizView{
			exampleID[learning.Quiz](4), exampleCourse.ID, exampleModule,
			[]questionView{{"q1", "What does an account hold?", []string{"Assets", "Nothing"}}}, exampleTime,
		},
		Refusals: map[int]string{403: "The learner is not enrolled in the course.", 404: "There is no such course or module."},
	},
	"POST /quizzes/{id}/submit": {
		ID: "submitQuiz", Group: "quizzes", Summary: "Answer a quiz",
		Description: "A quiz is passed with 70 % of right answers. Passing completes the module, and passing every module completes the course.",
		Body:        quizAnswers{[]learning.QuizAnswer{{QuestionID: "q1", SelectedIndex: 0}}},
		Status:      200,
		Data:        submissionView{exampleID[learning.Submission](5), 1, 1, 100, true, "1 of 1 right (100%). Everything right: the module is complete.", true},
		Refusals:    map[int]string{403: "The learner is not enrolled in the course.", 404: "There is no such quiz, or it is another learner's.", 409: "The learner has submitted it before."},
	},
	"POST /rewards/claim": {
		ID: "claimReward", Group: "rewards", Summary: "Claim the credits of a passed quiz",
		Description: "Once for each submission. " + onceOnly,
		Body:        claimRequest{exampleID[learning.Submission](5), exampleKey},
		Status:      200,
		Data:        learning.Claimed{SubmissionID: exampleID[learning.Submission](5), Amount: learning.RewardCredits, Message: "10 credits are yours"},
		Refusals:    map[int]string{403: "The quiz was not passed.", 404: "There is no such submission, or it is another learner's.", 409: otherRequest},
	},
	"GET /rewards/history": {
		ID: "listRewards", Group: "rewards", Summary: "A page of the learner's claimed rewards, newest first",
		Query:  []string{"page", "limit"},
		Status: 200, Paged: true, Cached: true,
		Data: []learning.RewardView{{
			Reward:    learning.Reward{ID: exampleID[learning.Submission](5), CourseTitle: exampleCourse.Title, Score: 9, Amount: learning.RewardCredits},
			ClaimedAt: exampleTime,
		}},
	},
	"POST /credentials/mint": {
		ID: "mintCredential", Group: "credentials", Summary: "Get the credential of a course, for a quiz that was passed",
		Description: "One for each learner and course. " + onceOnly,
		Body:        mintRequest{exampleCourse.ID, exampleID[learning.Submission](5), exampleKey},
		Status:      201,
		Data:        learning.Minted{CredentialID: exampleID[learning.Credential](6), NFTAssetCode: exampleAsset, Message: "Credential minted"},
		Refusals:    map[int]string{403: "The quiz was not passed.", 404: "There is no such course or submission, or it is another learner's.", 409: otherRequest},
	},
	"GET /credentials": {
		ID: "listCredentials", Group: "credentials", Summary: "All of the learner's credentials, newest first",
		Status: 200, Cached: true,
		Data: []learning.CredentialView{{
			Credential: learning.Credential{ID: exampleID[learning.Credential](6), CourseID: exampleCourse.ID, CourseTitle: exampleCourse.Title, Score: 9, NFTAssetCode: new(exampleAsset)},
			MintedAt:   exampleTime,
		}},
	},
	"GET /health": {
		ID: "health", Group: "health", Summary: "The same as /health/ready",
		Status: 200, Bare: true, Data: exampleHealth,
		Refusals: map[int]string{503: notReady},
	},
	"GET /health/live": {
		ID: "isLive", Group: "health", Summary: "The process runs",
		Status: 200, Bare: true, Data: health{Status: "ok"},
	},
	"GET /health/ready": {
		ID: "isReady", Group: "health", Summary: "Whether the process may be sent requests",
		Description: `While the cache is away the status is "degraded": every answer still comes, from the database.`,
		Status:      200, Bare: true, Data: exampleHealth,
		Refusals: map[int]string{503: notReady},
	},
}

var exampleHealth = health{Status: "ok", Checks: &checks{Database: "ok", Cache: "ok"}}

const notReady = "The database cannot be read and written, or the process starts or stops."
