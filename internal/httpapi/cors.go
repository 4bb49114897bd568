package httpapi

import (
	"net/http"
	"slices"
)

// corsOrigins may read answers from a browser.
type corsOrigins struct {
	all     bool
	allowed []string
}

func newCORSOrigins(list []string) corsOrigins {
	return corsOrigins{slices.Contains(list, "*"), list}
}

// setHeaders sets the CORS headers and says whether the request is a preflight, which has its
// whole answer with them if there is such a route. Tokens travel in a header that scripts set themselves, never in
// cookies, so credentials need no permission.
func (o corsOrigins) setHeaders(h http.Header, r *http.Request) (preflight bool) {
	if len(o.allowed) == 0 {
		return false
	}
	origin := r.Header.Get("Origin")
	switch {
	case o.all:
		h.Set("Access-Control-Allow-Origin", "*")
	default:
		h.Add("Vary", "Origin")
		if !slices.Contains(o.allowed, origin) {
			return false
		}
		h.Set("Access-Control-Allow-Origin", origin)
	}
	if r.Method != http.MethodOptions || origin == "" || r.Header.Get("Access-Control-Request-Method") == "" {
		h.Set("Access-Control-Expose-Headers", "Cache-Status, ETag, RateLimit, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, X-Request-Id")
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT")
	h.Set("Access-Control-Allow-Headers", "Authorization, Cache-Control, Content-Type, If-Match, If-None-Match, X-Request-Id")
	h.Set("Access-Control-Max-Age", "600")
	return true
}
