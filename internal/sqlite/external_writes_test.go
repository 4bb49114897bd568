package sqlite

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// shell runs SQL with the sqlite3 program, as an operator does: another release of SQLite,
// without foreign keys, without a busy timeout.
type shell struct {
	*testing.T
	program, path string
	*Storage
}

func newShell(t *testing.T) *shell {
	t.Helper()
	program := testservers.Require(t, "sqlite3", "sqlite3")
	s := storage(t, Config{})
	var path string
	if err := s.readPool.QueryRowContext(t.Context(), `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&path); err != nil {
		t.Fatal(err)
	}
	return &shell{t, program, path, s}
}

func (s *shell) try(statements string) error {
	out, err := exec.CommandContext(s.Context(), s.program, "-bail", s.path, statements).CombinedOutput()
	if err != nil {
		return errors.New(strings.TrimSpace(string(out)))
	}
	return nil
}

// run runs statements, which must touch exactly some tags.
func (s *shell) run(statements string, want ...cache.Tag) {
	s.Helper()
	if err := s.try(statements); err != nil {
		s.Fatalf("%s: %v", statements, err)
	}
	got, err := s.touched(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.Errorf("%s touched\n\t%v, want\n\t%v", statements, got, want)
	}
}

func TestShell(t *testing.T) {
	s := newShell(t)
	u, v := anyUser, learning.NewID[learning.Profile]()
	c := anyCourse
	all, easy, hard := learning.CatalogTag(""), learning.CatalogTag(learning.Beginner), learning.CatalogTag(learning.Advanced)
	user, course := func(id learning.UserID) string { return "'" + id.String() + "'" }, "'"+c.String()+"'"

	s.run(`INSERT INTO users (id, stellar_address) VALUES (`+user(u)+`, 'G1')`, learning.UserTag(u))
	s.run(`INSERT INTO courses (id, title) VALUES (`+course+`, 'One')`, learning.CourseTag(c), all, easy)
	s.run(`INSERT INTO enrollments (user_id, course_id) VALUES (`+user(u)+`, `+course+`)`,
		learning.ProgressTag(u), learning.CourseTag(c), all, easy)

	// REPLACE deletes what is in its way, and runs no delete trigger for it.
	s.run(`REPLACE INTO courses (id, title, difficulty) VALUES (`+course+`, 'One', 'advanced')`, learning.CourseTag(c), all, easy, hard)
	s.run(`REPLACE INTO courses (id, title, difficulty) VALUES (`+course+`, 'Uno', 'advanced')`, learning.CourseTag(c), all, hard, learning.TitlesTag)
	s.run(`REPLACE INTO users (id, stellar_address) VALUES (`+user(v)+`, 'G1')`, learning.UserTag(u), learning.UserTag(v))
	s.run(`INSERT INTO users (id, stellar_address) VALUES (`+user(u)+`, 'G2')`, learning.UserTag(u))
	s.run(`UPDATE OR REPLACE users SET stellar_address = 'G2' WHERE id = `+user(v), learning.UserTag(u), learning.UserTag(v))
	s.run(`INSERT INTO users (id, stellar_address) VALUES (`+user(u)+`, 'G3')`, learning.UserTag(u))
	for table, c := range map[string]struct {
		statement string // with a user U
		want      []cache.Tag
	}{
		"quiz_submissions": {
			`INTO quiz_submissions (id, quiz_id, user_id, answers, score) VALUES ('00000000-0000-4000-8000-00000000000a', 'q', U, '[]', 1)`,
			[]cache.Tag{learning.ProgressTag(u), learning.RewardsTag(u), learning.ProgressTag(v), learning.RewardsTag(v)},
		},
		"credentials": {
			`INTO credentials (id, user_id, course_id, score) VALUES ('00000000-0000-4000-8000-00000000000a', U, ` + course + `, 1)`,
			[]cache.Tag{learning.ProgressTag(u), learning.CredentialsTag(u), learning.ProgressTag(v), learning.CredentialsTag(v)},
		},
		"enrollments": {
			`INTO enrollments (id, user_id, course_id) VALUES ('00000000-0000-4000-8000-00000000000a', U, ` + course + `)`,
			[]cache.Tag{learning.ProgressTag(u), learning.ProgressTag(v), learning.CourseTag(c), all, hard},
		},
	} {
		if err := s.try(`DELETE FROM ` + table + `; INSERT ` + strings.ReplaceAll(c.statement, " U,", user(u)+",")); err != nil {
			t.Fatalf("%s: %v", table, err)
		}
		if _, err := s.touched(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.run(`REPLACE `+strings.ReplaceAll(c.statement, " U,", user(v)+","), c.want...)
	}

	// A tag that an uncommitted transaction touched is not recorded.
	s.run(`BEGIN; DELETE FROM courses; ROLLBACK`)
	// Foreign keys are off in a shell: what refers to the course stays, without it.
	s.run(`DELETE FROM courses`, learning.CourseTag(c), all, hard, learning.TitlesTag)
	if list, err := s.Credentials(t.Context(), v); err != nil || len(list) != 1 || list[0].CourseTitle != "" {
		t.Errorf("a credential for a course that is gone: %+v, %v", list, err)
	}
}

// Any text that SQLite accepts as a time may be written by hand, and comes back as any other.
func TestTimesWrittenByHand(t *testing.T) {
	s := newShell(t)
	for _, c := range []struct {
		written string
		want    time.Time
	}{
		{`'2026-03-04 05:06:07'`, time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)},
		{`'2026-03-04T05:06:07.891Z'`, time.Date(2026, 3, 4, 5, 6, 7, 891e6, time.UTC)},
		{`'2026-03-04T05:06:07+02:00'`, time.Date(2026, 3, 4, 3, 6, 7, 0, time.UTC)},
		{`'2026-03-04'`, time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)},
		{`datetime('2026-03-04 05:06:07', '+1 day')`, time.Date(2026, 3, 5, 5, 6, 7, 0, time.UTC)},
	} {
		if err := s.try(`DELETE FROM courses; INSERT INTO courses (title, created_at) VALUES ('Course', ` + c.written + `)`); err != nil {
			t.Errorf("%s: %v", c.written, err)
			continue
		}
		page, err := s.ListCourses(t.Context(), learning.ListParams{Page: 1, Limit: 1})
		if err != nil || len(page.Courses) != 1 {
			t.Fatalf("%+v, %v", page, err)
		}
		if got, err := s.CourseDetail(t.Context(), page.Courses[0].ID); err != nil || !got.CreatedAt.Equal(c.want) {
			t.Errorf("%s was read as %v (error %v), want %v", c.written, got.CreatedAt, err, c.want)
		}
	}
	// Order goes by the time, not by its spelling.
	if err := s.try(`DELETE FROM courses; INSERT INTO courses (title, created_at) VALUES
		('2', '2026-03-04T11:00:00.000Z'), ('1', '2026-03-04 12:00:00'), ('3', '2026-03-04T12:30:00+02:00')`); err != nil {
		t.Fatal(err)
	}
	page, err := s.ListCourses(t.Context(), learning.ListParams{Page: 1, Limit: 3})
	if err != nil || len(page.Courses) != 3 || page.Courses[0].Title+page.Courses[1].Title+page.Courses[2].Title != "123" {
		t.Errorf("%+v, %v", page, err)
	}
}

// What the service could not read is refused when it is written, in words.
func TestMistakesByHandAreRefused(t *testing.T) {
	s := newShell(t)
	for statement, says := range map[string]string{
		`INSERT INTO courses (title, created_at) VALUES ('C', 'yesterday')`:                                         "courses.created_at is a time",
		`INSERT INTO courses (id, title) VALUES ('1', 'C')`:                                                         "courses.id is a lower-case UUID",
		`INSERT INTO courses (id, title) VALUES ('` + strings.ToUpper(anyCourse.String()) + `', 'C')`:               "courses.id is a lower-case UUID",
		`INSERT INTO courses (title, difficulty) VALUES ('C', 'easy')`:                                              "courses.difficulty is beginner, intermediate or advanced",
		`INSERT INTO courses (title, is_active) VALUES ('C', 2)`:                                                    "courses.is_active is 0 or 1",
		`INSERT INTO quizzes (course_id, module_id, questions) VALUES ('` + anyCourse.String() + `', 'm', 'What?')`: "quizzes.questions is a JSON array",
		`INSERT INTO users (stellar_address, pace) VALUES ('G', 'warp')`:                                            "users.pace is slow, medium or fast",
	} {
		if err := s.try(statement); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", statement, err, says)
		}
	}
}
