package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/sep10"
)

// tokens returns what tokens are signed and checked with: the secret of the settings, or
// the one beside the embedded database, which is made if need be.
func (s secretSettings) tokens(db databaseConfig) (*httpapi.Tokens, error) {
	if s.JWTSecret != "" {
		return httpapi.NewTokens([]byte(s.JWTSecret))
	}
	path := db.path + ".jwt-secret"
	secret, err := secretBeside(path, func() (string, error) {
		secret := make([]byte, httpapi.MinSecret)
		_, _ = rand.Read(secret) // never fails: crypto/rand ends the program instead
		return base64.StdEncoding.EncodeToString(secret), nil
	})
	if err != nil {
		return nil, fmt.Errorf("secret of the tokens: %w", err)
	}
	tokens, err := httpapi.NewTokens(secret)
	if err != nil {
		return nil, fmt.Errorf("%s: %w, or remove the file and a new one is made", path, err)
	}
	return tokens, nil
}

// server returns what challenges for wallets are made and verified with: the key of the settings,
// or the one beside the embedded database, which is made if need be. Replicas on PostgreSQL share
// no file. They share the secret of the tokens, so it is derived from that.
// Decision 47.
func (s signInSettings) server(db databaseConfig, jwtSecret string) (*sep10.Server, error) {
	cfg := sep10.Config{
		Key: s.StellarServerKey, NetworkPassphrase: s.StellarNetworkPassphrase, HomeDomain: s.HomeDomain, WebAuthDomain: s.WebAuthDomain,
	}
	switch {
	case cfg.Key != "":
	case db.path == "":
		var err error
		if cfg.Key, err = sep10.DeriveKey([]byte(jwtSecret)); err != nil {
			return nil, fmt.Errorf("key of the challenges: %w", err)
		}
	default:
		path := db.path + ".stellar-key"
		key, err := secretBeside(path, func() (string, error) {
			key, _, err := sep10.NewKey()
			return key, err
		})
		if err != nil {
			return nil, fmt.Errorf("key of the challenges: %w", err)
		}
		if cfg.Key = string(key); !sep10.ValidKey(cfg.Key) {
			return nil, fmt.Errorf("%s: is not a secret key of Stellar; remove the file and a new one is made", path)
		}
	}
	return sep10.New(cfg)
}

type keyCommand struct{}

func (keyCommand) Run(env *environment) error {
	key, address, err := sep10.NewKey()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "STELLAR_SERVER_KEY=%s\n# Its address, which wallets may know as SIGNING_KEY: %s\n", key, address)
	return err
}

// secretBeside returns the secret at path, which generate makes if there is none.
func secretBeside(path string, generate func() (string, error)) ([]byte, error) {
	secret, err := readSecret(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	fresh, err := generate()
	if err != nil {
		return nil, err
	}
	if err := writeSecret(path, fresh); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readSecret(path)
}

func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if open := info.Mode().Perm() & 0o077; open != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s can be read by other users (mode %04o): chmod 600 it, or remove it if they may have read it", path, info.Mode().Perm())
	}
	secret, err := os.ReadFile(path)
	return []byte(strings.TrimSpace(string(secret))), err
}

// writeSecret puts a secret at path, whole or not at all, and never over another:
// of two processes that start together, the second gets fs.ErrExist and takes the first's.
func writeSecret(path, secret string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(secret + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
