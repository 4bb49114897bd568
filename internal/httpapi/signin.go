package httpapi

import (
	"net/http"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func (s *Server) challenge(r *http.Request) (reply, error) {
	errs := fieldErrors{}
	o, err := body(r, errs)
	if err != nil {
		return reply{}, err
	}
	address, _ := o.requiredText("stellarAddress")
	o.refuseSharedAccounts()
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	c, err := s.platform.Challenge(address)
	if err != nil {
		return reply{}, err
	}
	return reply{data: c}, nil
}

// refuseSharedAccounts refuses what would sign in another user than the owner of the address, or
// another program than the wallet. Other unknown fields are ignored; these must not be.
func (o object) refuseSharedAccounts() {
	for _, name := range []string{"memo", "clientDomain", "client_domain"} {
		if raw, given := o.fields[name]; given && string(raw) != "null" {
			o.addError(name, "is not supported: a token is for the owner of an address")
		}
	}
}

func (s *Server) verify(r *http.Request) (reply, error) {
	errs := fieldErrors{}
	o, err := body(r, errs)
	if err != nil {
		return reply{}, err
	}
	address, _ := o.requiredText("stellarAddress")
	id := requiredID[learning.Challenge](o, "challengeId")
	signed, _ := o.requiredText("signedChallenge")
	o.refuseSharedAccounts()
	if err := errs.err(); err != nil {
		return reply{}, err
	}
	user, isNew, err := s.platform.SignIn(r.Context(), address, id, signed)
	if err != nil {
		return reply{}, err
	}
	token, err := s.cfg.Tokens.Issue(user, TokenTTL)
	if err != nil {
		return reply{}, err
	}
	return reply{data: signedIn{token, signedInUser{user.ID, user.StellarAddress, user.DisplayName, isNew}}}, nil
}

type signedIn struct {
	Token string       `json:"token"`
	User  signedInUser `json:"user"`
}

type signedInUser struct {
	ID             learning.UserID `json:"id"`
	StellarAddress string          `json:"stellarAddress"`
	DisplayName    *string         `json:"displayName"`
	IsNewUser      bool            `json:"isNewUser"`
}

// logout answers when no process takes the token any more.
func (s *Server) logout(r *http.Request, _ principal) (reply, error) {
	token := requestScopeOf(r).claims
	if err := s.platform.RevokeToken(r.Context(), token.ID, token.ExpiresAt.Time); err != nil {
		return reply{}, err
	}
	return reply{data: loggedOut{"Logged out"}}, nil
}

type loggedOut struct {
	Message string `json:"message"`
}
