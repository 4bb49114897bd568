package postgres

import (
	"context"
	"fmt"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// The questions of learning.Reads. Each is one statement, so that it sees one state of the
// database and a miss costs one trip. Parameters have their types spelled out, for
// connections that prepare no statements, as some proxies want it.

// listCoursesQuery is the page of courses that match a condition, and how many do. The page comes
// as one JSON array: a page past the end has no rows that could bear the total. Courses
// are counted and sorted first, so that enrolments are counted for the page only.
func listCoursesQuery(condition string) string {
	return `
WITH page AS MATERIALIZED (
    SELECT id, title, description, difficulty, created_at
    FROM courses
    WHERE is_active ` + condition + `
    ORDER BY created_at DESC, id
    LIMIT $1::int OFFSET $2::int
)
SELECT (SELECT count(*) FROM courses WHERE is_active ` + condition + `),
       (SELECT coalesce(json_agg(json_build_object(
           'id', id, 'title', title, 'description', coalesce(description, ''), 'difficulty', difficulty, 'isActive', true,
           'enrolledCount', (SELECT count(*) FROM enrollments WHERE course_id = page.id)
       ) ORDER BY created_at DESC, id), '[]') FROM page)`
}

var (
	listAllQuery          = listCoursesQuery("")
	listOfDifficultyQuery = listCoursesQuery("AND difficulty = $3::text")
)

func (s *Storage) ListCourses(ctx context.Context, p learning.ListParams) (learning.CoursePage, error) {
	query, args := listAllQuery, []any{p.Limit, (p.Page - 1) * p.Limit}
	if p.Difficulty != "" {
		query, args = listOfDifficultyQuery, append(args, string(p.Difficulty))
	}
	var page learning.CoursePage
	if err := s.load(ctx, query, args, &page.Total, &page.Courses); err != nil {
		return learning.CoursePage{}, fmt.Errorf("list courses: %w", err)
	}
	return page, nil
}

const (
	countAllQuery          = `SELECT count(*) FROM courses WHERE is_active`
	countOfDifficultyQuery = `SELECT count(*) FROM courses WHERE is_active AND difficulty = $1::text`
)

func (s *Storage) CountCourses(ctx context.Context, d learning.Difficulty) (int, error) {
	query, args := countAllQuery, []any(nil)
	if d != "" {
		query, args = countOfDifficultyQuery, []any{string(d)}
	}
	var n int
	if err := s.load(ctx, query, args, &n); err != nil {
		return 0, fmt.Errorf("count courses: %w", err)
	}
	return n, nil
}

const courseDetailQuery = `
SELECT id, title, coalesce(description, ''), difficulty, content_hash, created_at,
       (SELECT count(*) FROM enrollments WHERE course_id = courses.id),
       (SELECT coalesce(json_agg(json_build_object('id', q.module_id, 'title', m.title, 'position', m.position)), '[]')
        FROM (SELECT DISTINCT module_id FROM quizzes WHERE course_id = $1::uuid AND generated_for IS NULL) q
        LEFT JOIN modules m ON m.course_id = $1::uuid AND m.module_id = q.module_id)
FROM courses
WHERE id = $1::uuid AND is_active`

func (s *Storage) CourseDetail(ctx context.Context, id learning.CourseID) (learning.CourseDetail, error) {
	var c learning.CourseDetail
	var modules []learning.ModuleRow
	err := s.load(ctx, courseDetailQuery, []any{id.UUID},
		&c.ID.UUID, &c.Title, &c.Description, &c.Difficulty, &c.ContentHash, utcTime{&c.CreatedAt}, &c.EnrolledCount, &modules)
	if err != nil {
		return learning.CourseDetail{}, fmt.Errorf("course %s: %w", id, err)
	}
	c.IsActive = true
	c.Modules = learning.ModulesInOrder(modules)
	return c, nil
}

// passedCondition is the condition that submission s of quiz q passes, as Submission.Passed has it.
var passedCondition = fmt.Sprintf(`s.score * 100 >= %d * jsonb_array_length(q.questions) AND jsonb_array_length(q.questions) > 0`, learning.PassPercent)

var completedModuleQuery = `
SELECT EXISTS (
    SELECT FROM quiz_submissions s JOIN quizzes q ON q.id = s.quiz_id
    WHERE s.user_id = $1::uuid AND q.course_id = $2::uuid AND q.module_id = $3::text AND ` + passedCondition + `)`

func (s *Storage) CompletedModule(ctx context.Context, user learning.UserID, course learning.CourseID, module learning.ModuleID) (bool, error) {
	var done bool
	if err := s.readRow(ctx, completedModuleQuery, []any{user.UUID, course.UUID, string(module)}, &done); err != nil {
		return false, fmt.Errorf("completion of module %q of course %s by %s: %w", module, course, user, err)
	}
	return done, nil
}

const (
	profileColumns = `
SELECT id, stellar_address, display_name, background, learning_goal,
       coalesce(pace, 'medium'), coalesce(language, 'en'), coalesce(credits, 0), created_at`
	profileQuery = profileColumns + `
FROM users
WHERE id = $1::uuid`
	profileByAddressQuery = profileColumns + `
FROM users
WHERE stellar_address = $1::text`
	bearerQuery = profileColumns + `, EXISTS (SELECT FROM revoked_tokens WHERE jti = $2::text)
FROM users
WHERE id = $1::uuid`
)

func profileFields(p *learning.Profile) []any {
	return []any{&p.ID.UUID, &p.StellarAddress, &p.DisplayName, &p.Background, &p.LearningGoal,
		&p.Pace, &p.Language, &p.Credits, utcTime{&p.CreatedAt}}
}

func (s *Storage) Profile(ctx context.Context, id learning.UserID) (learning.Profile, error) {
	var p learning.Profile
	if err := s.readRow(ctx, profileQuery, []any{id.UUID}, profileFields(&p)...); err != nil {
		return learning.Profile{}, fmt.Errorf("user %s: %w", id, err)
	}
	return p, nil
}

const progressQuery = `
SELECT e.courses, e.completed, s.score, c.credentials, s.claimed
FROM (SELECT count(*) AS courses, count(completed_at) AS completed FROM enrollments WHERE user_id = $1::uuid) e,
     (SELECT coalesce(sum(score), 0)::bigint AS score, count(*) FILTER (WHERE reward_claimed) AS claimed
      FROM quiz_submissions WHERE user_id = $1::uuid) s,
     (SELECT count(*) AS credentials FROM credentials WHERE user_id = $1::uuid AND revoked IS NOT TRUE) c`

func (s *Storage) Progress(ctx context.Context, id learning.UserID) (learning.Progress, error) {
	var p learning.Progress
	err := s.load(ctx, progressQuery, []any{id.UUID},
		&p.EnrolledCourses, &p.CompletedCourses, &p.TotalQuizScore, &p.CredentialsEarned, &p.RewardsClaimed)
	if err != nil {
		return learning.Progress{}, fmt.Errorf("progress of %s: %w", id, err)
	}
	return p, nil
}

// isoTime formats a time inside JSON. In an adopted database the column may have no time
// zone, and then holds UTC.
func isoTime(column string) string {
	return `to_char(` + column + `, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
}

// A claim recorded by hand, or before there was a time for it, counts from the submission.
// Outer joins, because the total counts every claim.
var rewardsQuery = `
WITH page AS MATERIALIZED (
    SELECT id, quiz_id, score, reward_amount, tx_hash, coalesce(claimed_at, submitted_at) AS claimed_at
    FROM quiz_submissions
    WHERE user_id = $1::uuid AND reward_claimed
    ORDER BY coalesce(claimed_at, submitted_at) DESC, id
    LIMIT $2::int OFFSET $3::int
)
SELECT (SELECT count(*) FROM quiz_submissions WHERE user_id = $1::uuid AND reward_claimed),
       (SELECT coalesce(json_agg(json_build_object(
           'id', page.id, 'courseTitle', coalesce(c.title, ''), 'score', coalesce(page.score, 0),
           'amount', coalesce(page.reward_amount, 0), 'txHash', page.tx_hash,
           'claimedAt', ` + isoTime("page.claimed_at") + `
       ) ORDER BY page.claimed_at DESC, page.id), '[]')
       FROM page LEFT JOIN quizzes q ON q.id = page.quiz_id LEFT JOIN courses c ON c.id = q.course_id)`

func (s *Storage) RewardHistory(ctx context.Context, p learning.RewardParams) (learning.RewardPage, error) {
	var page learning.RewardPage
	if err := s.load(ctx, rewardsQuery, []any{p.User.UUID, p.Limit, (p.Page - 1) * p.Limit}, &page.Total, &page.Rewards); err != nil {
		return learning.RewardPage{}, fmt.Errorf("rewards of %s: %w", p.User, err)
	}
	return page, nil
}

var credentialsQuery = `
SELECT coalesce(json_agg(json_build_object(
           'id', k.id, 'courseId', k.course_id, 'courseTitle', coalesce(c.title, ''), 'score', coalesce(k.score, 0),
           'nftAssetCode', k.nft_asset_code, 'nftIssuer', k.nft_issuer, 'mintTxHash', k.mint_tx_hash,
           'revoked', k.revoked IS TRUE, 'mintedAt', ` + isoTime("k.minted_at") + `
       ) ORDER BY k.minted_at DESC, k.id), '[]')
FROM credentials k LEFT JOIN courses c ON c.id = k.course_id
WHERE k.user_id = $1::uuid`

func (s *Storage) Credentials(ctx context.Context, id learning.UserID) ([]learning.Credential, error) {
	var list []learning.Credential
	if err := s.load(ctx, credentialsQuery, []any{id.UUID}, &list); err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", id, err)
	}
	return list, nil
}

// Bearer asks the primary, as Profile does: a replica would first have to report its
// WAL position.
func (s *Storage) Bearer(ctx context.Context, id learning.UserID, jti string) (p learning.Profile, revoked bool, err error) {
	if err := s.readRow(ctx, bearerQuery, []any{id.UUID, jti}, append(profileFields(&p), &revoked)...); err != nil {
		return learning.Profile{}, false, fmt.Errorf("user %s: %w", id, err)
	}
	return p, revoked, nil
}
