package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// MinSecret is the fewest bytes of a secret that tokens are signed with.
const MinSecret = 32

// TokenTTL is the default lifetime of a token.
const TokenTTL = 24 * time.Hour

// Tokens signs and checks the tokens that learners bear. It is safe for concurrent use.
type Tokens struct {
	secret []byte
	parser *jwt.Parser
	// verified holds the claims of tokens whose signature has been checked. A token never
	// changes, so only its expiry is checked again.
	verified *otter.Cache[string, *claims]
}

const (
	maxVerified      = 10_000
	maxVerifiedToken = 1 << 10 // bytes of a token that is kept
)

// NewTokens returns an error if the secret is too short to be one.
func NewTokens(secret []byte) (*Tokens, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("the secret has %d bytes: use at least %d", len(secret), MinSecret)
	}
	return &Tokens{
		secret: secret,
		parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired()),
		verified: otter.Must(&otter.Options[string, *claims]{
			MaximumSize: maxVerified,
			Executor:    func(task func()) { task() }, // no goroutine to end
		}),
	}, nil
}

// Issue returns a token for the user that expires after ttl.
func (t *Tokens) Issue(user learning.Profile, ttl time.Duration) (string, error) {
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, &claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Subject:   user.ID.String(),
			ID:        uuid.NewString(),
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
		},
		StellarAddress: user.StellarAddress,
	}).SignedString(t.secret)
	if err != nil {
		return "", fmt.Errorf("sign token of %s: %w", user.ID, err)
	}
	return token, nil
}

type claims struct {
	jwt.RegisteredClaims
	StellarAddress string `json:"stellarAddress"`

	user learning.UserID // Subject
}

// Validate is called by the parser once the signature and the times have been checked.
func (c *claims) Validate() error {
	const mostID = 128
	var err error
	if c.user, err = learning.ParseID[learning.Profile](c.Subject); err != nil {
		return fmt.Errorf("sub: %w", err)
	}
	if c.StellarAddress == "" {
		return errors.New("stellarAddress is missing")
	}
	if c.ID == "" || len(c.ID) > mostID || strings.ContainsFunc(c.ID, unicode.IsControl) {
		return fmt.Errorf("jti must have 1 to %d printable characters", mostID)
	}
	return nil
}

// fromHeader returns the claims of the request's token, which others share; neither claims nor
// an error when there is none.
func (t *Tokens) fromHeader(h http.Header) (*claims, error) {
	authorization := h.Get("Authorization")
	if authorization == "" {
		return nil, nil //nolint:nilnil // no token is neither a good nor a bad one
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, errors.New("not a bearer token")
	}
	token = strings.TrimSpace(token)
	if c, ok := t.verified.GetIfPresent(token); ok && time.Now().Before(c.ExpiresAt.Time) {
		return c, nil
	}
	c := new(claims)
	if _, err := t.parser.ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return t.secret, nil }); err != nil {
		return nil, err
	}
	if len(token) <= maxVerifiedToken {
		t.verified.Set(strings.Clone(token), c) // the header is longer, and others share its memory
	}
	return c, nil
}
