package httpapi

import (
	"bytes"
	"compress/gzip"
	"embed"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/swaggest/swgui/v5/static"
)

//go:generate go run ../openapi openapi.json

// description is of the whole API, in the format of OpenAPI 3.1. It is made of Operations.
//
//go:embed openapi.json
var description []byte

// docs is a page that shows the description to people.
//
//go:embed docs
var docs embed.FS

// Description returns the description of the API in the format of OpenAPI 3.1.
func Description() []byte { return bytes.Clone(description) }

// descriptionRoutes serve the description to programs, and to people: a page with Swagger UI, whose
// files are part of this program.
func (s *Server) descriptionRoutes() {
	s.serveFile("/openapi.json", "application/json; charset=utf-8", description)
	for _, f := range []struct {
		route, name, contentType string
		from                     fs.FS
	}{
		{"/docs", "docs/index.html", "text/html; charset=utf-8", docs},
		{"/docs/start.js", "docs/start.js", "text/javascript; charset=utf-8", docs},
		{"/docs/swagger-ui-bundle.js", "swagger-ui-bundle.js.gz", "text/javascript; charset=utf-8", static.FS},
		{"/docs/swagger-ui.css", "swagger-ui.css.gz", "text/css; charset=utf-8", static.FS},
		{"/docs/favicon-32x32.png", "favicon-32x32.png", "image/png", static.FS},
	} {
		content, err := fs.ReadFile(f.from, f.name)
		if err != nil {
			panic(err) // it is embedded
		}
		s.serveFile(f.route, f.contentType, content)
	}
}

// docsPolicy lets the page run its own scripts and no others. Swagger UI sets styles in line.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var gzipMagic = []byte{0x1f, 0x8b}

// serveFile adds a route for a file, which may be compressed. It never changes while the process runs.
func (s *Server) serveFile(route, contentType string, content []byte) {
	etag, plainETag := computeETag(route, content), computeETag("plain "+route, content)
	compressed := bytes.HasPrefix(content, gzipMagic)
	s.mux.HandleFunc("GET "+route, func(w http.ResponseWriter, r *http.Request) {
		requestScopeOf(r).routed = true
		h := w.Header()
		h["Content-Type"], h["Cache-Control"], h["Etag"] = []string{contentType}, publicAnswer, []string{etag}
		if route != "/openapi.json" {
			h.Set("Content-Security-Policy", docsPolicy)
		}
		plain := content
		if compressed {
			h.Add("Vary", "Accept-Encoding")
		}
		switch {
		case !compressed:
		case acceptsGzip(r.Header):
			h.Set("Content-Encoding", "gzip")
		default:
			h["Etag"] = []string{plainETag} // another representation
			plain = gunzip(content)
		}
		http.ServeContent(w, r, path.Base(route), time.Time{}, bytes.NewReader(plain))
	})
}

// acceptsGzip says whether a client asks for gzip by name, and not with the weight 0, which refuses it.
func acceptsGzip(h http.Header) bool {
	for coding := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		q, weighted := strings.CutPrefix(strings.ToLower(strings.TrimSpace(weight)), "q=")
		n, err := strconv.ParseFloat(q, 64)
		return !weighted || err == nil && n > 0
	}
	return false
}

func gunzip(compressed []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		panic(err) // it is embedded
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		panic(err)
	}
	return plain
}
