package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"
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

// Stopping makes the server report that it wants no more requests.
func (s *Server) Stopping() { s.phase.Store(phaseStopping) }

func (s *Server) healthRoutes(mux *http.ServeMux, base string) {
	mux.HandleFunc("GET "+base+"/health/live", s.liveness)
	mux.HandleFunc("GET "+base+"/health/ready", s.readiness)
	mux.HandleFunc("GET "+base+"/health", s.readiness)
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
	Database string `json:"database"` // ok, down
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
		s.log.WarnContext(r.Context(), "database does not answer", "err", err)
	}
	switch s.phase.Load() {
	case phaseStarting:
		h.Status, status = "starting", http.StatusServiceUnavailable
	case phaseStopping:
		h.Status, status = "stopping", http.StatusServiceUnavailable
	}
	answerProbe(w, r, status, h)
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
