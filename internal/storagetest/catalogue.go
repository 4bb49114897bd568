package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
)

var catalogueRules = []rule{
	{"list shows every field", func(s *suite) {
		id := s.course("title", "Überall 学ぶ 🚀 \"quoted\" \\ </script>", "description", "two\nlines\tand a tab", "difficulty", "advanced")
		s.enroll(s.user(), id)
		s.enroll(s.user(), id)
		page := must[learning.CoursePage](s)(s.Storage.ListCourses(s.Context(), learning.ListParams{Page: 1, Limit: 20}))
		want := learning.Course{
			ID: id, Title: "Überall 学ぶ 🚀 \"quoted\" \\ </script>", Description: "two\nlines\tand a tab",
			Difficulty: learning.Advanced, IsActive: true, EnrolledCount: 2,
		}
		if len(page.Courses) != 1 || page.Courses[0] != want || page.Total != 1 {
			s.Errorf("got %+v, want one page with %+v", page, want)
		}
	}},
	{"list is newest first, and by id where that ties", func(s *suite) {
		old := s.course("created_at", day(1))
		tied := []learning.CourseID{s.course("created_at", day(2)), s.course("created_at", day(2)), s.course("created_at", day(2))}
		young := s.course("created_at", day(3))
		slices.SortFunc(tied, compareIDs)
		s.wantList(learning.ListParams{Page: 1, Limit: 20}, 5, append(append([]learning.CourseID{young}, tied...), old)...)
	}},
	{"list leaves out inactive courses", func(s *suite) {
		shown := s.course()
		s.course("is_active", false)
		s.wantList(learning.ListParams{Page: 1, Limit: 20}, 1, shown)
		s.wantCount("", 1)
	}},
	{"list filters by difficulty", func(s *suite) {
		easy, hard := s.course(), s.course("difficulty", "advanced")
		s.course("difficulty", "advanced", "is_active", false)
		s.wantList(learning.ListParams{Difficulty: learning.Beginner, Page: 1, Limit: 20}, 1, easy)
		s.wantList(learning.ListParams{Difficulty: learning.Advanced, Page: 1, Limit: 20}, 1, hard)
		s.wantList(learning.ListParams{Difficulty: learning.Intermediate, Page: 1, Limit: 20}, 0)
		s.wantCount("", 2)
		s.wantCount(learning.Advanced, 1)
		s.wantCount(learning.Intermediate, 0)
	}},
	{"pages of a list neither overlap nor leave gaps", func(s *suite) {
		const courses, limit = 11, 3
		for range courses {
			s.course("created_at", day(1))
		}
		all := must[learning.CoursePage](s)(s.Storage.ListCourses(s.Context(), learning.ListParams{Page: 1, Limit: learning.MaxLimit}))
		var ids []learning.CourseID
		for _, c := range all.Courses {
			ids = append(ids, c.ID)
		}
		if len(ids) != courses {
			s.Fatalf("one page of all has %d courses, want %d", len(ids), courses)
		}
		page := 1
		for want := range slices.Chunk(ids, limit) {
			s.wantList(learning.ListParams{Page: page, Limit: limit}, courses, want...)
			page++
		}
		s.wantList(learning.ListParams{Page: page, Limit: limit}, courses)
		s.wantList(learning.ListParams{Page: learning.MaxPage, Limit: learning.MaxLimit}, courses)
	}},
	{"an empty list is an empty list", func(s *suite) {
		s.wantList(learning.ListParams{Page: 1, Limit: 20}, 0)
		s.wantCount("", 0)
	}},
	{"detail shows every field", func(s *suite) {
		id := s.course("title", "Détail", "description", "d", "difficulty", "intermediate", "content_hash", "Qm…", "created_at", day(7))
		s.enroll(s.user(), id)
		s.quiz(id, "module-1", 1)
		s.insert("modules", "course_id", id.UUID, "module_id", "module-1", "title", "Première", "position", 1)
		got := must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), id))
		if got.ContentHash == nil || *got.ContentHash != "Qm…" {
			s.Errorf("content hash %v", got.ContentHash)
		}
		if !got.CreatedAt.Equal(day(7)) {
			s.Errorf("created at %v, want %v", got.CreatedAt, day(7))
		}
		want := learning.Course{ID: id, Title: "Détail", Description: "d", Difficulty: learning.Intermediate, IsActive: true, EnrolledCount: 1}
		if got.Course != want {
			s.Errorf("got %+v, want %+v", got.Course, want)
		}
		if want := []learning.Module{{ID: "module-1", Title: "Première", Order: 1}}; !slices.Equal(got.Modules, want) {
			s.Errorf("modules %+v, want %+v", got.Modules, want)
		}
	}},
	{"detail of a bare course", func(s *suite) {
		got := must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), s.course()))
		if got.ContentHash != nil || got.EnrolledCount != 0 || got.Modules == nil || len(got.Modules) != 0 {
			s.Errorf("got %+v, want no hash, no enrolment and an empty list of modules", got)
		}
	}},
	{"an inactive or unknown course has no detail", func(s *suite) {
		for what, id := range map[string]learning.CourseID{
			"inactive": s.course("is_active", false), "unknown": learning.NewID[learning.Course](),
			"the largest id": {UUID: uuid.Max},
		} {
			if _, err := s.Storage.CourseDetail(s.Context(), id); !errors.Is(err, learning.ErrNoRow) {
				s.Errorf("%s: %v, want ErrNoRow", what, err)
			}
		}
	}},
	{"modules are those of quizzes without a learner, in natural order", func(s *suite) {
		id, other := s.course(), s.course()
		for _, m := range []learning.ModuleID{"module-10", "module-2", "module-1", "module-2"} {
			s.quiz(id, m, 1)
		}
		s.quiz(id, "module-3", 1, s.user()) // a learner's own quiz defines no module
		s.quiz(other, "module-4", 1)
		s.insert("modules", "course_id", id.UUID, "module_id", "module-5", "title", "Without a quiz", "position", 1)
		s.wantModules(id, learning.Module{ID: "module-1", Title: "Module 1", Order: 1},
			learning.Module{ID: "module-2", Title: "Module 2", Order: 2}, learning.Module{ID: "module-10", Title: "Module 10", Order: 3})
	}},
	{"the modules table decides on titles and order, and ids on the rest", func(s *suite) {
		id := s.course()
		for _, m := range []learning.ModuleID{"a", "b", "module-10", "module-9", "élan"} {
			s.quiz(id, m, 1)
		}
		s.insert("modules", "course_id", id.UUID, "module_id", "a", "title", "Second", "position", 20)
		s.insert("modules", "course_id", id.UUID, "module_id", "b", "title", "First", "position", 10)
		s.wantModules(id, learning.Module{ID: "b", Title: "First", Order: 1}, learning.Module{ID: "a", Title: "Second", Order: 2},
			learning.Module{ID: "module-9", Title: "Module 9", Order: 3}, learning.Module{ID: "module-10", Title: "Module 10", Order: 4},
			learning.Module{ID: "élan", Title: "Élan", Order: 5})
	}},
	{"a module id may be long", func(s *suite) {
		id, module := s.course(), learning.ModuleID(strings.Repeat("m", 100))
		s.quiz(id, module, 1)
		got := must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), id)).Modules
		if len(got) != 1 || got[0].ID != module {
			s.Errorf("got %+v", got)
		}
	}},
	{"detail counts only the course's own enrolments", func(s *suite) {
		id, other := s.course(), s.course()
		for i := range 5 {
			user := s.user()
			s.enroll(user, id)
			if i < 3 {
				s.enroll(user, other)
			}
		}
		for c, want := range map[learning.CourseID]int{id: 5, other: 3} {
			if got := must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), c)).EnrolledCount; got != want {
				s.Errorf("%d enrolled, want %d", got, want)
			}
		}
	}},
}

func (s *suite) wantList(p learning.ListParams, total int, ids ...learning.CourseID) {
	s.Helper()
	page := must[learning.CoursePage](s)(s.Storage.ListCourses(s.Context(), p))
	if page.Courses == nil {
		s.Errorf("%+v: courses are nil", p)
	}
	got := make([]string, len(page.Courses))
	for i, c := range page.Courses {
		got[i] = c.ID.String()
	}
	if want := fmt.Sprint(ids); fmt.Sprint(got) != want || page.Total != total {
		s.Errorf("%+v: got %v of %d, want %v of %d", p, got, page.Total, want, total)
	}
}

func (s *suite) wantCount(d learning.Difficulty, want int) {
	s.Helper()
	if got := must[int](s)(s.Storage.CountCourses(s.Context(), d)); got != want {
		s.Errorf("%d courses of difficulty %q, want %d", got, d, want)
	}
}

func (s *suite) wantModules(id learning.CourseID, want ...learning.Module) {
	s.Helper()
	got := must[learning.CourseDetail](s)(s.Storage.CourseDetail(s.Context(), id)).Modules
	if !slices.Equal(got, want) {
		s.Errorf("modules %+v, want %+v", got, want)
	}
}
