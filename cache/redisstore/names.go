package redisstore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// names makes every key of the Store. It holds the prefix.
type names string

func checkPrefix(prefix string) error {
	if prefix == "" {
		return errors.New("Prefix is empty: set it to the name of your program, such as \"shop:\"; programs that share a Redis must not share keys")
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
	// toldInfix sorts behind tagInfix: see tracking.go.
	toldInfix = "told:"
	// escape stands before the keys of entries that would otherwise name a tag, a lease or a
	// proof, and before those that begin with escape itself. The cache gives no such keys to its
	// queries.
	escape = ":"
)

func entryInfix(key string) string {
	for _, infix := range [...]string{tagInfix, leaseInfix, toldInfix, escape} {
		if strings.HasPrefix(key, infix) {
			return escape
		}
	}
	return ""
}

func (n names) entry(key string) string   { return string(n) + entryInfix(key) + key }
func (n names) tag(tag driver.Tag) string { return string(n) + tagInfix + string(tag) }

// self is where the name of the data is. No tag is spelled like this.
func (n names) self() string { return string(n) + tagInfix + "#name" }

// proof is a key that CheckWrites writes. No lease is spelled like this.
func (n names) proof(i int) string { return string(n) + leaseInfix + "#" + strconv.Itoa(i) }

// lease puts the whole name of the entry into braces. The lease is then in the slot of the entry,
// whose name has no braces and is hashed as a whole.
func (n names) lease(key string) string { return string(n) + leaseInfix + "{" + n.entry(key) + "}" }

// told begins the keys that a tracking connection writes and hears of. No other connection tracks
// them.
func (n names) told(connection string) string { return string(n) + toldInfix + connection + ":" }

// order is a tag that a tracking connection changes to learn in which order it hears. No tag is
// spelled like this.
func (n names) order(connection string) string { return string(n) + tagInfix + "#order:" + connection }

func (n names) channel() string { return string(n) + "filled" }

// scanPass is one pass over all keys of a server: the pattern for SCAN, and which of the keys
// that match it are entries.
type scanPass struct {
	match string
	entry func(key string) bool
}

// scanPasses returns the passes that find every entry that matches pattern, in which only * and
// ? are special.
func (n names) scanPasses(pattern string) []scanPass {
	prefix := strings.NewReplacer(`\`, `\\`, `[`, `\[`, `*`, `\*`, `?`, `\?`).Replace(string(n))
	literal := strings.NewReplacer(`\`, `\\`, `[`, `\[`).Replace(pattern)
	all := []scanPass{{prefix + literal, func(key string) bool {
		rest, ok := strings.CutPrefix(key, string(n))
		return ok && entryInfix(rest) == ""
	}}}
	if pattern != "" && strings.Contains("*?tl:", pattern[:1]) { // entries with escaped names
		all = append(all, scanPass{prefix + escape + literal, func(key string) bool {
			return strings.HasPrefix(key, string(n)+escape)
		}})
	}
	return all
}
