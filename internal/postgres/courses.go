package postgres

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// StoredCourses locks out other imports by a name: of two that create one course there is no row yet.
// Modules are read without a lock: nothing else writes them while the service runs.
func (t *tx) StoredCourses(ctx context.Context, ids []learning.CourseID) ([]learning.StoredCourse, error) {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	list := strings.Join(texts, ",")
	if _, err := t.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('chainlearn/import', 0))`); err != nil {
		return nil, rowError(err)
	}
	rows, err := t.Query(ctx, `
SELECT id, title, coalesce(description, ''), coalesce(difficulty, 'beginner'), content_hash, is_active IS TRUE
FROM courses
WHERE id = ANY (string_to_array($1::text, ',')::uuid[])
FOR NO KEY UPDATE`, list)
	if err != nil {
		return nil, rowError(err)
	}
	at := map[learning.CourseID]int{}
	courses, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c learning.StoredCourse, err error) {
		err = row.Scan(&c.ID.UUID, &c.Title, &c.Description, &c.Difficulty, &c.ContentHash, &c.IsActive)
		at[c.ID] = len(at)
		return c, err
	})
	if err != nil {
		return nil, rowError(err)
	}
	rows, err = t.Query(ctx, `
SELECT q.course_id, q.module_id, m.title, m.position, q.lists, q.submitted
FROM (
    SELECT course_id, module_id, jsonb_agg(questions ORDER BY created_at, id) AS lists,
           bool_or(EXISTS (SELECT FROM quiz_submissions s WHERE s.quiz_id = quizzes.id)) AS submitted
    FROM quizzes
    WHERE course_id = ANY (string_to_array($1::text, ',')::uuid[]) AND generated_for IS NULL
    GROUP BY course_id, module_id) q
LEFT JOIN modules m ON m.course_id = q.course_id AND m.module_id = q.module_id
ORDER BY q.course_id, q.module_id`, list)
	if err != nil {
		return nil, rowError(err)
	}
	var m learning.StoredModule
	var lists [][]learning.Question
	_, err = pgx.ForEachRow(rows, []any{&m.CourseID.UUID, &m.ID, &m.Title, &m.Position, &lists, &m.Submitted}, func() error {
		if i, ok := at[m.CourseID]; ok {
			m.Questions = nil
			for _, questions := range lists {
				m.Questions = append(m.Questions, questions...)
			}
			courses[i].Modules = append(courses[i].Modules, m)
		}
		m, lists = learning.StoredModule{}, nil
		return nil
	})
	return courses, rowError(err)
}

func (t *tx) SaveCourses(ctx context.Context, courses []learning.StoredCourse) error {
	return t.saveList(ctx, courses, `
INSERT INTO courses (id, title, description, difficulty, content_hash, is_active, created_at)
SELECT id, title, description, difficulty, "contentHash", "isActive", "createdAt"
FROM jsonb_to_recordset($1::text::jsonb) AS c (id uuid, title text, description text, difficulty text, "contentHash" text, "isActive" boolean, "createdAt" timestamptz)
ON CONFLICT (id) DO UPDATE
SET title = excluded.title, description = excluded.description, difficulty = excluded.difficulty,
    content_hash = excluded.content_hash, is_active = excluded.is_active`)
}

func (t *tx) SaveModules(ctx context.Context, modules []learning.StoredModule) error {
	return t.saveList(ctx, modules, `
INSERT INTO modules (course_id, module_id, title, position)
SELECT "courseId", id, title, position
FROM jsonb_to_recordset($1::text::jsonb) AS m ("courseId" uuid, id text, title text, position int)
ON CONFLICT (course_id, module_id) DO UPDATE
SET title = excluded.title, position = excluded.position`)
}

func (t *tx) ReplaceQuizzes(ctx context.Context, quizzes []learning.Quiz) error {
	type quiz struct {
		ID        uuid.UUID           `json:"id"`
		CourseID  uuid.UUID           `json:"courseId"`
		ModuleID  learning.ModuleID   `json:"moduleId"`
		Questions []learning.Question `json:"questions"`
		CreatedAt learning.Time       `json:"createdAt"`
	}
	list := make([]quiz, len(quizzes))
	for i, q := range quizzes {
		list[i] = quiz{q.ID.UUID, q.CourseID.UUID, q.ModuleID, q.Questions, learning.Time(q.CreatedAt)}
	}
	if err := t.saveList(ctx, list, `
DELETE FROM quizzes q
USING jsonb_to_recordset($1::text::jsonb) AS n ("courseId" uuid, "moduleId" text)
WHERE q.course_id = n."courseId" AND q.module_id = n."moduleId" AND q.generated_for IS NULL`); err != nil {
		return err
	}
	return t.saveList(ctx, list, `
INSERT INTO quizzes (id, course_id, module_id, questions, created_at)
SELECT id, "courseId", "moduleId", questions, "createdAt"
FROM jsonb_to_recordset($1::text::jsonb) AS q (id uuid, "courseId" uuid, "moduleId" text, questions jsonb, "createdAt" timestamptz)`)
}

// saveList runs a statement whose parameter is a list, as JSON.
func (t *tx) saveList(ctx context.Context, list any, statement string) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, statement, string(text))
	return rowError(err)
}
