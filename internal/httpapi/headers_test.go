package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/ratelimit"
)

func TestCacheStatusField(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]cacheInfo{
		"chainlearn; hit; ttl=27":                     {status: cache.Hit, ttl: 27*time.Second + 900*time.Millisecond},
		"chainlearn; fwd=stale; ttl=-3":               {status: cache.Stale, ttl: -3 * time.Second},
		"chainlearn; fwd=stale; ttl=-3; detail=error": {status: cache.Stale, ttl: -3 * time.Second, detail: cache.DetailError},
		"chainlearn; fwd=miss; ttl=30":                {status: cache.Miss, ttl: 30 * time.Second},
		"chainlearn; fwd=miss; collapsed; ttl=30":     {status: cache.Collapsed, ttl: 30 * time.Second},
		"chainlearn; fwd=bypass; detail=fenced":       {status: cache.Bypass, detail: cache.DetailFenced},
		"chainlearn; fwd=bypass; detail=unavailable":  {status: cache.Bypass, detail: cache.DetailUnavailable},
		"": {},
	} {
		h := http.Header{}
		c.writeHeader(h)
		if got := h.Get("Cache-Status"); got != want {
			t.Errorf("%+v gives %q, want %q", c, got, want)
		}
	}
}

func TestTimeHasMilliseconds(t *testing.T) {
	t.Parallel()
	for want, at := range map[string]time.Time{
		`"2026-01-02T03:04:05.000Z"`: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		`"2026-01-02T03:04:05.120Z"`: time.Date(2026, 1, 2, 5, 4, 5, 120_000_000, time.FixedZone("", 7200)),
		`"2026-01-02T03:04:05.999Z"`: time.Date(2026, 1, 2, 3, 4, 5, 999_999_999, time.UTC),
	} {
		if got, err := learning.Time(at).MarshalJSON(); err != nil || string(got) != want {
			t.Errorf("%v is written %s (%v), want %s", at, got, err, want)
		}
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	for id, kept := range map[string]bool{
		"abc-123_4.5:6": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
		"": false, `a"b`: false, "a b": false, "é": false, "a\tb": false, "<x>": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Request-Id", id)
		if got := requestID(r); (got == id) != kept || got == "" {
			t.Errorf("%q became %q", id, got)
		}
	}
}

func TestRateHeaders(t *testing.T) {
	t.Parallel()
	all := ratelimit.Policy{Name: "default", Limit: 600, Window: time.Minute}
	signIn := ratelimit.Policy{Name: "sign-in", Limit: 6, Window: time.Minute}
	for name, tt := range map[string]struct {
		decisions            []ratelimit.Decision
		policy, limit, older string
	}{
		"one policy": {
			[]ratelimit.Decision{{Policy: all, Allowed: true, Remaining: 599, Reset: 100 * time.Millisecond}},
			`"default";q=600;w=60`, `"default";r=599;t=1`, "600 599 1",
		},
		"two": {
			[]ratelimit.Decision{{Policy: all, Allowed: true, Remaining: 300, Reset: 30 * time.Second}, {Policy: signIn, Allowed: true, Remaining: 2, Reset: 40 * time.Second}},
			`"default";q=600;w=60, "sign-in";q=6;w=60`, `"default";r=300;t=30, "sign-in";r=2;t=40`, "6 2 40",
		},
		"nothing left": {
			[]ratelimit.Decision{{Policy: signIn, Reset: 55 * time.Second}},
			`"sign-in";q=6;w=60`, `"sign-in";r=0;t=5`, "6 0 5",
		},
	} {
		h := http.Header{}
		writeRateHeaders(h, tt.decisions)
		older := h.Get("RateLimit-Limit") + " " + h.Get("RateLimit-Remaining") + " " + h.Get("RateLimit-Reset")
		if h.Get("RateLimit-Policy") != tt.policy || h.Get("RateLimit") != tt.limit || older != tt.older {
			t.Errorf("%s: %v", name, h)
		}
	}
}

func TestClientAddr(t *testing.T) {
	t.Parallel()
	server := func(cfg Config) *Server {
		cfg.Platform, cfg.Cache, cfg.Tokens = &learning.Platform{}, &cache.Cache{}, &Tokens{}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	none, trusting, forwarded := server(Config{}), server(Config{TrustedProxies: proxies}), server(Config{TrustedProxies: proxies, ProxyHeader: Forwarded})
	mapped := server(Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}})
	for _, tt := range []struct {
		name, peer string
		forwarded  []string
		s          *Server
		want       string // the key of the limiter
	}{
		{"no proxy is trusted", "10.0.0.1:1", []string{"1.2.3.4"}, none, "10.0.0.1"},
		{"an untrusted address is not believed", "9.9.9.9:1", []string{"1.2.3.4"}, trusting, "9.9.9.9"},
		{"a proxy", "10.0.0.1:1", []string{"1.2.3.4"}, trusting, "1.2.3.4"},
		{"what the client claimed comes first and does not count", "10.0.0.1:1", []string{"6.6.6.6, 1.2.3.4"}, trusting, "1.2.3.4"},
		{"two proxies, two lines", "10.0.0.1:1", []string{"6.6.6.6, 1.2.3.4", "10.0.0.2"}, trusting, "1.2.3.4"},
		{"rubbish", "10.0.0.1:1", []string{"rubbish"}, trusting, "10.0.0.1"},
		{"a mapped address", "[::ffff:10.0.0.1]:1", []string{"1.2.3.4"}, trusting, "1.2.3.4"},
		{"one household of IPv6", "[2001:db8::1]:1", nil, trusting, "2001:db8::/64"},
		{"with a port", "10.0.0.1:1", []string{"203.0.113.1:40111"}, trusting, "203.0.113.1"},
		{"IPv6 in brackets", "10.0.0.1:1", []string{"[2001:db8::1]"}, trusting, "2001:db8::/64"},
		{"IPv6 with a port", "10.0.0.1:1", []string{"[2001:db8:0:1::1]:40111"}, trusting, "2001:db8:0:1::/64"},
		{"in quotes", "10.0.0.1:1", []string{`"203.0.113.2"`}, trusting, "203.0.113.2"},
		{"in quotes with a port", "10.0.0.1:1", []string{`"[2001:db8::1]:1"`}, trusting, "2001:db8::/64"},
		{"mapped into IPv6", "10.0.0.1:1", []string{"::ffff:203.0.113.3"}, trusting, "203.0.113.3"},
		{"mapped, with a port", "10.0.0.1:1", []string{"[::ffff:203.0.113.3]:7"}, trusting, "203.0.113.3"},
		{"a second proxy with a port", "10.0.0.1:1", []string{"6.6.6.6, 1.2.3.4:7, 10.0.0.2:8"}, trusting, "1.2.3.4"},
		{"a network of proxies that is mapped into IPv6", "10.0.0.1:1", []string{"1.2.3.4"}, mapped, "1.2.3.4"},
		{"an unknown client", "10.0.0.1:1", []string{"unknown"}, trusting, "10.0.0.1"},
		{"an empty list", "10.0.0.1:1", []string{""}, trusting, "10.0.0.1"},
		{"Forwarded", "10.0.0.1:1", []string{`for=6.6.6.6, for=192.0.2.60;proto=http;by=203.0.113.43`}, forwarded, "192.0.2.60"},
		{"Forwarded, two proxies", "10.0.0.1:1", []string{`For="[2001:db8:cafe::17]:4711"`, `proto=https; for=10.0.0.9`}, forwarded, "2001:db8:cafe::/64"},
		{"Forwarded by a proxy that hides it", "10.0.0.1:1", []string{`for=_hidden`}, forwarded, "10.0.0.1"},
		{"Forwarded in a header of the other kind", "10.0.0.1:1", []string{`for=1.2.3.4`}, trusting, "10.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			r.Header[tt.s.cfg.ProxyHeader] = tt.forwarded
			for _, other := range []string{XForwardedFor, Forwarded} {
				if other != tt.s.cfg.ProxyHeader { // which the client may have sent
					r.Header[other] = []string{"for=7.7.7.7, 7.7.7.7"}
				}
			}
			if got := tt.s.rateKey(r, nil); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
