package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// phase of the server's life.
type phase = int32

const (
	phaseStarting phase = iota
	phaseReady
	phaseStopping
)

// Ready makes the server report that it may be sent requests, as far as its parts are well.
// Until then, and again after Stopping, it says that it may not; it answers nonetheless.
func (s *Server) Ready() { s.phase.CompareAndSwap(phaseStarting, phaseReady) }

// Stopping makes the server report that it wants no more requests. It answers those that come all
// the same, and tells their clients to use the connection for no more.
func (s *Server) Stopping() { s.phase.Store(phaseStopping) }

func (s *Server) healthRoutes(mux *http.ServeMux, base string) {
	mux.HandleFunc("GET "+base+"/health/live", s.liveness)
	mux.HandleFunc("GET "+base+"/health/ready", s.readiness)
	mux.HandleFunc("GET "+base+"/health", s.readiness)
}

// Starting returns the handler of a process that is about to have a Server, while its database is
// opened and migrated: it is alive and not ready, and every other request is to come again.
func Starting() http.Handler {
	mux := http.NewServeMux()
	for _, base := range []string{"", "/api", "/api/v1"} {
		mux.HandleFunc("GET "+base+"/health/live", func(w http.ResponseWriter, r *http.Request) {
			answerProbe(w, r, http.StatusOK, health{Status: "ok"})
		})
		for _, path := range []string{"/health/ready", "/health"} {
			mux.HandleFunc("GET "+base+path, func(w http.ResponseWriter, r *http.Request) {
				answerProbe(w, r, http.StatusServiceUnavailable, health{Status: "starting"})
			})
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		setSecurityHeaders(w.Header())
		id := requestID(r)
		w.Header().Set("X-Request-Id", id)
		p := &problem{kind: unavailable, message: "The service is starting", retryAfter: unavailableRetry}
		p.write(w, id)
	})
	return mux
}

func isProbe(path string) bool {
	path = withoutBase(path)
	return path == "/health" || strings.HasPrefix(path, "/health/")
}

// withoutBase returns a path without the base path that it may have.
func withoutBase(path string) string {
	for _, base := range []string{"/api/v1", "/api"} {
		if rest, found := strings.CutPrefix(path, base); found {
			return rest
		}
	}
	return path
}

type health struct {
	Status string  `json:"status"` // ok, degraded, starting, stopping, unavailable
	Checks *checks `json:"checks,omitempty"`
}

type checks struct {
	Database string `json:"database"` // ok, read-only, down
	Cache    string `json:"cache"`    // ok, recovering, down
}

func (s *Server) liveness(w http.ResponseWriter, r *http.Request) {
	answerProbe(w, r, http.StatusOK, health{Status: "ok"})
}

const probeTimeout = 2 * time.Second

func (s *Server) readiness(w http.ResponseWriter, r *http.Request) {
	h := health{Status: "ok", Checks: &checks{Database: "ok", Cache: s.cfg.Cache.Health().State}}
	status := http.StatusOK
	if h.Checks.Cache != "ok" {
		h.Status = "degraded" // every answer still comes, from the database
	}
	// Probes that come together share one question, under a deadline of its own: probing
	// is no way to load the database.
	_, err, _ := s.probes.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), probeTimeout)
		defer cancel()
		return nil, s.platform.Ping(ctx)
	})
	if err != nil {
		h.Status, h.Checks.Database, status = "unavailable", "down", http.StatusServiceUnavailable
		if errors.Is(err, learning.ErrReadOnly) {
			h.Checks.Database = "read-only"
		}
	}
	s.reportDatabase(r.Context(), h.Checks.Database, err)
	switch s.phase.Load() {
	case phaseStarting:
		h.Status, status = "starting", http.StatusServiceUnavailable
	case phaseStopping:
		h.Status, status = "stopping", http.StatusServiceUnavailable
	}
	answerProbe(w, r, status, h)
}

// reportDatabase logs that the state of the database has changed, once and not with each probe.
func (s *Server) reportDatabase(ctx context.Context, state string, err error) {
	before := s.databaseState.Swap(&state)
	switch {
	case before != nil && *before == state || before == nil && err == nil:
	case err == nil:
		s.log.InfoContext(ctx, "the database may be read and written again, this process is ready")
	default:
		s.log.WarnContext(ctx, "this process reports that it is not ready", "database", state, "err", err)
	}
}

func answerProbe(w http.ResponseWriter, r *http.Request, status int, h health) {
	if scope, ok := r.Context().Value(requestScopeKey{}).(*requestScope); ok {
		scope.routed = true
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(h) // fails when the client is gone
}
