package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cacheprom"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/learning"
)

type serveCommand struct {
	databaseSettings
	poolSettings
	secretSettings
	signInSettings
	serverSettings
	logSettings
	Demo bool `help:"Fill the database with the demonstration catalogue if it is empty, and print a token of the demo learner."`
}

const (
	// warmTimeout bounds the warming before the service calls itself ready. It is then ready
	// all the same: an answer that is not warm costs a load, an absent service all of them.
	warmTimeout = 10 * time.Second
	// checkTimeout bounds the check of how the cache is wired, which is logged.
	checkTimeout = 5 * time.Second
	// drainTimeout is for requests in hand when the service takes no more, and
	// stopTimeout for everything from then until it has stopped.
	drainTimeout = 3 * time.Second
	stopTimeout  = 4500 * time.Millisecond
)

// heapBallast is allocated and never touched, so it takes address space only. It is a lower
// bound for the heap size at which the collector runs, which costs some 35 MB of garbage.
// Without it, under load, a heap of a few megabytes is collected some thirty times a second,
// and a cached page costs a quarter more processor time. GOGC=400 gains as much, but would let
// a full in-process cache grow the heap to five times its size.
// Decision 26.
const heapBallast = 32 << 20

func (s *serveCommand) Run(env *environment) error {
	defer runtime.KeepAlive(make([]byte, heapBallast))
	wrong := &settingsError{}
	db := s.databaseSettings.parse(wrong)
	s.poolSettings.parse(&db, wrong)
	s.secretSettings.check(db, wrong)
	s.signInSettings.check(wrong)
	cfg := s.serverSettings.parse(wrong)
	log := s.logger(env, wrong)
	if err := wrong.err(); err != nil {
		return err
	}
	var svc service
	err := svc.start(env.ctx, s, db, cfg, log)
	if err == nil {
		s.printAddresses(env, &svc)
		select {
		case <-env.ctx.Done():
		case err = <-svc.serveErrors:
		}
	}
	if env.ctx.Err() != nil {
		delay := cfg.shutdownDelay
		if strings.HasPrefix(context.Cause(env.ctx).Error(), os.Interrupt.String()) {
			delay = 0 // someone at a terminal, not an orchestrator
		}
		log.Info("stopping", "shutdown_delay", delay)
		if err == nil {
			err = svc.announce(delay)
		}
		if errors.Is(err, context.Canceled) {
			err = nil // told to stop while it was starting
		}
	}
	return errors.Join(err, svc.stop())
}

// service is everything that serves. Its parts close in the reverse of the order in which
// they were opened: requests, then the database with its relay, then the cache.
type service struct {
	api, private net.Listener
	tokens       *httpapi.Tokens
	storage      storage
	http         *httpapi.Server
	servers      []*http.Server
	serveErrors  chan error // a listener's
	closers      []func() error
}

func (v *service) start(ctx context.Context, s *serveCommand, db databaseConfig, cfg serverConfig, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	// The ports first: a second server by mistake fails before it touches anything.
	var err error
	if v.api, err = v.listen(ctx, "PORT", cfg.address); err != nil {
		return err
	}
	if v.private, err = v.listen(ctx, "ADMIN_PORT", cfg.adminAddress); err != nil {
		return err
	}
	// Probes are answered while the database is migrated, which takes as long as it takes.
	v.serveErrors = make(chan error, 2)
	public, private := newHandlerSwitch(), newHandlerSwitch()
	v.serve(v.api, public, 30*time.Second, log)
	v.serve(v.private, private, 5*time.Minute, log) // a profile takes as long as it is told to
	store, storeTimeout, err := openStore(ctx, cfg.redisURL, log)
	if err != nil {
		return err
	}
	v.closers = append(v.closers, store.Close)
	metrics, err := cacheprom.New(registry)
	if err != nil {
		return err
	}
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: storeTimeout, Observer: metrics, Logger: log})
	if err != nil {
		return err
	}
	v.closers = append(v.closers, c.Close)
	v.storage, err = openStorage(ctx, db, cacheOptions{
		cache: c, exclusive: cfg.redisURL == "", relay: outbox.RelayConfig{Logger: log},
	}, log)
	if err != nil {
		return err
	}
	v.closers = append(v.closers, v.storage.Close)
	if err := metrics.Backlog(v.storage); err != nil {
		return err
	}
	if v.tokens, err = s.tokens(db); err != nil {
		return err
	}
	signIn, err := s.signInSettings.server(db, s.JWTSecret)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "wallets may sign in", "homeDomain", s.HomeDomain, "network", s.StellarNetworkPassphrase, "signingKey", signIn.Address())
	if s.Demo {
		if err := seedDemo(ctx, v.storage, log); err != nil {
			return err
		}
	}
	limiter, err := openLimiter(cfg.redisURL, registry, log)
	if err != nil {
		return err
	}
	v.closers = append(v.closers, limiter.Close)
	v.http, err = httpapi.New(httpapi.Config{
		Platform: learning.New(c, v.storage, learning.Config{Near: cfg.near, NearStrict: cfg.nearStrict, SignIn: signIn}), Cache: c, Tokens: v.tokens, Metrics: registry, Logger: log,
		RateLimit: cfg.rateLimit, RateWindow: cfg.rateWindow, SignInLimit: cfg.signInLimit, Limiter: limiter,
		TrustedProxies: cfg.trustedProxies, ProxyHeader: cfg.proxyHeader, CORSOrigins: cfg.corsOrigins,
	})
	if err != nil {
		return err
	}

	v.check(ctx, c, log)

	// Requests are answered from here on, but none are asked for before the warming.
	public.to(v.http.Public())
	private.to(v.http.Private())
	warming, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	if err := c.Warm(warming); err != nil {
		log.WarnContext(ctx, "not every query could be warmed", "err", err)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	v.http.Ready()
	return nil
}

// check logs what is wrong with how the cache is wired: a trigger that is disabled, a partition
// that was attached later, a tag that no trigger records.
func (v *service) check(ctx context.Context, c *cache.Cache, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	findings, err := c.Check(ctx, v.storage.Source())
	if err != nil {
		log.WarnContext(ctx, "the cache could not be checked", "err", err)
	}
	for _, f := range findings {
		level := slog.LevelWarn
		if f.Notice {
			level = slog.LevelInfo
		}
		log.Log(ctx, level, "the check of the cache found something", "subject", f.Subject, "problem", f.Problem, "remedy", f.Remedy)
	}
}

func (v *service) listen(ctx context.Context, setting, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	v.closers = append(v.closers, func() error { _ = l.Close(); return nil }) // again, if it served
	return l, nil
}

// handlerSwitch answers by one handler and then by another.
type handlerSwitch struct{ handler atomic.Pointer[http.Handler] }

func newHandlerSwitch() *handlerSwitch {
	s := &handlerSwitch{}
	s.to(httpapi.Starting())
	return s
}

func (s *handlerSwitch) to(h http.Handler) { s.handler.Store(&h) }

func (s *handlerSwitch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.handler.Load()).ServeHTTP(w, r)
}

func (v *service) serve(l net.Listener, h http.Handler, writeTimeout time.Duration, log *slog.Logger) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	v.servers = append(v.servers, srv)
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			v.serveErrors <- fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
	}()
}

// announce reports that the service wants no more requests, and goes on answering them for a time: in
// it, balancers notice. One that is still sent requests when the listener closes loses them.
func (v *service) announce(delay time.Duration) error {
	v.http.Stopping()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case err := <-v.serveErrors: // nothing is accepted any more
		return err
	}
	return nil
}

// stop finishes the requests in hand and closes everything, within stopTimeout.
func (v *service) stop() error {
	if v.http != nil {
		v.http.Stopping()
	}
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		var errs []error
		for _, srv := range v.servers {
			if srv.Shutdown(ctx) != nil { // out of time: what is still open is closed
				_ = srv.Close()
			}
		}
		for _, closePart := range slices.Backward(v.closers) {
			errs = append(errs, closePart())
		}
		done <- errors.Join(errs...)
	}()
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("shutdown did not finish within %v", stopTimeout)
	}
}

// printAddresses prints the service's addresses and a first request.
func (s *serveCommand) printAddresses(env *environment, v *service) {
	api := "http://" + dialAddress(v.api.Addr())
	_, _ = fmt.Fprintf(env.stdout, "\nchainlearn is ready.\n\n  API      %s/api/v1\n  Private  http://%s/metrics\n", api, dialAddress(v.private.Addr()))
	try := "curl -i " + api + "/api/v1/courses"
	if s.Demo { // unless the database is one that has no such learner
		if token, err := issueToken(env.ctx, v.storage, v.tokens, demoLearner, httpapi.TokenTTL); err == nil {
			try = "curl -i -H 'Authorization: Bearer " + token + "' " + api + "/api/v1/users/me/progress"
		}
	}
	_, _ = fmt.Fprintf(env.stdout, "\nTry\n\n  %s\n\n", try)
}

// dialAddress turns the address of a listener into one to connect to.
func dialAddress(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", tcp.Port)
	}
	return addr.String()
}
