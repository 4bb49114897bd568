package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var staleStore = experiment{
	name:  "stale",
	title: "A delete lands during a load",
	about: "A reader begins to load and reads the old value; a writer changes the source and deletes the key, and its delete returns; " +
		"then the reader's load ends. Whatever is read from here on must be new. Another client reads, one second long. " +
		"In the second case a second reader, in the first one's process, asks after the delete and before the first load has ended.",
	run: func(ctx context.Context, x *experimentRun) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runStale(ctx, x, r) })
	},
}

const (
	oneReader  = "one reader"
	twoReaders = "two readers in the process"
	staleFor   = "ns stale" // what is read is old, after the load has ended
	staleLimit = time.Second

	staleRounds = 3 // in the short form: what is stale stays so for staleLimit each time
)

func runStale(ctx context.Context, x *experimentRun, r *testservers.Redis) error {
	rounds := x.rounds
	if !x.long {
		rounds = min(rounds, staleRounds)
	}
	for round := range rounds {
		for _, name := range withCallers {
			for _, case_ := range []string{oneReader, twoReaders} {
				d, err := raceDelete(ctx, name, r.Addr(), case_ == twoReaders)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", name, case_, err)
				}
				x.Add(round, case_, name, staleFor, float64(d))
			}
		}
	}
	t := report.Table{Head: []string{"", oneReader, twoReaders}}
	for _, name := range withCallers {
		row := []string{name}
		for _, case_ := range []string{oneReader, twoReaders} {
			row = append(row, stale(x.Summary(case_, name, staleFor).Max))
		}
		t.Rows = append(t.Rows, row)
	}
	x.section.Tables = append(x.section.Tables, t)
	worst := max(x.Summary(oneReader, ours, staleFor).Max, x.Summary(twoReaders, ours, staleFor).Max)
	x.section.Bars = append(x.section.Bars, report.Bar{
		Subject: "a delete lands during a load", Limit: "nothing old is served afterwards",
		Ours: stale(worst), Alternative: "see the section", Ratio: "–", Verdict: report.Judge(worst == 0),
	})
	return nil
}

func stale(ns float64) string {
	switch {
	case ns == 0:
		return "never stale"
	case ns >= float64(staleLimit):
		return "stale, and still so after " + report.Nanoseconds(float64(staleLimit))
	}
	return "stale for " + report.Nanoseconds(ns)
}

// heldSource answers with its present value. A load that is held back has read it before.
type heldSource struct {
	value    atomic.Uint64
	holdNext atomic.Bool
	began    chan struct{} // a held load has read the value
	release  chan struct{} // closed: it may return
}

func (s *heldSource) load(ctx context.Context, _ uuid.UUID) ([]byte, error) {
	v := s.value.Load()
	if s.holdNext.CompareAndSwap(true, false) {
		close(s.began)
		select {
		case <-s.release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return binary.BigEndian.AppendUint64(nil, v), nil
}

// raceDelete returns for how long the old value was read after the delete was acknowledged
// and the old load had ended.
func raceDelete(ctx context.Context, name, addr string, second bool) (_ time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, peers.CallTimeout)
	defer cancel()
	src := &heldSource{began: make(chan struct{}), release: make(chan struct{})}
	prefix := prefixFor(name)
	var clients []peers.Cache[[]byte]
	defer func() {
		for _, c := range clients {
			err = errors.Join(err, c.Close())
		}
	}()
	warm := payload.KeyOf(prefix, 1)
	for range 3 { // the reader's process, the writer's, and another's
		c, err := peers.Open(ctx, name, peers.Config[[]byte]{Addr: addr, Prefix: prefix, Codec: peers.Raw, Load: src.load})
		if err != nil {
			return 0, err
		}
		clients = append(clients, c)
		if _, err := c.Get(ctx, &warm); err != nil {
			return 0, err
		}
	}
	reader, writer, other := clients[0], clients[1], clients[2]
	key := payload.KeyOf(prefix, 0)
	src.value.Store(1)
	src.holdNext.Store(true)
	first, late := make(chan error, 1), make(chan error, 1)
	ask := func(done chan error) {
		_, err := reader.Get(ctx, &key)
		done <- err
	}
	go ask(first)
	select {
	case <-src.began:
	case <-ctx.Done():
		return 0, fmt.Errorf("the first load never began: %w", ctx.Err())
	}
	src.value.Store(2)
	if err := writer.Delete(ctx, &key); err != nil {
		return 0, err
	}
	if second {
		go ask(late)
		// It has gone as far as it can: its own load has ended, or it waits for the first.
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return 0, err
		}
	} else {
		late <- nil
	}
	close(src.release)
	if err := errors.Join(<-first, <-late); err != nil {
		return 0, err
	}
	if err := pause(ctx, 20*time.Millisecond); err != nil { // for those that store in the background
		return 0, err
	}
	return readsOld(ctx, other, &key)
}

// readsOld returns for how long c reads the old value; 0 if already the first read is new.
func readsOld(ctx context.Context, c peers.Cache[[]byte], k *payload.Key) (old time.Duration, err error) {
	for began := time.Now(); old < staleLimit; old = time.Since(began) {
		b, err := c.Get(ctx, k)
		switch {
		case err != nil:
			return 0, err
		case len(b) != 8:
			return 0, fmt.Errorf("an answer of %d bytes", len(b))
		case binary.BigEndian.Uint64(b) == 2:
			return old, nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return staleLimit, nil
}
