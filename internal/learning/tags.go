package learning

import "github.com/chainlearn/chainlearn/cache"

// The tags of the platform. Triggers in the migrations record the same names when rows
// change; the storage suite holds the two together.

// CatalogTag is carried by list pages: "catalog:all" by those of every difficulty, and
// "catalog:beginner" (and so on) by those of one.
func CatalogTag(d Difficulty) cache.Tag {
	if d == "" {
		return "catalog:all"
	}
	return cache.T("catalog", d)
}

// TitlesTag is carried by answers that show titles of courses a user has history with.
// It is bumped when a course is renamed or deleted, which is rare.
const TitlesTag cache.Tag = "courses:titles"

// CourseTag is carried by the detail of a course: its row, its modules, its enrolment count.
func CourseTag(id CourseID) cache.Tag { return cache.T("course", id) }

// UserTag is carried by answers from a user's own row.
func UserTag(id UserID) cache.Tag { return cache.T("user", id) }

// ProgressTag is carried by a user's progress: enrolments, submissions, credentials.
func ProgressTag(id UserID) cache.Tag { return cache.T("progress", id) }

// RewardsTag is carried by a user's reward history.
func RewardsTag(id UserID) cache.Tag { return cache.T("rewards", id) }

// CredentialsTag is carried by a user's credentials.
func CredentialsTag(id UserID) cache.Tag { return cache.T("credentials", id) }

// TokenTag is carried by the answer whether a token is revoked.
func TokenTag(jti string) cache.Tag { return cache.T("token", jti) }
