package cache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// maxNesting bounds how many loads may wait for each other in a row.
const maxNesting = 100

// runningLoad is one run of Load or LoadMany, which has a slot of its query's admission. It is in
// the context of the run, so that what asks from inside it is known to.
//
// A load that asks for other answers waits for their loads. If it kept its slot, then sixteen
// callers of a tree would hold all sixteen slots while their children wait for one: none would
// ever end. Nor is it enough to let children pass, for the load that is waited for may have been
// queued before, by another caller. So a load has no slot while it waits: it gives it back before
// (suspend), and takes one again, before all that have not begun, when it goes on (resume). At
// most MaxLoads loads of a query are at the source, as without nesting.
//
//	slots: 1      load of a            load of b                 load of c, by another caller
//	              begins: has the slot
//	                                                             queued
//	              asks for b: suspend                            begins: has the slot
//	              waits                queued, before callers    ends
//	                                   begins, ends
//	              resume: has the slot
type runningLoad struct {
	above *runningLoad // that asked for it; nil if none
	depth int
	loads *admission
	keys  []string

	mu      sync.Mutex
	waiting int  // goroutines of the load that wait for others; guarded by mu
	held    bool // it has its slot; guarded by mu
	ended   bool // guarded by mu
}

type runningLoadKey struct{}

// askingLoad returns the load from inside which ctx comes, nil if there is none that still runs.
func askingLoad(ctx context.Context) *runningLoad {
	l, _ := ctx.Value(runningLoadKey{}).(*runningLoad)
	if l == nil || l.over() {
		return nil
	}
	return l
}

// asRoot returns ctx for work that no load waits for.
func asRoot(ctx context.Context) context.Context {
	return context.WithValue(ctx, runningLoadKey{}, (*runningLoad)(nil))
}

func newRunningLoad[P comparable](ctx context.Context, a *admission, rs []*request[P]) *runningLoad {
	l := &runningLoad{above: askingLoad(ctx), loads: a, keys: make([]string, len(rs)), held: true}
	for i, r := range rs {
		l.keys[i] = r.key
	}
	if l.above != nil {
		l.depth = l.above.depth + 1
	}
	return l
}

// mayAsk fails for a caller that would wait for a load which waits for the caller.
func (d *Cached[P, V]) mayAsk(ctx context.Context, key string) error {
	asking := askingLoad(ctx)
	if asking == nil {
		return nil
	}
	if asking.depth+1 >= maxNesting {
		return fmt.Errorf("%w: %d loads wait for each other, the last for %s", ErrLoadCycle, maxNesting, key)
	}
	for l := asking; l != nil; l = l.above {
		if l.loads == d.loads && !l.over() && slices.Contains(l.keys, key) {
			return fmt.Errorf("%w: the load of %s asks for %s", ErrLoadCycle, asking.keys[0], key)
		}
	}
	return nil
}

func (l *runningLoad) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// suspend gives the slot back, because the load waits for another one. resume must follow.
func (l *runningLoad) suspend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting++
	if l.held {
		l.held = false
		l.loads.release()
	}
}

// resume takes a slot again when the last goroutine of the load has waited.
func (l *runningLoad) resume(ctx context.Context) {
	l.mu.Lock()
	l.waiting--
	again := l.waiting == 0 && !l.held && !l.ended
	l.mu.Unlock()
	if !again {
		return
	}
	if l.loads.enter(ctx, laneNested) != nil {
		l.loads.take() // its time is over, and it goes on until it notices
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting > 0 || l.held || l.ended { // it waits again, or another goroutine was first
		l.loads.release()
		return
	}
	l.held = true
}

// end gives the slot back for good.
func (l *runningLoad) end(took time.Duration) {
	l.loads.measure(took)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.held {
		l.held = false
		l.loads.release()
	}
}
