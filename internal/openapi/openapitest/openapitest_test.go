package openapitest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Check finds what differs, and nothing else.
func TestCheck(t *testing.T) {
	const profile = `{"success":true,"data":{"id":"00000000-0000-4000-8000-000000000002","stellarAddress":"G","displayName":null,"background":"b","learningGoal":null,` +
		`"pace":"medium","language":"en","credits":20,"createdAt":"2026-03-01T09:30:00.000Z"},"meta":{"version":"v1","timestamp":"2026-03-01T09:30:00.000Z","requestId":"r"}}`
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		old, new           string // in the answer
		without            string // a header field
		wrong              string
	}{
		"as it should be":            {path: "/users/me", status: 200},
		"under the other base path":  {path: "//api/users/me", status: 200},
		"a field is missing":         {path: "/users/me", status: 200, old: `"credits":20,`, wrong: "credits"},
		"null where it may not be":   {path: "/users/me", status: 200, old: `"credits":20`, new: `"credits":null`, wrong: "credits"},
		"another type":               {path: "/users/me", status: 200, old: `"credits":20`, new: `"credits":"20"`, wrong: "credits"},
		"no value of an enumeration": {path: "/users/me", status: 200, old: `"medium"`, new: `"warp"`, wrong: "pace"},
		"a time without fraction":    {path: "/users/me", status: 200, old: `"createdAt":"2026-03-01T09:30:00.000Z"`, new: `"createdAt":"2026-03-01T09:30:00Z"`, wrong: "createdAt"},
		"no meta":                    {path: "/users/me", status: 200, old: `"meta"`, new: `"meat"`, wrong: "meta"},
		"a header is missing":        {path: "/users/me", status: 200, without: "ETag", wrong: "ETag"},
		"an undocumented status":     {path: "/users/me", status: 418, wrong: "status"},
		"an unknown route":           {path: "/nothing", status: 200, wrong: "no such route"},
		"an unknown route, refused":  {path: "/nothing", status: 404},
		"a request that is valid":    {method: "PUT", path: "/users/me", body: `{"displayName":null,"pace":"slow"}`, status: 200},
		"a request that is not":      {method: "PUT", path: "/users/me", body: `{"pace":"warp"}`, status: 200, wrong: "pace"},
	} {
		t.Run(name, func(t *testing.T) {
			path, found := strings.CutPrefix(c.path, "/")
			if !found || !strings.HasPrefix(path, "/") {
				path = "/api/v1" + c.path
			}
			method := "GET"
			if c.method != "" {
				method = c.method
			}
			req := httptest.NewRequestWithContext(t.Context(), method, path, nil)
			header := http.Header{}
			for _, field := range []string{"X-Request-Id", "Cache-Control", "ETag", "Cache-Status"} {
				if field != c.without {
					header.Set(field, "x")
				}
			}
			header.Set("Content-Type", "application/json; charset=utf-8")
			err := Check(req, c.body, c.status, header, []byte(strings.Replace(profile, c.old, c.new, 1)))
			if (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("got %v, want something about %q", err, c.wrong)
			}
		})
	}
}
