package learning

import (
	"fmt"

	"github.com/google/uuid"
)

// ID is the identity of one K. IDs of different kinds do not mix: a UserID cannot be
// passed where a CourseID belongs. It reads and writes as a lower-case UUID in JSON and
// in SQL.
type ID[K any] struct{ uuid.UUID }

type (
	UserID       = ID[Profile]
	CourseID     = ID[Course]
	QuizID       = ID[Quiz]
	SubmissionID = ID[Submission]
	CredentialID = ID[Credential]
	ChallengeID  = ID[Challenge]
)

// ModuleID names a module within its course, such as "module-2". It is not a UUID.
type ModuleID string

// NewID returns a fresh random ID, ordered by time so that indexes grow at one end.
func NewID[K any]() ID[K] { return ID[K]{uuid.Must(uuid.NewV7())} }

// ParseID reads a UUID in any case. Other spellings that UUID libraries know (braces, a
// URN, no dashes) are refused, so that an ID has one spelling in keys and in logs.
func ParseID[K any](s string) (ID[K], error) {
	if len(s) != 36 {
		return ID[K]{}, fmt.Errorf("must be a UUID such as 00000000-0000-4000-8000-000000000001, not %q", truncate(s))
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return ID[K]{}, fmt.Errorf("must be a UUID such as 00000000-0000-4000-8000-000000000001, not %q", truncate(s))
	}
	return ID[K]{u}, nil
}

// truncate keeps what a client sent from filling messages and logs.
func truncate(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
