package cache

import (
	"bytes"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

func FuzzEnvelope(f *testing.F) {
	whole := envelope{found: true, guard: driver.Guard{1}, loadedAt: time.UnixMilli(1), fresh: time.Second, stale: time.Minute, payload: []byte("x")}
	f.Add(whole.encode())
	whole.named = []Tag{"author:1", "product:7"}
	f.Add(whole.encode())
	f.Add([]byte{})
	f.Add(make([]byte, envelopeHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e envelope
		if !e.decode(b) {
			return
		}
		// What is accepted is exactly what would be written.
		if again := e.encode(); !bytes.Equal(again, b) {
			t.Errorf("decoded %x, which encodes as %x", b, again)
		}
	})
}

func TestEnvelopeSurvivesTheTrip(t *testing.T) {
	in := envelope{
		found: true, guard: driver.Guard{1, 2}, etag: etagOf([]byte("body")),
		loadedAt: time.UnixMilli(1_700_000_000_123), fresh: time.Minute, stale: time.Hour, payload: []byte("body"),
	}
	for _, named := range [][]Tag{nil, {"author:1"}, {"author:1", "product:7"}} {
		in.named = named
		checkTrip(t, in)
	}
}

func checkTrip(t *testing.T, in envelope) {
	t.Helper()
	var out envelope
	if !out.decode(in.encode()) {
		t.Fatal("not decoded")
	}
	if !out.found || out.guard != in.guard || out.etag != in.etag || !out.loadedAt.Equal(in.loadedAt) ||
		out.fresh != in.fresh || out.stale != in.stale || !bytes.Equal(out.payload, in.payload) || !slices.Equal(out.named, in.named) {
		t.Errorf("sent %+v, arrived %+v", in, out)
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	b := (&envelope{found: true, loadedAt: time.UnixMilli(1), fresh: time.Second, named: []Tag{"a:1"}, payload: []byte("payload")}).encode()
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		var e envelope
		if e.decode(b) {
			t.Errorf("bit %d flipped, and the envelope was accepted", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// A guard is of tags and versions together: moving a byte from one to the other,
// swapping two tags, or any other version gives another guard.
func TestGuardTellsEverythingApart(t *testing.T) {
	v, w := driver.NewVersion(), driver.NewVersion()
	state := func(v driver.Version) driver.TagState { return driver.TagState{Version: v} }
	seen := map[driver.Guard]string{}
	for name, g := range map[string]driver.Guard{
		"a, b":    guardOf([]Tag{"a", "b"}, []driver.TagState{state(v), state(w)}),
		"b, a":    guardOf([]Tag{"b", "a"}, []driver.TagState{state(v), state(w)}),
		"swapped": guardOf([]Tag{"a", "b"}, []driver.TagState{state(w), state(v)}),
		"only a":  guardOf([]Tag{"a"}, []driver.TagState{state(v)}),
		"ab":      guardOf([]Tag{"ab"}, []driver.TagState{state(v)}),
		"none":    guardOf(nil, nil),
		"a at w":  guardOf([]Tag{"a"}, []driver.TagState{state(w)}),
		"a zero":  guardOf([]Tag{"a"}, []driver.TagState{{}}),
	} {
		if other, ok := seen[g]; ok {
			t.Errorf("%s and %s have one guard", name, other)
		}
		seen[g] = name
	}
}

func TestRecentBumpsAreBounded(t *testing.T) {
	var r recentBumps
	tag := func(i int) Tag { return Tag(string(rune('a'+i%20)) + ":" + versionText()) }
	for i := range 3 * rememberMostTags {
		r.add([]Tag{tag(i)}, true, 0)
	}
	if n := len(r.list); n > rememberMostTags {
		t.Errorf("%d bumps are remembered, want at most %d", n, rememberMostTags)
	}
	families := map[Tag]bool{}
	for _, b := range r.list {
		families[b.tag.Family()] = true
	}
	if len(families) != 20 {
		t.Errorf("bumps of %d families are remembered, want all 20", len(families))
	}
}

func versionText() string { v := driver.NewVersion(); return hex.EncodeToString(v[:]) }
