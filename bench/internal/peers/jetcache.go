package peers

import (
	"context"

	jetcache "github.com/mgtv-tech/jetcache-go"
	"github.com/mgtv-tech/jetcache-go/local"
	"github.com/mgtv-tech/jetcache-go/remote"
	"github.com/redis/go-redis/v9"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
)

// jet is jetcache-go.
type jet[V any] struct {
	cfg    Config[V]
	client *redis.Client
	cache  jetcache.Cache
}

func openJetcache[V any](cfg Config[V]) *jet[V] {
	c := &jet[V]{cfg: cfg, client: newGoRedisClient(cfg.Addr)}
	opts := []jetcache.Option{
		jetcache.WithName("bench"),
		jetcache.WithRemote(remote.NewGoRedisV9Adapter(c.client)),
		jetcache.WithStatsDisabled(true), // else it logs a table every minute
	}
	if cfg.Near {
		opts = append(opts, jetcache.WithLocal(local.NewFreeCache(256*local.MB, TTL)))
	}
	c.cache = jetcache.New(opts...)
	return c
}

func (c *jet[V]) Get(ctx context.Context, k *payload.Key) (v V, err error) {
	err = c.cache.Once(ctx, k.Text, jetcache.Value(&v), jetcache.TTL(TTL),
		jetcache.Do(func(ctx context.Context) (any, error) { return c.cfg.Load(ctx, k.ID) }))
	return v, err
}

func (c *jet[V]) Delete(ctx context.Context, k *payload.Key) error {
	return c.cache.Delete(ctx, k.Text)
}

func (c *jet[V]) Close() error {
	c.cache.Close()
	return c.client.Close()
}
