package httpapi_test

import (
	"bytes"
	"errors"
	"html"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

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
	etags := map[string]bool{}
	for encoding, asked := range map[string]bool{"gzip": true, "br, GZIP;q=0.5": true, "identity": false, "gzip;q=0": false, "gzip; q=0.0, br": false, "notgzip": false} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.api.URL+"/docs/swagger-ui.css", nil)
		must(t, err)
		req.Header.Set("Accept-Encoding", encoding)
		res, err := s.api.Client().Do(req)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		must(t, errors.Join(err, res.Body.Close()))
		if compressed := bytes.HasPrefix(body, []byte{0x1f, 0x8b}); compressed != asked || res.Header.Get("Vary") == "" || (res.Header.Get("Content-Encoding") == "gzip") != compressed || res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %v", encoding, res.StatusCode, res.Header)
		}
		etags[res.Header.Get("ETag")] = true
	}
	if len(etags) != 2 {
		t.Errorf("two representations have the entity tags %v", etags)
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
