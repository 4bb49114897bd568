package memstore_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(*testing.T) driver.Store { return memstore.New(memstore.Config{}) }

func TestRules(t *testing.T) { storetest.Run(t, open) }

func TestRulesInVirtualTime(t *testing.T) { storetest.RunVirtual(t, open) }
