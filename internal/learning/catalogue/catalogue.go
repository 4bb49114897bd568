// Package catalogue holds the demonstration catalogue: the courses a fresh
// installation is seeded with, and the words from which its learners are made.
//
// The courses are files in the courses directory, one each, embedded in the
// program. A file that breaks a rule makes [Courses] fail and says where.
package catalogue

import (
	"embed"
	"time"

	"github.com/google/uuid"
)

// Course is one course with all of its modules, in order.
type Course struct {
	Slug        string
	Title       string
	Description string
	Difficulty  string // beginner, intermediate or advanced
	Active      bool   // an inactive course is kept for those who took it, but no longer listed
	CreatedAt   time.Time
	Modules     []Module
}

// Module is one lesson of a course; its questions form one quiz.
type Module struct {
	ID        string // unique within the course
	Title     string
	Order     int // from 1, without gaps
	Questions []Question
}

// Question is one multiple-choice question. Exactly one option is right.
type Question struct {
	ID           string // unique within the module
	Text         string
	Options      []string
	CorrectIndex int
}

// namespace is the UUID version 4 from which all ids of the catalogue are
// derived. It was drawn once and must stay as it is: with another one, seeding
// an existing database would add every course a second time instead of finding
// it.
var namespace = uuid.MustParse("5ec24fb9-f352-4059-aa8c-2e2ffa8d3b48")

// ID returns the course's id, which depends on the slug alone: it is the same
// in every installation and does not change when the text of a course does.
func (c Course) ID() uuid.UUID {
	return uuid.NewSHA1(namespace, []byte("course:"+c.Slug))
}

// QuizID returns the id of the quiz of the module moduleID, stable in the same
// way as [Course.ID]. It does not check that the course has such a module.
func (c Course) QuizID(moduleID string) uuid.UUID {
	// A slug holds no slash, so no two pairs spell the same name.
	return uuid.NewSHA1(namespace, []byte("quiz:"+c.Slug+"/"+moduleID))
}

//go:embed courses/*.json
var files embed.FS

// Courses returns the catalogue, oldest course first. It reads the embedded
// files again on each call, so that the result belongs to the caller; frequent
// callers keep it. The error lists everything that is wrong, each with its
// file, module, question and field. Courses is safe for concurrent use.
func Courses() ([]Course, error) { return load(files) }
