package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/sep10"
)

// Settings are read as texts and parsed here rather than by the command line's parser,
// which stops at the first that is wrong.

// settingsError lists everything that is wrong with the settings.
type settingsError struct{ wrong []string }

func (e *settingsError) Error() string {
	return "chainlearn: the configuration is not valid:\n  - " + strings.Join(e.wrong, "\n  - ")
}

func (e *settingsError) add(name, format string, args ...any) {
	e.wrong = append(e.wrong, name+" "+fmt.Sprintf(format, args...))
}

func (e *settingsError) err() error {
	if len(e.wrong) == 0 {
		return nil
	}
	return e
}

// databaseConfig says which database.
type databaseConfig struct {
	url string // whole, for PostgreSQL
	// path of the file, for the embedded database; else empty.
	path string

	replicaURL string // of a standby that may answer loads; empty for none
	maxConns   int    // 0: the default
}

type databaseSettings struct {
	DatabaseURL string `group:"Settings" placeholder:"URL" default:"sqlite:var/chainlearn.db" help:"The database: sqlite:PATH for the embedded one, or postgres://…; default ${default}."`
}

func (s databaseSettings) parse(e *settingsError) databaseConfig {
	const remedy = "use sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME"
	if path, ok := strings.CutPrefix(s.DatabaseURL, "sqlite:"); ok {
		if path == "" || strings.HasPrefix(path, ":memory:") {
			e.add("DATABASE_URL", "is %q: name a file, such as sqlite:var/chainlearn.db", s.DatabaseURL)
		}
		return databaseConfig{path: path}
	}
	u, err := url.Parse(s.DatabaseURL)
	switch {
	case err != nil: // which would quote the password
		e.add("DATABASE_URL", "is not a URL: %s", remedy)
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		e.add("DATABASE_URL", "is %s: %s", redacted(u, s.DatabaseURL), remedy)
	}
	return databaseConfig{url: s.DatabaseURL}
}

// redacted quotes a URL without its password; a URL so wrong that it cannot be said where that is,
// not at all.
func redacted(u *url.URL, raw string) string {
	if u.User == nil && strings.Contains(raw, "@") {
		return "not a URL of a database"
	}
	return strconv.Quote(u.Redacted())
}

// poolSettings are for a service on PostgreSQL.
type poolSettings struct {
	DatabaseReplicaURL string `group:"Settings" placeholder:"URL" help:"A streaming replica of the PostgreSQL database. It answers cache misses, once it has replayed every earlier write. Default: none."`
	DatabaseMaxConns   string `group:"Settings" default:"16" placeholder:"N" help:"The most connections of this process to the PostgreSQL database, and as many to its replica; default ${default}."`
}

func (s poolSettings) parse(db *databaseConfig, e *settingsError) {
	var err error
	if db.maxConns, err = strconv.Atoi(s.DatabaseMaxConns); err != nil || db.maxConns < 2 || db.maxConns > 10_000 {
		e.add("DATABASE_MAX_CONNS", "is %q: use a number from 2 to 10000", s.DatabaseMaxConns)
	}
	if s.DatabaseReplicaURL == "" {
		return
	}
	db.replicaURL = s.DatabaseReplicaURL
	u, err := url.Parse(s.DatabaseReplicaURL)
	switch {
	case err != nil: // which would quote the password
		e.add("DATABASE_REPLICA_URL", "is not a URL: use postgres://USER:PASSWORD@HOST/NAME")
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		e.add("DATABASE_REPLICA_URL", "is %s: use postgres://USER:PASSWORD@HOST/NAME", redacted(u, s.DatabaseReplicaURL))
	case db.path != "":
		e.add("DATABASE_REPLICA_URL", "is set, but DATABASE_URL is of the embedded database, which has no replicas: name a PostgreSQL database there, or leave the replica out")
	}
}

type secretSettings struct {
	JWTSecret string `group:"Settings" name:"jwt-secret" placeholder:"SECRET" help:"The secret that signs tokens, at least 32 bytes. Required with PostgreSQL. With the embedded database, one is generated and stored beside it."`
}

func (s secretSettings) check(db databaseConfig, e *settingsError) {
	switch {
	case s.JWTSecret == "" && db.path == "":
		e.add("JWT_SECRET", "is missing: give all replicas the same, of at least %d bytes, such as openssl rand -base64 32 prints", httpapi.MinSecret)
	case s.JWTSecret != "" && len(s.JWTSecret) < httpapi.MinSecret:
		e.add("JWT_SECRET", "has %d bytes: use at least %d, such as openssl rand -base64 32 prints", len(s.JWTSecret), httpapi.MinSecret)
	}
}

// signInSettings are what all replicas need to agree on for wallets to sign in.
type signInSettings struct {
	StellarServerKey         string `group:"Settings" placeholder:"KEY" help:"The secret key (S…) that signs challenges for wallets, the same for all replicas: chainlearn key prints a fresh one. Default: derived from JWT_SECRET. With the embedded database, one is generated and stored beside it."`
	StellarNetworkPassphrase string `group:"Settings" placeholder:"TEXT" default:"Test SDF Network ; September 2015" help:"The Stellar network that wallets sign for; default ${default}."`
	HomeDomain               string `group:"Settings" placeholder:"DOMAIN" default:"localhost" help:"The domain that wallets show their users; default ${default}."`
	WebAuthDomain            string `group:"Settings" placeholder:"DOMAIN" help:"The domain of the API, where wallets know it. Default: the home domain."`
}

func (s signInSettings) check(e *settingsError) {
	if s.StellarServerKey != "" && !sep10.ValidKey(s.StellarServerKey) {
		e.add("STELLAR_SERVER_KEY", "is not a secret key of Stellar, which begins with S: use one such as chainlearn key prints")
	}
	if strings.TrimSpace(s.StellarNetworkPassphrase) == "" {
		e.add("STELLAR_NETWORK_PASSPHRASE", "is blank: name the network that wallets sign for")
	}
	if err := sep10.CheckDomain(s.HomeDomain); err != nil {
		e.add("HOME_DOMAIN", "%v", err)
	}
	if s.WebAuthDomain != "" {
		if err := sep10.CheckDomain(s.WebAuthDomain); err != nil {
			e.add("WEB_AUTH_DOMAIN", "%v", err)
		}
	}
}

type logSettings struct {
	LogLevel  string `group:"Settings" default:"info" placeholder:"LEVEL" help:"debug, info, warn or error; default ${default}."`
	LogFormat string `group:"Settings" default:"text" placeholder:"FORMAT" help:"text or json; default ${default}."`
}

func (s logSettings) logger(env *environment, e *settingsError) *slog.Logger {
	var opts slog.HandlerOptions
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(s.LogLevel)]
	if !ok {
		e.add("LOG_LEVEL", "is %q: use debug, info, warn or error", s.LogLevel)
	}
	opts.Level = level
	switch strings.ToLower(s.LogFormat) {
	case "json":
		return slog.New(slog.NewJSONHandler(env.stderr, &opts))
	case "text":
	default:
		e.add("LOG_FORMAT", "is %q: use text or json", s.LogFormat)
	}
	return slog.New(slog.NewTextHandler(env.stderr, &opts))
}

// storeSettings say where answers are kept.
type storeSettings struct {
	RedisURL string `group:"Settings" placeholder:"URL" help:"Redis or Valkey, shared by all processes: redis://, rediss://, redis+cluster://, redis+sentinel://. Default: none; the cache is in this process."`
}

func (s storeSettings) check(e *settingsError) {
	if s.RedisURL == "" {
		return
	}
	if _, err := redisstore.ParseURL(s.RedisURL); err != nil {
		e.add("REDIS_URL", "is not valid: %v", err)
	}
}

type serverSettings struct {
	storeSettings
	Host            string `group:"Settings" default:"0.0.0.0" placeholder:"HOST" help:"Address of the API; default ${default}."`
	Port            string `group:"Settings" default:"3000" placeholder:"PORT" help:"Port of the API, 0 for any free one; default ${default}."`
	AdminHost       string `group:"Settings" default:"127.0.0.1" placeholder:"HOST" help:"Address of the private listener, for metrics and profiles; default ${default}."`
	AdminPort       string `group:"Settings" default:"3001" placeholder:"PORT" help:"Port of the private listener, 0 for any free one; default ${default}."`
	RateLimitMax    string `group:"Settings" default:"6000" placeholder:"N" help:"Requests that a learner or an address may send in each window, 0 for no limit; default ${default}."`
	RateLimitWindow string `group:"Settings" default:"1m" placeholder:"DURATION" help:"Length of the window, such as 30s; default ${default}."`
	RateLimitSignIn string `group:"Settings" default:"60" placeholder:"N" help:"How many of them an address may send to sign in, which takes two, 0 for no limit; default ${default}."`
	TrustedProxies  string `group:"Settings" placeholder:"CIDR,…" help:"Proxies that are believed about the address they forward for. Default: none."`
	ProxyHeader     string `group:"Settings" default:"X-Forwarded-For" placeholder:"HEADER" help:"Where the proxies name that address: X-Forwarded-For or Forwarded. The other is ignored: it may come from the client. Default ${default}."`
	CacheNear       string `group:"Settings" default:"0s" placeholder:"DURATION|strict" help:"Serve the catalogue from this process's memory, without asking Redis for it. With strict, Redis proves for each request that nothing has changed. With a duration, such as 1s, answers may be stale by at most that, and usually by milliseconds. Default ${default}: not kept in memory."`
	ShutdownDelay   string `group:"Settings" default:"3s" placeholder:"DURATION" help:"How long the service goes on answering after SIGTERM and reports that it is not ready, so that balancers notice; default ${default}. Ctrl-C does not wait."`
	CORSOrigins     string `group:"Settings" name:"cors-origins" placeholder:"ORIGIN,…" help:"Origins whose scripts may read answers, * for all. Default: none."`
}

// serverConfig is what serverSettings say.
type serverConfig struct {
	address, adminAddress string
	redisURL              string
	rateLimit             int
	signInLimit           int
	rateWindow            time.Duration
	trustedProxies        []netip.Prefix
	proxyHeader           string
	corsOrigins           []string
	near                  time.Duration
	nearStrict            bool
	shutdownDelay         time.Duration
}

func (s serverSettings) parse(e *settingsError) serverConfig {
	c := serverConfig{
		address:      net.JoinHostPort(s.Host, parsePort("PORT", s.Port, e)),
		adminAddress: net.JoinHostPort(s.AdminHost, parsePort("ADMIN_PORT", s.AdminPort, e)),
		redisURL:     s.RedisURL,
	}
	s.storeSettings.check(e)
	var err error
	c.rateLimit = parseLimit("RATE_LIMIT_MAX", s.RateLimitMax, e)
	c.signInLimit = parseLimit("RATE_LIMIT_SIGN_IN", s.RateLimitSignIn, e)
	if c.rateWindow, err = parseWindow(s.RateLimitWindow); err != nil || c.rateWindow < time.Second || c.rateWindow > time.Hour {
		e.add("RATE_LIMIT_WINDOW", "is %q: use a duration from 1s to 1h; a bare number counts seconds", s.RateLimitWindow)
	}
	if c.shutdownDelay, err = time.ParseDuration(s.ShutdownDelay); err != nil || c.shutdownDelay < 0 || c.shutdownDelay > 5*time.Minute {
		e.add("SHUTDOWN_DELAY", "is %q: use a duration from 0s to 5m", s.ShutdownDelay)
	}
	if c.nearStrict = s.CacheNear == "strict"; !c.nearStrict {
		c.near = parseStaleness("CACHE_NEAR", s.CacheNear, e)
	}
	for _, proxy := range splitList(s.TrustedProxies) {
		prefix, err := netip.ParsePrefix(proxy)
		if addr, addrErr := netip.ParseAddr(proxy); addrErr == nil {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			e.add("TRUSTED_PROXIES", "names %q: use addresses and networks, such as 10.0.0.0/8", proxy)
		}
		c.trustedProxies = append(c.trustedProxies, prefix)
	}
	switch {
	case strings.EqualFold(s.ProxyHeader, httpapi.XForwardedFor):
		c.proxyHeader = httpapi.XForwardedFor
	case strings.EqualFold(s.ProxyHeader, httpapi.Forwarded):
		c.proxyHeader = httpapi.Forwarded
	default:
		e.add("PROXY_HEADER", "is %q: use %s or %s, whichever your proxies write", s.ProxyHeader, httpapi.XForwardedFor, httpapi.Forwarded)
	}
	for _, origin := range splitList(s.CORSOrigins) {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || u.Scheme == "" || u.Scheme+"://"+u.Host != origin) {
			e.add("CORS_ORIGINS", "names %q: use * or origins such as https://app.example.org", origin)
		}
		c.corsOrigins = append(c.corsOrigins, origin)
	}
	return c
}

func parseLimit(name, s string, e *settingsError) int {
	const most = 1_000_000_000
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most {
		e.add(name, "is %q: use a number from 0 (no limit) to %d", s, most)
	}
	return n
}

func parsePort(name, s string, e *settingsError) string {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil {
		e.add(name, "is %q: use a number from 1 to 65535, or 0 for any free port", s)
	} else {
		return strconv.FormatUint(n, 10)
	}
	return s
}

func parseWindow(s string) (time.Duration, error) {
	if n, err := strconv.Atoi(s); err == nil && n <= int(time.Hour/time.Second) {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(s)
}

// parseStaleness parses how stale answers may be.
func parseStaleness(name, s string, e *settingsError) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > time.Minute || d > 0 && d < 10*time.Millisecond {
		e.add(name, "is %q: use a duration from 10ms to 1m, 0 for never, or strict", s)
	}
	return d
}

func splitList(list string) []string {
	var all []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			all = append(all, item)
		}
	}
	return all
}
