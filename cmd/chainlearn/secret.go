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
)

// tokens returns what tokens are signed and checked with: the secret of the settings, or
// the one beside the embedded database, which is made if need be.
func (s secretSettings) tokens(db databaseConfig) (*httpapi.Tokens, error) {
	if s.JWTSecret != "" {
		return httpapi.NewTokens([]byte(s.JWTSecret))
	}
	path := db.path + ".jwt-secret"
	secret, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeSecret(path); err == nil || errors.Is(err, fs.ErrExist) {
			secret, err = readSecret(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("secret of the tokens: %w", err)
	}
	tokens, err := httpapi.NewTokens(secret)
	if err != nil {
		return nil, fmt.Errorf("%s: %w, or remove the file and a new one is made", path, err)
	}
	return tokens, nil
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

// makeSecret puts a fresh secret at path, whole or not at all, and never over another:
// of two processes that start together, the second gets fs.ErrExist and takes the first's.
func makeSecret(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	secret := make([]byte, httpapi.MinSecret)
	_, _ = rand.Read(secret) // never fails: crypto/rand ends the program instead
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(secret) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
