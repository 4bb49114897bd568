package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// reply is what a handler answers. With an error too, only cached is used.
type reply struct {
	status     int // 0: 200
	message    string
	data       any
	pagination *pagination
	cached     *cached // nil: not a cached answer
}

type pagination struct {
	Page  int `json:"page"`
	Limit int `json:"limit"`
	Total int `json:"total"`
}

// cached says how the cache came by an answer, and whom it may be shown to.
type cached struct {
	status  cache.Status
	detail  string
	ttl     time.Duration
	private bool // holds something of the caller's own
}

func fromCache[V any](a cache.Answer[V], private bool) *cached {
	return &cached{a.Status, a.Detail, a.TTL, private}
}

// handle adds a route under both base paths. There is no redirect from one to the other:
// a redirected POST loses its body.
func (s *Server) handle(route string, f func(r *http.Request) (reply, error)) {
	method, path, _ := strings.Cut(route, " ")
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		x.routed = true
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		rep, err := f(r)
		if rep.cached != nil {
			x.cached = rep.cached.status
			rep.cached.setStatus(w.Header())
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.send(w, r, route, rep)
	})
	s.mux.Handle(method+" /api"+path, h)
	s.mux.Handle(method+" /api/v1"+path, h)
}

// setStatus writes the Cache-Status field of RFC 9211.
func (c *cached) setStatus(h http.Header) {
	if c.status == 0 {
		return
	}
	var b strings.Builder
	b.WriteString("chainlearn; ")
	switch c.status {
	case cache.Hit:
		b.WriteString("hit")
	case cache.Stale:
		b.WriteString("fwd=stale")
	case cache.Collapsed:
		b.WriteString("fwd=miss; collapsed")
	case cache.Bypass:
		b.WriteString("fwd=bypass")
	default:
		b.WriteString("fwd=miss")
	}
	if c.status != cache.Bypass {
		fmt.Fprintf(&b, "; ttl=%d", int(c.ttl/time.Second))
	}
	if c.detail != "" {
		b.WriteString("; detail=" + c.detail)
	}
	h.Set("Cache-Status", b.String())
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// send writes the envelope around the reply. The data is encoded once, into place: what lies
// between data and meta is the representation that the entity tag stands for.
func (s *Server) send(w http.ResponseWriter, r *http.Request, route string, rep reply) {
	b := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	b.WriteString(`{"success":true,`)
	if rep.message != "" {
		b.WriteString(`"message":`)
		b.WriteString(strconv.Quote(rep.message)) // a constant of ours, in ASCII
		b.WriteString(`,`)
	}
	begin := b.Len()
	if err := encodeEnvelope(b, rep); err != nil {
		s.fail(w, r, fmt.Errorf("encode answer of %s: %w", route, err))
		return
	}
	h := w.Header()
	if rep.cached != nil {
		tag := entityTag(route, b.Bytes()[begin:])
		h.Set("ETag", tag)
		h.Add("Vary", "Authorization")
		if rep.cached.private {
			h.Set("Cache-Control", "private, no-cache")
		} else {
			h.Set("Cache-Control", "public, no-cache")
		}
		if noneMatch(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	} else {
		h.Set("Cache-Control", "no-store")
	}
	b.WriteString(`,"meta":{"version":"v1","timestamp":"`)
	b.Write(Time(time.Now()).append(b.AvailableBuffer()))
	b.WriteString(`","requestId":"`)
	b.WriteString(exchangeOf(r).requestID) // holds nothing that JSON would escape
	b.WriteString("\"}}\n")

	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(max(rep.status, http.StatusOK))
	_, _ = w.Write(b.Bytes()) // fails when the client is gone: nobody is left to tell
}

func encodeEnvelope(b *bytes.Buffer, rep reply) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false) // answers are served as JSON that nobody may sniff
	b.WriteString(`"data":`)
	if err := enc.Encode(rep.data); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the encoder's line end
	if rep.pagination == nil {
		return nil
	}
	b.WriteString(`,"pagination":`)
	if err := enc.Encode(rep.pagination); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1)
	return nil
}

// entityTag digests a representation. The route is part of it, so that a tag from one
// resource never matches another whose data happens to be alike.
func entityTag(route string, representation []byte) string {
	h := sha256.New()
	_, _ = h.Write([]byte(route))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(representation)
	var sum [sha256.Size]byte
	return `"` + base64.RawURLEncoding.EncodeToString(h.Sum(sum[:0])[:16]) + `"`
}

// Time is written in ISO 8601 with milliseconds, in UTC.
type Time time.Time

func (t Time) append(b []byte) []byte {
	return time.Time(t).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}

// MarshalJSON always writes three digits after the second, which time.Time does not.
func (t Time) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 26), '"')
	return append(t.append(b), '"'), nil
}
