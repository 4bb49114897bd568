package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func (s *Server) claimReward(r *http.Request, me principal) (reply, error) {
	errs := fieldErrors{}
	o, err := body(r, errs)
	if err != nil {
		return reply{}, err
	}
	submission := requiredID[learning.Submission](o, "submissionId")
	key := o.idempotencyKey("idempotencyKey")
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	claimed, err := s.platform.ClaimReward(r.Context(), me.id, submission, key)
	if err != nil {
		return reply{}, err
	}
	return reply{data: claimed}, nil
}

func (s *Server) rewardHistory(r *http.Request, me principal) (reply, error) {
	errs := fieldErrors{}
	p := learning.RewardParams{User: me.id}
	p.Page, p.Limit = pageOf(query(r), errs)
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	history, err := s.platform.Rewards(r.Context(), p)
	rep := privateReply(history)
	rep.pagination = &Pagination{p.Page, p.Limit, history.Value.Total}
	return rep, err
}

func (s *Server) mintCredential(r *http.Request, me principal) (reply, error) {
	errs := fieldErrors{}
	o, err := body(r, errs)
	if err != nil {
		return reply{}, err
	}
	course := requiredID[learning.Course](o, "courseId")
	submission := requiredID[learning.Submission](o, "submissionId")
	key := o.idempotencyKey("idempotencyKey")
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	minted, err := s.platform.MintCredential(r.Context(), me.id, course, submission, key)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusCreated, data: minted}, nil
}

func (s *Server) listCredentials(r *http.Request, me principal) (reply, error) {
	credentials, err := s.platform.Credentials(r.Context(), me.id)
	return privateReply(credentials), err
}
