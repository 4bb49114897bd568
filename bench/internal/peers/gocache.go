package peers

import (
	"context"
	"errors"
	"fmt"

	"github.com/eko/gocache/lib/v4/cache"
	"github.com/eko/gocache/lib/v4/marshaler"
	"github.com/eko/gocache/lib/v4/store"
	inprocess "github.com/eko/gocache/store/go_cache/v4"
	redisstore "github.com/eko/gocache/store/redis/v4"
	gocache "github.com/patrickmn/go-cache"
	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
)

// ekoCache is eko/gocache.
type ekoCache[V any] struct {
	cfg       Config[V]
	client    *redis.Client
	chain     *cache.ChainCache[any]
	loadable  *cache.LoadableCache[any]
	marshaler *marshaler.Marshaler
	raw       bool // answers are bytes already
}

func openGocache[V any](cfg Config[V]) *ekoCache[V] {
	c := &ekoCache[V]{cfg: cfg, client: newGoRedisClient(cfg.Addr)}
	_, c.raw = any(*new(V)).([]byte)
	remote := cache.New[any](redisstore.NewRedis(c.client, store.WithExpiration(TTL)))
	var under cache.CacheInterface[any] = remote
	if cfg.Near {
		local := cache.New[any](inprocess.NewGoCache(gocache.New(TTL, TTL)))
		c.chain = cache.NewChain[any](local, remote)
		under = c.chain
	}
	c.loadable = cache.NewLoadable(c.load, under)
	c.marshaler = marshaler.New(c.loadable)
	return c
}

func (c *ekoCache[V]) load(ctx context.Context, key any) (any, []store.Option, error) {
	id, err := payload.TextID(key.(string))
	if err != nil {
		return nil, nil, err
	}
	v, err := c.cfg.Load(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	opts := []store.Option{store.WithExpiration(TTL)}
	if c.cfg.Tags != nil {
		opts = append(opts, store.WithTags(c.cfg.Tags(id)))
	}
	if c.raw {
		return any(v), opts, nil
	}
	b, err := msgpack.Marshal(v)
	return b, opts, err
}

func (c *ekoCache[V]) Get(ctx context.Context, k *payload.Key) (v V, err error) {
	if !c.raw {
		_, err = c.marshaler.Get(ctx, k.Text, &v)
		return v, err
	}
	answer, err := c.loadable.Get(ctx, k.Text)
	if err != nil {
		return v, err
	}
	switch a := answer.(type) {
	case V: // the loaded answer itself
		return a, nil
	case string:
		return c.cfg.Codec.Decode(a)
	}
	return v, fmt.Errorf("gocache returned a %T", answer)
}

func (c *ekoCache[V]) Delete(ctx context.Context, k *payload.Key) error {
	return c.loadable.Delete(ctx, k.Text)
}

// InvalidateTag implements Tagged.
func (c *ekoCache[V]) InvalidateTag(ctx context.Context, tag string) error {
	return c.loadable.Invalidate(ctx, store.WithInvalidateTags([]string{tag}))
}

func (c *ekoCache[V]) Close() error {
	errs := []error{c.loadable.Close()}
	if c.chain != nil {
		errs = append(errs, c.chain.Close())
	}
	return errors.Join(append(errs, c.client.Close())...)
}
