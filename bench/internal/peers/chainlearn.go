package peers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/redisstore"
)

// Ours is package cache as a contender.
type Ours[V any] struct {
	cache *cache.Cache
	store driver.Store
	query *cache.Cached[uuid.UUID, V]
	tags  func(uuid.UUID) []cache.Tag
}

var (
	_ Cache[[]byte] = (*Ours[[]byte])(nil)
	_ Tagged        = (*Ours[[]byte])(nil)
)

// openOurs sets up package cache: over redisstore, or over memstore if there
// is no address.
func openOurs[V any](ctx context.Context, cfg Config[V]) (*Ours[V], error) {
	store, err := openStore(ctx, cfg.Addr, cfg.Prefix)
	if err != nil {
		return nil, err
	}
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	o := &Ours[V]{cache: c, store: store, tags: twoTags}
	if cfg.Tags != nil {
		o.tags = func(id uuid.UUID) []cache.Tag {
			names := cfg.Tags(id)
			tags := make([]cache.Tag, len(names))
			for i, name := range names {
				tags[i] = cache.Tag(name)
			}
			return tags
		}
	}
	q := cache.Query[uuid.UUID, V]{
		Name:     "courses:detail",
		Key:      uuid.UUID.String,
		Tags:     o.tags,
		Load:     cfg.Load,
		FreshFor: TTL,
		LoadMany: func(ctx context.Context, ids []uuid.UUID) ([]cache.Loaded[V], error) {
			all := make([]cache.Loaded[V], len(ids))
			for i, id := range ids {
				all[i].Value, all[i].Err = cfg.Load(ctx, id)
			}
			return all, nil
		},
	}
	if raw, ok := any(rawCodec{}).(cache.Codec[V]); ok {
		q.Codec = raw
	}
	if cfg.Near {
		q.Near, q.NearSize = time.Second, cfg.Size
	}
	o.query = cache.Define(c, q)
	return o, nil
}

func openStore(ctx context.Context, addr, prefix string) (driver.Store, error) {
	if addr == "" {
		return memstore.New(memstore.Config{MaxBytes: 8 << 30, MaxTags: 20_000_000}), nil
	}
	return redisstore.Open(ctx, redisstore.Config{URL: "redis://" + addr, Prefix: prefix})
}

// CatalogTag is carried by every answer, CourseTag by the answers of one course.
const CatalogTag = "catalog"

// CourseTag names one course.
func CourseTag(id uuid.UUID) string { return "course:" + id.String() }

func twoTags(id uuid.UUID) []cache.Tag { return []cache.Tag{CatalogTag, cache.Tag(CourseTag(id))} }

// Get implements Cache.
func (o *Ours[V]) Get(ctx context.Context, k *payload.Key) (V, error) { return o.query.Get(ctx, k.ID) }

// Lookup says also where the answer came from.
func (o *Ours[V]) Lookup(ctx context.Context, k *payload.Key) (cache.Answer[V], error) {
	return o.query.Lookup(ctx, k.ID)
}

// Delete implements Cache: it bumps the answer's last tag, its own.
func (o *Ours[V]) Delete(ctx context.Context, k *payload.Key) error {
	tags := o.tags(k.ID)
	return o.cache.Invalidate(ctx, tags[len(tags)-1])
}

// InvalidateTag implements Tagged.
func (o *Ours[V]) InvalidateTag(ctx context.Context, tag string) error {
	return o.cache.Invalidate(ctx, cache.Tag(tag))
}

// Fetch asks for many answers at once.
func (o *Ours[V]) Fetch(ctx context.Context, keys []payload.Key) error {
	ids := make([]uuid.UUID, len(keys))
	for i := range keys {
		ids[i] = keys[i].ID
	}
	if err := o.Healthy(ctx); err != nil { // else nothing would be stored
		return err
	}
	results, err := o.query.GetMany(ctx, ids)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}

// Close implements Cache.
func (o *Ours[V]) Close() error { return errors.Join(o.cache.Close(), o.store.Close()) }

// Healthy waits until the cache trusts its store, as it does not for a moment after
// calls that took too long on a busy machine.
func (o *Ours[V]) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		h := o.cache.Health()
		if h.State == "ok" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the store is %s: %w", h.State, h.Err)
		case <-tick.C:
		}
	}
}

var errNotNear = errors.New("it was answered, but not from the near tier")

// NearWorks waits until an answer is served in process, and returns an error if the
// near tier does not come to serve it within timeout.
func (o *Ours[V]) NearWorks(ctx context.Context, k *payload.Key, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		a, err := o.Lookup(ctx, k)
		if err == nil && a.Detail == cache.DetailNear {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing is served near after %v: the last answer was a %v (%s): %w", timeout, a.Status, a.Detail, cmp.Or(err, errNotNear))
		case <-tick.C:
		}
	}
}

// rawCodec keeps bytes as they are.
type rawCodec struct{}

func (rawCodec) Encode(b []byte) ([]byte, error) { return b, nil }
func (rawCodec) Decode(b []byte) ([]byte, error) { return b, nil }
