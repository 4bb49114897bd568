// Package peers puts the libraries that are compared behind one small interface, each set
// up the way its own documentation shows.
package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
	"github.com/redis/go-redis/v9"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
)

// Config of a contender.
type Config[V any] struct {
	Addr   string // of Redis, host:port
	Prefix string // of everything it keeps there
	// Load is the source. It must be safe for concurrent use.
	Load func(context.Context, uuid.UUID) (V, error)
	// Codec is for libraries that keep strings. Those with a codec of their own use that.
	Codec Codec[V]
	// Tags of an answer, for libraries that have tags.
	Tags func(uuid.UUID) []string
	// Near also keeps answers in process, where the library can.
	Near bool
	// Size is how many answers are kept in process. Default 10,000.
	Size int
}

// TTL is how long all of them keep an answer.
const TTL = time.Hour

// Cache is a library set up for one kind of answer. It is safe for concurrent use.
type Cache[V any] interface {
	// Get returns an answer, from the cache or from the source.
	Get(ctx context.Context, k *payload.Key) (V, error)
	// Delete makes the next Get load, in any process.
	Delete(ctx context.Context, k *payload.Key) error
	Close() error
}

// Tagged is a Cache that can invalidate all answers that carry a tag.
type Tagged interface {
	InvalidateTag(ctx context.Context, tag string) error
}

// Codec turns answers into strings and back.
type Codec[V any] struct {
	Encode func(V) (string, error)
	Decode func(string) (V, error)
}

// JSON is the codec of typed answers, the same as the default of package cache.
func JSON[V any]() Codec[V] {
	return Codec[V]{
		Encode: func(v V) (string, error) {
			b, err := json.Marshal(v)
			return unsafe.String(unsafe.SliceData(b), len(b)), err
		},
		Decode: func(s string) (v V, err error) {
			err = json.Unmarshal(unsafe.Slice(unsafe.StringData(s), len(s)), &v)
			return v, err
		},
	}
}

// Raw is the codec of answers that are bytes already. It copies nothing.
var Raw = Codec[[]byte]{
	Encode: func(b []byte) (string, error) { return unsafe.String(unsafe.SliceData(b), len(b)), nil },
	Decode: func(s string) ([]byte, error) { return unsafe.Slice(unsafe.StringData(s), len(s)), nil },
}

// Library says what one of the contenders is and what it can do.
type Library struct {
	Name    string
	Modules []string // what it consists of, for the table of versions
	Setup   string   // how it is used here
	Redis   bool     // keeps answers in Redis
	Process bool     // keeps answers in process
	Loads   bool     // loads what is missing
	Tags    bool     // invalidates by tag
}

// Names of contenders.
const (
	Chainlearn = "chainlearn"
	GoRedis    = "go-redis/cache"
	Aside      = "rueidisaside"
	Rocks      = "rockscache"
	Gocache    = "eko/gocache"
	Jetcache   = "jetcache-go"
	Sturdyc    = "sturdyc"
	Otter      = "otter"
	OtterTimed = "otter, entries that expire"
	BareGet    = "bare rueidis GET"
)

// All are the contenders, ours first.
var All = []Library{
	{
		Name: Chainlearn, Modules: []string{"github.com/chainlearn/chainlearn/cache", "github.com/chainlearn/chainlearn/cache/redisstore"},
		Setup: "package cache over redisstore, two tags unless said otherwise",
		Redis: true, Process: true, Loads: true, Tags: true,
	},
	{
		Name: GoRedis, Modules: []string{"github.com/go-redis/cache/v9", "github.com/redis/go-redis/v9"},
		Setup: "Once; its own msgpack and S2; in process its TinyLFU",
		Redis: true, Process: true, Loads: true,
	},
	{
		Name: Aside, Modules: []string{"github.com/redis/rueidis/rueidisaside", "github.com/redis/rueidis"},
		Setup: "Get; encoding/json by the caller; always keeps answers in process by client-side caching",
		Redis: true, Process: true, Loads: true,
	},
	{
		Name: Rocks, Modules: []string{"github.com/dtm-labs/rockscache", "github.com/redis/go-redis/v9"},
		Setup: "Fetch2 with StrongConsistency; encoding/json by the caller",
		Redis: true, Loads: true,
	},
	{
		Name: Gocache, Modules: []string{"github.com/eko/gocache/lib/v4", "github.com/eko/gocache/store/redis/v4", "github.com/eko/gocache/store/go_cache/v4"},
		Setup: "loadable over the Redis store, in process a chain with go-cache before it; its msgpack marshaler for typed answers",
		Redis: true, Process: true, Loads: true, Tags: true,
	},
	{
		Name: Jetcache, Modules: []string{"github.com/mgtv-tech/jetcache-go", "github.com/redis/go-redis/v9"},
		Setup: "Once; its own msgpack; in process freecache",
		Redis: true, Process: true, Loads: true,
	},
	{
		Name: Sturdyc, Modules: []string{"github.com/viccon/sturdyc"},
		Setup:   "GetOrFetch, in process only",
		Process: true, Loads: true,
	},
	{
		Name: Otter, Modules: []string{"github.com/maypok86/otter/v2"},
		Setup:   "the bare table: GetIfPresent, and Get with a loader when that fails; in process only",
		Process: true, Loads: true,
	},
	{
		Name: OtterTimed, Modules: []string{"github.com/maypok86/otter/v2"},
		Setup:   "the same table, with entries that expire after they were written, as ours do and those of the others",
		Process: true, Loads: true,
	},
	{
		Name: BareGet, Modules: []string{"github.com/redis/rueidis"},
		Setup: "one GET of the same bytes, nothing else: what Redis and its client allow",
		Redis: true,
	},
}

// NamesWhere returns the names of the contenders that match, in order.
func NamesWhere(match func(Library) bool) []string {
	var names []string
	for _, l := range All {
		if match(l) {
			names = append(names, l.Name)
		}
	}
	return names
}

// Open sets up the named contender. The caller must Close it.
func Open[V any](ctx context.Context, name string, cfg Config[V]) (Cache[V], error) {
	if cfg.Size == 0 {
		cfg.Size = 10_000
	}
	switch name {
	case Chainlearn:
		return openOurs(ctx, cfg)
	case GoRedis:
		return openGoRedis(cfg), nil
	case Aside:
		return openAside(cfg)
	case Rocks:
		return openRocks(cfg), nil
	case Gocache:
		return openGocache(cfg), nil
	case Jetcache:
		return openJetcache(cfg), nil
	case Sturdyc:
		return openSturdyc(cfg), nil
	case Otter:
		return openOtter(cfg, nil), nil
	case OtterTimed:
		return openOtter(cfg, otter.ExpiryWriting[uuid.UUID, V](TTL)), nil
	case BareGet:
		return openBareGet(ctx, cfg)
	}
	return nil, fmt.Errorf("no contender is called %q", name)
}

// Version returns the version of a module that is linked in.
func Version(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == module {
			if m.Replace != nil {
				return "this tree"
			}
			return m.Version
		}
	}
	return "not linked in"
}

// newGoRedisClient returns the client that four of the libraries are built on, as it comes.
func newGoRedisClient(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr})
}
