package peers

import (
	"context"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
)

// sturdy is sturdyc.
type sturdy[V any] struct {
	cfg    Config[V]
	client *sturdyc.Client[V]
}

func openSturdyc[V any](cfg Config[V]) *sturdy[V] {
	// Its shards fill unevenly, so it gets room to keep everything.
	return &sturdy[V]{cfg: cfg, client: sturdyc.New[V](2*cfg.Size+1000, 10, TTL, 10)}
}

func (c *sturdy[V]) Get(ctx context.Context, k *payload.Key) (V, error) {
	return c.client.GetOrFetch(ctx, k.Text, func(ctx context.Context) (V, error) { return c.cfg.Load(ctx, k.ID) })
}

func (c *sturdy[V]) Delete(_ context.Context, k *payload.Key) error {
	c.client.Delete(k.Text)
	return nil
}

func (c *sturdy[V]) Close() error { return nil } // its goroutine cannot be stopped

// table is otter, bare.
type table[V any] struct {
	cfg   Config[V]
	table *otter.Cache[uuid.UUID, V]
}

// openOtter opens a table whose entries never expire if expiry is nil.
func openOtter[V any](cfg Config[V], expiry otter.ExpiryCalculator[uuid.UUID, V]) *table[V] {
	return &table[V]{cfg: cfg, table: otter.Must(&otter.Options[uuid.UUID, V]{MaximumSize: cfg.Size, ExpiryCalculator: expiry})}
}

func (c *table[V]) Get(ctx context.Context, k *payload.Key) (V, error) {
	if v, ok := c.table.GetIfPresent(k.ID); ok {
		return v, nil
	}
	return c.table.Get(ctx, k.ID, otter.LoaderFunc[uuid.UUID, V](c.cfg.Load))
}

func (c *table[V]) Delete(_ context.Context, k *payload.Key) error {
	c.table.Invalidate(k.ID)
	return nil
}

func (c *table[V]) Close() error {
	c.table.StopAllGoroutines()
	return nil
}
