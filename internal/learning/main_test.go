package learning

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Main(m)) }
