package sep10

import (
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stellar/go-stellar-sdk/keypair"
	"github.com/stellar/go-stellar-sdk/network"
	"github.com/stellar/go-stellar-sdk/txnbuild"
)

const domain = "example.org"

func newServer(t testing.TB, change ...func(*Config)) *Server {
	t.Helper()
	key, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Key: key, NetworkPassphrase: network.TestNetworkPassphrase, HomeDomain: domain, WebAuthDomain: "api." + domain}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wallet(t testing.TB) *keypair.Full {
	t.Helper()
	pair, err := keypair.Random()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func challenge(t testing.TB, s *Server, address string) Challenge {
	t.Helper()
	c, err := s.Challenge(address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sign adds signatures to an envelope, as wallets do.
func sign(t testing.TB, envelope, passphrase string, keys ...*keypair.Full) string {
	t.Helper()
	parsed, err := txnbuild.TransactionFromXDR(envelope)
	if err != nil {
		t.Fatal(err)
	}
	tx, ok := parsed.Transaction()
	if !ok {
		t.Fatal("not a transaction")
	}
	return encode(t)(tx.Sign(passphrase, keys...))
}

func encode(t testing.TB) func(*txnbuild.Transaction, error) string {
	return func(tx *txnbuild.Transaction, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		envelope, err := tx.Base64()
		if err != nil {
			t.Fatal(err)
		}
		return envelope
	}
}

// A wallet checks the challenge as SEP-10 asks of it, signs it, and is believed, by any replica
// with the same configuration.
func TestVerify(t *testing.T) {
	t.Parallel()
	s, pair := newServer(t), wallet(t)
	c := challenge(t, s, pair.Address())
	_, address, home, memo, err := txnbuild.ReadChallengeTx(c.Envelope, s.Address(), c.NetworkPassphrase, "api."+domain, []string{domain})
	if err != nil || address != pair.Address() || home != domain || memo != nil {
		t.Errorf("the wallet reads %s of %s, memo %v, %v", address, home, memo, err)
	}
	replica, err := New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	expires, err := replica.Verify(Signed{c.ID, pair.Address(), sign(t, c.Envelope, c.NetworkPassphrase, pair)}, now)
	if left := expires.Sub(now); err != nil || left > ChallengeTTL || left < ChallengeTTL-time.Minute {
		t.Errorf("expires in %v, %v", left, err)
	}
	if other := challenge(t, s, pair.Address()); other.ID == c.ID || other.Envelope == c.Envelope {
		t.Error("two challenges are the same")
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	s, ada, eve := newServer(t), wallet(t), wallet(t)
	other := newServer(t)
	c := challenge(t, s, ada.Address())
	valid := Signed{c.ID, ada.Address(), sign(t, c.Envelope, c.NetworkPassphrase, ada)}
	but := func(change func(*Signed)) Signed {
		changed := valid
		change(&changed)
		return changed
	}
	envelope := func(envelope string) Signed { return but(func(c *Signed) { c.Envelope = envelope }) }
	serverKey, err := keypair.ParseFull(s.cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	// made returns a challenge like s's own, but for a change, signed by s and by ada. Its ID is
	// right, so that only the change can be what is wrong.
	made := func(change func(p *txnbuild.TransactionParams)) Signed {
		t.Helper()
		now := time.Now().Unix()
		p := txnbuild.TransactionParams{
			SourceAccount: &txnbuild.SimpleAccount{AccountID: s.Address()},
			BaseFee:       txnbuild.MinBaseFee,
			Preconditions: txnbuild.Preconditions{TimeBounds: txnbuild.NewTimebounds(now, now+300)},
			Operations: []txnbuild.Operation{
				&txnbuild.ManageData{SourceAccount: ada.Address(), Name: domain + " auth", Value: []byte(strings.Repeat("nonc", 16))},
				&txnbuild.ManageData{SourceAccount: s.Address(), Name: "web_auth_domain", Value: []byte("api." + domain)},
			},
		}
		if change != nil {
			change(&p)
		}
		tx, err := txnbuild.NewTransaction(p)
		if err != nil {
			t.Fatal(err)
		}
		id, err := s.id(tx)
		if err != nil {
			t.Fatal(err)
		}
		return Signed{id, ada.Address(), encode(t)(tx.Sign(s.cfg.NetworkPassphrase, serverKey, ada))}
	}
	auth := func(p *txnbuild.TransactionParams) *txnbuild.ManageData {
		return p.Operations[0].(*txnbuild.ManageData)
	}
	feeBump := func() string {
		parsed, err := txnbuild.TransactionFromXDR(made(func(p *txnbuild.TransactionParams) {
			p.SourceAccount = &txnbuild.SimpleAccount{AccountID: s.Address(), Sequence: 1}
		}).Envelope)
		if err != nil {
			t.Fatal(err)
		}
		inner, _ := parsed.Transaction()
		bump, err := txnbuild.NewFeeBumpTransaction(txnbuild.FeeBumpTransactionParams{Inner: inner, FeeAccount: ada.Address(), BaseFee: txnbuild.MinBaseFee})
		if err != nil {
			t.Fatal(err)
		}
		b64, err := bump.Base64()
		if err != nil {
			t.Fatal(err)
		}
		return b64
	}
	raw, err := base64.StdEncoding.DecodeString(valid.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	muxed := "MA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJUAAAAAAAAAAAACJUQ"
	for _, tt := range []struct {
		name string
		c    Signed
		want error
	}{
		{"the signature of another", but(func(x *Signed) { x.Envelope = sign(t, c.Envelope, c.NetworkPassphrase, eve) }), ErrChallenge},
		{"the signature of another, who claims to be the owner", but(func(x *Signed) { x.Envelope, x.Address = sign(t, c.Envelope, c.NetworkPassphrase, eve), eve.Address() }), ErrChallenge},
		{"no signature but the server's", envelope(c.Envelope), ErrChallenge},
		{"one signature too many", envelope(sign(t, valid.Envelope, c.NetworkPassphrase, eve)), ErrChallenge},
		{"signed twice", envelope(sign(t, valid.Envelope, c.NetworkPassphrase, ada)), ErrChallenge},
		{"signed for another network", envelope(sign(t, c.Envelope, network.PublicNetworkPassphrase, ada)), ErrChallenge},
		{"another address", but(func(c *Signed) { c.Address = eve.Address() }), ErrChallenge},
		{"another ID", but(func(c *Signed) { c.ID = uuid.New() }), ErrChallenge},
		{"the ID of another challenge", but(func(x *Signed) { x.ID = challenge(t, s, ada.Address()).ID }), ErrChallenge},
		{"the server's own address", func() Signed {
			c := challenge(t, s, s.Address())
			return Signed{c.ID, s.Address(), c.Envelope}
		}(), ErrChallenge},
		{"a challenge of another server", func() Signed {
			c := challenge(t, other, ada.Address())
			return Signed{c.ID, ada.Address(), sign(t, c.Envelope, c.NetworkPassphrase, ada)}
		}(), ErrChallenge},
		{"a challenge that the wallet made", func() Signed {
			forged := made(nil)
			parsed, err := txnbuild.TransactionFromXDR(forged.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			tx, _ := parsed.Transaction()
			tx, err = tx.ClearSignatures()
			return Signed{forged.ID, forged.Address, sign(t, encode(t)(tx, err), c.NetworkPassphrase, ada)}
		}(), ErrChallenge},
		{"a sequence number", made(func(p *txnbuild.TransactionParams) {
			p.SourceAccount = &txnbuild.SimpleAccount{AccountID: s.Address(), Sequence: 7}
		}), ErrChallenge},
		{"a memo", made(func(p *txnbuild.TransactionParams) { p.Memo = txnbuild.MemoID(7) }), ErrChallenge},
		{"a text for a memo", made(func(p *txnbuild.TransactionParams) { p.Memo = txnbuild.MemoText("7") }), ErrChallenge},
		{"a muxed owner", made(func(p *txnbuild.TransactionParams) { auth(p).SourceAccount = muxed }), ErrChallenge},
		{"another home domain", made(func(p *txnbuild.TransactionParams) { auth(p).Name = "example.com auth" }), ErrChallenge},
		{"another web auth domain", made(func(p *txnbuild.TransactionParams) {
			p.Operations[1].(*txnbuild.ManageData).Value = []byte("evil.example")
		}), ErrChallenge},
		{"a short nonce", made(func(p *txnbuild.TransactionParams) { auth(p).Value = []byte("short") }), ErrChallenge},
		{"a payment", made(func(p *txnbuild.TransactionParams) {
			p.Operations = append(p.Operations, &txnbuild.Payment{Destination: eve.Address(), Amount: "1", Asset: txnbuild.NativeAsset{}, SourceAccount: ada.Address()})
		}), ErrChallenge},
		{"no time", made(func(p *txnbuild.TransactionParams) { p.Preconditions.TimeBounds = txnbuild.NewInfiniteTimeout() }), ErrChallenge},
		{"of the future", made(func(p *txnbuild.TransactionParams) {
			p.Preconditions.TimeBounds = txnbuild.NewTimebounds(time.Now().Unix()+3600, time.Now().Unix()+7200)
		}), ErrChallenge},
		{"expired", made(func(p *txnbuild.TransactionParams) {
			p.Preconditions.TimeBounds = txnbuild.NewTimebounds(time.Now().Unix()-600, time.Now().Unix()-300)
		}), ErrExpired},
		{"a fee bump", envelope(feeBump()), ErrChallenge},

		{"no address", but(func(c *Signed) { c.Address = "" }), ErrAddress},
		{"a muxed address", but(func(c *Signed) { c.Address = muxed }), ErrAddress},
		{"a secret key for an address", but(func(c *Signed) { c.Address = ada.Seed() }), ErrAddress},
		{"an address with a typing error", but(func(c *Signed) { c.Address = "GA" + c.Address[2:55] + "A" }), ErrAddress},
		{"an address in lower case", but(func(c *Signed) { c.Address = strings.ToLower(c.Address) }), ErrAddress},
		{"nothing", envelope(""), ErrEnvelope},
		{"no base64", envelope("?" + valid.Envelope), ErrEnvelope},
		{"cut off", envelope(base64.StdEncoding.EncodeToString(raw[:len(raw)-5])), ErrEnvelope},
		{"followed by something", envelope(base64.StdEncoding.EncodeToString(append(slices.Clip(raw), 0, 0, 0, 0))), ErrEnvelope},
		{"endless", envelope(strings.Repeat("AAAA", 1<<20)), ErrEnvelope},
		{"zeros", envelope(strings.Repeat("AAAA", 1<<10)), ErrEnvelope},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := s.Verify(tt.c, time.Now()); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	if _, err := s.Verify(made(nil), time.Now()); err != nil {
		t.Errorf("what is made without a change is not valid: %v", err)
	}
	if _, err := s.Verify(valid, time.Now()); err != nil {
		t.Errorf("the valid one is not valid: %v", err)
	}
	if _, err := s.Verify(valid, time.Now().Add(ChallengeTTL)); !errors.Is(err, ErrExpired) {
		t.Errorf("by a clock that is ahead: %v, want %v", err, ErrExpired)
	}
}

func TestChallengeExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, pair := newServer(t), wallet(t)
		c := challenge(t, s, pair.Address())
		signed := Signed{c.ID, pair.Address(), sign(t, c.Envelope, c.NetworkPassphrase, pair)}
		time.Sleep(ChallengeTTL - time.Second)
		if _, err := s.Verify(signed, time.Now()); err != nil {
			t.Errorf("before its time is over: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := s.Verify(signed, time.Now()); !errors.Is(err, ErrExpired) {
			t.Errorf("after it: %v, want %v", err, ErrExpired)
		}
	})
}

func TestNewNamesEverythingWrong(t *testing.T) {
	t.Parallel()
	_, address, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cfg  Config
		want []string
	}{
		"nothing":             {Config{}, []string{"Key", "NetworkPassphrase", "HomeDomain", "WebAuthDomain"}},
		"an address as key":   {Config{Key: address, NetworkPassphrase: "p", HomeDomain: "d"}, []string{"Key"}},
		"URLs":                {Config{Key: "S", NetworkPassphrase: "p", HomeDomain: "https://d", WebAuthDomain: "d/auth"}, []string{"Key", "HomeDomain", "WebAuthDomain"}},
		"a domain too long":   {Config{NetworkPassphrase: "p", HomeDomain: strings.Repeat("d", 60), WebAuthDomain: "d"}, []string{"Key", "HomeDomain"}},
		"a domain with a gap": {Config{NetworkPassphrase: "p", HomeDomain: "a b", WebAuthDomain: "d"}, []string{"Key", "HomeDomain"}},
	} {
		_, err := New(tt.cfg)
		if err == nil {
			t.Errorf("%s: is taken", name)
			continue
		}
		for _, field := range []string{"Key", "NetworkPassphrase", "HomeDomain", "WebAuthDomain"} {
			want := false
			for _, w := range tt.want {
				want = want || w == field
			}
			if strings.Contains(err.Error(), field+" ") != want {
				t.Errorf("%s: of %s: %v", name, field, err)
			}
		}
	}
}

// FuzzVerify checks that no envelope but the one that was signed is believed, and that none ends
// the program.
func FuzzVerify(f *testing.F) {
	s, pair := newServer(f), wallet(f)
	c := challenge(f, s, pair.Address())
	valid := sign(f, c.Envelope, c.NetworkPassphrase, pair)
	for _, envelope := range []string{valid, c.Envelope} {
		raw, err := base64.StdEncoding.DecodeString(envelope)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		for _, at := range []int{3, 7, 40, 50, 60, 100, 140, len(raw) - 70, len(raw) - 1} {
			changed := append([]byte(nil), raw...)
			changed[at] ^= 1
			f.Add(changed)
			f.Add(raw[:at])
		}
	}
	f.Add([]byte{})
	for _, kind := range []byte{0, 2, 5, 6} {
		f.Add(append([]byte{0, 0, 0, kind}, make([]byte, 400)...))
		f.Add([]byte{0, 0, 0, kind, 0xff, 0xff, 0xff, 0xff, math.MaxUint8})
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		envelope := base64.StdEncoding.EncodeToString(raw)
		_, err := s.Verify(Signed{c.ID, pair.Address(), envelope}, time.Now())
		switch {
		case envelope == valid:
			if err != nil && !errors.Is(err, ErrExpired) {
				t.Errorf("the valid envelope: %v", err)
			}
		case !errors.Is(err, ErrEnvelope) && !errors.Is(err, ErrChallenge) && !errors.Is(err, ErrExpired):
			t.Errorf("%x: %v", raw, err)
		}
	})
}
