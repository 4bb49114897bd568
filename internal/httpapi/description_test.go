package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var described = sync.OnceValues(func() (routers.Router, error) {
	d, err := openapi3.NewLoader().LoadFromData(httpapi.Description())
	if err != nil {
		return nil, err
	}
	return legacy.NewRouter(d)
})

// asDescribed returns an error if an answer, or a request that was carried out, is not as
// openapi.json says. Every request of these tests is held to it.
func asDescribed(req *http.Request, body string, res response) error {
	if req.Method == http.MethodHead || req.Method == http.MethodOptions || strings.HasSuffix(req.URL.Path, "/") || req.URL.Path == "/openapi.json" {
		return nil // no operations of their own, no paths, and the description itself
	}
	router, err := described()
	if err != nil {
		return err
	}
	asked := httptest.NewRequest(req.Method, req.URL.RequestURI(), strings.NewReader(body))
	asked.Header = req.Header.Clone()
	if _, rest, found := strings.Cut(asked.URL.Path, "/api/"); found {
		if asked.URL.Path = "/api/v1/" + strings.TrimPrefix(rest, "v1/"); strings.HasPrefix(asked.URL.Path, "/api/v1/health") {
			asked.URL.Path = strings.TrimPrefix(asked.URL.Path, "/api/v1")
		}
	}
	route, params, err := router.FindRoute(asked)
	if err != nil { // there is no such route, as the test knows
		if res.status != http.StatusNotFound && res.status != http.StatusMethodNotAllowed && res.status < http.StatusInternalServerError {
			return fmt.Errorf("%s %s: %d, and openapi.json knows no such route", req.Method, req.URL.Path, res.status)
		}
		return nil
	}
	in := &openapi3filter.RequestValidationInput{
		Request: asked, PathParams: params, Route: route,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true},
	}
	if res.status < http.StatusMultipleChoices {
		if body != "" && asked.Header.Get("Content-Type") == "" {
			asked.Header.Set("Content-Type", "application/json") // the service does not ask for it
		}
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			return fmt.Errorf("openapi.json says that the request is not valid, and it was carried out: %w", err)
		}
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: res.status, Header: res.header, Body: io.NopCloser(bytes.NewReader(res.raw)), Options: in.Options,
	})
	if err != nil {
		return fmt.Errorf("%s %s: %d is not as openapi.json says: %w\n%s", req.Method, req.URL.Path, res.status, err, res.raw)
	}
	return nil
}

func TestDescriptionIsServed(t *testing.T) {
	t.Parallel()
	s := start(t)
	res := s.do(request{path: "//openapi.json"})
	if res.status != http.StatusOK || !bytes.Equal(res.raw, httpapi.Description()) || res.header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("%d %v", res.status, res.header)
	}
	again := s.do(request{path: "//openapi.json", header: http.Header{"If-None-Match": {res.header.Get("ETag")}}})
	if again.status != http.StatusNotModified {
		t.Errorf("with the entity tag: %d", again.status)
	}
	for _, encoding := range []string{"gzip", "identity"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.api.URL+"/docs/swagger-ui.css", nil)
		must(t, err)
		req.Header.Set("Accept-Encoding", encoding)
		res, err := s.api.Client().Do(req)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		must(t, errors.Join(err, res.Body.Close()))
		if compressed := bytes.HasPrefix(body, []byte{0x1f, 0x8b}); compressed != (encoding == "gzip") || (res.Header.Get("Content-Encoding") == "gzip") != compressed || res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %v", encoding, res.StatusCode, res.Header)
		}
	}
}

// A browser shows every operation, with nothing but what this process serves.
func TestDocsInABrowser(t *testing.T) {
	t.Parallel()
	chromium := testservers.Require(t, "chromium", "chromium", "chromium-browser", "google-chrome")
	s := start(t)
	cmd := exec.CommandContext(t.Context(), chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
		"--virtual-time-budget=60000", "--enable-logging=stderr", "--dump-dom", s.api.URL+"/docs")
	var said bytes.Buffer
	cmd.Stderr = &said
	page, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.Bytes())
	}
	shown := html.UnescapeString(string(page))
	for _, o := range httpapi.Operations() {
		if !strings.Contains(shown, o.Summary) {
			t.Errorf("%s %s is not shown", o.Method, o.Path)
		}
	}
	for line := range strings.Lines(said.String()) {
		if strings.Contains(line, "CONSOLE") {
			t.Errorf("the page says: %s", line)
		}
	}
}
