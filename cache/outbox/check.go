package outbox

import (
	"context"
	"fmt"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
)

// KindOf returns the kind of the tags that a template of a watch gives.
func KindOf(template string) string {
	kind := strings.TrimSpace(template)
	if end := strings.IndexAny(kind, ": \t\r\n"); end >= 0 {
		kind = kind[:end]
	}
	return kind
}

// CheckRelay returns what keeps an outbox from being delivered to the store of c, for the Check of
// an adapter's DB. It finds nothing without a cache. relay is that of this process, or nil if the
// DB was not given one; joined says whether a consumer is registered with the outbox.
func CheckRelay(ctx context.Context, c *cache.Cache, relay *Relay, joined func(ctx context.Context, consumer string) (bool, error)) ([]cache.Finding, error) {
	if c == nil {
		return nil, nil
	}
	if relay != nil && !relay.Started() {
		return []cache.Finding{{
			Subject: "relay", Problem: "it was made and not started, so what other programs write is not seen", Remedy: "call its Start",
		}}, nil
	}
	is := true // if not even the store can be asked, which the cache's own check says
	if store, err := c.StoreName(ctx); err == nil {
		if is, err = joined(ctx, store); err != nil {
			return nil, fmt.Errorf("look for a relay: %w", err)
		}
	}
	if is {
		return nil, nil
	}
	return []cache.Finding{{
		Subject: "relay", Problem: "none delivers this outbox to the store of the cache",
		Remedy: "call outbox.NewRelay, and Start it, in this process or in another that shares the store",
	}}, nil
}
