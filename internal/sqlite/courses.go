package sqlite

import (
	"context"
	"encoding/json"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// StoredCourses needs no lock: there is one writer at a time.
func (t *tx) StoredCourses(ctx context.Context, ids []learning.CourseID) ([]learning.StoredCourse, error) {
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	rows, err := t.QueryContext(ctx, `
SELECT id, title, description, difficulty, content_hash, is_active
FROM courses
WHERE id IN (SELECT value FROM json_each(?1))`, string(list))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var courses []learning.StoredCourse
	at := map[learning.CourseID]int{}
	for rows.Next() {
		var c learning.StoredCourse
		if err := rows.Scan(&c.ID, &c.Title, &c.Description, &c.Difficulty, &c.ContentHash, &c.IsActive); err != nil {
			return nil, err
		}
		at[c.ID] = len(courses)
		courses = append(courses, c)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}

	rows, err = t.QueryContext(ctx, `
SELECT q.course_id, q.module_id, m.title, m.position, q.questions,
       EXISTS (SELECT 1 FROM quiz_submissions s WHERE s.quiz_id = q.id)
FROM quizzes q
LEFT JOIN modules m ON m.course_id = q.course_id AND m.module_id = q.module_id
WHERE q.course_id IN (SELECT value FROM json_each(?1)) AND q.generated_for IS NULL
ORDER BY q.course_id, q.module_id, julianday(q.created_at), q.id`, string(list))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m learning.StoredModule
		if err := rows.Scan(&m.CourseID, &m.ID, &m.Title, &m.Position, jsonColumn{&m.Questions}, &m.Submitted); err != nil {
			return nil, err
		}
		i, ok := at[m.CourseID]
		if !ok {
			continue
		}
		modules := &courses[i].Modules
		if last := len(*modules) - 1; last >= 0 && (*modules)[last].ID == m.ID {
			of := &(*modules)[last]
			of.Questions, of.Submitted = append(of.Questions, m.Questions...), of.Submitted || m.Submitted
			continue
		}
		*modules = append(*modules, m)
	}
	return courses, rows.Err()
}

func (t *tx) SaveCourses(ctx context.Context, courses []learning.StoredCourse) error {
	for _, c := range courses {
		if err := t.execOne(ctx, `
INSERT INTO courses (id, title, description, difficulty, content_hash, is_active, created_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (id) DO UPDATE
SET title = excluded.title, description = excluded.description, difficulty = excluded.difficulty,
    content_hash = excluded.content_hash, is_active = excluded.is_active`,
			c.ID, c.Title, c.Description, c.Difficulty, c.ContentHash, c.IsActive, string(c.CreatedAt.AppendTo(nil))); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) SaveModules(ctx context.Context, modules []learning.StoredModule) error {
	for _, m := range modules {
		if err := t.execOne(ctx, `
INSERT INTO modules (course_id, module_id, title, position)
VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (course_id, module_id) DO UPDATE
SET title = excluded.title, position = excluded.position`, m.CourseID, m.ID, m.Title, m.Position); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) ReplaceQuizzes(ctx context.Context, quizzes []learning.Quiz) error {
	for _, q := range quizzes {
		if _, err := t.exec(ctx, `DELETE FROM quizzes WHERE course_id = ?1 AND module_id = ?2 AND generated_for IS NULL`, q.CourseID, q.ModuleID); err != nil {
			return err
		}
		if err := t.InsertQuiz(ctx, q); err != nil {
			return err
		}
	}
	return nil
}
