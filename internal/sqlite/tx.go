package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func (t *tx) CourseActive(ctx context.Context, id learning.CourseID) (bool, error) {
	return t.exists(ctx, `SELECT 1 FROM courses WHERE id = ?1 AND is_active = 1`, id)
}

func (t *tx) InsertEnrollment(ctx context.Context, e learning.Enrollment) error {
	return t.execOne(ctx, `INSERT INTO enrollments (id, user_id, course_id, enrolled_at) VALUES (?1, ?2, ?3, ?4)`,
		uuid.Must(uuid.NewV7()), e.UserID, e.CourseID, formatTime(e.EnrolledAt))
}

func (t *tx) Enrolled(ctx context.Context, user learning.UserID, course learning.CourseID) (bool, error) {
	return t.exists(ctx, `SELECT 1 FROM enrollments WHERE user_id = ?1 AND course_id = ?2`, user, course)
}

var completeCourseQuery = `
UPDATE enrollments
SET completed_at = ?3
WHERE user_id = ?1 AND course_id = ?2 AND completed_at IS NULL
  AND EXISTS (SELECT 1 FROM quizzes WHERE course_id = ?2 AND generated_for IS NULL)
  AND NOT EXISTS (
      SELECT module_id FROM quizzes WHERE course_id = ?2 AND generated_for IS NULL
      EXCEPT
      SELECT q.module_id
      FROM quiz_submissions s
      CROSS JOIN quizzes q ON q.id = s.quiz_id
      WHERE s.user_id = ?1 AND q.course_id = ?2 AND ` + passedCondition + `)`

// CompleteCourse leaves a course without modules as it is: there is nothing to complete.
func (t *tx) CompleteCourse(ctx context.Context, user learning.UserID, course learning.CourseID, at time.Time) (bool, error) {
	n, err := t.exec(ctx, completeCourseQuery, user, course, formatTime(at))
	return n > 0, err
}

// UseChallenge is for one writer at a time, as every statement here.
func (t *tx) UseChallenge(ctx context.Context, id learning.ChallengeID, expires, now time.Time) error {
	if err := t.deleteExpired(ctx, "used_challenges", now); err != nil {
		return err
	}
	return t.execOne(ctx, `INSERT INTO used_challenges (id, expires_at) VALUES (?1, ?2)`, id, formatTime(expires))
}

func (t *tx) EnsureUser(ctx context.Context, address string, now time.Time) (learning.Profile, bool, error) {
	created, err := t.exec(ctx, `
INSERT INTO users (id, stellar_address, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)
ON CONFLICT (stellar_address) DO NOTHING`, learning.NewID[learning.Profile](), address, formatTime(now))
	if err != nil {
		return learning.Profile{}, false, err
	}
	var p learning.Profile
	err = t.QueryRowContext(ctx, profileByAddressQuery, address).Scan(profileFields(&p)...)
	return p, created > 0, rowError(err)
}

func (t *tx) RevokeToken(ctx context.Context, jti string, expires, now time.Time) error {
	if err := t.deleteExpired(ctx, "revoked_tokens", now); err != nil {
		return err
	}
	_, err := t.exec(ctx, `INSERT INTO revoked_tokens (jti, expires_at) VALUES (?1, ?2) ON CONFLICT (jti) DO NOTHING`, jti, formatTime(expires))
	return err
}

// deleteExpired deletes a few rows whose time was over.
func (t *tx) deleteExpired(ctx context.Context, table string, now time.Time) error {
	_, err := t.exec(ctx, `
DELETE FROM `+table+` WHERE rowid IN (
    SELECT rowid FROM `+table+` WHERE julianday(expires_at) <= julianday(?1) ORDER BY julianday(expires_at) LIMIT ?2)`,
		formatTime(now), expiredBatch)
	return err
}

func (t *tx) ProfileForUpdate(ctx context.Context, id learning.UserID) (learning.Profile, error) {
	var p learning.Profile
	err := t.QueryRowContext(ctx, profileQuery, id).Scan(profileFields(&p)...)
	return p, rowError(err)
}

func (t *tx) UpdateProfile(ctx context.Context, p learning.Profile, at time.Time) error {
	return t.execOne(ctx, `
UPDATE users
SET display_name = ?2, background = ?3, learning_goal = ?4, pace = ?5, language = ?6, updated_at = ?7
WHERE id = ?1`,
		p.ID, p.DisplayName, p.Background, p.LearningGoal, p.Pace, p.Language, formatTime(at))
}

func (t *tx) AddCredits(ctx context.Context, user learning.UserID, n int, at time.Time) error {
	return t.execOne(ctx, `UPDATE users SET credits = credits + ?2, updated_at = ?3 WHERE id = ?1`, user, n, formatTime(at))
}

func (t *tx) ModuleQuestions(ctx context.Context, course learning.CourseID, module learning.ModuleID) ([]learning.Question, error) {
	rows, err := t.QueryContext(ctx, `
SELECT questions
FROM quizzes
WHERE course_id = ?1 AND module_id = ?2 AND generated_for IS NULL
ORDER BY julianday(created_at), id`, course, module)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []learning.Question
	for rows.Next() {
		var some []learning.Question
		if err := rows.Scan(jsonColumn{&some}); err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, rows.Err()
}

var quizColumns = `q.id, q.course_id, q.module_id, q.questions, q.generated_for, ` + isoTime("q.created_at")

func quizFields(q *learning.Quiz) []any {
	return []any{&q.ID, &q.CourseID, &q.ModuleID, jsonColumn{&q.Questions}, &q.GeneratedFor, utcTime{&q.CreatedAt}}
}

var submissionColumns = `s.id, s.quiz_id, q.course_id, q.module_id, s.user_id, s.answers, s.score,
       json_array_length(q.questions), s.feedback, s.reward_claimed, ` + isoTime("s.submitted_at")

func submissionFields(s *learning.Submission) []any {
	return []any{&s.ID, &s.QuizID, &s.CourseID, &s.ModuleID, &s.UserID, jsonColumn{&s.Answers}, &s.Score,
		&s.TotalQuestions, &s.Feedback, &s.RewardClaimed, utcTime{&s.SubmittedAt}}
}

func (t *tx) LearnerQuiz(ctx context.Context, user learning.UserID, course learning.CourseID, module learning.ModuleID) (learning.Quiz, *learning.Submission, error) {
	var q learning.Quiz
	err := t.QueryRowContext(ctx, `
SELECT `+quizColumns+`
FROM quizzes q
WHERE q.course_id = ?1 AND q.generated_for = ?2 AND q.module_id = ?3
ORDER BY julianday(q.created_at) DESC, q.id DESC
LIMIT 1`, course, user, module).Scan(quizFields(&q)...)
	if err != nil {
		return learning.Quiz{}, nil, rowError(err)
	}
	var s learning.Submission
	err = t.QueryRowContext(ctx, `
SELECT `+submissionColumns+`
FROM quiz_submissions s
JOIN quizzes q ON q.id = s.quiz_id
WHERE s.quiz_id = ?1 AND s.user_id = ?2`, q.ID, user).Scan(submissionFields(&s)...)
	switch {
	case err == nil:
		return q, &s, nil
	case errors.Is(err, sql.ErrNoRows):
		return q, nil, nil
	}
	return learning.Quiz{}, nil, err
}

func (t *tx) InsertQuiz(ctx context.Context, q learning.Quiz) error {
	questions, err := json.Marshal(q.Questions)
	if err != nil {
		return err
	}
	return t.execOne(ctx, `
INSERT INTO quizzes (id, course_id, module_id, questions, generated_for, created_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)`,
		q.ID, q.CourseID, q.ModuleID, string(questions), q.GeneratedFor, formatTime(q.CreatedAt))
}

func (t *tx) Quiz(ctx context.Context, id learning.QuizID) (learning.Quiz, error) {
	var q learning.Quiz
	err := t.QueryRowContext(ctx, `SELECT `+quizColumns+` FROM quizzes q WHERE q.id = ?1`, id).Scan(quizFields(&q)...)
	return q, rowError(err)
}

func (t *tx) InsertSubmission(ctx context.Context, s learning.Submission) error {
	answers, err := json.Marshal(s.Answers)
	if err != nil {
		return err
	}
	if s.Answers == nil {
		answers = []byte("[]")
	}
	return t.execOne(ctx, `
INSERT INTO quiz_submissions (id, quiz_id, user_id, answers, score, feedback, submitted_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)`,
		s.ID, s.QuizID, s.UserID, string(answers), s.Score, s.Feedback, formatTime(s.SubmittedAt))
}

func (t *tx) SubmissionForUpdate(ctx context.Context, id learning.SubmissionID) (learning.Submission, error) {
	var s learning.Submission
	err := t.QueryRowContext(ctx, `
SELECT `+submissionColumns+`
FROM quiz_submissions s
JOIN quizzes q ON q.id = s.quiz_id
WHERE s.id = ?1`, id).Scan(submissionFields(&s)...)
	return s, rowError(err)
}

func (t *tx) MarkClaimed(ctx context.Context, id learning.SubmissionID, amount int, at time.Time) error {
	return t.execOne(ctx, `
UPDATE quiz_submissions
SET reward_claimed = 1, reward_pending = 0, reward_failed = 0, reward_amount = ?2, claimed_at = ?3
WHERE id = ?1`, id, amount, formatTime(at))
}

func (t *tx) InsertCredential(ctx context.Context, user learning.UserID, c learning.Credential) error {
	return t.execOne(ctx, `
INSERT INTO credentials (id, user_id, course_id, score, nft_asset_code, nft_issuer, mint_tx_hash, revoked, minted_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)`,
		c.ID, user, c.CourseID, c.Score, c.NFTAssetCode, c.NFTIssuer, c.MintTxHash, c.Revoked, formatTime(c.MintedAt))
}

func (t *tx) StoredResponse(ctx context.Context, key learning.IdempotencyKey, now time.Time) (learning.StoredResponse, error) {
	var r learning.StoredResponse
	var body string
	err := t.QueryRowContext(ctx, `
SELECT request_hash, response_status, response_body, `+isoTime("expires_at")+`
FROM idempotency_keys
WHERE user_id = ?1 AND endpoint = ?2 AND key = ?3 AND julianday(expires_at) > julianday(?4)`,
		key.User, key.Endpoint, key.Key, formatTime(now)).Scan(&r.RequestHash, &r.Status, &body, utcTime{&r.ExpiresAt})
	r.Body = []byte(body)
	return r, rowError(err)
}

// expiredBatch is how many expired rows go each time one comes, so that the table shrinks
// and no request pays for all of them.
const expiredBatch = 10

// StoreResponse fails with learning.ErrExists while a response is stored under the key.
func (t *tx) StoreResponse(ctx context.Context, key learning.IdempotencyKey, r learning.StoredResponse, now time.Time) error {
	if _, err := t.exec(ctx, `
DELETE FROM idempotency_keys WHERE rowid IN (
    SELECT rowid FROM idempotency_keys WHERE julianday(expires_at) <= julianday(?1) ORDER BY julianday(expires_at) LIMIT ?2
) OR user_id = ?3 AND endpoint = ?4 AND key = ?5 AND julianday(expires_at) <= julianday(?1)`,
		formatTime(now), expiredBatch, key.User, key.Endpoint, key.Key); err != nil {
		return err
	}
	return t.execOne(ctx, `
INSERT INTO idempotency_keys (key, user_id, endpoint, request_hash, response_status, response_body, created_at, expires_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)`,
		key.Key, key.User, key.Endpoint, r.RequestHash, r.Status, string(r.Body), formatTime(now), formatTime(r.ExpiresAt))
}

func (t *tx) exists(ctx context.Context, query string, args ...any) (bool, error) {
	var found bool
	err := t.QueryRowContext(ctx, `SELECT EXISTS (`+query+`)`, args...).Scan(&found)
	return found, err
}

// execOne runs a statement that changes exactly one row, or fails with learning.ErrNoRow.
func (t *tx) execOne(ctx context.Context, query string, args ...any) error {
	n, err := t.exec(ctx, query, args...)
	if err == nil && n != 1 {
		err = learning.ErrNoRow
	}
	return err
}

func (t *tx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, rowError(err)
	}
	return res.RowsAffected()
}
