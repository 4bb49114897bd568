// Package openapitest holds answers of the service, in its tests, to the description of the API.
package openapitest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/chainlearn/chainlearn/internal/httpapi"
)

var described = sync.OnceValues(func() (routers.Router, error) {
	d, err := openapi3.NewLoader().LoadFromData(httpapi.Description())
	if err != nil {
		return nil, err
	}
	router, err := legacy.NewRouter(d)
	// For 3.1 each validation would compile its schemas again, which takes half a millisecond. The
	// validator for 3.0 knows all that the description uses: TestCheck.
	d.OpenAPI = "3.0.3"
	return router, err
})

// Check returns an error if an answer is not as openapi.json says, or if a request that was carried
// out is not valid there. body is that of the request. What is not part of the API is as it is. Safe
// for concurrent use.
func Check(req *http.Request, body string, status int, header http.Header, answer []byte) error {
	path := req.URL.Path
	if !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/health") || strings.HasSuffix(path, "/") ||
		req.Method == http.MethodHead || req.Method == http.MethodOptions {
		return nil
	}
	router, err := described()
	if err != nil {
		return err
	}
	asked := httptest.NewRequestWithContext(req.Context(), req.Method, req.URL.RequestURI(), strings.NewReader(body))
	asked.Header = req.Header.Clone()
	if rest, found := strings.CutPrefix(path, "/api/"); found {
		if rest = strings.TrimPrefix(rest, "v1/"); strings.HasPrefix(rest, "health") {
			asked.URL.Path = "/" + rest
		} else {
			asked.URL.Path = "/api/v1/" + rest
		}
	}
	route, params, err := router.FindRoute(asked)
	if err != nil { // there is no such route, as the test knows
		if status != http.StatusNotFound && status != http.StatusMethodNotAllowed && status < http.StatusInternalServerError {
			return fmt.Errorf("%s %s: %d, and openapi.json knows no such route", req.Method, path, status)
		}
		return nil
	}
	in := &openapi3filter.RequestValidationInput{
		Request: asked, PathParams: params, Route: route,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true},
	}
	if status < http.StatusMultipleChoices {
		if body != "" && asked.Header.Get("Content-Type") == "" {
			asked.Header.Set("Content-Type", "application/json") // the service does not ask for it
		}
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			return fmt.Errorf("openapi.json says that the request is not valid, and it was carried out: %w", err)
		}
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: status, Header: header, Body: io.NopCloser(bytes.NewReader(answer)), Options: in.Options,
	})
	if err != nil {
		return fmt.Errorf("%s %s: %d is not as openapi.json says: %w\n%s", req.Method, path, status, err, answer)
	}
	return nil
}
