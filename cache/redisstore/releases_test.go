package redisstore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// release is a process of one release of a program: a cache with a query, and the loads that
// it made.
type release struct {
	*cache.Cached[int, string]
	t      *testing.T
	counts *cachetest.Counts
	loads  atomic.Int64
}

// newRelease starts a process on r. Its answers take the codec that is given, or JSON.
func newRelease(t *testing.T, r *testservers.Redis, prefix string, revision int, codec cache.Codec[string]) *release {
	t.Helper()
	p := &release{t: t, counts: &cachetest.Counts{}}
	c, err := cache.New(cache.Config{
		Store:        open(t, redisstore.Config{URL: r.URL(), Prefix: prefix}),
		StoreTimeout: ample,
		Observer:     p.counts,
	})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	p.Cached = cache.Define(c, cache.Query[int, string]{
		Name:     "courses:detail",
		Revision: revision,
		Key:      func(id int) string { return cache.Key(id) },
		Tags:     func(int) []driver.Tag { return []driver.Tag{tag} },
		Codec:    codec,
		FreshFor: time.Hour,
		Load: func(_ context.Context, id int) (string, error) {
			p.loads.Add(1)
			return answerOf(id), nil
		},
	})
	return p
}

// answerOf is large enough to be compressed.
func answerOf(id int) string { return strings.Repeat(fmt.Sprint("course ", id, " "), 1000) }

// lookup gets the answer, which must be right, and returns its status.
func (p *release) lookup(id int) cache.Status {
	p.t.Helper()
	a, err := p.Lookup(p.t.Context(), id)
	if err != nil || a.Value != answerOf(id) {
		p.t.Errorf("the answer is %.20q, %v", a.Value, err)
	}
	return a.Status
}

// awaitHit waits until the answer comes from the store: a load returns before it stores.
func (p *release) awaitHit(id int) {
	p.t.Helper()
	testservers.Eventually(p.t, 30*time.Second, func() (bool, string) {
		s := p.lookup(id)
		return s == cache.Hit, "the answer is not stored: " + s.String()
	})
}

// unreadable returns how many entries were counted that could not be read.
func (p *release) unreadable() int { return p.counts.Total().Undecodable }

// unpacked is the envelope within a stored entry.
func unpacked(t testing.TB, stored string) []byte {
	t.Helper()
	envelope, err := s2.Decode(nil, []byte(stored[1:]))
	testservers.Must(t, err)
	return envelope
}

// Whatever stands in the place of an entry is a miss that is counted, no error, and replaced
// by the answer.
func TestUnreadableEntriesInRedisAreMissesAndCounted(t *testing.T) {
	t.Parallel()
	r := testservers.SharedRedis(t)
	p := prefix()
	q := newRelease(t, r, p, 0, nil)
	q.lookup(1)
	q.awaitHit(1)
	key := p + "courses:detail:1"
	// A flight that has landed is a hit before its answer is stored, and would replace what is put
	// in its place here.
	settled := func() {
		testservers.Eventually(t, 30*time.Second, func() (bool, string) {
			n, err := r.Do(t.Context(), "EXISTS", p+"lease:{"+key+"}").AsInt64()
			return n == 0 && err == nil, "the load is not over"
		})
	}
	settled()
	good := raw(t, r, key)
	plain := func(envelope []byte) string { return "\x01" + string(envelope) }
	sealed := func(envelope []byte) string { // with a checksum that is right
		table := crc32.MakeTable(crc32.Castagnoli)
		sum := crc32.Update(crc32.Checksum(envelope[:58], table), table, envelope[62:])
		binary.BigEndian.PutUint32(envelope[58:], sum)
		return plain(envelope)
	}
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(unpacked(t, good))
		b[at] = to
		return b
	}
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 0x40
	if sealed(unpacked(t, good)) != plain(unpacked(t, good)) {
		t.Fatal("the checksum is another: the test shows nothing")
	}

	set := func(value string) []string { return []string{"SET", key, value} }
	for name, write := range map[string][]string{
		"no bytes":                          set(""),
		"a text":                            set("hello"),
		"a document":                        set(`{"id":1}`),
		"half of it":                        set(good[:len(good)/2]),
		"its first byte":                    set(good[:1]),
		"a flipped bit":                     set(string(flipped)),
		"its envelope, cut":                 set(plain(unpacked(t, good)[:100])),
		"a packing of a release to come":    set("\x03" + good[1:]),
		"a packing of no release":           set("\x00" + good[1:]),
		"an envelope of a release to come":  set(sealed(changed(0, 2))),
		"an answer found in a third way":    set(sealed(changed(1, 2))),
		"a damaged payload":                 set(plain(changed(80, '!'))),
		"a payload that is none, well kept": set(sealed(changed(62, '!'))),
		"what unpacks to more than allowed": set("\x02" + string(s2.Encode(nil, make([]byte, 9<<20)))),
		"what claims to unpack to 4 GiB":    set("\x02\xff\xff\xff\xff\x0f"),
		"a list":                            {"RPUSH", key, "x"},
		"a hash":                            {"HSET", key, "f", "v"},
		"a counter":                         {"INCR", key},
		"another answer's bytes, and a TTL": {"SET", key, "hello", "PX", "60000"},
	} {
		loads, counted := q.loads.Load(), q.unreadable()
		testservers.Must(t, r.Do(t.Context(), "DEL", key).Error())
		testservers.Must(t, r.Do(t.Context(), write...).Error())
		if status := q.lookup(1); status != cache.Miss {
			t.Errorf("%s in place of an entry: %v", name, status)
		}
		if q.loads.Load() != loads+1 {
			t.Errorf("%s in place of an entry made %d loads", name, q.loads.Load()-loads)
		}
		if q.unreadable() == counted {
			t.Errorf("%s in place of an entry was not counted", name)
		}
		q.awaitHit(1)
		if q.loads.Load() != loads+1 {
			t.Errorf("%s in place of an entry was not replaced: %d loads", name, q.loads.Load()-loads)
		}
		settled()
	}
}

// reversed writes what JSON cannot read, and reads nothing else.
type reversed struct{}

func (reversed) Encode(s string) ([]byte, error) { return append([]byte("}"), s...), nil }
func (reversed) Decode(b []byte) (string, error) {
	s, ok := strings.CutPrefix(string(b), "}")
	if !ok {
		return "", fmt.Errorf("not of this release: %.10q", b)
	}
	return s, nil
}

// During a rollout two releases whose answers have different shapes stand side by side: each
// keeps its own, and neither reads, replaces nor removes the other's. A write ends both.
func TestReleasesWithTheirOwnRevisionLeaveEachOtherAlone(t *testing.T) {
	t.Parallel()
	r := testservers.SharedRedis(t)
	p := prefix()
	before, after := newRelease(t, r, p, 0, nil), newRelease(t, r, p, 1, reversed{})
	both := []*release{before, after}
	for _, q := range both {
		q.lookup(1)
		q.awaitHit(1)
	}
	keys := []string{p + "courses:detail:1", p + "courses:detail@1:1"}
	stored := []string{raw(t, r, keys[0]), raw(t, r, keys[1])}
	for range 20 {
		for i, q := range both {
			if status := q.lookup(1); status != cache.Hit {
				t.Errorf("release %d: %v", i, status)
			}
		}
	}
	for i, q := range both {
		if raw(t, r, keys[i]) != stored[i] {
			t.Errorf("the answer of release %d was replaced", i)
		}
		if q.loads.Load() != 1 || q.unreadable() != 0 {
			t.Errorf("release %d loaded %d times and met %v entries that it could not read", i, q.loads.Load(), q.unreadable())
		}
	}

	writer := open(t, redisstore.Config{URL: r.URL(), Prefix: p})
	bump(t, writer, tag)
	for i, q := range both {
		if status := q.lookup(1); status != cache.Miss {
			t.Errorf("release %d after a write: %v", i, status)
		}
		q.awaitHit(1)
	}
	if n, err := writer.Purge(t.Context(), "courses:detail:*"); n != 1 || err != nil {
		t.Errorf("a purge of what one release keeps removed %d: %v", n, err)
	}
	if status := after.lookup(1); status != cache.Hit {
		t.Errorf("a purge of what one release keeps took the other's: %v", status)
	}
}

// What releases share under one prefix cannot change without a thought for those that run
// beside each other: this test is the thought. A tag must mean the same to all of them, for
// ever, or one would not see the other's writes. An entry that others cannot read needs a
// key that they do not use, or the two replace each other's for as long as the rollout takes.
func TestWhatReleasesShare(t *testing.T) {
	t.Parallel()
	r := testservers.SharedRedis(t)
	p := prefix()
	q := newRelease(t, r, p, 0, nil)
	q.lookup(1)
	q.awaitHit(1)
	s := open(t, redisstore.Config{URL: r.URL(), Prefix: p, CompressAbove: -1})
	mark := driver.Mark{0xab}
	testservers.Must(t, s.Fence(t.Context(), []driver.Tag{tag}, mark, time.Hour))
	claim(t, s, "small:key:1", newToken(), time.Minute)
	put(t, s, "small:key:1", "v")

	value := raw(t, r, p+"tag:course:1")
	if len(value) != 16+16+8 || value[16:32] != string(mark[:]) {
		t.Errorf("a fenced tag is %x: want a version, the mark, and when it ends", value)
	}
	ends := time.UnixMilli(int64(binary.BigEndian.Uint64([]byte(value[32:]))))
	if left := time.Until(ends); left < 50*time.Minute || left > 70*time.Minute {
		t.Errorf("a mark of an hour ends in %v", left)
	}
	if lease := raw(t, r, p+"lease:{"+p+"small:key:1}"); lease[0] != '1' || len(lease) != 58 {
		t.Errorf("a lease is %x", lease)
	}
	if stored := raw(t, r, p+"small:key:1"); stored != "\x01v" {
		t.Errorf("a small entry is stored as %q", stored)
	}
	stored := raw(t, r, p+"courses:detail:1")
	if stored[0] != 2 {
		t.Errorf("a large entry begins with %d, want that of S2", stored[0])
	}
	envelope := unpacked(t, stored)
	if envelope[0] != 1 || envelope[1] != 1 || string(envelope[62:]) != `"`+answerOf(1)+`"` {
		t.Errorf("an answer is stored as %.80x", envelope)
	}
}

// A lease in the format of another release does not block a claim: two loads are better than
// none.
func TestLeaseOfAnotherReleaseIsTakenOver(t *testing.T) {
	t.Parallel()
	r := testservers.SharedRedis(t)
	p := prefix()
	s := open(t, redisstore.Config{URL: r.URL(), Prefix: p})
	claim(t, s, "k", newToken(), time.Hour)
	key := p + "lease:{" + p + "k}"
	lease := []byte(raw(t, r, key))
	lease[0] = '2'
	testservers.Must(t, r.Do(t.Context(), "SET", key, string(lease), "PX", "3600000").Error())
	token := newToken()
	if got := claim(t, s, "k", token, time.Minute); got.State != driver.Granted {
		t.Errorf("behind a lease of format 2 a claim is answered with %d", got.State)
	}
	testservers.Must(t, s.Renew(t.Context(), "k", token, time.Minute))
}
