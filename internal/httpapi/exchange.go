package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/cache"
)

// exchange is what is known of one request besides the request itself. Only the goroutine
// that serves it touches it.
type exchange struct {
	requestID string
	claims    *claims // of a token that we signed and that has not expired; else nil
	badToken  error   // why claims is nil though there is a token
	routed    bool    // a route of ours answers
	cached    cache.Status
	err       error // what the log should know about a failure
}

type exchangeKey struct{}

func withExchange(r *http.Request, x *exchange) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
}

func exchangeOf(r *http.Request) *exchange {
	return r.Context().Value(exchangeKey{}).(*exchange)
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

// recorder remembers what was answered, and swallows what the mux answers when no route
// matches: our own answer takes its place.
type recorder struct {
	http.ResponseWriter
	x      *exchange
	status int // 0: nothing yet
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.x.routed && w.status == 0 {
		w.ResponseWriter.WriteHeader(status)
	}
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	if !w.x.routed {
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
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
