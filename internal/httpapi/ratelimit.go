package httpapi

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/chainlearn/chainlearn/internal/ratelimit"
)

// admit counts a request, tells the client where it stands, and returns a problem when it has
// used up a quota.
func (s *Server) admit(h http.Header, r *http.Request, c *claims) error {
	var decisions [2]ratelimit.Decision
	all := decisions[:0]
	if s.quota.Limit > 0 {
		all = append(all, s.limiter.Allow(r.Context(), s.quota, s.rateKey(r, c)))
	}
	// Keys can be guessed at and addresses be made up at the sign-in, so it has a smaller quota,
	// which belongs to the network address: a token there would be one more quota.
	if s.signInQuota.Limit > 0 && isSignIn(r.URL.Path) {
		all = append(all, s.limiter.Allow(r.Context(), s.signInQuota, s.rateKey(r, nil)))
	}
	if len(all) == 0 {
		return nil
	}
	writeRateHeaders(h, all)
	for _, d := range all {
		if !d.Allowed {
			return &problem{kind: rateLimited, message: "Too many requests", retryAfter: d.Next()}
		}
	}
	return nil
}

// writeRateHeaders writes the fields of draft-ietf-httpapi-ratelimit-headers-10, and those of its
// older versions for the quota that is nearest to its end.
func writeRateHeaders(h http.Header, all []ratelimit.Decision) {
	policies, limits := make([]string, len(all)), make([]string, len(all))
	least := all[0]
	for i, d := range all {
		policies[i] = fmt.Sprintf("%q;q=%d;w=%d", d.Policy.Name, d.Policy.Limit, wholeSeconds(d.Policy.Window))
		limits[i] = fmt.Sprintf("%q;r=%d;t=%d", d.Policy.Name, d.Remaining, untilMore(d))
		if d.Remaining < least.Remaining {
			least = d
		}
	}
	h.Set("RateLimit-Policy", strings.Join(policies, ", "))
	h.Set("RateLimit", strings.Join(limits, ", "))
	h.Set("RateLimit-Limit", strconv.Itoa(least.Policy.Limit))
	h.Set("RateLimit-Remaining", strconv.Itoa(least.Remaining))
	h.Set("RateLimit-Reset", strconv.Itoa(untilMore(least)))
}

// untilMore is the time until the quota is whole again; with nothing left of it, until one more
// request is allowed, so that it agrees with Retry-After.
func untilMore(d ratelimit.Decision) int {
	if d.Remaining == 0 {
		return wholeSeconds(d.Next())
	}
	return wholeSeconds(d.Reset)
}

// isSignIn says whether a path is of the sign-in, which needs no token.
func isSignIn(path string) bool {
	path = withoutBase(path)
	return path == "/auth/challenge" || path == "/auth/verify"
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
	addr, _ := parseNode(r.RemoteAddr)
	if len(s.cfg.TrustedProxies) == 0 {
		return addr
	}
	field := s.cfg.ProxyHeader
	forwarded := strings.Split(strings.Join(r.Header.Values(field), ","), ",")
	for i := len(forwarded) - 1; i >= 0 && s.isTrustedProxy(addr); i-- {
		node := forwarded[i]
		if field == Forwarded {
			node = forwardedFor(node)
		}
		next, ok := parseNode(node)
		if !ok {
			break // all that this proxy forwards for unknown addresses is counted together
		}
		addr = next
	}
	return addr
}

// The header fields in which proxies name the address that they forward for.
const (
	XForwardedFor = "X-Forwarded-For"
	Forwarded     = "Forwarded" // RFC 7239
)

// forwardedFor returns the node of an element of Forwarded: for="[2001:db8::1]:4711";proto=https.
// A comma within a quoted string would split an element in two, of which neither is an address.
func forwardedFor(element string) string {
	for pair := range strings.SplitSeq(element, ";") {
		if name, value, _ := strings.Cut(strings.TrimSpace(pair), "="); strings.EqualFold(name, "for") {
			return value
		}
	}
	return ""
}

// parseNode reads an address as proxies spell it: with or without a port, brackets and quotes. An
// IPv4 address is one, also when it is mapped into IPv6.
func parseNode(s string) (addr netip.Addr, ok bool) {
	s = strings.TrimSpace(s)
	if n := len(s); n >= 2 && s[0] == '"' && s[n-1] == '"' {
		s = strings.TrimSpace(s[1 : n-1])
	}
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	} else if n := len(s); n >= 2 && s[0] == '[' && s[n-1] == ']' {
		s = s[1 : n-1]
	}
	addr, err := netip.ParseAddr(s)
	return addr.Unmap().WithZone(""), err == nil
}

func (s *Server) isTrustedProxy(addr netip.Addr) bool {
	for _, p := range s.cfg.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// unmapped returns the same network of IPv4 addresses for one that is written as mapped into IPv6.
func unmapped(p netip.Prefix) netip.Prefix {
	const mapping = 96
	if p.Addr().Is4In6() && p.Bits() >= mapping {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapping)
	}
	return p
}

// quotas are the policies of a configuration.
func quotas(cfg Config) (all, signIn ratelimit.Policy) {
	return ratelimit.Policy{Name: "default", Limit: cfg.RateLimit, Window: cfg.RateWindow},
		ratelimit.Policy{Name: "sign-in", Limit: cfg.SignInLimit, Window: cfg.RateWindow}
}
