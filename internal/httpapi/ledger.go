package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func (s *Server) claimReward(r *http.Request, me learner) (reply, error) {
	f := faults{}
	o, err := body(r, f)
	if err != nil {
		return reply{}, err
	}
	submission := idField[learning.Submission](o, "submissionId")
	key := o.idempotencyKey("idempotencyKey")
	if err := f.err(); err != nil {
		return reply{}, err
	}
	claimed, err := s.platform.ClaimReward(r.Context(), me.Value.ID, submission, key)
	if err != nil {
		return reply{}, err
	}
	return reply{data: claimed}, nil
}

type rewardView struct {
	learning.Reward
	ClaimedAt Time `json:"claimedAt"`
}

func (s *Server) rewardHistory(r *http.Request, me learner) (reply, error) {
	f := faults{}
	p := learning.RewardParams{User: me.Value.ID}
	p.Page, p.Limit = pageOf(query(r, f), f)
	if err := f.err(); err != nil {
		return reply{}, err
	}
	history, err := s.platform.Rewards(r.Context(), p)
	rep := reply{cached: fromCache(history, true)}
	if err != nil {
		return rep, err
	}
	views := make([]rewardView, len(history.Value.Rewards))
	for i, reward := range history.Value.Rewards {
		views[i] = rewardView{reward, Time(reward.ClaimedAt)}
	}
	rep.data, rep.pagination = views, &pagination{p.Page, p.Limit, history.Value.Total}
	return rep, nil
}

func (s *Server) mintCredential(r *http.Request, me learner) (reply, error) {
	f := faults{}
	o, err := body(r, f)
	if err != nil {
		return reply{}, err
	}
	course := idField[learning.Course](o, "courseId")
	submission := idField[learning.Submission](o, "submissionId")
	key := o.idempotencyKey("idempotencyKey")
	if err := f.err(); err != nil {
		return reply{}, err
	}
	minted, err := s.platform.MintCredential(r.Context(), me.Value.ID, course, submission, key)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusCreated, data: minted}, nil
}

type credentialView struct {
	learning.Credential
	MintedAt Time `json:"mintedAt"`
}

func (s *Server) listCredentials(r *http.Request, me learner) (reply, error) {
	credentials, err := s.platform.Credentials(r.Context(), me.Value.ID)
	rep := reply{cached: fromCache(credentials, true)}
	if err != nil {
		return rep, err
	}
	views := make([]credentialView, len(credentials.Value))
	for i, c := range credentials.Value {
		views[i] = credentialView{c, Time(c.MintedAt)}
	}
	rep.data = views
	return rep, nil
}
