package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// readStatements are the statements of learning.Reads, prepared: planning one costs more than
// running it. Each is the only statement of its question, so that it sees one state of
// the database and a miss costs one trip.
type readStatements struct {
	listCourses, listCoursesOf, countCourses, countCoursesOf, courseDetail     *sql.Stmt
	enrolled, completedModule, profile, progress, rewards, credentials, bearer *sql.Stmt
}

func (s *Storage) prepare(ctx context.Context) error {
	for _, q := range []struct {
		stmt **sql.Stmt
		sql  string
	}{
		{&s.statements.listCourses, listCoursesQuery("")},
		{&s.statements.listCoursesOf, listCoursesQuery("AND difficulty = ?3")},
		{&s.statements.countCourses, `SELECT count(*) FROM courses WHERE is_active = 1`},
		{&s.statements.countCoursesOf, `SELECT count(*) FROM courses WHERE is_active = 1 AND difficulty = ?1`},
		{&s.statements.courseDetail, courseDetailQuery},
		{&s.statements.enrolled, enrolledQuery},
		{&s.statements.completedModule, completedModuleQuery},
		{&s.statements.profile, profileQuery},
		{&s.statements.progress, progressQuery},
		{&s.statements.rewards, rewardsQuery},
		{&s.statements.credentials, credentialsQuery},
		{&s.statements.bearer, bearerQuery},
	} {
		var err error
		if *q.stmt, err = s.readPool.PrepareContext(ctx, q.sql); err != nil {
			return fmt.Errorf("prepare %s: %w", q.sql, err)
		}
	}
	return nil
}

// readRow asks a question whose answer is one row.
func readRow(ctx context.Context, stmt *sql.Stmt, args []any, fields ...any) error {
	return unavailable(ctx, rowError(stmt.QueryRowContext(ctx, args...).Scan(fields...)))
}

// listCoursesQuery is the page of courses that match a condition, and how many do. The page comes
// as one JSON array: a page past the end has no rows that could bear the total.
func listCoursesQuery(condition string) string {
	return `
WITH page AS (
    SELECT id, title, description, difficulty, julianday(created_at) AS created
    FROM courses
    WHERE is_active = 1 ` + condition + `
    ORDER BY julianday(created_at) DESC, id
    LIMIT ?1 OFFSET ?2
)
SELECT (SELECT count(*) FROM courses WHERE is_active = 1 ` + condition + `),
       json_group_array(json_object(
           'id', id, 'title', title, 'description', description, 'difficulty', difficulty,
           'isActive', json('true'),
           'enrolledCount', (SELECT count(*) FROM enrollments WHERE course_id = page.id)
       ) ORDER BY created DESC, id)
FROM page`
}

func (s *Storage) ListCourses(ctx context.Context, p learning.ListParams) (learning.CoursePage, error) {
	stmt, args := s.statements.listCourses, []any{p.Limit, (p.Page - 1) * p.Limit}
	if p.Difficulty != "" {
		stmt, args = s.statements.listCoursesOf, append(args, p.Difficulty)
	}
	var page learning.CoursePage
	err := readRow(ctx, stmt, args, &page.Total, jsonColumn{&page.Courses})
	if err != nil {
		return learning.CoursePage{}, fmt.Errorf("list courses: %w", err)
	}
	return page, nil
}

func (s *Storage) CountCourses(ctx context.Context, d learning.Difficulty) (int, error) {
	stmt, args := s.statements.countCourses, []any(nil)
	if d != "" {
		stmt, args = s.statements.countCoursesOf, []any{d}
	}
	var n int
	if err := readRow(ctx, stmt, args, &n); err != nil {
		return 0, fmt.Errorf("count courses: %w", err)
	}
	return n, nil
}

var courseDetailQuery = `
SELECT id, title, description, difficulty, content_hash, ` + isoTime("created_at") + `,
       (SELECT count(*) FROM enrollments WHERE course_id = courses.id),
       (SELECT json_group_array(json_object('id', defined.module_id, 'title', m.title, 'position', m.position))
        FROM (SELECT DISTINCT module_id FROM quizzes WHERE course_id = ?1 AND generated_for IS NULL) defined
        LEFT JOIN modules m ON m.course_id = ?1 AND m.module_id = defined.module_id)
FROM courses
WHERE id = ?1 AND is_active = 1`

func (s *Storage) CourseDetail(ctx context.Context, id learning.CourseID) (learning.CourseDetail, error) {
	var c learning.CourseDetail
	var modules []learning.ModuleRow
	err := readRow(ctx, s.statements.courseDetail, []any{id},
		&c.ID, &c.Title, &c.Description, &c.Difficulty, &c.ContentHash, utcTime{&c.CreatedAt}, &c.EnrolledCount, jsonColumn{&modules})
	if err != nil {
		return learning.CourseDetail{}, fmt.Errorf("course %s: %w", id, err)
	}
	c.IsActive = true
	c.Modules = learning.ModulesInOrder(modules)
	return c, nil
}

const enrolledQuery = `
SELECT json_group_array(course_id)
FROM enrollments
WHERE user_id = ?1 AND course_id IN (SELECT value FROM json_each(?2))`

func (s *Storage) Enrolled(ctx context.Context, user learning.UserID, courses []learning.CourseID) (map[learning.CourseID]bool, error) {
	ids, err := json.Marshal(courses)
	if err != nil {
		return nil, fmt.Errorf("enrolments of %s: %w", user, err)
	}
	var found []learning.CourseID
	if err := readRow(ctx, s.statements.enrolled, []any{user, string(ids)}, jsonColumn{&found}); err != nil {
		return nil, fmt.Errorf("enrolments of %s: %w", user, err)
	}
	in := make(map[learning.CourseID]bool, len(found))
	for _, id := range found {
		in[id] = true
	}
	return in, nil
}

// passedCondition is the condition that submission s of quiz q passes, as Submission.Passed has it.
var passedCondition = fmt.Sprintf(`s.score * 100 >= %d * json_array_length(q.questions) AND json_array_length(q.questions) > 0`, learning.PassPercent)

// CROSS JOIN is SQLite's way to fix an order: a learner has few submissions, a module may
// have as many quizzes as learners.
var completedModuleQuery = `
SELECT EXISTS (
    SELECT 1
    FROM quiz_submissions s
    CROSS JOIN quizzes q ON q.id = s.quiz_id
    WHERE s.user_id = ?1 AND q.course_id = ?2 AND q.module_id = ?3 AND ` + passedCondition + `)`

func (s *Storage) CompletedModule(ctx context.Context, user learning.UserID, course learning.CourseID, module learning.ModuleID) (bool, error) {
	var done bool
	if err := readRow(ctx, s.statements.completedModule, []any{user, course, module}, &done); err != nil {
		return false, fmt.Errorf("completion of module %q of course %s by %s: %w", module, course, user, err)
	}
	return done, nil
}

var (
	profileColumns = `
SELECT id, stellar_address, display_name, background, learning_goal, pace, language, credits, ` + isoTime("created_at")
	profileQuery = profileColumns + `
FROM users
WHERE id = ?1`
	profileByAddressQuery = profileColumns + `
FROM users
WHERE stellar_address = ?1`
	bearerQuery = profileColumns + `, EXISTS (SELECT 1 FROM revoked_tokens WHERE jti = ?2)
FROM users
WHERE id = ?1`
)

func profileFields(p *learning.Profile) []any {
	return []any{&p.ID, &p.StellarAddress, &p.DisplayName, &p.Background, &p.LearningGoal, &p.Pace, &p.Language, &p.Credits, utcTime{&p.CreatedAt}}
}

func (s *Storage) Profile(ctx context.Context, id learning.UserID) (learning.Profile, error) {
	var p learning.Profile
	if err := readRow(ctx, s.statements.profile, []any{id}, profileFields(&p)...); err != nil {
		return learning.Profile{}, fmt.Errorf("user %s: %w", id, err)
	}
	return p, nil
}

const progressQuery = `
SELECT joined.courses, joined.completed, answered.score, earned.credentials, answered.claimed
FROM (SELECT count(*) AS courses, count(completed_at) AS completed FROM enrollments WHERE user_id = ?1) joined,
     (SELECT coalesce(sum(score), 0) AS score, coalesce(sum(reward_claimed), 0) AS claimed FROM quiz_submissions WHERE user_id = ?1) answered,
     (SELECT count(*) AS credentials FROM credentials WHERE user_id = ?1 AND revoked = 0) earned`

func (s *Storage) Progress(ctx context.Context, id learning.UserID) (learning.Progress, error) {
	var p learning.Progress
	err := readRow(ctx, s.statements.progress, []any{id},
		&p.EnrolledCourses, &p.CompletedCourses, &p.TotalQuizScore, &p.CredentialsEarned, &p.RewardsClaimed)
	if err != nil {
		return learning.Progress{}, fmt.Errorf("progress of %s: %w", id, err)
	}
	return p, nil
}

// A claim recorded by hand may lack its time; then it counts from the submission. Outer
// joins, because the total counts every claim.
var rewardsQuery = `
WITH page AS (
    SELECT id, quiz_id, score, reward_amount, tx_hash, coalesce(claimed_at, submitted_at) AS claimed_at
    FROM quiz_submissions
    WHERE user_id = ?1 AND reward_claimed = 1
    ORDER BY julianday(coalesce(claimed_at, submitted_at)) DESC, id
    LIMIT ?2 OFFSET ?3
)
SELECT (SELECT count(*) FROM quiz_submissions WHERE user_id = ?1 AND reward_claimed = 1),
       json_group_array(json_object(
           'id', page.id, 'courseTitle', coalesce(c.title, ''), 'score', page.score,
           'amount', coalesce(page.reward_amount, 0), 'txHash', page.tx_hash,
           'claimedAt', ` + isoTime("page.claimed_at") + `
       ) ORDER BY julianday(page.claimed_at) DESC, page.id)
FROM page
LEFT JOIN quizzes q ON q.id = page.quiz_id
LEFT JOIN courses c ON c.id = q.course_id`

func (s *Storage) RewardHistory(ctx context.Context, p learning.RewardParams) (learning.RewardPage, error) {
	var page learning.RewardPage
	err := readRow(ctx, s.statements.rewards, []any{p.User, p.Limit, (p.Page - 1) * p.Limit}, &page.Total, jsonColumn{&page.Rewards})
	if err != nil {
		return learning.RewardPage{}, fmt.Errorf("rewards of %s: %w", p.User, err)
	}
	return page, nil
}

var credentialsQuery = `
SELECT json_group_array(json_object(
           'id', k.id, 'courseId', k.course_id, 'courseTitle', coalesce(c.title, ''), 'score', k.score,
           'nftAssetCode', k.nft_asset_code, 'nftIssuer', k.nft_issuer, 'mintTxHash', k.mint_tx_hash,
           'revoked', json(CASE k.revoked WHEN 1 THEN 'true' ELSE 'false' END),
           'mintedAt', ` + isoTime("k.minted_at") + `
       ) ORDER BY julianday(k.minted_at) DESC, k.id)
FROM credentials k
LEFT JOIN courses c ON c.id = k.course_id
WHERE k.user_id = ?1`

func (s *Storage) Credentials(ctx context.Context, id learning.UserID) ([]learning.Credential, error) {
	var list []learning.Credential
	if err := readRow(ctx, s.statements.credentials, []any{id}, jsonColumn{&list}); err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", id, err)
	}
	return list, nil
}

func (s *Storage) Bearer(ctx context.Context, id learning.UserID, jti string) (p learning.Profile, revoked bool, err error) {
	if err := readRow(ctx, s.statements.bearer, []any{id, jti}, append(profileFields(&p), &revoked)...); err != nil {
		return learning.Profile{}, false, fmt.Errorf("user %s: %w", id, err)
	}
	return p, revoked, nil
}

// jsonColumn scans a JSON text into what v points to.
type jsonColumn struct{ v any }

func (j jsonColumn) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("JSON must be text, not %T", src)
	}
	return json.Unmarshal([]byte(s), j.v)
}
