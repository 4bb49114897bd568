package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/pressly/goose/v3"

	outboxsqlite "github.com/chainlearn/chainlearn/cache/outbox/sqlite"
)

// watches say what a changed row invalidates, table by table, in any program that changes it. The
// tags are those of internal/learning/tags.go; templates are documented at outboxsqlite.Watch.
//
// A change of them, and a release of the outbox whose schema or triggers differ, needs one more
// migration that calls declareWatches: a test says so.
var watches = []struct {
	table     string
	templates []string
}{
	{"users", []string{"user:{id}"}},
	// Answers that show the titles of courses to those with a history: renaming is rare.
	{"courses", []string{"course:{id}", "catalog:all", "catalog:{difficulty}", "courses:titles ON DELETE OR UPDATE OF id, title"}},
	{"modules", []string{"course:{course_id}"}},
	// Enrolling changes the number that the catalogue shows; completing does not. When a course is
	// deleted its enrolments follow, and its difficulty can no longer be asked for; the
	// course's own trigger knew it.
	{"enrollments", []string{
		"progress:{user_id}",
		"course:{course_id} ON INSERT OR DELETE OR UPDATE OF course_id",
		"catalog:all ON INSERT OR DELETE OR UPDATE OF course_id",
		"catalog:{SELECT difficulty FROM courses WHERE courses.id = enrollments.course_id} ON INSERT OR DELETE OR UPDATE OF course_id",
	}},
	// A learner's own quiz adds no module that everybody sees. Submissions find their course
	// through the quiz; where a foreign key does not make them go with it, they lose its title.
	{"quizzes", []string{
		"course:{CASE WHEN generated_for IS NULL THEN course_id END} ON INSERT OR DELETE OR UPDATE OF course_id, module_id, generated_for",
		"courses:titles ON UPDATE OF id, course_id",
		"courses:{SELECT DISTINCT 'titles' FROM quiz_submissions WHERE quiz_id = quizzes.id} ON DELETE",
	}},
	{"quiz_submissions", []string{"progress:{user_id}", "rewards:{user_id}"}},
	{"credentials", []string{"progress:{user_id}", "credentials:{user_id}"}},
	{"revoked_tokens", []string{"token:{jti}"}},
}

// migrateWatches is migration 3. It brings the outbox of migration 2 up to date, where it stands,
// and declares watches in the place of the triggers that migration 2 wrote by hand.
var migrateWatches = goose.NewGoMigration(3, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name NOT GLOB 'cache_*' AND sql LIKE '%INSERT INTO cache_touch %'`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var drop strings.Builder
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		fmt.Fprintf(&drop, "DROP TRIGGER %q;\n", name)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, drop.String()); err != nil {
		return err
	}
	return declareWatches(ctx, tx)
}}, nil)

// declareWatches brings the outbox and the watches up to date.
func declareWatches(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, outboxsqlite.Schema); err != nil {
		return err
	}
	for _, w := range watches {
		if err := outboxsqlite.Watch(ctx, tx, "chainlearn", w.table, w.templates...); err != nil {
			return err
		}
	}
	return nil
}
