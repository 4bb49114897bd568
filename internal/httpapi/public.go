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
	x := &exchange{requestID: requestID(r)}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	if asksForFresh(r.Header) {
		ctx = cache.WithStrict(ctx)
	}
	r = withExchange(r.WithContext(ctx), x)
	w := &recorder{ResponseWriter: rw, x: x}
	defer func() {
		failure := recover()
		if failure == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			panic(failure)
		}
		if failure != nil {
			x.routed = true
			if w.status == 0 {
				s.fail(w, r, errInternal)
			}
			s.log.ErrorContext(ctx, "handler panicked", "panic", failure, "requestId", x.requestID, "stack", string(debug.Stack()))
		}
		s.observe(r, w, time.Since(began))
	}()

	secure(w.Header())
	w.Header().Set("X-Request-Id", x.requestID)
	if s.origins.answer(w.Header(), r) {
		x.routed = true
		w.WriteHeader(http.StatusNoContent)
		return
	}
	x.claims, x.badToken = s.cfg.Tokens.fromHeader(r.Header)
	if !isProbe(r.URL.Path) {
		if err := s.limit.admit(w.Header(), s.rateKey(r, x.claims), began); err != nil {
			x.routed = true
			s.fail(w, r, err)
			return
		}
	}
	s.mux.ServeHTTP(w, r)
	if x.routed {
		return
	}

	// The mux found no route, and what it said was swallowed. It also redirects paths that
	// are not clean; that is no service to a POST, so they do not exist.
	x.routed = true
	err := errNoRoute
	if w.status == http.StatusMethodNotAllowed {
		err = &problem{kind: methodNotAllowed, message: "This route answers " + w.Header().Get("Allow")}
	} else {
		w.Header().Del("Allow")
	}
	w.Header().Del("Location")
	w.status = 0
	s.fail(w, r, err)
}

// asksForFresh says whether the client asks for an answer that nobody kept without asking
// (RFC 9111, section 5.2.1.4): a strict one.
func asksForFresh(h http.Header) bool {
	for _, line := range h["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(directive), "no-cache") {
				return true
			}
		}
	}
	return false
}

// secure sets what a browser should know about answers that are never a page.
func secure(h http.Header) {
	maps.Copy(h, security)
}

// security is shared by all answers: fields are replaced, never changed.
var security = http.Header{
	"X-Content-Type-Options":       {"nosniff"},
	"X-Frame-Options":              {"DENY"},
	"Content-Security-Policy":      {"default-src 'none'; frame-ancestors 'none'"},
	"Referrer-Policy":              {"no-referrer"},
	"Cross-Origin-Resource-Policy": {"same-origin"},
	"Strict-Transport-Security":    {"max-age=15552000"},
}

// statusClientGone is logged for a request whose client hung up before the answer.
const statusClientGone = 499

// observe logs and measures a request that has been answered. Tokens, queries and bodies
// stay out of the log.
func (s *Server) observe(r *http.Request, w *recorder, took time.Duration) {
	x := w.x
	_, route, found := strings.Cut(r.Pattern, " ")
	if !found {
		route = "none"
	}
	s.duration.WithLabelValues(methodLabel(r.Method), route, strconv.Itoa(w.status)).Observe(took.Seconds())

	level := slog.LevelInfo
	if w.status >= 500 {
		level = slog.LevelError
	}
	ctx := context.WithoutCancel(r.Context())
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs,
		slog.String("method", r.Method), slog.String("route", route), slog.Int("status", w.status),
		slog.Duration("duration", took), slog.Int64("bytes", w.bytes), slog.String("requestId", x.requestID))
	if !found {
		attrs = append(attrs, slog.String("path", r.URL.Path))
	}
	if x.cached != 0 {
		attrs = append(attrs, slog.String("cache", x.cached.String()))
	}
	if x.err != nil {
		attrs = append(attrs, slog.Any("err", x.err))
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
