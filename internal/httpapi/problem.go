package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// problemKind of a problem: the status and the code for it that clients branch on.
type problemKind struct {
	status int
	code   string
}

var (
	validation       = problemKind{http.StatusBadRequest, "VALIDATION_ERROR"}
	unauthorized     = problemKind{http.StatusUnauthorized, "UNAUTHORIZED"}
	forbidden        = problemKind{http.StatusForbidden, "FORBIDDEN"}
	notFound         = problemKind{http.StatusNotFound, "NOT_FOUND"}
	methodNotAllowed = problemKind{http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED"}
	conflict         = problemKind{http.StatusConflict, "CONFLICT"}
	precondition     = problemKind{http.StatusPreconditionFailed, "PRECONDITION_FAILED"}
	tooLarge         = problemKind{http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE"}
	rateLimited      = problemKind{http.StatusTooManyRequests, "RATE_LIMITED"}
	internal         = problemKind{http.StatusInternalServerError, "INTERNAL_ERROR"}
	overloaded       = problemKind{http.StatusServiceUnavailable, "OVERLOADED"}
	unavailable      = problemKind{http.StatusServiceUnavailable, "UNAVAILABLE"}
)

// problemKinds are all that clients may meet.
var problemKinds = []problemKind{
	validation, unauthorized, forbidden, notFound, methodNotAllowed, conflict, precondition, tooLarge, rateLimited, internal, overloaded, unavailable,
}

// Problem is an error as it is sent to clients.
type Problem struct {
	StatusCode int                 `json:"statusCode"`
	Error      string              `json:"error"` // the code of its kind
	Message    string              `json:"message"`
	Details    map[string][]string `json:"details,omitempty"` // part of the request → what is wrong there
	RequestID  string              `json:"requestId"`
}

// problem is an error as clients see it; err is for the log.
type problem struct {
	kind       problemKind
	message    string
	details    map[string][]string // part of the request → what is wrong there
	retryAfter time.Duration       // 0: no Retry-After
	err        error
}

func (p *problem) Error() string {
	if p.err != nil {
		return p.message + ": " + p.err.Error()
	}
	return p.message
}

func (p *problem) Unwrap() error { return p.err }

var (
	errNoRoute  = &problem{kind: notFound, message: "There is nothing at this address"}
	errInternal = &problem{kind: internal, message: "Internal error"}
)

// problemKindOf returns the kind of problem that err is, the zero kind for nil.
func problemKindOf(err error) problemKind {
	if err == nil {
		return problemKind{}
	}
	return problemOf(err).kind
}

// problemOf is the one place where errors become answers.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*learning.Error](err); ok {
		p := &problem{message: e.Message, details: e.Fields, err: e.Err}
		switch e.Kind {
		case learning.Invalid:
			p.kind = validation
		case learning.NotFound:
			p.kind = notFound
		case learning.Forbidden:
			p.kind = forbidden
		case learning.Conflict:
			p.kind = conflict
		case learning.Unauthorized:
			p.kind = unauthorized
		case learning.Changed:
			p.kind = precondition
		default:
			return &problem{kind: internal, message: errInternal.message, err: err}
		}
		return p
	}
	if e, ok := errors.AsType[*cache.OverloadError](err); ok {
		return &problem{kind: overloaded, message: "The service is overloaded", retryAfter: e.RetryAfter, err: err}
	}
	if errors.Is(err, cache.ErrClosed) {
		return &problem{kind: unavailable, message: "The service is stopping", retryAfter: time.Second, err: err}
	}
	if errors.Is(err, cache.ErrLoadTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return &problem{kind: overloaded, message: "The service took too long to answer", retryAfter: time.Second, err: err}
	}
	if errors.Is(err, learning.ErrUnavailable) {
		return &problem{kind: unavailable, message: "The service cannot reach its database, or write to it, at the moment", retryAfter: unavailableRetry, err: err}
	}
	return &problem{kind: internal, message: errInternal.message, err: err}
}

// unavailableRetry is what clients are told to wait: a server restarts in seconds.
const unavailableRetry = 2 * time.Second

// writeProblem answers with err.
func (s *Server) writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	scope := requestScopeOf(r)
	p := problemOf(err)
	// The client has disconnected and reads no answer. It is also said to have when its body does
	// not arrive in time, and then it reads what was wrong.
	if errors.Is(r.Context().Err(), context.Canceled) && p.kind.status >= http.StatusInternalServerError {
		scope.err = err
		w.WriteHeader(statusClientGone)
		return
	}
	if p.kind.status >= http.StatusInternalServerError {
		scope.err = err
	}
	p.write(w, scope.requestID)
}

func (p *problem) write(w http.ResponseWriter, requestID string) {
	h := w.Header()
	switch {
	case p.retryAfter > 0 || p.kind.status == http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(wholeSeconds(p.retryAfter)))
	case p.kind == unauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	}
	body, err := json.Marshal(Problem{p.kind.status, p.kind.code, p.message, p.details, requestID})
	if err != nil { // strings always encode
		panic(err)
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.kind.status)
	_, _ = w.Write(append(body, '\n')) // fails when the client is gone
}

// wholeSeconds rounds up, to at least 1: "retry after 0" would invite clients to retry at once.
func wholeSeconds(d time.Duration) int {
	return max(1, int(math.Ceil(d.Seconds())))
}
