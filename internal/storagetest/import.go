package storagetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// imported is a course with two modules, as a file would say it.
func imported(id learning.CourseID) learning.CourseImport {
	return learning.CourseImport{
		ID: id, Title: "Rust \"fast\" 学ぶ", Description: new("two\nlines"), Difficulty: new(learning.Advanced), ContentHash: new("hash"),
		Modules: []learning.ModuleImport{
			{ID: "module-10", Title: new("First"), Questions: questions(2)},
			{ID: "module-2", Questions: questions(3)},
		},
	}
}

// imports imports courses, and demands that this makes so many changes.
func (s *suite) imports(want int, courses ...learning.CourseImport) []string {
	s.Helper()
	changes, err := learning.ImportCourses(s.Context(), s.Storage, courses, day(9), false)
	if err != nil {
		s.Fatal(err)
	}
	if len(changes) != want {
		s.Errorf("%d changes, want %d:\n%s", len(changes), want, strings.Join(changes, "\n"))
	}
	return changes
}

func (s *suite) detail(id learning.CourseID) learning.CourseDetail {
	s.Helper()
	return must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), id))
}

func (s *suite) questionsOf(course learning.CourseID, module learning.ModuleID) (list []learning.Question) {
	s.Helper()
	s.write(func(ctx context.Context, tx learning.Tx) (err error) {
		list, err = tx.ModuleQuestions(ctx, course, module)
		return err
	})
	return list
}

var importRules = []rule{
	{"an import creates courses, in order, and nothing the second time", func(s *suite) {
		first, second := learning.NewID[learning.Course](), learning.NewID[learning.Course]()
		old := s.course()
		file := []learning.CourseImport{imported(first), {ID: second, Title: "Plain", IsActive: new(true)}}
		s.imports(4, file...)
		s.wantList(learning.ListParams{Page: 1, Limit: 20}, 3, first, second, old)
		got := s.detail(first)
		want := learning.CourseDetail{
			Course:      learning.Course{ID: first, Title: "Rust \"fast\" 学ぶ", Description: "two\nlines", Difficulty: learning.Advanced, IsActive: true},
			ContentHash: new("hash"), CreatedAt: got.CreatedAt,
			Modules: []learning.Module{{ID: "module-10", Title: "First", Order: 1}, {ID: "module-2", Title: "Module 2", Order: 2}},
		}
		if !reflect.DeepEqual(got, want) || !got.CreatedAt.Equal(day(9)) {
			s.Errorf("got %+v, want %+v", got, want)
		}
		if got := s.detail(second); got.Difficulty != learning.Beginner || got.Description != "" || got.ContentHash != nil || len(got.Modules) != 0 {
			s.Errorf("a course of which only the title is given: %+v", got)
		}
		if got := s.questionsOf(first, "module-2"); !reflect.DeepEqual(got, questions(3)) {
			s.Errorf("the questions are %+v", got)
		}
		s.touched()
		s.imports(0, file...)
		s.wantTouched("importing what is there")
	}},
	{"an import changes what is named, and leaves the rest", func(s *suite) {
		id, other := learning.NewID[learning.Course](), s.course("title", "Other")
		s.imports(3, imported(id))
		quiz := s.quiz(id, "module-7", 1) // which has no row of its own
		s.enroll(s.user(), id)
		changes := s.imports(5, learning.CourseImport{ID: id, Title: "Rust", IsActive: new(true), Modules: []learning.ModuleImport{
			{ID: "module-2", Title: new("Second"), Questions: append(questions(2), learning.Question{ID: "new", Text: "New?", Options: []string{"a", "b"}, CorrectIndex: 1})},
			{ID: "module-3", Questions: questions(1)},
		}})
		for i, words := range []string{
			`~ course … "Rust": title "Rust \"fast\" 学ぶ" → "Rust"`, `~ module "module-2" of …: title "Module 2" → "Second"; position 2 → 1`,
			`~ module "module-2" of …: questions: 1 added, 0 changed, 1 removed`, `+ module "module-3" of … "Module 3": 1 question`, `~ module "module-10" of …: position 1 → 3`,
		} {
			if i < len(changes) && changes[i] != strings.ReplaceAll(words, "…", id.String()) {
				s.Errorf("change %d is\n%s\nwant\n%s", i, changes[i], words)
			}
		}
		got := s.detail(id)
		if want := []learning.Module{{ID: "module-2", Title: "Second", Order: 1}, {ID: "module-3", Title: "Module 3", Order: 2}, {ID: "module-10", Title: "First", Order: 3}, {ID: "module-7", Title: "Module 7", Order: 4}}; !slices.Equal(got.Modules, want) {
			s.Errorf("the modules are %v, want %v", got.Modules, want)
		}
		if got.Title != "Rust" || got.Description != "two\nlines" || got.Difficulty != learning.Advanced || got.EnrolledCount != 1 {
			s.Errorf("the course is %+v", got)
		}
		if got := s.questionsOf(id, "module-7"); len(got) != 1 {
			s.Errorf("the questions of quiz %s are %v", quiz, got)
		}
		if got := s.detail(other); got.Title != "Other" {
			s.Errorf("another course is %+v", got)
		}
		s.imports(1, learning.CourseImport{ID: id, Title: "Rust", IsActive: new(false)})
		if _, err := s.Storage.CourseDetail(s.Context(), id); !errors.Is(err, learning.ErrNoRow) {
			s.Errorf("a course that is not active: %v", err)
		}
		s.imports(1, learning.CourseImport{ID: id, Title: "Rust", IsActive: new(true)})
	}},
	{"an import of a module that several quizzes define makes it one", func(s *suite) {
		id := s.course("title", "C")
		s.quiz(id, "m", 1)
		s.quiz(id, "m", 2)
		course := learning.CourseImport{ID: id, Title: "C", Modules: []learning.ModuleImport{{ID: "m", Questions: questions(2)}}}
		s.imports(2, course)
		if got := s.questionsOf(id, "m"); !reflect.DeepEqual(got, questions(2)) {
			s.Errorf("the questions are %v", got)
		}
		s.imports(0, course)
	}},
	{"an import leaves the quizzes of learners, and what they have answered", func(s *suite) {
		id, learner := s.course("title", "C"), s.user()
		s.quiz(id, "m", 1)
		own := s.quiz(id, "m", 1, learner)
		s.submission(own, learner, 1)
		course := learning.CourseImport{ID: id, Title: "C", Modules: []learning.ModuleImport{{ID: "m", Questions: questions(3)}}}
		s.imports(2, course)
		s.write(func(ctx context.Context, tx learning.Tx) error {
			quiz, submission, err := tx.LearnerQuiz(ctx, learner, id, "m")
			if err != nil || quiz.ID != own || submission == nil || submission.TotalQuestions != 1 {
				s.Errorf("the learner's quiz is %+v, %+v, %v", quiz, submission, err)
			}
			return nil
		})
		answered := s.quiz(id, "answered", 1)
		s.submission(answered, learner, 1)
		course.Title = "New"
		course.Modules = append(course.Modules, learning.ModuleImport{ID: "answered", Questions: questions(2)})
		_, err := learning.ImportCourses(s.Context(), s.Storage, []learning.CourseImport{course}, day(9), false)
		if refused, ok := errors.AsType[*learning.Error](err); !ok || refused.Kind != learning.Conflict || !strings.Contains(refused.Message, `module "answered" of course `+id.String()) {
			s.Errorf("new questions for a quiz that has submissions: %v", err)
		}
		if got := s.detail(id); got.Title != "C" {
			s.Errorf("a refused import has changed the course: %+v", got)
		}
		course.Modules[1].Questions = questions(1)
		s.imports(2, course) // its title, and a position for the module
	}},
	{"a dry run changes nothing, and fails as the import would", func(s *suite) {
		id := learning.NewID[learning.Course]()
		s.touched()
		changes, err := learning.ImportCourses(s.Context(), s.Storage, []learning.CourseImport{imported(id)}, day(9), true)
		if err != nil || len(changes) != 3 {
			s.Errorf("%d changes, %v", len(changes), err)
		}
		if _, err := s.Storage.CourseDetail(s.Context(), id); !errors.Is(err, learning.ErrNoRow) {
			s.Errorf("a dry run has created the course: %v", err)
		}
		s.wantTouched("a dry run")
		_, err = learning.ImportCourses(s.Context(), s.Storage, []learning.CourseImport{{ID: id, Title: "T", Modules: []learning.ModuleImport{{ID: "m"}, {ID: "n"}}}}, day(9), true)
		if refused, ok := errors.AsType[*learning.Error](err); !ok || strings.Count(refused.Message, "give it at least one question") != 2 {
			s.Errorf("modules without questions: %v", err)
		}
	}},
	{"an import touches the courses that it changes", func(s *suite) {
		id, other := learning.NewID[learning.Course](), learning.NewID[learning.Course]()
		s.imports(4, imported(id), learning.CourseImport{ID: other, Title: "Other"})
		s.touched()
		changed := imported(id)
		changed.Modules[1].Questions = questions(4)
		s.imports(1, changed, learning.CourseImport{ID: other, Title: "Other"})
		s.wantTouched("new questions", learning.CourseTag(id)) // the quiz is another row
		changed.Title = "New"
		s.imports(1, changed)
		s.wantTouched("a new title", learning.CourseTag(id), learning.CatalogTag(""), learning.CatalogTag(learning.Advanced), learning.TitlesTag)
	}},
	{"an import may be large", func(s *suite) {
		var file []learning.CourseImport
		for i := range 200 {
			course := imported(learning.NewID[learning.Course]())
			course.Title = fmt.Sprint("Course ", i)
			file = append(file, course)
		}
		s.imports(600, file...)
		s.imports(0, file...)
		s.wantCount(learning.Advanced, 200)
		if tags := s.touched(); !slices.ContainsFunc(tags, func(t cache.Tag) bool { return t.Kind() == "course" }) {
			s.Errorf("touched %d tags, none of a course", len(tags))
		}
	}},
	{"of two imports of one course at once each is whole", func(s *suite) {
		id := learning.NewID[learning.Course]()
		errs := make(chan error, 4)
		for i := range cap(errs) {
			go func() {
				course := imported(id)
				course.Title = fmt.Sprint("Course ", i)
				course.Modules[0].Questions = questions(2 + i)
				_, err := learning.ImportCourses(s.Context(), s.Storage, []learning.CourseImport{course}, day(9), false)
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				s.Error(err)
			}
		}
		var last int
		if _, err := fmt.Sscanf(s.detail(id).Title, "Course %d", &last); err != nil {
			s.Fatal(err)
		}
		if got := s.questionsOf(id, "module-10"); len(got) != 2+last {
			s.Errorf("the title is of import %d, and there are %d questions", last, len(got))
		}
	}},
}
