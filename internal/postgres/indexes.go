package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// An index that questions or promises need. An adopted database may have it under another
// name, so it is the definition that counts.
type index struct {
	name, table string
	unique      bool
	// using is what pg_get_indexdef prints after USING, to the letter.
	using string
}

var indexes = []index{
	// Promises, which an adopted database should hold already.
	{"users_one_per_address", "users", true, "btree (stellar_address)"},
	{"enrollments_one_per_user_and_course", "enrollments", true, "btree (user_id, course_id)"},
	{"quiz_submissions_one_per_quiz_and_user", "quiz_submissions", true, "btree (quiz_id, user_id)"},
	{"credentials_one_per_user_and_course", "credentials", true, "btree (user_id, course_id)"},
	{"idempotency_keys_one_per_use", "idempotency_keys", true, "btree (user_id, endpoint, key)"},

	// Not for searching: PostgreSQL takes columns of a unique index for a key, and makes
	// an update of a key column wait for transactions that hold FOR KEY SHARE on the row. So
	// a course keeps its difficulty, and stays active, while a learner enrols. An update
	// of the title alone blocks no enrolment.
	{"courses_kept_while_enrolling", "courses", true, "btree (id, difficulty, is_active)"},

	// The pages of the catalogue, in order, and how many there are.
	{"courses_newest", "courses", false, "btree (created_at DESC, id) WHERE is_active"},
	{"courses_newest_of_difficulty", "courses", false, "btree (difficulty, created_at DESC, id) WHERE is_active"},
	// Every list and detail counts a course's enrolments: without this, by reading all.
	{"enrollments_of_course", "enrollments", false, "btree (course_id)"},
	{"quizzes_of_module", "quizzes", false, "btree (course_id, module_id) WHERE (generated_for IS NULL)"},
	{"quizzes_of_learner", "quizzes", false, "btree (generated_for, course_id, module_id) WHERE (generated_for IS NOT NULL)"},
	{"quiz_submissions_of_user", "quiz_submissions", false, "btree (user_id)"},
	{"quiz_submissions_claimed", "quiz_submissions", false, "btree (user_id, COALESCE(claimed_at, submitted_at) DESC, id) WHERE reward_claimed"},
	{"credentials_of_user", "credentials", false, "btree (user_id, minted_at DESC, id)"},
	// Deleting a course finds what goes with it.
	{"credentials_of_course", "credentials", false, "btree (course_id)"},
	{"quizzes_of_course", "quizzes", false, "btree (course_id)"},
	// What has expired is found to be deleted.
	{"idempotency_keys_expiry", "idempotency_keys", false, "btree (expires_at)"},
	{"revoked_tokens_expiry", "revoked_tokens", false, "btree (expires_at)"},
}

// buildIndexes builds what is missing, one after another and without blocking
// writers. It may be interrupted and run again: what an interrupted build
// leaves behind is invalid, and built again.
func buildIndexes(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	for i, ix := range indexes {
		log := log.With("index", ix.name, "table", ix.table, "number", i+1, "of", len(indexes))
		if err := ix.build(ctx, db, log); err != nil {
			return fmt.Errorf("index %s: %w", ix.name, err)
		}
	}
	return nil
}

func (ix index) build(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	// What follows USING tells two indexes on a table apart; a unique one serves for both.
	const find = `
SELECT coalesce(bool_or(indisvalid AND ($3::boolean IS FALSE OR indisunique) AND
           substr(definition, strpos(definition, ' USING ') + 7) = $2::text), false),
       coalesce(bool_or(NOT indisvalid AND relname = $4::text), false)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid, pg_get_indexdef(indexrelid) AS definition
WHERE indrelid = $1::text::regclass`
	var there, broken bool
	if err := db.QueryRowContext(ctx, find, ix.table, ix.using, ix.unique, ix.name).Scan(&there, &broken); err != nil {
		return err
	}
	if there {
		return nil
	}
	if broken {
		log.InfoContext(ctx, "removing an index whose build was interrupted")
		if _, err := db.ExecContext(ctx, `DROP INDEX CONCURRENTLY IF EXISTS `+ix.name); err != nil {
			return err
		}
	}
	began := time.Now()
	log.InfoContext(ctx, "building index")
	watchCtx, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		reportBuild(watchCtx, db, ix.table, log)
	}()
	kind := "INDEX"
	if ix.unique {
		kind = "UNIQUE INDEX"
	}
	_, err := db.ExecContext(ctx, fmt.Sprintf(`CREATE %s CONCURRENTLY %s ON %s USING %s`, kind, ix.name, ix.table, ix.using))
	stop()
	<-watched
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "23505" {
		columns := strings.TrimPrefix(ix.using, "btree ")
		return fmt.Errorf("rows of %s are alike in %s, which must be unique: delete all but one of each (%s), then migrate again: %w",
			ix.table, columns, e.Detail, err)
	}
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "built index", "took", time.Since(began).Round(time.Millisecond))
	return nil
}

const buildReportInterval = 5 * time.Second

// reportBuild logs how far a build has come, until ctx ends.
func reportBuild(ctx context.Context, db *sql.DB, table string, log *slog.Logger) {
	tick := time.NewTicker(buildReportInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var phase string
		var percent float64
		err := db.QueryRowContext(ctx, `
SELECT phase, coalesce(100.0 * greatest(blocks_done::float8 / nullif(blocks_total, 0), tuples_done::float8 / nullif(tuples_total, 0)), 0)::float8
FROM pg_stat_progress_create_index WHERE relid = $1::text::regclass`, table).Scan(&phase, &percent)
		if err == nil { // otherwise it is between two phases, or over
			log.InfoContext(ctx, "building index", "phase", phase, "percent", int(percent))
		}
	}
}
