package learning

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/internal/sep10"
)

// Challenge is what a wallet signs to prove that an address is its own.
type Challenge struct {
	// ID follows from the challenge itself: nothing is stored until it is used, so asking
	// for any number of challenges fills nothing.
	ID                ChallengeID `json:"challengeId"`
	Envelope          string      `json:"challenge"` // a transaction envelope, as SEP-10 has it
	NetworkPassphrase string      `json:"networkPassphrase"`
}

// clockSkew is by how much the clocks of two processes may differ. What keeps a challenge or
// a token from being used is kept for that much longer than it could be used here: another
// process may believe that it still can.
const clockSkew = time.Hour

// Challenge returns a fresh challenge for an address. Refusals: Invalid.
func (p *Platform) Challenge(address string) (Challenge, error) {
	if p.signIn == nil {
		return Challenge{}, errNoSignIn
	}
	c, err := p.signIn.Challenge(address)
	if errors.Is(err, sep10.ErrAddress) {
		return Challenge{}, invalidBody("stellarAddress: " + err.Error())
	}
	if err != nil {
		return Challenge{}, fmt.Errorf("challenge for %s: %w", address, err)
	}
	return Challenge{ID: ChallengeID{UUID: c.ID}, Envelope: c.Envelope, NetworkPassphrase: c.NetworkPassphrase}, nil
}

// SignIn returns the user who owns an address, and whether this was the first time, if signed is
// the challenge of that ID and address, signed with the key of the address. A challenge serves
// once, on whatever replica. Refusals: Invalid, Unauthorized.
func (p *Platform) SignIn(ctx context.Context, address string, id ChallengeID, signed string) (user Profile, isNew bool, err error) {
	if p.signIn == nil {
		return Profile{}, false, errNoSignIn
	}
	now := p.timestamp()
	expires, err := p.signIn.Verify(sep10.Signed{ID: id.UUID, Address: address, Envelope: signed}, now)
	switch {
	case errors.Is(err, sep10.ErrAddress):
		return Profile{}, false, invalidBody("stellarAddress: " + err.Error())
	case errors.Is(err, sep10.ErrEnvelope):
		return Profile{}, false, invalidBody("signedChallenge: " + sep10.ErrEnvelope.Error())
	case errors.Is(err, sep10.ErrExpired):
		return Profile{}, false, &Error{Kind: Unauthorized, Message: "The challenge has expired: ask for a new one", Err: err}
	case err != nil:
		return Profile{}, false, &Error{Kind: Unauthorized, Message: "The signed challenge is not valid", Err: err}
	}
	err = p.storage.Write(ctx, func(ctx context.Context, tx Tx) error {
		err := tx.UseChallenge(ctx, id, expires.Add(clockSkew), now)
		if errors.Is(err, ErrExists) {
			return &Error{Kind: Unauthorized, Message: "The challenge has been used: ask for a new one"}
		}
		if err == nil {
			user, isNew, err = tx.EnsureUser(ctx, address, now)
		}
		if err != nil {
			return fmt.Errorf("sign in %s: %w", address, err)
		}
		return nil
	})
	return user, isNew, err
}

var errNoSignIn = errors.New("the platform has no key to sign challenges with: Config.SignIn is not set")

// RevokeToken ends a token before its time: when it returns nil, no process takes the token any
// more (see Storage.Write).
func (p *Platform) RevokeToken(ctx context.Context, jti string, expires time.Time) error {
	return p.storage.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.RevokeToken(ctx, jti, expires.Add(clockSkew), p.timestamp()); err != nil {
			return fmt.Errorf("revoke token: %w", err)
		}
		return nil
	})
}
