package peers_test

import (
	"context"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestMain(m *testing.M) { os.Exit(testservers.Main(m).Run()) }

// Every contender must really cache, or it would be measured at something else.
func TestContendersCache(t *testing.T) {
	r := testservers.SharedRedis(t)
	for _, lib := range peers.All {
		if !lib.Loads {
			continue
		}
		for _, near := range []bool{false, true} {
			if near && !lib.Process || !near && !lib.Redis {
				continue
			}
			name := lib.Name + " in Redis"
			if near {
				name = lib.Name + " in process"
			}
			t.Run(name, func(t *testing.T) {
				t.Run("typed", func(t *testing.T) {
					checkCaches(t, lib.Name, near, r.Addr(), peers.JSON[*payload.Course](), payload.CourseOf,
						func(a, b *payload.Course) bool { return a.ID == b.ID && slices.Equal(a.Modules, b.Modules) })
				})
				t.Run("bytes", func(t *testing.T) {
					checkCaches(t, lib.Name, near, r.Addr(), peers.Raw, payload.EncodedCourse, slices.Equal)
				})
			})
		}
	}
}

func checkCaches[V any](t *testing.T, lib string, near bool, addr string, codec peers.Codec[V], value func(uuid.UUID) V, equal func(a, b V) bool) {
	var loads atomic.Int64
	prefix := t.Name() + ":"
	c, err := peers.Open(t.Context(), lib, peers.Config[V]{
		Addr: addr, Prefix: "test:" + uuid.NewString() + ":", Codec: codec, Near: near,
		Load: func(_ context.Context, id uuid.UUID) (V, error) {
			loads.Add(1)
			return value(id), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { testservers.Must(t, c.Close()) }()
	k := payload.KeyOf(prefix, 1)
	get := func() {
		t.Helper()
		v, err := c.Get(t.Context(), &k)
		if err != nil || !equal(v, value(k.ID)) {
			t.Fatalf("got %v, %v", v, err)
		}
	}
	get()
	testservers.Eventually(t, peers.CallTimeout, func() (bool, string) {
		before := loads.Load()
		get()
		return loads.Load() == before, "it loads every time"
	})
	// Again and again, for some store in the background and so undo a delete.
	testservers.Eventually(t, peers.CallTimeout, func() (bool, string) {
		before := loads.Load()
		testservers.Must(t, c.Delete(t.Context(), &k))
		get()
		return loads.Load() > before, "it serves what was deleted"
	})
}

func TestTagged(t *testing.T) {
	r := testservers.SharedRedis(t)
	for _, lib := range peers.All {
		if !lib.Tags {
			continue
		}
		t.Run(lib.Name, func(t *testing.T) {
			var loads atomic.Int64
			c, err := peers.Open(t.Context(), lib.Name, peers.Config[[]byte]{
				Addr: r.Addr(), Prefix: "test:" + uuid.NewString() + ":", Codec: peers.Raw,
				Tags: func(uuid.UUID) []string { return []string{"list:" + t.Name()} },
				Load: func(_ context.Context, id uuid.UUID) ([]byte, error) {
					loads.Add(1)
					return payload.EncodedCourse(id), nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { testservers.Must(t, c.Close()) }()
			k := payload.KeyOf("tagged:", 1)
			// Invalidated before the answer is stored, nothing would become invalid.
			testservers.Eventually(t, peers.CallTimeout, func() (bool, string) {
				before := loads.Load()
				_, err := c.Get(t.Context(), &k)
				testservers.Must(t, err)
				if loads.Load() > before {
					return false, "it loads every time"
				}
				testservers.Must(t, c.(peers.Tagged).InvalidateTag(t.Context(), "list:"+t.Name()))
				_, err = c.Get(t.Context(), &k)
				testservers.Must(t, err)
				return loads.Load() > before, "its tag was invalidated, and it is served"
			})
		})
	}
}

func TestBareGetFindsWhatWasPut(t *testing.T) {
	r := testservers.SharedRedis(t)
	c, err := peers.Open(t.Context(), peers.BareGet, peers.Config[[]byte]{
		Addr: r.Addr(), Codec: peers.Raw,
		Load: func(_ context.Context, id uuid.UUID) ([]byte, error) { return payload.EncodedCourse(id), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { testservers.Must(t, c.Close()) }()
	keys := payload.Keys("bare:", 3)
	testservers.Must(t, c.(peers.Batcher).Fetch(t.Context(), keys))
	for i := range keys {
		if b, err := c.Get(t.Context(), &keys[i]); err != nil || !slices.Equal(b, payload.EncodedCourse(keys[i].ID)) {
			t.Errorf("key %d: got %q, %v", i, b, err)
		}
	}
	absent := payload.KeyOf("bare:", 99)
	if b, err := peers.RoundTrip(t.Context(), c, &absent); err != nil || len(b) == 0 {
		t.Errorf("a round trip and a load give %q, %v", b, err)
	}
}
