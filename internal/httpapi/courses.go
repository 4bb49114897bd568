package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

type courseView struct {
	learning.Course
	IsEnrolled bool `json:"isEnrolled"`
}

func (s *Server) listCourses(r *http.Request, viewer learning.UserID) (reply, error) {
	f := faults{}
	q := query(r, f)
	p := learning.ListParams{Difficulty: difficultyOf(q, f)}
	p.Page, p.Limit = pageOf(q, f)
	if err := f.err(); err != nil {
		return reply{}, err
	}
	catalog, err := s.platform.Courses(r.Context(), viewer, p)
	rep := reply{cached: fromCache(catalog.Answer, viewer != learning.Nobody)}
	if err != nil {
		return rep, err
	}
	views := make([]courseView, len(catalog.Value.Courses))
	for i, c := range catalog.Value.Courses {
		views[i] = courseView{c, catalog.Enrolled[c.ID]}
	}
	rep.data, rep.pagination = views, &pagination{p.Page, p.Limit, catalog.Value.Total}
	return rep, nil
}

type courseDetailView struct {
	courseView
	ContentHash *string           `json:"contentHash"`
	Modules     []learning.Module `json:"modules"`
	CreatedAt   Time              `json:"createdAt"`
}

func (s *Server) getCourse(r *http.Request, viewer learning.UserID) (reply, error) {
	f := faults{}
	id := idParam[learning.Course](r, "id", f)
	if err := f.err(); err != nil {
		return reply{}, err
	}
	course, err := s.platform.Course(r.Context(), viewer, id)
	rep := reply{cached: fromCache(course.Answer, viewer != learning.Nobody)}
	if err != nil {
		return rep, err
	}
	rep.data = courseDetailView{
		courseView{course.Value.Course, course.Enrolled},
		course.Value.ContentHash, list(course.Value.Modules), Time(course.Value.CreatedAt),
	}
	return rep, nil
}

// list makes an empty list of nil, which JSON would write as null.
func list[V any](s []V) []V {
	if s == nil {
		return []V{}
	}
	return s
}

type moduleView struct {
	ID          learning.ModuleID `json:"id"`
	CourseID    learning.CourseID `json:"courseId"`
	Title       string            `json:"title"`
	Order       int               `json:"order"`
	IsCompleted bool              `json:"isCompleted"`
}

func (s *Server) getModule(r *http.Request, viewer learning.UserID) (reply, error) {
	f := faults{}
	id := idParam[learning.Course](r, "id", f)
	module := r.PathValue("moduleId")
	if problem := moduleProblem(module); problem != "" {
		f.add("params", "moduleId", "%s", problem)
	}
	if err := f.err(); err != nil {
		return reply{}, err
	}
	m, err := s.platform.Module(r.Context(), viewer, id, learning.ModuleID(module))
	rep := reply{cached: fromCache(m.Answer, viewer != learning.Nobody)}
	if err != nil {
		return rep, err
	}
	rep.data = moduleView{m.Value.ID, m.CourseID, m.Value.Title, m.Value.Order, m.Completed}
	return rep, nil
}

type enrollmentView struct {
	CourseID   learning.CourseID `json:"courseId"`
	UserID     learning.UserID   `json:"userId"`
	EnrolledAt Time              `json:"enrolledAt"`
}

// enroll needs no body, and whatever one it is sent it does not read.
func (s *Server) enroll(r *http.Request, me learner) (reply, error) {
	f := faults{}
	id := idParam[learning.Course](r, "id", f)
	if err := f.err(); err != nil {
		return reply{}, err
	}
	e, err := s.platform.Enroll(r.Context(), me.Value.ID, id)
	if err != nil {
		return reply{}, err
	}
	return reply{
		status: http.StatusCreated, message: "Enrolled successfully",
		data: enrollmentView{e.CourseID, e.UserID, Time(e.EnrolledAt)},
	}, nil
}
