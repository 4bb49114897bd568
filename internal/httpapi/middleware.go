package httpapi

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Public returns the handler of the public listener.
func (s *Server) Public() http.Handler { return http.HandlerFunc(s.servePublic) }

func (s *Server) servePublic(rw http.ResponseWriter, r *http.Request) {
	began := time.Now()
	scope := &requestScope{requestID: requestID(r)}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	if hasNoCache(r.Header) {
		ctx = cache.WithStrict(ctx)
	}
	r = withRequestScope(r.WithContext(ctx), scope)
	w := &responseRecorder{ResponseWriter: rw, scope: scope}
	defer func() {
		failure := recover()
		if failure == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			panic(failure)
		}
		if failure != nil {
			scope.routed = true
			if w.status == 0 {
				s.writeProblem(w, r, errInternal)
			}
			s.log.ErrorContext(ctx, "handler panicked", "panic", failure, "requestId", scope.requestID, "stack", string(debug.Stack()))
		}
		s.observe(r, w, time.Since(began))
	}()

	setSecurityHeaders(w.Header())
	w.Header().Set("X-Request-Id", scope.requestID)
	if s.phase.Load() == phaseStopping {
		w.Header().Set("Connection", "close")
	}
	if s.corsOrigins.setHeaders(w.Header(), r) && s.hasRoute(r, r.Header.Get("Access-Control-Request-Method")) {
		scope.routed = true
		w.WriteHeader(http.StatusNoContent)
		return
	}
	scope.claims, scope.badToken = s.cfg.Tokens.fromHeader(r.Header)
	if !isProbe(r.URL.Path) {
		if err := s.admit(w.Header(), r, scope.claims); err != nil {
			scope.routed = true
			s.writeProblem(w, r, err)
			return
		}
	}
	limitBodyTime(w, r, s.cfg.BodyTimeout)
	s.mux.ServeHTTP(w, r)
	if scope.routed {
		return
	}

	// The mux found no route, and what it said was swallowed. It also redirects paths that
	// are not clean; that is no service to a POST, so they do not exist.
	scope.routed = true
	err := errNoRoute
	if w.status == http.StatusMethodNotAllowed {
		err = &problem{kind: methodNotAllowed, message: "This route answers " + w.Header().Get("Allow")}
	} else {
		w.Header().Del("Allow")
	}
	w.Header().Del("Location")
	w.status = 0
	s.writeProblem(w, r, err)
}

// hasRoute says whether there is a route for the method at the request's path.
func (s *Server) hasRoute(r *http.Request, method string) bool {
	asked := *r
	asked.Method = method
	_, pattern := s.mux.Handler(&asked)
	return pattern != ""
}

// hasNoCache says whether the client asks for a validated answer (Cache-Control: no-cache,
// RFC 9111, section 5.2.1.4): a strict read.
func hasNoCache(h http.Header) bool {
	for _, line := range h["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(directive), "no-cache") {
				return true
			}
		}
	}
	return false
}

// setSecurityHeaders sets what a browser should know about answers that are never a page.
func setSecurityHeaders(h http.Header) {
	maps.Copy(h, securityHeaders)
}

// securityHeaders is shared by all answers: fields are replaced, never changed.
var securityHeaders = http.Header{
	"X-Content-Type-Options":       {"nosniff"},
	"X-Frame-Options":              {"DENY"},
	"Content-Security-Policy":      {"default-src 'none'; frame-ancestors 'none'"},
	"Referrer-Policy":              {"no-referrer"},
	"Cross-Origin-Resource-Policy": {"same-origin"},
	"Strict-Transport-Security":    {"max-age=15552000"},
}

// statusClientGone is logged for a request whose client disconnected before the answer.
const statusClientGone = 499

// observe logs and measures a request that has been answered. Tokens, queries and bodies
// stay out of the log.
func (s *Server) observe(r *http.Request, w *responseRecorder, took time.Duration) {
	scope := w.scope
	_, route, found := strings.Cut(r.Pattern, " ")
	if !found {
		route = "none"
	}
	s.duration.WithLabelValues(methodLabel(r.Method), route, strconv.Itoa(w.status)).Observe(took.Seconds())

	level := slog.LevelInfo
	switch {
	case isProbe(r.URL.Path): // what a probe found is said once, see reportDatabase
		level = slog.LevelDebug
	case w.status >= 500:
		level = slog.LevelError
	}
	ctx := context.WithoutCancel(r.Context())
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs,
		slog.String("method", r.Method), slog.String("route", route), slog.Int("status", w.status),
		slog.Duration("duration", took), slog.Int64("bytes", w.bytes), slog.String("requestId", scope.requestID))
	if !found {
		attrs = append(attrs, slog.String("path", r.URL.Path))
	}
	if scope.cacheStatus != 0 {
		attrs = append(attrs, slog.String("cache", scope.cacheStatus.String()))
	}
	if scope.err != nil {
		attrs = append(attrs, slog.Any("err", scope.err))
	}
	s.log.LogAttrs(ctx, level, "request", attrs...)
}

// methodLabel bounds the values of a label: a method is any word a client likes.
func methodLabel(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS":
		return method
	}
	return "other"
}
