package outboxtest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/cache/outbox"
)

func TestPoisonedRowHoldsNothingUp(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	p.Faults.RefuseTag("poison:1", ErrInjected)
	p.Relay(outbox.RelayConfig{})
	p.Warm(0, 1, 2)
	w.Stranger(fmt.Sprintf(a.Record, "poison:1"))
	w.Stranger(a.Lenient+`INSERT INTO cache_outbox (tag) VALUES (?)`, strings.Repeat("x", 8<<20))
	w.Stranger(`UPDATE items SET value = 1 WHERE id = 1`)
	p.Settles(1, 1)
	Eventually(t, func() error {
		if n := w.Rows(); n != 0 {
			return fmt.Errorf("%d rows are left", n)
		}
		if h := p.Health(); h.State != "ok" {
			return fmt.Errorf("the store is %s: %w", h.State, h.Err)
		}
		return nil
	})
}
