package peers

import (
	"context"
	"errors"
	"time"

	rediscache "github.com/go-redis/cache/v9"

	"github.com/dtm-labs/rockscache"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
)

// goRedisCache is go-redis/cache.
type goRedisCache[V any] struct {
	cfg    Config[V]
	client *redis.Client
	cache  *rediscache.Cache
}

func openGoRedis[V any](cfg Config[V]) *goRedisCache[V] {
	c := &goRedisCache[V]{cfg: cfg, client: newGoRedisClient(cfg.Addr)}
	opt := &rediscache.Options{Redis: c.client}
	if cfg.Near {
		opt.LocalCache = rediscache.NewTinyLFU(cfg.Size, TTL)
	}
	c.cache = rediscache.New(opt)
	return c
}

func (c *goRedisCache[V]) Get(ctx context.Context, k *payload.Key) (v V, err error) {
	err = c.cache.Once(&rediscache.Item{
		Ctx: ctx, Key: k.Text, Value: &v, TTL: TTL,
		Do: func(*rediscache.Item) (any, error) { return c.cfg.Load(ctx, k.ID) },
	})
	return v, err
}

func (c *goRedisCache[V]) Delete(ctx context.Context, k *payload.Key) error {
	return c.cache.Delete(ctx, k.Text)
}

func (c *goRedisCache[V]) Close() error { return c.client.Close() }

// asideCache is rueidisaside.
type asideCache[V any] struct {
	cfg    Config[V]
	client rueidisaside.CacheAsideClient
}

func openAside[V any](cfg Config[V]) (*asideCache[V], error) {
	opt := rueidis.ClientOption{InitAddress: []string{cfg.Addr}}
	if !cfg.Near {
		// It cannot do without client-side caching, but with room for nothing every
		// read goes to Redis.
		opt.CacheSizeEachConn = 1
	}
	client, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: opt})
	return &asideCache[V]{cfg: cfg, client: client}, err
}

func (c *asideCache[V]) Get(ctx context.Context, k *payload.Key) (v V, err error) {
	s, err := c.client.Get(ctx, TTL, k.Text, func(ctx context.Context, _ string) (string, error) {
		v, err := c.cfg.Load(ctx, k.ID)
		if err != nil {
			return "", err
		}
		return c.cfg.Codec.Encode(v)
	})
	if err != nil {
		return v, err
	}
	return c.cfg.Codec.Decode(s)
}

func (c *asideCache[V]) Delete(ctx context.Context, k *payload.Key) error {
	return c.client.Del(ctx, k.Text)
}

func (c *asideCache[V]) Close() error {
	c.client.Close()
	return nil
}

// rocksCache is rockscache in its strong mode; the default mode serves the old answer for up to
// ten seconds after a delete.
type rocksCache[V any] struct {
	cfg    Config[V]
	client *redis.Client
	rocks  *rockscache.Client
}

func openRocks[V any](cfg Config[V]) *rocksCache[V] {
	c := &rocksCache[V]{cfg: cfg, client: newGoRedisClient(cfg.Addr)}
	opt := rockscache.NewDefaultOptions()
	opt.StrongConsistency = true
	c.rocks = rockscache.NewClient(c.client, opt)
	return c
}

func (c *rocksCache[V]) Get(ctx context.Context, k *payload.Key) (v V, err error) {
	s, err := c.rocks.Fetch2(ctx, k.Text, TTL, func() (string, error) {
		v, err := c.cfg.Load(ctx, k.ID)
		if err != nil {
			return "", err
		}
		return c.cfg.Codec.Encode(v)
	})
	if err != nil {
		return v, err
	}
	return c.cfg.Codec.Decode(s)
}

func (c *rocksCache[V]) Delete(ctx context.Context, k *payload.Key) error {
	return c.rocks.TagAsDeleted2(ctx, k.Text)
}

func (c *rocksCache[V]) Close() error { return c.client.Close() }

// bareClient is a client of Redis and nothing else.
type bareClient[V any] struct {
	cfg    Config[V]
	client rueidis.Client
}

// HealthChecker is a contender that can report whether its store is healthy.
type HealthChecker interface {
	Healthy(ctx context.Context) error
}

// Batcher is a contender that can store many answers faster than by asking for one after
// the other.
type Batcher interface {
	Fetch(ctx context.Context, keys []payload.Key) error
}

func openBareGet[V any](ctx context.Context, cfg Config[V]) (*bareClient[V], error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{cfg.Addr}, DisableCache: true})
	if err != nil {
		return nil, err
	}
	return &bareClient[V]{cfg: cfg, client: client}, ctx.Err()
}

// Fetch implements Batcher: it stores what would have been loaded.
func (c *bareClient[V]) Fetch(ctx context.Context, keys []payload.Key) error {
	sets := make(rueidis.Commands, len(keys))
	for i := range keys {
		v, err := c.cfg.Load(ctx, keys[i].ID)
		if err != nil {
			return err
		}
		s, err := c.cfg.Codec.Encode(v)
		if err != nil {
			return err
		}
		sets[i] = c.client.B().Set().Key(keys[i].Text).Value(s).Px(TTL).Build()
	}
	for _, r := range c.client.DoMulti(ctx, sets...) {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

func (c *bareClient[V]) Get(ctx context.Context, k *payload.Key) (v V, err error) {
	s, err := c.client.Do(ctx, c.client.B().Get().Key(k.Text).Build()).ToString()
	if err != nil {
		return v, err
	}
	return c.cfg.Codec.Decode(s)
}

func (c *bareClient[V]) Delete(ctx context.Context, k *payload.Key) error {
	return c.client.Do(ctx, c.client.B().Del().Key(k.Text).Build()).Error()
}

func (c *bareClient[V]) Close() error {
	c.client.Close()
	return nil
}

// RoundTrip asks Redis for what is not there, and then loads: the least that a miss costs.
func RoundTrip[V any](ctx context.Context, c Cache[V], k *payload.Key) (v V, err error) {
	b, ok := c.(*bareClient[V])
	if !ok {
		return v, errors.New("only the bare client makes a bare round trip")
	}
	if err := b.client.Do(ctx, b.client.B().Get().Key(k.Text).Build()).Error(); !rueidis.IsRedisNil(err) {
		return v, errors.Join(errors.New("the key was to be absent"), err)
	}
	return b.cfg.Load(ctx, k.ID)
}

// CallTimeout is what a caller with no particular deadline has.
const CallTimeout = 30 * time.Second
