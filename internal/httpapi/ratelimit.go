package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// limiter counts requests per client in windows of fixed length. A token bucket would be
// smoother, but needs its state kept for as long as it takes to fill: here the whole table
// is dropped with its window, and no client can make it grow beyond its bound.
type limiter struct {
	limit  int // 0: no limit
	window time.Duration

	mu        sync.Mutex
	windowEnd time.Time
	counts    map[string]int // client → requests in this window
}

// maxClients are counted apart in one window. Those beyond share one count: a flood of
// addresses may slow itself down, but costs no more memory.
const maxClients = 100_000

func newLimiter(maximum int, window time.Duration) *limiter {
	return &limiter{limit: maximum, window: window, counts: map[string]int{}}
}

// admit counts a request, tells the client where it stands, and returns a problem when it
// has used up its window.
func (l *limiter) admit(h http.Header, client string, now time.Time) error {
	if l.limit <= 0 {
		return nil
	}
	l.mu.Lock()
	if !now.Before(l.windowEnd) {
		l.windowEnd = now.Add(l.window)
		l.counts = map[string]int{}
	}
	if _, known := l.counts[client]; !known && len(l.counts) >= maxClients {
		client = ""
	}
	l.counts[client]++
	n, left := l.counts[client], l.windowEnd.Sub(now)
	l.mu.Unlock()

	h.Set("RateLimit-Limit", strconv.Itoa(l.limit))
	h.Set("RateLimit-Remaining", strconv.Itoa(max(0, l.limit-n)))
	h.Set("RateLimit-Reset", strconv.Itoa(wholeSeconds(left)))
	if n > l.limit {
		return &problem{kind: rateLimited, message: "Too many requests", retryAfter: left}
	}
	return nil
}

// rateKey groups requests that are counted together: by learner, with a token that we
// signed, from any address; else by address.
func (s *Server) rateKey(r *http.Request, c *claims) string {
	if c != nil {
		return "user " + c.user.String()
	}
	addr := s.clientAddr(r)
	if addr.Is6() { // one household has 2^64 of them
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// clientAddr returns the address a request comes from: its peer, or, for as long as that
// is a trusted proxy, the address that it forwards for.
func (s *Server) clientAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, _ := netip.ParseAddr(host)
	addr = addr.Unmap().WithZone("")
	if len(s.cfg.TrustedProxies) == 0 {
		return addr
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= 0 && s.isTrustedProxy(addr); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		addr = next.Unmap().WithZone("")
	}
	return addr
}

func (s *Server) isTrustedProxy(addr netip.Addr) bool {
	for _, p := range s.cfg.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
