package redisstore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// names makes every key of the store. It holds the prefix.
type names string

func checkPrefix(prefix string) error {
	if prefix == "" {
		return errors.New("Prefix is empty")
	}
	for _, c := range []byte(prefix) {
		if c <= ' ' || c >= 0x7f || c == '{' || c == '}' {
			// A brace would make Redis Cluster put every key into one slot.
			return fmt.Errorf("Prefix %q: only printable ASCII without spaces and braces", prefix)
		}
	}
	return nil
}

const (
	tagInfix   = "tag:"
	leaseInfix = "lease:"
	// apart stands before the keys of entries that would else name a tag or a lease, and
	// before those that begin with it. The cache gives no such keys to its queries.
	apart = ":"
)

func entryInfix(key string) string {
	if strings.HasPrefix(key, tagInfix) || strings.HasPrefix(key, leaseInfix) || strings.HasPrefix(key, apart) {
		return apart
	}
	return ""
}

func (n names) entry(key string) string   { return string(n) + entryInfix(key) + key }
func (n names) tag(tag driver.Tag) string { return string(n) + tagInfix + string(tag) }

// lease puts the entry's whole name into braces, so that both are in one slot: an entry's
// key has no braces and is hashed whole.
func (n names) lease(key string) string { return string(n) + leaseInfix + "{" + n.entry(key) + "}" }

func (n names) channel() string { return string(n) + "filled" }

// walk is one pass over all keys of a server: the pattern that SCAN takes, and which of
// the keys that match it are entries.
type walk struct {
	match string
	entry func(key string) bool
}

// walks returns the passes that find every entry that matches pattern, in which only *
// and ? are special.
func (n names) walks(pattern string) []walk {
	prefix := strings.NewReplacer(`\`, `\\`, `[`, `\[`, `*`, `\*`, `?`, `\?`).Replace(string(n))
	literal := strings.NewReplacer(`\`, `\\`, `[`, `\[`).Replace(pattern)
	all := []walk{{prefix + literal, func(key string) bool {
		rest, ok := strings.CutPrefix(key, string(n))
		return ok && entryInfix(rest) == ""
	}}}
	if pattern != "" && strings.Contains("*?tl:", pattern[:1]) { // those that are kept apart
		all = append(all, walk{prefix + apart + literal, func(key string) bool {
			return strings.HasPrefix(key, string(n)+apart)
		}})
	}
	return all
}
