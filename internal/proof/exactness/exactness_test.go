package exactness

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var (
	comparisons = flag.Int("comparisons", 12_000, "answers to compare with the database")
	seed        = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the schemas and writes")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Main(m)) }

func TestAnswersAreWhatTheDatabaseSays(t *testing.T) {
	server := testservers.SharedPostgres(t)
	t.Logf("seed %d", *seed)
	redis := testservers.SharedRedis(t)
	schemas, told := 0, time.Now()
	result, err := Run(t.Context(), *seed, *comparisons, Servers{
		Database: func() (string, error) { return server.Database(t), nil },
		// In turn, Redis and a store in process.
		Store: func() (handles []driver.Store, err error) {
			if schemas++; schemas%2 == 0 {
				mem := storetest.NewFaulty(memstore.New(memstore.Config{}))
				return []driver.Store{mem, mem.Peer()}, nil // the first is closed last
			}
			cfg := redisstore.Config{URL: redis.URL(), Prefix: fmt.Sprintf("exactness%d:", schemas)}
			for range 2 {
				handle, err := redisstore.Open(t.Context(), cfg)
				if err != nil {
					return nil, err
				}
				handles = append(handles, handle)
			}
			return handles, nil
		},
		Progress: func(r Result) { // seen while it runs with -v
			if time.Since(told) > time.Minute {
				told = time.Now()
				t.Logf("%d of %d answers compared, %d schemas", r.Comparisons, *comparisons, r.Schemas)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range result.Stale {
		t.Error(s)
	}
	t.Logf("%d answers compared, %d of them hits; %d schemas, %d refused; writes: %v",
		result.Comparisons, result.Hits, result.Schemas, result.Refused, result.Writes)
	if result.Hits < result.Comparisons/5 {
		t.Errorf("only %d of %d answers were hits: the test shows little", result.Hits, result.Comparisons)
	}
}
