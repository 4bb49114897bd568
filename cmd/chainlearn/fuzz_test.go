package main

import (
	"io"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/httpapi"
)

// FuzzSettings reads every setting from hostile values: each is refused in a line that names
// its variable, or within its bounds. What is secret in one is told by no message.
func FuzzSettings(f *testing.F) {
	const bound = "\n"
	f.Add("sqlite:var/chainlearn.db", "", "3000\n3001", "127.0.0.1\n::1", "6000\n1m", "10.0.0.0/8, ::1", "https://a.example", "info\ntext")
	f.Add("postgres://u:p@h/d", "redis://:p@h", "0\n65536", "\n", "-1\n0s", "10.0.0.0/33", "*", "DEBUG\nJSON")
	f.Add("postgresql://u:p@h/d?sslmode=x", "redis+sentinel://h/m", "+1\n 1", "h:1\n[::1]", "1000000001\n61m", ",,", "https://a.example/", "loud\nxml")
	f.Add("sqlite::memory:", "http://h", "0x10\n1e3", "%zz\n\x00", "1e9\n60000", "::ffff:10.0.0.1", "null", "\n")
	f.Add("mysql://u:p@h/d", "redis://h:port", "\xff\n٣", "a\nb", "6\n-9223372036854775808", "10.0.0.1%eth0", "https://a.example:99999", "warn\ntext")
	f.Fuzz(func(t *testing.T, databaseURL, redisURL, ports, hosts, limits, proxies, origins, logs string) {
		one := func(pair string) string { a, _, _ := strings.Cut(pair, bound); return a }
		two := func(pair string) string { _, b, _ := strings.Cut(pair, bound); return b }
		const secret = "s3cr3tS3CR3T"

		e := &settingsError{}
		db := databaseSettings{DatabaseURL: databaseURL}.parse(e)
		secretSettings{JWTSecret: secret}.check(db, e)
		logSettings{LogLevel: one(logs), LogFormat: two(logs)}.logger(&environment{stderr: io.Discard}, e)
		s := serverSettings{
			Host: one(hosts), Port: one(ports), AdminHost: two(hosts), AdminPort: two(ports), storeSettings: storeSettings{redisURL},
			RateLimitMax: one(limits), RateLimitSignIn: one(limits), RateLimitWindow: two(limits), TrustedProxies: proxies, ProxyHeader: "Forwarded", CORSOrigins: origins,
		}.parse(e)

		refused := map[string]bool{}
		for _, line := range e.wrong {
			name := variableName.FindString(line)
			if name == "" {
				t.Errorf("a line names no variable: %q", line)
			}
			refused[name] = true
			if strings.ContainsAny(line, "\x00\x1b\r") {
				t.Errorf("a line has control characters in it: %q", line)
			}
		}
		if !refused["JWT_SECRET"] {
			t.Errorf("a secret of %d bytes is taken, less than %d", len(secret), httpapi.MinSecret)
		}
		if strings.Contains(e.Error(), secret) {
			t.Errorf("JWT_SECRET is told: %v", e)
		}

		if !refused["DATABASE_URL"] {
			u, err := url.Parse(db.url)
			if (db.path == "") == (db.url == "") || db.url != "" && (err != nil || !strings.HasPrefix(u.Scheme, "postgres")) {
				t.Errorf("DATABASE_URL %q was taken as %+v", databaseURL, db)
			}
		}
		for name, setting := range map[string]struct{ address, host, port string }{
			"PORT": {s.address, one(hosts), one(ports)}, "ADMIN_PORT": {s.adminAddress, two(hosts), two(ports)},
		} {
			host, port, err := net.SplitHostPort(setting.address)
			n, numErr := strconv.Atoi(port)
			if refused[name] || strings.ContainsAny(setting.host, "[]") {
				continue
			}
			if given, _ := strconv.Atoi(setting.port); err != nil || numErr != nil || n < 0 || n > 65535 || n != given || host != setting.host {
				t.Errorf("%s %q at %q was taken as %q", name, setting.port, setting.host, setting.address)
			}
		}
		if !refused["RATE_LIMIT_MAX"] && (s.rateLimit < 0 || s.rateLimit > 1_000_000_000) {
			t.Errorf("RATE_LIMIT_MAX %q was taken as %d", one(limits), s.rateLimit)
		}
		if !refused["RATE_LIMIT_WINDOW"] && (s.rateWindow < time.Second || s.rateWindow > time.Hour) {
			t.Errorf("RATE_LIMIT_WINDOW %q was taken as %v", two(limits), s.rateWindow)
		}
		if !refused["TRUSTED_PROXIES"] {
			for _, p := range s.trustedProxies {
				if !p.IsValid() {
					t.Errorf("TRUSTED_PROXIES %q was taken as %v", proxies, s.trustedProxies)
				}
			}
		}
		if !refused["CORS_ORIGINS"] {
			for _, o := range s.corsOrigins {
				if u, err := url.Parse(o); o != "*" && (err != nil || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
					t.Errorf("CORS_ORIGINS %q was taken as %q", origins, s.corsOrigins)
				}
			}
		}
	})
}

// FuzzPasswords puts a password into the URLs where one belongs: whatever else is wrong with
// them, no message tells it.
func FuzzPasswords(f *testing.F) {
	for _, s := range []string{"h/d", "h:x/d", "h%zz", "[::1", "h d", "h/d#x", "h/d?sslmode=%", "/", "@h", ":1/2/3", "h,h/m\x00"} {
		for _, scheme := range []string{"postgres", "postgresql", "mysql", "redis", "rediss+cluster", "redis+sentinel", "http", "", "#0000", "u", "a b", "%", "postgres:"} {
			f.Add(scheme, "u", s)
		}
	}
	f.Fuzz(func(t *testing.T, scheme, user, rest string) {
		if strings.ContainsAny(user, ":/?#@") {
			t.Skip("not where the password belongs")
		}
		const secret = "s3cr3tS3CR3T"
		given := scheme + "://" + user + ":" + secret + "@" + rest
		e := &settingsError{}
		db := databaseSettings{DatabaseURL: given}.parse(e)
		poolSettings{DatabaseReplicaURL: given, DatabaseMaxConns: "16"}.parse(&db, e)
		serverSettings{storeSettings: storeSettings{given}, Port: "0", AdminPort: "0", RateLimitMax: "0", RateLimitSignIn: "0", RateLimitWindow: "1s", ProxyHeader: "Forwarded"}.parse(e)
		if strings.Contains(e.Error(), secret) {
			t.Errorf("%q: the password is told: %v", given, e)
		}
	})
}

var variableName = regexp.MustCompile(`^[A-Z][A-Z_]+`)
