package postgres

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// With polls a minute apart, only a notification can be what wakes the relay.
func TestStrangersWriteWakesTheRelay(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	p := newProcess(t, pool(t, url), nil, outbox.RelayConfig{Poll: time.Minute}, Config{})
	listening(t, p.log)
	p.relay.Start()
	conn := connect(t, url)
	var took []time.Duration
	for value := 1; value <= 20; value++ {
		p.warm(t, "1", value-1)
		began := time.Now()
		if _, err := conn.Exec(t.Context(), `UPDATE items SET value = $1 WHERE id = 1`, value); err != nil {
			t.Fatal(err)
		}
		testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, "1") == value, "the old value is served" })
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("seen after %v, at most %v", took[len(took)/2], took[len(took)-1])
}

// A transaction that stays open for long keeps its own rows back and no others.
func TestLongTransactionBlocksNobody(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	p := newProcess(t, pool(t, url), nil, outbox.RelayConfig{}, Config{})
	p.relay.Start()
	p.warm(t, "1", 0)
	p.warm(t, "2", 0)
	long, quick := connect(t, url), connect(t, url)
	run(t, long, `BEGIN`, `UPDATE items SET value = 1 WHERE id = 1`)
	run(t, quick, `UPDATE items SET value = 1 WHERE id = 2`)
	testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, "2") == 1, "the old value is served" })
	if got := p.get(t, "1"); got != 0 {
		t.Errorf("read %d of an open transaction", got)
	}
	run(t, long, `COMMIT`)
	testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, "1") == 1, "the old value is served" })
}

// victim makes this binary, run once more, the process that is to be killed, at the point it names.
const victim = "OUTBOX_TEST_VICTIM"

const (
	beforeCommit    = "before COMMIT"
	afterCommit     = "after COMMIT"
	whileDelivering = "while delivering"
)

// shared is a store that a victim and its survivor take for one, although what either keeps in it
// the other does not see: so that only the relay can repair, and no fence of the victim helps.
func shared(t *testing.T) *steps {
	s := newSteps(t)
	s.name = "shared"
	return s
}

// beVictim does what the process that is killed does, if this is it.
func beVictim(t *testing.T) {
	point := os.Getenv(victim)
	if point == "" {
		return
	}
	die := func() {
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	}
	store := shared(t)
	if point == beforeCommit {
		store.on(die, nil)
	} else {
		store.on(nil, die)
	}
	p := newProcess(t, pool(t, os.Getenv("OUTBOX_TEST_URL")), store, outbox.RelayConfig{}, Config{})
	if point == whileDelivering {
		t.Fatal("survived: ", p.relay.Drain(t.Context()))
	}
	t.Fatal("survived: ", p.db.Write(t.Context(), set("1", 1)))
}

// killed runs a victim and returns when it has been killed, at the point.
func killed(t *testing.T, point, url string) time.Time {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.Split(t.Name(), "/")[0]+"$")
	cmd.Env = append(os.Environ(), victim+"="+point, "OUTBOX_TEST_URL="+url)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the victim was not killed: %v\n%s", err, out)
	}
	return time.Now()
}

// repaired waits until the answer is that of the database and nothing is left to deliver.
func (p *process) repaired(t *testing.T, want int) {
	t.Helper()
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		return p.get(t, "1") == want && ask[int](t, p.pool, `SELECT count(*) FROM cache_outbox`) == 0, "not repaired"
	})
}

// A process that is killed is another process, really killed.
func TestKilledWriter(t *testing.T) {
	beVictim(t)
	t.Parallel()
	for point, want := range map[string]int{beforeCommit: 0, afterCommit: 1} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			url := database(t, items...)
			p := newProcess(t, pool(t, url), shared(t), outbox.RelayConfig{}, Config{})
			p.relay.Start()
			p.warm(t, "1", 0)
			died := killed(t, point, url)
			p.repaired(t, want)
			t.Logf("repaired %v after the death", time.Since(died).Round(time.Millisecond))
			if got := ask[int](t, p.pool, `SELECT value FROM items WHERE id = 1`); got != want {
				t.Errorf("the database has %d, want %d", got, want)
			}
		})
	}
}

// What a relay has claimed, and deleted, is there again when it dies before it is done.
func TestKilledRelay(t *testing.T) {
	beVictim(t)
	t.Parallel()
	url := database(t, items...)
	p := newProcess(t, pool(t, url), shared(t), outbox.RelayConfig{}, Config{})
	p.warm(t, "1", 0)
	run(t, connect(t, url), `UPDATE items SET value = 1 WHERE id = 1`)
	died := killed(t, whileDelivering, url)
	if got := p.get(t, "1"); got != 0 {
		t.Errorf("read %d, which no process can have delivered", got)
	}
	p.relay.Start()
	p.repaired(t, 1)
	t.Logf("repaired %v after the death", time.Since(died).Round(time.Millisecond))
}

// A relay that stands still, as one does whose host is suspended, loses its claim in time.
func TestClaimOfAFrozenRelayEnds(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	frozen, claimed, thawed := shared(t), make(chan struct{}), make(chan struct{})
	thaw := sync.OnceFunc(func() { close(thawed) })
	defer thaw() // or closing would wait
	var once sync.Once
	victim := newProcess(t, pool(t, url), frozen, outbox.RelayConfig{}, Config{})
	frozen.on(nil, func() { once.Do(func() { close(claimed); <-thawed }) })
	p := newProcess(t, pool(t, url), shared(t), outbox.RelayConfig{}, Config{})
	p.warm(t, "1", 0)
	run(t, connect(t, url), `UPDATE items SET value = 1 WHERE id = 1`)
	victim.relay.Start()
	<-claimed
	began := time.Now()
	p.relay.Start()
	p.repaired(t, 1)
	t.Logf("repaired after %v; a claim holds for %v", time.Since(began).Round(time.Millisecond), claimTime)
	thaw()
	victim.warm(t, "1", 1) // it goes on, and does no harm
}
