package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// principal is the authenticated caller.
type principal struct {
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
func (s *Server) authenticate(r *http.Request) (principal, error) {
	scope := requestScopeOf(r)
	switch {
	case scope.badToken != nil:
		return principal{}, errBadToken
	case scope.claims == nil:
		return principal{}, errNoToken
	}
	bearer, err := s.platform.Bearer(r.Context(), learning.BearerParams{User: scope.claims.user, Token: scope.claims.ID})
	switch {
	case problemKindOf(err) == notFound:
		return principal{}, errBadToken
	case err != nil:
		return principal{}, tokenCheckUnavailable(err)
	case bearer.Value.StellarAddress != scope.claims.StellarAddress:
		return principal{}, errBadToken
	}
	return principal{scope.claims.user, bearer}, nil
}

// tokenCheckUnavailable is 503 whatever err is: a defect of ours says nothing about the token either.
func tokenCheckUnavailable(err error) error {
	p := *problemOf(err)
	if p.kind.status != http.StatusServiceUnavailable {
		p.kind, p.retryAfter = unavailable, unavailableRetry
	}
	p.message, p.details, p.err = "The token cannot be checked at the moment", nil, err
	return &p
}
