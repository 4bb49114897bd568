package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// getProfile answers with the profile that authenticated the request: it was asked for
// after the request arrived.
func (s *Server) getProfile(_ *http.Request, me principal) (reply, error) {
	profile := &me.bearer.Value.Profile
	return reply{document: profile, etag: profileETag(profile.JSON), cacheInfo: cacheInfoOf(me.bearer, true)}, nil
}

// profileETag is the entity tag of a profile. It is of what clients get and of nothing else, so that a
// change can compare it with the row that it has locked.
func profileETag(document []byte) string { return computeETag("GET /users/me", document) }

func (s *Server) putProfile(r *http.Request, me principal) (reply, error) {
	errs := fieldErrors{}
	o, err := body(r, errs)
	if err != nil {
		return reply{}, err
	}
	change := learning.ProfileChange{
		DisplayName:  o.nullableText("displayName"),
		Background:   o.nullableText("background"),
		LearningGoal: o.nullableText("learningGoal"),
	}
	if s, given := o.optionalText("pace"); given {
		change.Pace = (*learning.Pace)(&s)
	}
	if s, given := o.optionalText("language"); given {
		change.Language = &s
	}
	if problems := change.Problems(); problems != nil {
		errs["body"] = append(errs["body"], problems...)
	}
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	after, err := s.platform.UpdateProfile(r.Context(), me.id, change, func(before learning.Document) bool {
		return mayChange(r.Header, profileETag(before.JSON))
	})
	if err != nil {
		return reply{}, err
	}
	return reply{data: after.View()}, nil
}

// nullableText returns a text that may be left out (nil), or removed by null or an empty text.
func (o object) nullableText(name string) *string {
	if raw, given := o.fields[name]; given && string(raw) == "null" {
		return new(string)
	}
	if s, given := o.optionalText(name); given {
		return &s
	}
	return nil
}

func (s *Server) getProgress(r *http.Request, me principal) (reply, error) {
	progress, err := s.platform.Progress(r.Context(), me.id)
	return privateReply(progress), err
}
