package httpapi

import (
	"errors"
	"net/http"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// learner is the authenticated caller.
type learner struct {
	id     learning.UserID
	bearer cache.Answer[learning.Bearer]
}

var (
	errNoToken  = &problem{kind: unauthorized, message: "A token is required"}
	errBadToken = &problem{kind: unauthorized, message: "The token is not valid or has expired"}
)

// authenticate returns the caller. Signature and expiry have been checked; what
// remains is the revocation list, and that the user exists and owns the address: one answer
// of the cache.
//
// A client logs its user out on 401. So trouble on the way to the answer is never one.
func (s *Server) authenticate(r *http.Request) (learner, error) {
	x := exchangeOf(r)
	switch {
	case x.badToken != nil:
		return learner{}, errBadToken
	case x.claims == nil:
		return learner{}, errNoToken
	}
	bearer, err := s.platform.Bearer(r.Context(), learning.BearerParams{User: x.claims.user, Token: x.claims.ID})
	switch {
	case kindOf(err) == notFound:
		return learner{}, errBadToken
	case err != nil:
		return learner{}, cannotCheck(err)
	case bearer.Value.StellarAddress != x.claims.StellarAddress:
		return learner{}, errBadToken
	}
	return learner{x.claims.user, bearer}, nil
}

func cannotCheck(err error) error {
	retry := time.Second
	if e, ok := errors.AsType[*cache.OverloadError](err); ok {
		retry = e.RetryAfter
	}
	return &problem{kind: overloaded, message: "The token cannot be checked at the moment", retryAfter: retry, err: err}
}
