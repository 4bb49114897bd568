package cache_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
)

// Where the parts of a stored answer are; see envelope.go.
const (
	guardAt, loadedAt, checksumAt, payloadAt = 2, 34, 58, 62
)

// FuzzStoredAnswer puts hostile bytes in the place of an answer: part of a good one, with
// something in its middle, and perhaps with a checksum that fits. No caller sees an error, and
// what is served is what the bytes say or what the source says.
func FuzzStoredAnswer(f *testing.F) {
	for _, seed := range []struct {
		keep, skip int
		patch      string
		seal       bool
	}{
		{0, 0, "", false},                // good
		{0, 1000, "", false},             // no bytes
		{0, 1000, "a stranger's", false}, //
		{0, 1, "\x02", true},             // of format 2
		{1, 1, "\x02", true},             // found in a third way
		{1, 1, "\x00", true},             // not found, with a payload
		{guardAt, 16, strings.Repeat("g", 16), true},
		{loadedAt, 8, "\xff\xff\xff\xff\xff\xff\xff\xff", true},
		{loadedAt, 8, "\x7f\xff\xff\xff\xff\xff\xff\xff", true},
		{loadedAt, 8, "\x00\x00\x00\x00\x00\x00\x00\x00", true},
		{42, 16, "\x00\x00\x08\x63\x7b\xd0\x5a\xf6\x00\x00\x08\x63\x7b\xd0\x5a\xf6", true}, // fresh and stale for 292 years
		{42, 16, "\x00\x00\x08\x63\x7b\xd0\x5a\xf7\xff\xff\xff\xff\xff\xff\xff\xff", true}, // and for longer
		{checksumAt, 4, "sum!", false},
		{payloadAt, 1000, "", true},
		{payloadAt, 1000, `"another"`, true},
		{payloadAt, 1000, `"another"`, false},
		{payloadAt, 1000, `{"not":"a text"}`, true},
		{payloadAt, 1000, strings.Repeat("[", 5000), true},
		{61, 1000, "", false},
	} {
		f.Add(seed.keep, seed.skip, []byte(seed.patch), seed.seal)
	}

	store := memstore.New(memstore.Config{})
	counts := &cachetest.Counts{}
	c, err := cache.New(cache.Config{Store: store, Observer: counts, StoreTimeout: 10 * time.Second})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := errors.Join(c.Close(), store.Close()); err != nil {
			f.Error(err)
		}
	})
	const source = "what the source says"
	q := cache.Define(c, cache.Query[int, string]{
		Name:                 "rows:one",
		Key:                  func(id int) string { return cache.Key(id) },
		Tags:                 func(int) []cache.Tag { return []cache.Tag{"rows"} },
		Load:                 func(context.Context, int) (string, error) { return source, nil },
		FreshFor:             time.Hour,
		StaleWhileRevalidate: time.Hour,
		StaleIfError:         time.Hour,
	})
	id := 0
	stored := func(t testing.TB, id int) []byte {
		snapshot, err := store.Read(t.Context(), nil, []string{"rows:one:" + strconv.Itoa(id)})
		if err != nil {
			t.Fatal(err)
		}
		return snapshot.Entries[0]
	}
	if _, err := q.Get(f.Context(), id); err != nil {
		f.Fatal(err)
	}
	var good []byte
	for deadline := time.Now().Add(10 * time.Second); good == nil; good = stored(f, id) {
		if time.Now().After(deadline) {
			f.Fatal("the answer is not stored")
		}
	}

	f.Fuzz(func(t *testing.T, keep, skip int, patch []byte, seal bool) {
		keep = min(max(keep, 0), len(good))
		skip = min(max(skip, 0), len(good)-keep)
		entry := slices.Concat(good[:keep], patch, good[keep+skip:])
		if entry == nil {
			entry = []byte{} // nil would be none
		}
		if seal && len(entry) >= payloadAt {
			table := crc32.MakeTable(crc32.Castagnoli)
			sum := crc32.Update(crc32.Checksum(entry[:checksumAt], table), table, entry[payloadAt:])
			binary.BigEndian.PutUint32(entry[checksumAt:], sum)
		}
		// A full store may refuse what no caller has asked for.
		if id++; id%10_000 == 0 {
			if _, err := store.Purge(t.Context(), "*"); err != nil {
				t.Fatal(err)
			}
		}
		err := store.Settle(t.Context(), []driver.Fill{{Key: "rows:one:" + strconv.Itoa(id), Entry: entry, Life: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		counted := counts.Total().Undecodable
		a, err := q.Lookup(t.Context(), id)
		notFound := errors.Is(err, cache.ErrNotFound)
		if err != nil && !notFound {
			t.Fatalf("%x: %v", entry, err)
		}
		fresh := counts.Total().Undecodable == counted
		if a.Status == cache.Miss {
			if notFound || a.Value != source {
				t.Errorf("%x: loaded %q, %v", entry, a.Value, err)
			}
			if fresh && len(entry) < payloadAt {
				t.Errorf("%x cannot be read, and was not counted", entry)
			}
			return
		}
		// It was served: then it is whole, of this format, and under the guard of now.
		if len(entry) < payloadAt || entry[0] != 1 || !bytes.Equal(entry[guardAt:guardAt+16], good[guardAt:guardAt+16]) {
			t.Fatalf("%x was served as %q", entry, a.Value)
		}
		if seal || !bytes.Equal(entry, good) {
			table := crc32.MakeTable(crc32.Castagnoli)
			if sum := crc32.Update(crc32.Checksum(entry[:checksumAt], table), table, entry[payloadAt:]); sum != binary.BigEndian.Uint32(entry[checksumAt:]) {
				t.Errorf("%x was served although its checksum is wrong", entry)
			}
		}
		var want string
		switch {
		case notFound && entry[1] != 0, !notFound && entry[1] != 1:
			t.Errorf("%x was served as %q, %v", entry, a.Value, err)
		case notFound:
		case json.Unmarshal(entry[payloadAt:], &want) != nil || a.Value != want:
			t.Errorf("%x was served as %q, want %q", entry, a.Value, want)
		}
		if a.Age < 0 || a.Status == cache.Hit && a.TTL <= 0 {
			t.Errorf("%x was served with age %v and %v left", entry, a.Age, a.TTL)
		}
	})
}

// FuzzKeyReadsBack reads the parts of a key back from it. What can be read back was made of
// nothing else: no two lists of parts have one key.
func FuzzKeyReadsBack(f *testing.F) {
	for _, s := range []string{"", "|", "a|b", "a:b|", "%|%25|%%", "{x}|*|?|[", "é|\x00|\xff", "||", "all|1|20", "a b\n|\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parts := strings.Split(s, "|")
		key := keyOf(parts)
		if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`*?[]{}\|`, r) }) {
			t.Errorf("%q: the key %q holds what means something elsewhere", parts, key)
		}
		if got := partsOf(t, key); !slices.Equal(got, parts) {
			t.Errorf("%q became %q, which reads as %q", parts, key, got)
		}
		// The key of some parts, and then that of others, is the key of all.
		if n := len(parts) / 2; n > 0 && keyOf(parts[:n])+":"+keyOf(parts[n:]) != key {
			t.Errorf("%q: the key %q is not that of its halves", parts, key)
		}
	})
}

func keyOf(parts []string) string {
	all := make([]any, len(parts))
	for i, p := range parts {
		all[i] = p
	}
	return cache.Key(all...)
}

// partsOf is the inverse of cache.Key, for one part and more.
func partsOf(t *testing.T, key string) []string {
	t.Helper()
	parts := strings.Split(key, ":")
	for i, escaped := range parts {
		var b []byte
		for escaped != "" && escaped != "%" {
			if escaped[0] != '%' {
				b, escaped = append(b, escaped[0]), escaped[1:]
				continue
			}
			c, err := strconv.ParseUint(escaped[1:3], 16, 8)
			if err != nil {
				t.Fatalf("key %q: %v", key, err)
			}
			b, escaped = append(b, byte(c)), escaped[3:]
		}
		parts[i] = string(b)
	}
	return parts
}
