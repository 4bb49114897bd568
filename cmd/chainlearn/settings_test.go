package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func getenv(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func TestEverythingWrongIsReportedTogether(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"serve", "--admin-port=-1"}, getenv(map[string]string{
		"PORT":              "abc",
		"ADMIN_PORT":        "3001", // the flag wins
		"DATABASE_URL":      "mysql://root:hunter2@db/x",
		"REDIS_URL":         "http://:hunter2@redis",
		"JWT_SECRET":        "hunter2",
		"RATE_LIMIT_MAX":    "many",
		"RATE_LIMIT_WINDOW": "60000",
		"LOG_LEVEL":         "loud",
		"LOG_FORMAT":        "xml",
		"TRUSTED_PROXIES":   "10.0.0.0/8, proxy",
		"CORS_ORIGINS":      "https://a.example, b.example",
		"CACHE_NEAR":        "1h",

		"STELLAR_SERVER_KEY":         "hunter2",
		"STELLAR_NETWORK_PASSPHRASE": " ",
		"HOME_DOMAIN":                "https://example.org",
		"WEB_AUTH_DOMAIN":            "a b",
		"RATE_LIMIT_SIGN_IN":         "-1",
		"PROXY_HEADER":               "X-Real-IP",

		"DATABASE_REPLICA_URL": "mysql://root:hunter2@replica/x",
		"DATABASE_MAX_CONNS":   "1",
	}), io.Discard, &stderr)
	if code != exitUsage {
		t.Errorf("exit code is %d, want %d", code, exitUsage)
	}
	for _, want := range []string{
		`PORT is "abc"`, `ADMIN_PORT is "-1"`, `DATABASE_URL is "mysql://root:xxxxx@db/x"`, "REDIS_URL is not valid", "JWT_SECRET has 7 bytes",
		`RATE_LIMIT_MAX is "many"`, `RATE_LIMIT_WINDOW is "60000"`, `LOG_LEVEL is "loud"`, `LOG_FORMAT is "xml"`,
		"STELLAR_SERVER_KEY is not a secret key", "STELLAR_NETWORK_PASSPHRASE is blank", `HOME_DOMAIN is "https://example.org"`, `WEB_AUTH_DOMAIN is "a b"`,
		`RATE_LIMIT_SIGN_IN is "-1"`, `PROXY_HEADER is "X-Real-IP"`,
		`CACHE_NEAR is "1h"`, `DATABASE_REPLICA_URL is "mysql://root:xxxxx@replica/x"`, `DATABASE_MAX_CONNS is "1"`, `TRUSTED_PROXIES names "proxy"`, `CORS_ORIGINS names "b.example"`,
	} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("nothing is said about %s", want)
		}
	}
	if strings.Contains(stderr.String(), "hunter2") {
		t.Error("a secret is repeated")
	}
	if t.Failed() {
		t.Log(stderr.String())
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		code int
		says string
	}{
		{"no arguments", nil, nil, exitOK, "Usage: chainlearn"},
		{"help", []string{"serve", "--help"}, nil, exitOK, "$DATABASE_URL"},
		{"an unknown flag", []string{"serve", "--nonsense"}, nil, exitUsage, "unknown flag --nonsense"},
		{"an unknown command", []string{"nonsense"}, nil, exitUsage, "nonsense"},
		{"PostgreSQL without a secret", []string{"serve"}, map[string]string{"DATABASE_URL": "postgres://db/x"}, exitUsage, "JWT_SECRET is missing"},
		{"a fresh key", []string{"key"}, nil, exitOK, "STELLAR_SERVER_KEY=S"},
		{"a user is no variable", []string{"token"}, map[string]string{"USER": "00000000-0000-4000-8000-000000000001"}, exitUsage, "--user"},
		{"a user that is no ID", []string{"token", "--user", "root"}, nil, exitUsage, "must be a UUID"},
		{"memory", []string{"migrate"}, map[string]string{"DATABASE_URL": "sqlite::memory:"}, exitUsage, "name a file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if code := run(t.Context(), tt.args, getenv(tt.env), &out, &out); code != tt.code || !strings.Contains(out.String(), tt.says) {
				t.Errorf("exit code %d, want %d, and %q in:\n%s", code, tt.code, tt.says, out.String())
			}
		})
	}
}

// Processes that start together agree on one secret, which no other user may read.
func TestSecretIsMadeOnce(t *testing.T) {
	t.Parallel()
	db := databaseConfig{path: filepath.Join(t.TempDir(), "x.db")}
	issued := make([]string, 8)
	user := learning.Profile{ID: learning.NewID[learning.Profile](), StellarAddress: "G"}
	var wg sync.WaitGroup
	secrets := make([]string, len(issued))
	for i := range issued {
		wg.Go(func() {
			tokens, err := secretSettings{}.tokens(db)
			if err != nil {
				t.Error(err)
				return
			}
			if issued[i], err = tokens.Issue(user, 1); err != nil {
				t.Error(err)
			}
			b, err := os.ReadFile(db.path + ".jwt-secret")
			if err != nil {
				t.Error(err)
			}
			secrets[i] = string(b)
		})
	}
	wg.Wait()
	for _, s := range secrets {
		if s != secrets[0] || len(s) < 32 {
			t.Errorf("secrets differ: %q", secrets)
		}
	}
	info, err := os.Stat(db.path + ".jwt-secret")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(db.path + ".jwt-secret.*"); left != nil {
		t.Errorf("left behind: %q", left)
	}

	if err := os.Chmod(db.path+".jwt-secret", 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (secretSettings{}).tokens(db); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a secret that others may read is taken: %v", err)
	}
}

// Processes that start together agree on one key for challenges, which no other user may read.
func TestStellarKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	db := databaseConfig{path: filepath.Join(t.TempDir(), "x.db")}
	settings := signInSettings{StellarNetworkPassphrase: "Test", HomeDomain: "localhost"}
	addresses := make([]string, 8)
	var wg sync.WaitGroup
	for i := range addresses {
		wg.Go(func() {
			s, err := settings.server(db, "")
			if err != nil {
				t.Error(err)
				return
			}
			addresses[i] = s.Address()
		})
	}
	wg.Wait()
	for _, a := range addresses {
		if a != addresses[0] || len(a) != 56 {
			t.Errorf("keys differ: %q", addresses)
		}
	}
	path := db.path + ".stellar-key"
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := settings.server(db, ""); err == nil || !strings.Contains(err.Error(), "can be read by other users") {
		t.Errorf("a key that others may read: %v", err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := settings.server(db, ""); err == nil || !strings.Contains(err.Error(), "is not a secret key") || strings.Contains(err.Error(), "rubbish") {
		t.Errorf("a file of rubbish: %v", err)
	}
}

// Replicas on PostgreSQL agree on a key without being given one.
func TestStellarKeyIsDerived(t *testing.T) {
	t.Parallel()
	settings := signInSettings{StellarNetworkPassphrase: "Test", HomeDomain: "localhost"}
	address := func(secret string) string {
		s, err := settings.server(databaseConfig{url: "postgres://db/x"}, secret)
		if err != nil {
			t.Fatal(err)
		}
		return s.Address()
	}
	one, other := strings.Repeat("s", 32), strings.Repeat("t", 32)
	first, again, different := address(one), address(one), address(other)
	if first != again || first == different {
		t.Errorf("keys of one secret are %s and %s, of another %s", first, again, different)
	}
}
