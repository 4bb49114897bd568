package driver

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Tag names something that answers depend on, such as "product:7". Programs make tags with
// cache.T, and databases with the templates of a watch: both spell the same tag for the
// same values. There is one definition, which this file and the SQL of the outboxes share:
//
//	tag   = kind | kind ":" parts | kind ":*" | "*"
//	kind  = 1 to 64 of A-Z a-z 0-9 . _ -
//	parts = part { ":" part } | "#" 64 hexadecimal digits
//	part  = "%" | 1 or more of ( A-Z a-z 0-9 - . _ ~ @ + = , / | "%" 2 hexadecimal digits )
//
// A part is the text of a value: a byte that is not listed becomes % and two upper-case
// hexadecimal digits, and an empty text becomes a lone %. So no value of any column holds a
// colon, a wildcard or a control character by the time it is in a tag, and no two lists of
// values have one tag. A tag longer than MaxTag bytes keeps its kind, and its parts become
// "#" and the SHA-256 of the whole tag.
//
// "product:*" is the family of every tag of the kind, and "*" is Everything: an answer
// depends on the families of its tags and on Everything without being told so, and a write
// that touches more than it can name bumps those instead.
type Tag string

// MaxTag is the length of the longest tag, in bytes. No kind is so long that its hashed tags
// would be longer.
const MaxTag = 200

// MaxKind is the length of the longest kind, in bytes.
const MaxKind = 64

// Everything is the tag that every answer depends on.
const Everything Tag = "*"

// ErrTag is matched by the errors of malformed tags.
var ErrTag = errors.New("malformed tag")

// MakeTag returns the tag of a kind and of escaped parts, hashed if it would be too long. It
// does not check them.
func MakeTag(kind string, escaped ...string) Tag {
	t := kind
	if len(escaped) > 0 {
		t = kind + ":" + strings.Join(escaped, ":")
	}
	if len(t) <= MaxTag {
		return Tag(t)
	}
	sum := sha256.Sum256([]byte(t))
	return Tag(kind + ":#" + hex.EncodeToString(sum[:]))
}

// Kind returns what comes before the first colon; all of a tag without one.
func (t Tag) Kind() string {
	if i := strings.IndexByte(string(t), ':'); i >= 0 {
		return string(t[:i])
	}
	return string(t)
}

// Family returns the tag that stands for every tag of t's kind: "product:*" for "product:7"
// and for "product". Everything is its own family.
func (t Tag) Family() Tag {
	if t == Everything {
		return t
	}
	return Tag(t.Kind() + ":*")
}

// Check returns an error that matches ErrTag and says what is wrong with t, or nil.
func (t Tag) Check() error {
	if t == Everything {
		return nil
	}
	if len(t) > MaxTag {
		return fmt.Errorf("%w: %.40q… has %d bytes, more than %d: make it with cache.T, which hashes long values", ErrTag, string(t), len(t), MaxTag)
	}
	kind := t.Kind()
	if !validKind(kind) {
		return fmt.Errorf("%w: %q: its kind %q must be 1 to %d of letters, digits and ._-", ErrTag, string(t), kind, MaxKind)
	}
	if len(kind) == len(t) {
		return nil
	}
	switch parts := string(t[len(kind)+1:]); {
	case parts == "*":
		return nil
	case strings.HasPrefix(parts, "#"):
		if len(parts) != 1+2*sha256.Size || strings.Trim(parts[1:], "0123456789abcdef") != "" {
			return fmt.Errorf("%w: %q: # begins a hash, which cache.T makes", ErrTag, string(t))
		}
		return nil
	case strings.HasPrefix(parts, "!"):
		return fmt.Errorf("%w: a value of kind %q: %s", ErrTag, kind, parts[1:])
	default:
		if !validParts(parts) {
			return fmt.Errorf("%w: %q: a value in it is not escaped: make it with cache.T(%q, …)", ErrTag, string(t), kind)
		}
		return nil
	}
}

func validKind(s string) bool {
	if s == "" || len(s) > MaxKind {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// validParts says whether s is what EscapePart makes of texts, joined by colons.
func validParts(s string) bool {
	for part := range strings.SplitSeq(s, ":") {
		if part == "%" {
			continue
		}
		if part == "" {
			return false
		}
		for i := 0; i < len(part); i++ {
			switch c := part[i]; {
			case plain(c):
			case c == '%' && i+2 < len(part) && upperHex(part[i+1]) && upperHex(part[i+2]):
				if plain(unhex(part[i+1])<<4 | unhex(part[i+2])) {
					return false // it has another spelling
				}
				i += 2
			default:
				return false
			}
		}
	}
	return true
}

func upperHex(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'A' + 10
}

// EscapePart appends text to b as a part of a tag or of a key.
func EscapePart(b []byte, text string) []byte {
	if text == "" {
		return append(b, '%')
	}
	const hex = "0123456789ABCDEF"
	for i := range len(text) {
		if c := text[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func plain(c byte) bool { return alphanumeric(c) || strings.IndexByte("-._~@+=,/", c) >= 0 }

// Version is the state of a tag at one moment: random, unguessable, and compared for
// equality only. Nothing orders versions and no clock takes part in them. The zero
// Version belongs to no tag.
type Version [16]byte

// NewVersion returns a fresh random version. Safe for concurrent use.
func NewVersion() Version {
	var v Version
	_, _ = rand.Read(v[:]) // never fails: crypto/rand ends the program instead
	return v
}

// Mark identifies one writer in flight, and Token one load. Both are random, so that
// no process removes a mark or a lease of another.
type (
	Mark  [16]byte
	Token [16]byte
)

// NoMark is the mark of a bump that follows no fence.
var NoMark Mark

// TagState is what a store knows of a tag.
type TagState struct {
	Version Version
	// Fenced says that a writer is in flight: it has announced a change to what the
	// tag names, and neither finished nor let its lease run out.
	Fenced bool
}

// Guard is a digest of the tags of an answer and of their versions, taken before the
// answer was loaded. An entry is valid while its guard equals the guard of the present
// versions: a tag that was bumped since, and a version that was lost, make them differ.
type Guard [16]byte
