package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func (s *Server) listCourses(r *http.Request, viewer learning.UserID) (reply, error) {
	errs := fieldErrors{}
	q := query(r)
	p := learning.ListParams{Difficulty: difficultyOf(q, errs)}
	p.Page, p.Limit = pageOf(q, errs)
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	page, err := s.platform.Courses(r.Context(), viewer, p)
	rep := viewerReply(page, viewer)
	rep.pagination = &Pagination{p.Page, p.Limit, page.Value.Total}
	return rep, err
}

func (s *Server) getCourse(r *http.Request, viewer learning.UserID) (reply, error) {
	errs := fieldErrors{}
	id := idParam[learning.Course](r, "id", errs)
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	course, err := s.platform.Course(r.Context(), viewer, id)
	return viewerReply(course, viewer), err
}

type moduleView struct {
	ID          learning.ModuleID `json:"id"`
	CourseID    learning.CourseID `json:"courseId"`
	Title       string            `json:"title"`
	Order       int               `json:"order"`
	IsCompleted bool              `json:"isCompleted"`
}

func (s *Server) getModule(r *http.Request, viewer learning.UserID) (reply, error) {
	errs := fieldErrors{}
	id := idParam[learning.Course](r, "id", errs)
	module := r.PathValue("moduleId")
	if problem := checkModuleID(module); problem != "" {
		errs.add("params", "moduleId", "%s", problem)
	}
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	m, err := s.platform.Module(r.Context(), viewer, id, learning.ModuleID(module))
	rep := reply{cacheInfo: cacheInfoOf(m.Answer, viewer != learning.Anonymous)}
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

// enroll needs no body, and does not read one that is sent.
func (s *Server) enroll(r *http.Request, me principal) (reply, error) {
	errs := fieldErrors{}
	id := idParam[learning.Course](r, "id", errs)
	if err := errs.err(); err != nil {
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
