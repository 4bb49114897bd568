package exactness

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

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
	result, err := Run(t.Context(), *seed, *comparisons, func() (string, error) { return server.Database(t), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range result.Stale {
		t.Error(s)
	}
	t.Logf("%d answers compared, %d of them hits; %d schemas, %d refused; writes: %v",
		result.Comparisons, result.Hits, result.Schemas, result.Refused, fmt.Sprint(result.Writes))
	if result.Hits < result.Comparisons/5 {
		t.Errorf("only %d of %d answers were hits: the test shows little", result.Hits, result.Comparisons)
	}
}
