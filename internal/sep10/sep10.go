// Package sep10 lets the owner of a Stellar address prove that it is theirs, by signing a
// challenge (SEP-10, Stellar Web Authentication). Envelopes and signatures are the Stellar SDK's.
//
// A server keeps no challenge: each carries its own time and the server's signature, and its ID
// is a digest of it. Callers remember those that were used.
//
// An address is proved with its own key. Other signers of an account, and their weights, are
// known to the network alone, which is not asked.
package sep10

import (
	"cmp"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stellar/go-stellar-sdk/keypair"
	"github.com/stellar/go-stellar-sdk/strkey"
	"github.com/stellar/go-stellar-sdk/txnbuild"
)

// ChallengeTTL is for how long a challenge may be used.
const ChallengeTTL = 5 * time.Minute

// maxEnvelope is the most bytes of a signed challenge. One with as many signatures as a
// transaction may bear has half as many.
const maxEnvelope = 8 << 10

var (
	// ErrAddress says what an address must be.
	ErrAddress = errors.New("must be the address of a Stellar account: 56 characters that begin with G. Muxed accounts (M…), memos and contracts (C…) are not supported")
	// ErrEnvelope says that an envelope cannot be read.
	ErrEnvelope = errors.New("must be the transaction envelope of the challenge, signed, in base64")
	// ErrExpired says that a challenge came too late.
	ErrExpired = errors.New("challenge has expired")
	// ErrChallenge says that a challenge is not ours, not of that address or ID, or not signed
	// with the key of the address.
	ErrChallenge = errors.New("challenge is not valid")
)

// Config of a Server. All replicas of a service need the same.
type Config struct {
	// Key is the secret key of the server (S…). It signs challenges and nothing else.
	Key string
	// NetworkPassphrase names the network that wallets sign for.
	NetworkPassphrase string
	// HomeDomain is shown by wallets: the domain that users sign in to.
	HomeDomain string
	// WebAuthDomain is the domain of the API. Default: HomeDomain.
	WebAuthDomain string
}

// Server makes and verifies challenges. It is safe for concurrent use.
type Server struct {
	cfg     Config
	address string // of the key
}

// New returns an error that names everything that is wrong with the configuration.
func New(cfg Config) (*Server, error) {
	cfg.WebAuthDomain = cmp.Or(cfg.WebAuthDomain, cfg.HomeDomain)
	var errs []error
	if !ValidKey(cfg.Key) {
		errs = append(errs, errors.New("Key is not a secret key of Stellar (S…)")) // without quoting it
	}
	if cfg.NetworkPassphrase == "" {
		errs = append(errs, errors.New("NetworkPassphrase is empty"))
	}
	if err := CheckDomain(cfg.HomeDomain); err != nil {
		errs = append(errs, fmt.Errorf("HomeDomain %w", err))
	}
	if err := CheckDomain(cfg.WebAuthDomain); err != nil {
		errs = append(errs, fmt.Errorf("WebAuthDomain %w", err))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("sep10: %w", errors.Join(errs...))
	}
	key, err := keypair.ParseFull(cfg.Key)
	if err != nil {
		return nil, err
	}
	return &Server{cfg, key.Address()}, nil
}

// ValidKey says whether a text is a secret key.
func ValidKey(key string) bool { return strkey.IsValidEd25519SecretSeed(key) }

// maxDomain is what fits into the name of a data entry, beside " auth".
const maxDomain = 59

// CheckDomain returns what is wrong with a domain, such as example.org or localhost:3000.
func CheckDomain(domain string) error {
	if domain == "" || len(domain) > maxDomain || strings.ContainsFunc(domain, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`/\@?#"'`, c)
	}) {
		return fmt.Errorf("is %q: use a domain such as example.org, of at most %d characters", domain, maxDomain)
	}
	return nil
}

// NewKey returns a fresh secret key and its address.
func NewKey() (key, address string, err error) {
	pair, err := keypair.Random()
	if err != nil {
		return "", "", err
	}
	return pair.Seed(), pair.Address(), nil
}

// DeriveKey returns the secret key that follows from a secret of at least 32 bytes: always the
// same. The key gives nothing away of the secret.
func DeriveKey(secret []byte) (string, error) {
	var seed [32]byte
	b, err := hkdf.Key(sha256.New, secret, nil, "chainlearn SEP-10 server key", len(seed))
	if err != nil {
		return "", err
	}
	copy(seed[:], b)
	pair, err := keypair.FromRawSeed(seed)
	if err != nil {
		return "", err
	}
	return pair.Seed(), nil
}

// Address is that of the server's key, which wallets may know as SIGNING_KEY.
func (s *Server) Address() string { return s.address }

// Challenge is for one address to sign.
type Challenge struct {
	ID                uuid.UUID
	Envelope          string // base64
	NetworkPassphrase string
}

// Challenge returns a fresh challenge, or ErrAddress.
func (s *Server) Challenge(address string) (Challenge, error) {
	if !strkey.IsValidEd25519PublicKey(address) {
		return Challenge{}, ErrAddress
	}
	tx, err := txnbuild.BuildChallengeTx(s.cfg.Key, address, s.cfg.WebAuthDomain, s.cfg.HomeDomain, s.cfg.NetworkPassphrase, ChallengeTTL, nil)
	if err != nil {
		return Challenge{}, err
	}
	envelope, err := tx.Base64()
	if err != nil {
		return Challenge{}, err
	}
	id, err := s.id(tx)
	return Challenge{id, envelope, s.cfg.NetworkPassphrase}, err
}

// id digests what is signed. Signatures are no part of it, so that the wallet's changes nothing.
func (s *Server) id(tx *txnbuild.Transaction) (id uuid.UUID, err error) {
	hash, err := tx.Hash(s.cfg.NetworkPassphrase)
	copy(id[:], hash[:])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // version 8: made by an application
	return id, err
}

// Signed is a challenge as it comes back.
type Signed struct {
	ID       uuid.UUID
	Address  string
	Envelope string // base64
}

// Verify returns when the challenge expires, if it is one of this server's that has not expired,
// has that ID, is for that address, and is signed with the address's key and no other. It does
// not know whether the challenge was used before. Errors are ErrAddress, ErrEnvelope, ErrExpired
// and ErrChallenge.
func (s *Server) Verify(c Signed, now time.Time) (expires time.Time, err error) {
	if !strkey.IsValidEd25519PublicKey(c.Address) {
		return time.Time{}, ErrAddress
	}
	if len(c.Envelope) > maxEnvelope {
		return time.Time{}, ErrEnvelope
	}
	parsed, err := txnbuild.TransactionFromXDR(c.Envelope)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	// A time that is over is said even of what is not ours: it gives nothing away.
	if tx, ok := parsed.Transaction(); ok {
		bounds := tx.Timebounds()
		if expires = time.Unix(bounds.MaxTime, 0); bounds.MaxTime != txnbuild.TimeoutInfinite && !now.Before(expires) {
			return time.Time{}, ErrExpired
		}
	}
	domains := []string{s.cfg.HomeDomain}
	tx, address, _, memo, err := txnbuild.ReadChallengeTx(c.Envelope, s.address, s.cfg.NetworkPassphrase, s.cfg.WebAuthDomain, domains)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", ErrChallenge, err)
	}
	id, err := s.id(tx)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%w: %w", ErrChallenge, err)
	case address != c.Address || memo != nil:
		return time.Time{}, fmt.Errorf("%w: it is for another address", ErrChallenge)
	case id != c.ID:
		return time.Time{}, fmt.Errorf("%w: it has another ID", ErrChallenge)
	}
	if _, err := txnbuild.VerifyChallengeTxSigners(c.Envelope, s.address, s.cfg.NetworkPassphrase, s.cfg.WebAuthDomain, domains, c.Address); err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", ErrChallenge, err)
	}
	return expires, nil
}
