package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// reply is what a handler answers. With an error too, only cacheInfo is used.
type reply struct {
	status     int // 0: 200
	message    string
	data       any                // to be encoded, unless there is
	document   *learning.Document // which is
	enrolled   map[learning.CourseID]bool
	etag       string // of the document; "": derived from the cache's
	pagination *Pagination
	cacheInfo  *cacheInfo // nil: not a cached answer
}

// Pagination of a list says where in it a page is.
type Pagination struct {
	Page  int `json:"page"`
	Limit int `json:"limit"`
	Total int `json:"total"` // entries of the whole list
}

// Meta is what an answer says of itself. The entity tag does not stand for it.
type Meta struct {
	Version   string        `json:"version"`
	Timestamp learning.Time `json:"timestamp"`
	RequestID string        `json:"requestId"`
}

// cacheInfo says how the cache came by an answer, and whether it may be shown to others.
type cacheInfo struct {
	status    cache.Status
	detail    string
	ttl       time.Duration
	etag      cache.ETag
	perCaller bool // holds something of the caller's own
}

func cacheInfoOf[V any](a cache.Answer[V], private bool) *cacheInfo {
	return &cacheInfo{a.Status, a.Detail, a.TTL, a.ETag, private}
}

// privateReply is the reply of an answer that belongs to the caller.
func privateReply(a cache.Answer[learning.Document]) reply {
	return reply{document: &a.Value, cacheInfo: cacheInfoOf(a, true)}
}

// viewerReply is the reply of a public answer as viewer sees it.
func viewerReply(v learning.CatalogueView, viewer learning.UserID) reply {
	return reply{document: &v.Value, enrolled: v.Enrolled, cacheInfo: cacheInfoOf(v.Answer, viewer != learning.Anonymous)}
}

// handle adds a route under both base paths. There is no redirect from one to the other:
// a redirected POST loses its body.
func (s *Server) handle(pattern string, auth Auth, f func(r *http.Request) (reply, error)) {
	method, path, _ := strings.Cut(pattern, " ")
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scope := requestScopeOf(r)
		scope.routed = true
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		rep, err := f(r)
		if rep.cacheInfo != nil {
			scope.cacheStatus = rep.cacheInfo.status
			rep.cacheInfo.writeHeader(w.Header())
		}
		if err != nil {
			s.writeProblem(w, r, err)
			return
		}
		s.writeReply(w, r, pattern, rep)
	})
	s.registered = append(s.registered, route{pattern, auth})
	s.mux.Handle(method+" /api"+path, h)
	s.mux.Handle(method+" /api/v1"+path, h)
}

// writeHeader writes the Cache-Status field of RFC 9211.
func (c *cacheInfo) writeHeader(h http.Header) {
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

// writeReply writes the envelope around the reply. What lies between data and meta is the
// representation that the entity tag stands for.
func (s *Server) writeReply(w http.ResponseWriter, r *http.Request, route string, rep reply) {
	h := w.Header()
	h["Cache-Control"] = noStore
	if rep.cacheInfo != nil {
		h["Vary"] = append(h["Vary"], "Authorization")
		h["Cache-Control"] = publicAnswer
		if rep.cacheInfo.perCaller {
			h["Cache-Control"] = privateAnswer
		}
		if rep.etag == "" && rep.document != nil {
			rep.etag = rep.documentETag(route)
		}
		if rep.etag != "" && writeNotModified(w, r, rep.etag) {
			return
		}
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	b := append((*buffer)[:0], `{"success":true,`...)
	if rep.message != "" {
		b = append(strconv.AppendQuote(append(b, `"message":`...), rep.message), ',') // a constant of ours, in ASCII
	}
	begin := len(b)
	b, err := rep.append(b)
	if err != nil {
		s.writeProblem(w, r, fmt.Errorf("encode answer of %s: %w", route, err))
		return
	}
	if rep.cacheInfo != nil && rep.etag == "" && writeNotModified(w, r, computeETag(route, b[begin:])) {
		return
	}
	b = append(b, `,"meta":{"version":"v1","timestamp":"`...)
	b = learning.Time(time.Now()).AppendTo(b)
	b = append(b, `","requestId":"`...)
	b = append(b, requestScopeOf(r).requestID...) // holds nothing that JSON would escape
	b = append(b, "\"}}\n"...)
	*buffer = b // which may have grown

	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(max(rep.status, http.StatusOK))
	_, _ = w.Write(b) // fails only when the client has disconnected
}

// writeNotModified sets the ETag. It answers a client that has the representation already, and
// returns true.
func writeNotModified(w http.ResponseWriter, r *http.Request, etag string) bool {
	w.Header()["Etag"] = []string{etag}
	if !namesETag(r.Header["If-None-Match"], etag, true) {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}

// Values of fields that many answers share. They are never changed: fields are replaced.
var (
	noStore       = []string{"no-store"}
	publicAnswer  = []string{"public, no-cache"}
	privateAnswer = []string{"private, no-cache"}
	jsonType      = []string{"application/json; charset=utf-8"}
)

// buffers are for whole bodies. A buffer that a large answer has grown goes back too: the
// answers of an API are of similar size.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// append appends the data and the pagination.
func (rep *reply) append(b []byte) (_ []byte, err error) {
	b = append(b, `"data":`...)
	if rep.document != nil {
		b = rep.document.AppendTo(b, rep.enrolled)
	} else if b, err = learning.AppendJSON(b, rep.data); err != nil {
		return nil, err
	}
	if p := rep.pagination; p != nil {
		b = strconv.AppendInt(append(b, `,"pagination":{"page":`...), int64(p.Page), 10)
		b = strconv.AppendInt(append(b, `,"limit":`...), int64(p.Limit), 10)
		b = strconv.AppendInt(append(b, `,"total":`...), int64(p.Total), 10)
		b = append(b, '}')
	}
	return b, nil
}

// documentETag is the entity tag of a document. It digests the cache's own tag, what is laid over
// the document, and what is written around it. So it costs about the same however long the document is.
func (rep *reply) documentETag(route string) string {
	b := append(make([]byte, 0, 128), rep.cacheInfo.etag[:]...)
	if len(rep.enrolled) > 0 {
		for _, id := range rep.document.Courses() {
			if rep.enrolled[id] {
				b = append(b, id.UUID[:]...)
			}
		}
	}
	if p := rep.pagination; p != nil {
		b = fmt.Appendf(b, "page %d of %d", p.Page, p.Limit)
	}
	return computeETag(route, b)
}

// computeETag digests a representation. The route is part of it, so that a tag from one
// resource never matches another whose data happens to be alike.
func computeETag(route string, representation []byte) string {
	h := sha256.New()
	_, _ = h.Write([]byte(route))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(representation)
	var sum [sha256.Size]byte
	return `"` + base64.RawURLEncoding.EncodeToString(h.Sum(sum[:0])[:16]) + `"`
}
