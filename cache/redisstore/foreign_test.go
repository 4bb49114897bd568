package redisstore_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// Values that another program has written under the names of the Store are replaced, and do no
// harm.
func TestForeignValues(t *testing.T) {
	t.Parallel()
	r := testservers.SharedRedis(t)
	p := prefix()
	s := open(t, redisstore.Config{URL: r.URL(), Prefix: p})
	token := newToken()
	for name, write := range map[string]func(key string) []string{
		"a list":    func(key string) []string { return []string{"RPUSH", key, "x"} },
		"a text":    func(key string) []string { return []string{"SET", key, "hello"} },
		"a long":    func(key string) []string { return []string{"SET", key, string(bytes.Repeat([]byte{0x78}, 1001))} },
		"an empty":  func(key string) []string { return []string{"SET", key, ""} },
		"no expiry": func(key string) []string { return []string{"SET", key, string(make([]byte, 16))} },
	} {
		foreign := func(key string) {
			testservers.Must(t, r.Do(t.Context(), "DEL", p+key).Error())
			testservers.Must(t, r.Do(t.Context(), write(p+key)...).Error())
		}
		foreign("tag:t")
		first := state(t, s, "t")
		if first.Fenced || state(t, s, "t") != first {
			t.Errorf("%s in place of a tag: its state is %v and changes", name, first)
		}
		foreign("tag:t")
		if err := s.Fence(t.Context(), []driver.Tag{"t"}, driver.Mark{1}, time.Minute); err != nil || !state(t, s, "t").Fenced {
			t.Errorf("%s in place of a tag: fence: %v", name, err)
		}
		foreign("k")
		// MGET says nothing of a value that is no text, and the claim that follows does.
		if got := entry(t, s, "k"); len(got) > 0 || got == nil && name != "a list" {
			t.Errorf("%s in place of an entry is read as %.20q, want one without bytes", name, got)
		}
		foreign("lease:{" + p + "k}")
		if got := claim(t, s, "k", token, time.Minute); got.State != driver.Granted || got.Entry == nil || len(got.Entry) > 0 || got.Failure != nil {
			t.Errorf("%s in place of a lease and an entry: claimed %d, %.20q, %q", name, got.State, got.Entry, got.Failure)
		}
		put(t, s, "k", "v", "t")
		if string(entry(t, s, "k")) != "v" {
			t.Errorf("%s in place of an entry is not replaced", name)
		}
	}
}

func FuzzTagValue(f *testing.F) {
	r := testservers.SharedRedis(f)
	p := prefix()
	s := open(f, redisstore.Config{URL: r.URL(), Prefix: p})
	far := bytes.Repeat([]byte{0x7f}, 8)
	for _, n := range []int{0, 1, 15, 16, 17, 39, 40, 41, 64, 88} {
		f.Add(make([]byte, n))
		f.Add(append(make([]byte, n), far...))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		key, tag := p+"tag:"+"t", driver.Tag("t")
		testservers.Must(t, r.Do(t.Context(), "SET", key, string(value)).Error())
		st := state(t, s, tag)
		wellFormed := len(value) >= 16 && (len(value)-16)%24 == 0
		if !wellFormed && st.Fenced || len(value) == 16 && st.Fenced {
			t.Errorf("%x: fenced", value)
		}
		again := state(t, s, tag)
		if again.Version != st.Version || st.Version == (driver.Version{}) {
			t.Errorf("%x: version %x, then %x", value, st.Version, again.Version)
		}
		stored := []byte(raw(t, r, key))
		if kept := wellFormed && bytes.Equal(stored[:16], value[:16]); kept != wellFormed {
			t.Errorf("%x became %x", value, stored)
		}
		// A bump removes no other mark, and always changes the version.
		before := len(stored)
		bump(t, s, tag)
		bumped := state(t, s, tag)
		if bumped.Version == st.Version || bumped.Fenced && !again.Fenced || len(raw(t, r, key)) > before {
			t.Errorf("%x: bumped to %v", value, bumped)
		}
	})
}
