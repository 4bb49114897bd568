package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// profileView replaces the one field of a profile that JSON writes in another form.
type profileView struct {
	learning.Profile
	CreatedAt Time `json:"createdAt"`
}

// getProfile answers with the profile that authenticated the request: it was asked for
// after the request arrived.
func (s *Server) getProfile(_ *http.Request, me learner) (reply, error) {
	return reply{
		cached: fromCache(me.Answer, true),
		data:   profileView{me.Value, Time(me.Value.CreatedAt)},
	}, nil
}

func (s *Server) putProfile(r *http.Request, me learner) (reply, error) {
	f := faults{}
	o, err := body(r, f)
	if err != nil {
		return reply{}, err
	}
	change := learning.ProfileChange{
		DisplayName:  o.removable("displayName"),
		Background:   o.removable("background"),
		LearningGoal: o.removable("learningGoal"),
	}
	if s, given := o.text("pace"); given {
		change.Pace = (*learning.Pace)(&s)
	}
	if s, given := o.text("language"); given {
		change.Language = &s
	}
	if problems := change.Problems(); problems != nil {
		f["body"] = append(f["body"], problems...)
	}
	if err := f.err(); err != nil {
		return reply{}, err
	}
	after, err := s.platform.UpdateProfile(r.Context(), me.Value.ID, change)
	if err != nil {
		return reply{}, err
	}
	return reply{data: profileView{after, Time(after.CreatedAt)}}, nil
}

// removable returns a text that may be left out (nil), or removed by null or an empty text.
func (o object) removable(name string) *string {
	if raw, given := o.fields[name]; given && string(raw) == "null" {
		return new(string)
	}
	if s, given := o.text(name); given {
		return &s
	}
	return nil
}

func (s *Server) getProgress(r *http.Request, me learner) (reply, error) {
	progress, err := s.platform.Progress(r.Context(), me.Value.ID)
	return reply{cached: fromCache(progress, true), data: progress.Value}, err
}

var _ json.Marshaler = Time{}
