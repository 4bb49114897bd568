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

func TestLimiter(t *testing.T) {
	t.Parallel()
	l := newLimiter(2, time.Minute)
	now := time.Now()
	admit := func(client string, at time.Time) (http.Header, error) {
		h := http.Header{}
		return h, l.admit(h, client, at)
	}
	for i := range 2 {
		if h, err := admit("a", now); err != nil || h.Get("RateLimit-Remaining") != []string{"1", "0"}[i] || h.Get("RateLimit-Limit") != "2" {
			t.Fatalf("request %d: %v, %v", i, h, err)
		}
	}
	h, err := admit("a", now.Add(30*time.Second+time.Millisecond))
	if p := problemOf(err); err == nil || p.kind != rateLimited || wholeSeconds(p.retryAfter) != 30 || h.Get("RateLimit-Reset") != "30" {
		t.Errorf("third request: %v, %v", h, err)
	}
	if _, err := admit("b", now); err != nil {
		t.Errorf("another client: %v", err)
	}
	if _, err := admit("a", now.Add(time.Minute)); err != nil {
		t.Errorf("next window: %v", err)
	}
}

// A flood of addresses shares one count and grows nothing.
func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter(1, time.Hour)
	now := time.Now()
	for i := range maxClients + 10 {
		var a [4]byte
		a[0], a[1], a[2], a[3] = byte(i>>24), byte(i>>16), byte(i>>8), byte(i)
		err := l.admit(http.Header{}, netip.AddrFrom4(a).String(), now)
		if (err != nil) != (i > maxClients) {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	if len(l.counts) > maxClients+1 {
		t.Errorf("%d clients are counted apart", len(l.counts))
	}
}

func TestClientAddr(t *testing.T) {
	t.Parallel()
	trusting := &Server{cfg: Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for _, tt := range []struct {
		name, peer string
		forwarded  []string
		s          *Server
		want       string // the key of the limiter
	}{
		{"no proxy is trusted", "10.0.0.1:1", []string{"1.2.3.4"}, &Server{}, "10.0.0.1"},
		{"an untrusted address is not believed", "9.9.9.9:1", []string{"1.2.3.4"}, trusting, "9.9.9.9"},
		{"a proxy", "10.0.0.1:1", []string{"1.2.3.4"}, trusting, "1.2.3.4"},
		{"what the client claimed comes first and does not count", "10.0.0.1:1", []string{"6.6.6.6, 1.2.3.4"}, trusting, "1.2.3.4"},
		{"two proxies, two lines", "10.0.0.1:1", []string{"6.6.6.6, 1.2.3.4", "10.0.0.2"}, trusting, "1.2.3.4"},
		{"rubbish", "10.0.0.1:1", []string{"rubbish"}, trusting, "10.0.0.1"},
		{"a mapped address", "[::ffff:10.0.0.1]:1", []string{"1.2.3.4"}, trusting, "1.2.3.4"},
		{"one household of IPv6", "[2001:db8::1]:1", nil, trusting, "2001:db8::/64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			r.Header["X-Forwarded-For"] = tt.forwarded
			if got := tt.s.rateKey(r, nil); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
