package cache

import (
	"fmt"
	"strconv"
	"strings"
)

// Key joins parts into a key, with a colon between them: Key("all", 1, 20) is "all:1:20".
// Each part is written as fmt.Sprint would, and escaped so that no two lists of parts
// (of the same texts) give one key: letters, digits and -._~@+=,/ stand for themselves,
// every other byte becomes %XX, and an empty part becomes a lone %. So a key holds no
// control character, no Redis hash tag, and nothing that a purge pattern takes for a wildcard.
//
// Normalise the parts first: an identity in upper case or a default left out should not
// become a copy of its own.
func Key(parts ...any) string {
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteByte(':')
		}
		writePart(&b, partText(part))
	}
	return b.String()
}

func partText(part any) string {
	switch v := part.(type) { // the common ones, without fmt
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	case fmt.Stringer:
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}

func writePart(b *strings.Builder, s string) {
	if s == "" {
		b.WriteByte('%')
		return
	}
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
}

func plain(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("-._~@+=,/", c) >= 0
}
