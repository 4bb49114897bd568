// Package learning is the domain: courses, enrolments, quizzes, progress, rewards and
// credentials, what may be done with them, and (in queries.go) how their answers are
// cached. It knows no HTTP and no SQL.
package learning
