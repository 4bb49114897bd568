package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	secret := []byte(strings.Repeat("s", MinSecret))
	tokens, err := NewTokens(secret)
	if err != nil {
		t.Fatal(err)
	}
	const sub = "00000000-0000-4000-8000-00000000000A"
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := func() jwt.MapClaims {
		return jwt.MapClaims{"sub": sub, "stellarAddress": "GA", "jti": "id", "exp": in(time.Hour)}
	}
	but := func(claim string, value any) jwt.MapClaims {
		c := good()
		if value == nil {
			delete(c, claim)
		} else {
			c[claim] = value
		}
		return c
	}
	sign := func(method jwt.SigningMethod, key any, c jwt.MapClaims) string {
		t.Helper()
		s, err := jwt.NewWithClaims(method, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + s
	}
	hs := jwt.SigningMethodHS256
	for _, tt := range []struct {
		name, header string
		good         bool
	}{
		{"good", sign(hs, secret, good()), true},
		{"good, scheme in lower case", "b" + sign(hs, secret, good())[1:], true},
		{"another secret", sign(hs, []byte(strings.Repeat("x", MinSecret)), good()), false},
		{"unsigned", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good()), false},
		{"another algorithm", sign(jwt.SigningMethodHS512, secret, good()), false},
		{"expired", sign(hs, secret, but("exp", in(-time.Second))), false},
		{"never expires", sign(hs, secret, but("exp", nil)), false},
		{"not yet valid", sign(hs, secret, but("nbf", in(time.Hour))), false},
		{"no subject", sign(hs, secret, but("sub", nil)), false},
		{"a subject that is no UUID", sign(hs, secret, but("sub", "root")), false},
		{"no address", sign(hs, secret, but("stellarAddress", nil)), false},
		{"no id", sign(hs, secret, but("jti", nil)), false},
		{"an id with a line end", sign(hs, secret, but("jti", "a\nb")), false},
		{"an endless id", sign(hs, secret, but("jti", strings.Repeat("x", 129))), false},
		{"another scheme", "Basic " + sign(hs, secret, good())[7:], false},
		{"rubbish", "Bearer a.b.c", false},
		{"nothing after the scheme", "Bearer", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := tokens.fromHeader(http.Header{"Authorization": {tt.header}})
			if (err == nil) != tt.good {
				t.Fatalf("error is %v", err)
			}
			if tt.good && c.user.String() != strings.ToLower(sub) {
				t.Errorf("the user is %s", c.user)
			}
		})
	}
	if c, err := tokens.fromHeader(http.Header{}); c != nil || err != nil {
		t.Errorf("without a header: %v, %v", c, err)
	}
}

func TestTokensAreTakenBack(t *testing.T) {
	t.Parallel()
	tokens, err := NewTokens([]byte(strings.Repeat("s", MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	user := learning.Profile{ID: learning.NewID[learning.Profile](), StellarAddress: "GABC"}
	token, err := tokens.Issue(user, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tokens.fromHeader(http.Header{"Authorization": {"Bearer " + token}})
	if err != nil || c.user != user.ID || c.StellarAddress != "GABC" || time.Until(c.ExpiresAt.Time) > time.Minute {
		t.Errorf("claims are %+v, %v", c, err)
	}
	if _, err := NewTokens([]byte("short")); err == nil {
		t.Error("a short secret is taken")
	}
}

// A token that is known is not known for longer than it lives, and no other is taken for it.
func TestKnownTokensExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens, err := NewTokens([]byte(strings.Repeat("s", MinSecret)))
		if err != nil {
			t.Fatal(err)
		}
		token, err := tokens.Issue(learning.Profile{ID: learning.NewID[learning.Profile](), StellarAddress: "GABC"}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		claimsOf := func(token string) *claims {
			c, _ := tokens.fromHeader(http.Header{"Authorization": {"Bearer " + token}})
			return c
		}
		first := claimsOf(token)
		if first == nil || claimsOf(token) != first {
			t.Errorf("a good token has claims %+v and then %+v, want the same", first, claimsOf(token))
		}
		if c := claimsOf(token[:len(token)-4] + "AAAA"); c != nil {
			t.Errorf("a token with another signature has claims %+v", c)
		}
		time.Sleep(time.Minute)
		if c := claimsOf(token); c != nil {
			t.Errorf("an expired token has claims %+v", c)
		}
	})
}
