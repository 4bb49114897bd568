package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// emptyServer has no database: it is for routes that a test adds.
func emptyServer(t *testing.T, log *bytes.Buffer) *Server {
	t.Helper()
	store := memstore.New(memstore.Config{})
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	tokens, err := NewTokens(bytes.Repeat([]byte("s"), MinSecret))
	if err != nil {
		t.Fatal(err)
	}
	var storage struct{ learning.Storage }
	s, err := New(Config{Platform: learning.New(c, storage, learning.Config{}), Cache: c, Tokens: tokens, Logger: slog.New(slog.NewJSONHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A panic is one request's trouble: it is answered in the usual shape, tells nothing, and
// the log tells all.
func TestPanic(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := emptyServer(t, &log)
	s.handle("GET /boom", AuthNone, func(*http.Request) (reply, error) { panic("the inside") })
	s.handle("GET /unencodable", AuthNone, func(*http.Request) (reply, error) { return reply{data: func() {}}, nil })
	for _, path := range []string{"/boom", "/unencodable"} {
		w := httptest.NewRecorder()
		s.Public().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1"+path, nil))
		var body struct {
			Error, Message, RequestID string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusInternalServerError || body.Error != "INTERNAL_ERROR" || body.Message != "Internal error" || body.RequestID == "" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, want := range []string{"the inside", "panic_test.go", "unsupported type: func()"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not hold %q", want)
		}
	}
}
