package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/cache"
)

// requestScope is what is known of one request besides the request itself. Only the goroutine
// that serves it touches it.
type requestScope struct {
	requestID   string
	claims      *claims // of a token that we signed and that has not expired; else nil
	badToken    error   // why claims is nil though there is a token
	routed      bool    // a route of ours answers
	cacheStatus cache.Status
	err         error // what the log should know about a failure
}

type requestScopeKey struct{}

func withRequestScope(r *http.Request, scope *requestScope) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), requestScopeKey{}, scope))
}

func requestScopeOf(r *http.Request) *requestScope {
	return r.Context().Value(requestScopeKey{}).(*requestScope)
}

// requestID returns the client's, if it is fit for logs and headers, else a fresh one.
func requestID(r *http.Request) string {
	const most = 128
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > most || strings.ContainsFunc(id, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_.:+/=@", c))
	}) {
		return uuid.NewString()
	}
	return id
}

// responseRecorder remembers what was answered, and swallows what the mux answers when no route
// matches: our own answer takes its place.
type responseRecorder struct {
	http.ResponseWriter
	scope  *requestScope
	status int // 0: nothing yet
	bytes  int64
}

func (w *responseRecorder) WriteHeader(status int) {
	if w.scope.routed && w.status == 0 {
		w.ResponseWriter.WriteHeader(status)
	}
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

func (w *responseRecorder) Write(b []byte) (int, error) {
	if !w.scope.routed {
		return len(b), nil
	}
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *responseRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
