package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func (s *Server) listCourses(r *http.Request, viewer learning.UserID) (reply, error) {
	f := faults{}
	q := query(r, f)
	p := learning.ListParams{Difficulty: difficultyOf(q, f)}
	p.Page, p.Limit = pageOf(q, f)
	if err := f.err(); err != nil {
		return reply{}, err
	}
	page, err := s.platform.Courses(r.Context(), viewer, p)
	rep := overlaid(page, viewer)
	rep.pagination = &pagination{p.Page, p.Limit, page.Value.Total}
	return rep, err
}

func (s *Server) getCourse(r *http.Request, viewer learning.UserID) (reply, error) {
	f := faults{}
	id := idParam[learning.Course](r, "id", f)
	if err := f.err(); err != nil {
		return reply{}, err
	}
	course, err := s.platform.Course(r.Context(), viewer, id)
	return overlaid(course, viewer), err
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
	EnrolledAt learning.Time     `json:"enrolledAt"`
}

// enroll needs no body, and whatever one it is sent it does not read.
func (s *Server) enroll(r *http.Request, me learner) (reply, error) {
	f := faults{}
	id := idParam[learning.Course](r, "id", f)
	if err := f.err(); err != nil {
		return reply{}, err
	}
	e, err := s.platform.Enroll(r.Context(), me.id, id)
	if err != nil {
		return reply{}, err
	}
	return reply{
		status: http.StatusCreated, message: "Enrolled successfully",
		data: enrollmentView{e.CourseID, e.UserID, learning.Time(e.EnrolledAt)},
	}, nil
}
