package httpapi

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/ratelimit"
)

// Config of a Server. Platform, Cache and Tokens are required.
type Config struct {
	Platform *learning.Platform
	Cache    *cache.Cache
	Tokens   *Tokens

	// Metrics is where the server registers its own, and what /metrics shows. Default: an
	// empty registry.
	Metrics *prometheus.Registry
	// Logger receives one line for each request. Default: discarded.
	Logger *slog.Logger

	// RateLimit is how many requests a learner, or an address without a valid token, may
	// send in each RateWindow. Default 0: any number.
	RateLimit  int
	RateWindow time.Duration
	// SignInLimit is how many of them an address may send to sign in. Default 0: any number.
	SignInLimit int
	// Limiter counts requests. Default: in this process alone.
	Limiter *ratelimit.Limiter
	// BodyTimeout is how long the body of a request may take to arrive. It must be well below the
	// write timeout of the listener, or a client whose body is late gets no answer. Default 10 s.
	BodyTimeout time.Duration
	// TrustedProxies are the proxies whose ProxyHeader is believed. Default: none.
	TrustedProxies []netip.Prefix
	// ProxyHeader is the field in which the proxies name the address they forward for:
	// XForwardedFor or Forwarded. The other may come from the client. Default XForwardedFor.
	ProxyHeader string
	// CORSOrigins may read answers from a browser; "*" is any origin. Default: none.
	CORSOrigins []string
}

// requestTimeout bounds everything a request may wait for. Loads have a shorter bound of
// their own, so this one ends only what hangs.
const requestTimeout = 15 * time.Second

// Server answers requests. It has no listener of its own: serve Public and Private.
type Server struct {
	cfg         Config
	platform    *learning.Platform
	log         *slog.Logger
	limiter     *ratelimit.Limiter
	quota       ratelimit.Policy // of every request
	signInQuota ratelimit.Policy // of those that sign in, besides
	corsOrigins corsOrigins
	duration    *prometheus.HistogramVec
	probes      singleflight.Group // of the database, for health
	phase       atomic.Int32       // a phase
	// databaseState is what a probe said last; nil before the first.
	databaseState atomic.Pointer[string]
	mux           *http.ServeMux
	registered    []route // by handle
}

// New returns a Server that is not ready yet: see Ready.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Platform == nil, cfg.Cache == nil, cfg.Tokens == nil:
		return nil, errors.New("httpapi: Platform, Cache and Tokens are required")
	case (cfg.RateLimit > 0 || cfg.SignInLimit > 0) && cfg.RateWindow <= 0:
		return nil, errors.New("httpapi: RateLimit or SignInLimit without a RateWindow")
	case cfg.ProxyHeader != "" && cfg.ProxyHeader != XForwardedFor && cfg.ProxyHeader != Forwarded:
		return nil, fmt.Errorf("httpapi: ProxyHeader is %q: use %s or %s", cfg.ProxyHeader, XForwardedFor, Forwarded)
	}
	cfg.ProxyHeader = cmp.Or(cfg.ProxyHeader, XForwardedFor)
	trusted := make([]netip.Prefix, len(cfg.TrustedProxies))
	for i, p := range cfg.TrustedProxies {
		trusted[i] = unmapped(p)
	}
	cfg.TrustedProxies = trusted
	if cfg.Limiter == nil {
		var err error
		if cfg.Limiter, err = ratelimit.New(ratelimit.Config{}); err != nil {
			return nil, err
		}
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.BodyTimeout = cmp.Or(cfg.BodyTimeout, 10*time.Second)
	s := &Server{
		cfg:         cfg,
		platform:    cfg.Platform,
		log:         cfg.Logger,
		limiter:     cfg.Limiter,
		corsOrigins: newCORSOrigins(cfg.CORSOrigins),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_request_duration_seconds",
			Help:    "How long requests took, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"method", "route", "status"}),
		mux: http.NewServeMux(),
	}
	s.quota, s.signInQuota = quotas(cfg)
	if err := cfg.Metrics.Register(s.duration); err != nil {
		return nil, err
	}
	s.routes()
	return s, nil
}

// Routes returns the routes of the API as "METHOD /path", without their base path, and those of health
// among them.
func Routes() []string {
	s := &Server{mux: http.NewServeMux()}
	s.routes()
	var routes []string
	for _, r := range s.registered {
		routes = append(routes, r.pattern)
	}
	return append(routes, "GET /health", "GET /health/live", "GET /health/ready")
}

// route is a pattern, without its base path, and whom it answers.
type route struct {
	pattern string
	auth    Auth
}

func (s *Server) routes() {
	s.optionalAuth("GET /courses", s.listCourses)
	s.optionalAuth("GET /courses/{id}", s.getCourse)
	s.optionalAuth("GET /courses/{id}/modules/{moduleId}", s.getModule)
	s.requiredAuth("POST /courses/{id}/enroll", s.enroll)

	s.handle("POST /auth/challenge", AuthNone, s.challenge)
	s.handle("POST /auth/verify", AuthNone, s.verify)
	s.requiredAuth("POST /auth/logout", s.logout)

	s.requiredAuth("GET /users/me", s.getProfile)
	s.requiredAuth("PUT /users/me", s.putProfile)
	s.requiredAuth("GET /users/me/progress", s.getProgress)

	s.requiredAuth("POST /quizzes/generate", s.generateQuiz)
	s.requiredAuth("POST /quizzes/{id}/submit", s.submitQuiz)

	s.requiredAuth("POST /rewards/claim", s.claimReward)
	s.requiredAuth("GET /rewards/history", s.rewardHistory)

	s.requiredAuth("POST /credentials/mint", s.mintCredential)
	s.requiredAuth("GET /credentials", s.listCredentials)

	s.descriptionRoutes()
	for _, base := range []string{"", "/api", "/api/v1"} { // probes rarely know a base path
		s.healthRoutes(s.mux, base)
	}
}

// optionalAuth adds a route with optional authentication: viewer is learning.Anonymous for a
// caller without a valid one.
func (s *Server) optionalAuth(pattern string, f func(r *http.Request, viewer learning.UserID) (reply, error)) {
	s.handle(pattern, AuthOptional, func(r *http.Request) (reply, error) {
		if requestScopeOf(r).claims == nil {
			return f(r, learning.Anonymous)
		}
		me, err := s.authenticate(r)
		if problemKindOf(err) == unauthorized {
			return f(r, learning.Anonymous)
		}
		if err != nil {
			return reply{}, err
		}
		return f(r, me.id)
	})
}

// requiredAuth adds a route with required authentication. The token is checked before anything else of the
// request is.
func (s *Server) requiredAuth(pattern string, f func(r *http.Request, me principal) (reply, error)) {
	s.handle(pattern, AuthRequired, func(r *http.Request) (reply, error) {
		me, err := s.authenticate(r)
		if err != nil {
			return reply{}, err
		}
		return f(r, me)
	})
}
