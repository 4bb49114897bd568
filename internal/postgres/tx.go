package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	outbox "github.com/chainlearn/chainlearn/cache/outbox/postgres"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// tx implements learning.Tx. Transactions are read committed: each statement sees what was
// committed before it began, and what must not change until the end is locked. A lock
// statement therefore comes before the one that relies on it, never within it.
type tx struct{ pgx.Tx }

// CourseActive locks the course as a foreign key does; see courses_kept_while_enrolling.
func (t *tx) CourseActive(ctx context.Context, id learning.CourseID) (bool, error) {
	return t.exists(ctx, `SELECT FROM courses WHERE id = $1::uuid AND is_active FOR KEY SHARE`, id.UUID)
}

func (t *tx) InsertEnrollment(ctx context.Context, e learning.Enrollment) error {
	return t.insertRow(ctx, `
INSERT INTO enrollments (id, user_id, course_id, enrolled_at)
VALUES ($1::uuid, $2::uuid, $3::uuid, $4)
ON CONFLICT DO NOTHING`,
		outbox.Last, uuid.Must(uuid.NewV7()), e.UserID.UUID, e.CourseID.UUID, e.EnrolledAt.UTC())
}

// Enrolled locks the enrolment against other transactions.
func (t *tx) Enrolled(ctx context.Context, user learning.UserID, course learning.CourseID) (bool, error) {
	return t.exists(ctx, `SELECT FROM enrollments WHERE user_id = $1::uuid AND course_id = $2::uuid FOR NO KEY UPDATE`,
		user.UUID, course.UUID)
}

var completeCourseQuery = `
UPDATE enrollments
SET completed_at = $3
WHERE user_id = $1::uuid AND course_id = $2::uuid AND completed_at IS NULL
  AND EXISTS (SELECT FROM quizzes WHERE course_id = $2::uuid AND generated_for IS NULL)
  AND NOT EXISTS (
      SELECT module_id FROM quizzes WHERE course_id = $2::uuid AND generated_for IS NULL
      EXCEPT
      SELECT q.module_id
      FROM quiz_submissions s JOIN quizzes q ON q.id = s.quiz_id
      WHERE s.user_id = $1::uuid AND q.course_id = $2::uuid AND ` + passedCondition + `)`

// CompleteCourse leaves a course without modules as it is: there is nothing to complete. Of two
// transactions that pass the last two modules at once, the second to get the lock sees both.
func (t *tx) CompleteCourse(ctx context.Context, user learning.UserID, course learning.CourseID, at time.Time) (bool, error) {
	var b pgx.Batch
	b.Queue(`SELECT FROM enrollments WHERE user_id = $1::uuid AND course_id = $2::uuid FOR NO KEY UPDATE`, user.UUID, course.UUID)
	done := int64(0)
	q := b.Queue(completeCourseQuery, user.UUID, course.UUID, at.UTC())
	q.Query(func(rows pgx.Rows) error {
		rows.Close()
		done = rows.CommandTag().RowsAffected()
		return rows.Err()
	})
	err := t.SendBatch(ctx, &b).Close()
	return done > 0, rowError(err)
}

// UseChallenge makes a transaction that uses the same challenge wait, and then fail.
func (t *tx) UseChallenge(ctx context.Context, id learning.ChallengeID, expires, now time.Time) error {
	if err := t.deleteExpired(ctx, "used_challenges", now); err != nil {
		return err
	}
	return t.insertRow(ctx, `INSERT INTO used_challenges (id, expires_at) VALUES ($1::uuid, $2) ON CONFLICT DO NOTHING`,
		id.UUID, expires.UTC())
}

// EnsureUser looks first: most who sign in have an account, and an insert that finds one
// costs a dead row. Of two first sign-ins the second waits for the first to commit and then
// finds its row, in a statement of its own.
func (t *tx) EnsureUser(ctx context.Context, address string, now time.Time) (p learning.Profile, created bool, err error) {
	find := func() error {
		return rowError(t.QueryRow(ctx, profileByAddressQuery, address).Scan(profileFields(&p)...))
	}
	if err := find(); !errors.Is(err, learning.ErrNoRow) {
		return p, false, err
	}
	err = t.insertRow(ctx, `
INSERT INTO users (id, stellar_address, created_at, updated_at) VALUES ($1::uuid, $2::text, $3, $3)
ON CONFLICT DO NOTHING`, learning.NewID[learning.Profile]().UUID, address, now.UTC())
	if err != nil && !errors.Is(err, learning.ErrExists) {
		return p, false, err
	}
	return p, err == nil, find()
}

func (t *tx) RevokeToken(ctx context.Context, jti string, expires, now time.Time) error {
	if err := t.deleteExpired(ctx, "revoked_tokens", now); err != nil {
		return err
	}
	_, err := t.Exec(ctx, `INSERT INTO revoked_tokens (jti, expires_at) VALUES ($1::text, $2) ON CONFLICT DO NOTHING`, jti, expires.UTC())
	return rowError(err)
}

// deleteExpired deletes a few rows whose time was over, but for those that another
// transaction is deleting.
func (t *tx) deleteExpired(ctx context.Context, table string, now time.Time) error {
	_, err := t.Exec(ctx, deleteExpiredQuery(table), now.UTC(), expiredBatch)
	return rowError(err)
}

func deleteExpiredQuery(table string) string {
	return `
DELETE FROM ` + table + ` WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM ` + table + ` WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2::int FOR UPDATE SKIP LOCKED))`
}

func (t *tx) ProfileForUpdate(ctx context.Context, id learning.UserID) (learning.Profile, error) {
	var p learning.Profile
	err := t.QueryRow(ctx, profileQuery+` FOR NO KEY UPDATE`, id.UUID).Scan(profileFields(&p)...)
	return p, rowError(err)
}

func (t *tx) UpdateProfile(ctx context.Context, p learning.Profile, at time.Time) error {
	return t.changeRow(ctx, `
UPDATE users
SET display_name = $2, background = $3, learning_goal = $4, pace = $5, language = $6, updated_at = $7
WHERE id = $1::uuid`,
		outbox.Last, p.ID.UUID, p.DisplayName, p.Background, p.LearningGoal, string(p.Pace), p.Language, at.UTC())
}

func (t *tx) AddCredits(ctx context.Context, user learning.UserID, n int, at time.Time) error {
	return t.changeRow(ctx, `UPDATE users SET credits = coalesce(credits, 0) + $2::int, updated_at = $3 WHERE id = $1::uuid`,
		user.UUID, n, at.UTC())
}

func (t *tx) ModuleQuestions(ctx context.Context, course learning.CourseID, module learning.ModuleID) ([]learning.Question, error) {
	rows, err := t.Query(ctx, `
SELECT questions
FROM quizzes
WHERE course_id = $1::uuid AND module_id = $2::text AND generated_for IS NULL
ORDER BY created_at, id`, course.UUID, string(module))
	if err != nil {
		return nil, err
	}
	var all, some []learning.Question
	_, err = pgx.ForEachRow(rows, []any{&some}, func() error {
		all, some = append(all, some...), nil
		return nil
	})
	return all, err
}

const quizColumns = `q.id, q.course_id, q.module_id, q.questions, q.generated_for, q.created_at`

func quizFields(q *learning.Quiz) []any {
	return []any{&q.ID.UUID, &q.CourseID.UUID, &q.ModuleID, &q.Questions, nullableUserID{&q.GeneratedFor}, utcTime{&q.CreatedAt}}
}

const submissionColumns = `s.id, s.quiz_id, q.course_id, q.module_id, s.user_id, s.answers, coalesce(s.score, 0),
       jsonb_array_length(q.questions), coalesce(s.feedback, ''), s.reward_claimed IS TRUE, s.submitted_at`

func submissionFields(s *learning.Submission) []any {
	return []any{&s.ID.UUID, &s.QuizID.UUID, &s.CourseID.UUID, &s.ModuleID, &s.UserID.UUID, &s.Answers, &s.Score,
		&s.TotalQuestions, &s.Feedback, &s.RewardClaimed, utcTime{&s.SubmittedAt}}
}

func (t *tx) LearnerQuiz(ctx context.Context, user learning.UserID, course learning.CourseID, module learning.ModuleID) (learning.Quiz, *learning.Submission, error) {
	const latest = `
FROM quizzes q
WHERE q.course_id = $1::uuid AND q.generated_for = $2::uuid AND q.module_id = $3::text
ORDER BY q.created_at DESC, q.id DESC
LIMIT 1`
	var b pgx.Batch
	var q learning.Quiz
	var s *learning.Submission
	b.Queue(`SELECT `+quizColumns+latest, course.UUID, user.UUID, string(module)).QueryRow(func(row pgx.Row) error {
		return row.Scan(quizFields(&q)...)
	})
	b.Queue(`
SELECT `+submissionColumns+`
FROM quiz_submissions s JOIN quizzes q ON q.id = s.quiz_id
WHERE s.user_id = $2::uuid AND s.quiz_id = (SELECT q.id`+latest+`)`, course.UUID, user.UUID, string(module)).QueryRow(func(row pgx.Row) error {
		var found learning.Submission
		err := row.Scan(submissionFields(&found)...)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		s = &found
		return err
	})
	if err := t.SendBatch(ctx, &b).Close(); err != nil {
		return learning.Quiz{}, nil, rowError(err)
	}
	return q, s, nil
}

func (t *tx) InsertQuiz(ctx context.Context, q learning.Quiz) error {
	questions, err := json.Marshal(q.Questions)
	if err != nil {
		return err
	}
	var generatedFor *uuid.UUID
	if q.GeneratedFor != nil {
		generatedFor = &q.GeneratedFor.UUID
	}
	return t.insertRow(ctx, `
INSERT INTO quizzes (id, course_id, module_id, questions, generated_for, created_at)
VALUES ($1::uuid, $2::uuid, $3::text, $4::text::jsonb, $5::uuid, $6)
ON CONFLICT DO NOTHING`,
		outbox.Last, q.ID.UUID, q.CourseID.UUID, string(q.ModuleID), string(questions), generatedFor, q.CreatedAt.UTC())
}

func (t *tx) Quiz(ctx context.Context, id learning.QuizID) (learning.Quiz, error) {
	var q learning.Quiz
	err := t.QueryRow(ctx, `SELECT `+quizColumns+` FROM quizzes q WHERE q.id = $1::uuid`, id.UUID).Scan(quizFields(&q)...)
	return q, rowError(err)
}

func (t *tx) InsertSubmission(ctx context.Context, s learning.Submission) error {
	answers := []byte("[]")
	if s.Answers != nil {
		var err error
		if answers, err = json.Marshal(s.Answers); err != nil {
			return err
		}
	}
	return t.insertRow(ctx, `
INSERT INTO quiz_submissions (id, quiz_id, user_id, answers, score, feedback, submitted_at)
VALUES ($1::uuid, $2::uuid, $3::uuid, $4::text::jsonb, $5::int, $6::text, $7)
ON CONFLICT DO NOTHING`,
		s.ID.UUID, s.QuizID.UUID, s.UserID.UUID, string(answers), s.Score, s.Feedback, s.SubmittedAt.UTC())
}

func (t *tx) SubmissionForUpdate(ctx context.Context, id learning.SubmissionID) (learning.Submission, error) {
	var s learning.Submission
	err := t.QueryRow(ctx, `
SELECT `+submissionColumns+`
FROM quiz_submissions s JOIN quizzes q ON q.id = s.quiz_id
WHERE s.id = $1::uuid
FOR NO KEY UPDATE OF s`, id.UUID).Scan(submissionFields(&s)...)
	return s, rowError(err)
}

func (t *tx) MarkClaimed(ctx context.Context, id learning.SubmissionID, amount int, at time.Time) error {
	return t.changeRow(ctx, `
UPDATE quiz_submissions
SET reward_claimed = true, reward_pending = false, reward_failed = false, reward_amount = $2::int, claimed_at = $3
WHERE id = $1::uuid`, id.UUID, amount, at.UTC())
}

func (t *tx) InsertCredential(ctx context.Context, user learning.UserID, c learning.Credential) error {
	return t.insertRow(ctx, `
INSERT INTO credentials (id, user_id, course_id, score, nft_asset_code, nft_issuer, mint_tx_hash, revoked, minted_at)
VALUES ($1::uuid, $2::uuid, $3::uuid, $4::int, $5::text, $6::text, $7::text, $8::boolean, $9)
ON CONFLICT DO NOTHING`,
		c.ID.UUID, user.UUID, c.CourseID.UUID, c.Score, c.NFTAssetCode, c.NFTIssuer, c.MintTxHash, c.Revoked, c.MintedAt.UTC())
}

// StoredResponse locks the key by its name: there may be no row yet. The lock is taken by a
// statement of its own, so that the next one sees what its holder has committed.
func (t *tx) StoredResponse(ctx context.Context, key learning.IdempotencyKey, now time.Time) (learning.StoredResponse, error) {
	var r learning.StoredResponse
	var body string
	var b pgx.Batch
	b.Queue(`SELECT pg_advisory_xact_lock(hashtextextended(concat_ws('/', 'idempotency', $1::text, $2::text, $3::text), 0))`,
		key.User.String(), key.Endpoint, key.Key)
	b.Queue(`
SELECT request_hash, response_status, response_body::text, expires_at
FROM idempotency_keys
WHERE user_id = $1::uuid AND endpoint = $2::text AND key = $3::text AND expires_at > $4`,
		key.User.UUID, key.Endpoint, key.Key, now.UTC()).QueryRow(func(row pgx.Row) error {
		return row.Scan(&r.RequestHash, &r.Status, &body, utcTime{&r.ExpiresAt})
	})
	if err := t.SendBatch(ctx, &b).Close(); err != nil {
		return learning.StoredResponse{}, rowError(err)
	}
	r.Body = []byte(body)
	return r, nil
}

// expiredBatch is how many expired rows go each time one comes, so that the table shrinks
// and no request pays for all of them.
const expiredBatch = 10

// StoreResponse fails with learning.ErrExists while a response is stored under the key.
func (t *tx) StoreResponse(ctx context.Context, key learning.IdempotencyKey, r learning.StoredResponse, now time.Time) error {
	var b pgx.Batch
	b.Queue(deleteExpiredQuery("idempotency_keys"), now.UTC(), expiredBatch)
	var stored int64
	b.Queue(`
INSERT INTO idempotency_keys AS k (key, user_id, endpoint, request_hash, response_status, response_body, created_at, expires_at)
VALUES ($1::text, $2::uuid, $3::text, $4::text, $5::int, $6::text::json, $7, $8)
ON CONFLICT (user_id, endpoint, key) DO UPDATE
SET request_hash = excluded.request_hash, response_status = excluded.response_status, response_body = excluded.response_body,
    tx_hash = NULL, created_at = excluded.created_at, expires_at = excluded.expires_at
WHERE k.expires_at <= excluded.created_at`,
		key.Key, key.User.UUID, key.Endpoint, r.RequestHash, r.Status, string(r.Body), now.UTC(), r.ExpiresAt.UTC()).
		Query(func(rows pgx.Rows) error {
			rows.Close()
			stored = rows.CommandTag().RowsAffected()
			return rows.Err()
		})
	err := t.SendBatch(ctx, &b).Close()
	if err == nil && stored == 0 {
		return learning.ErrExists
	}
	return rowError(err)
}

func (t *tx) exists(ctx context.Context, query string, args ...any) (bool, error) {
	tag, err := t.Exec(ctx, query, args...)
	return tag.RowsAffected() > 0, err
}

// changeRow runs a statement that changes exactly one row, or fails with learning.ErrNoRow.
func (t *tx) changeRow(ctx context.Context, query string, args ...any) error {
	return t.execOne(ctx, learning.ErrNoRow, query, args)
}

// insertRow runs a statement that inserts a row or, on a conflict, does nothing, which is
// learning.ErrExists: a violated constraint would end the transaction.
func (t *tx) insertRow(ctx context.Context, query string, args ...any) error {
	return t.execOne(ctx, learning.ErrExists, query, args)
}

func (t *tx) execOne(ctx context.Context, otherwise error, query string, args []any) error {
	tag, err := t.Exec(ctx, query, args...)
	if err != nil {
		return rowError(err)
	}
	if tag.RowsAffected() != 1 {
		return otherwise
	}
	return nil
}
