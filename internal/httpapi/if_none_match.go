package httpapi

import "strings"

// noneMatch says whether an If-None-Match field, which may come in several lines, names
// etag: then the client has the representation already. Weak tags compare equal to strong
// ones, as RFC 9110 demands for this field. A malformed rest of a line matches nothing.
func noneMatch(lines []string, etag string) bool {
	for _, line := range lines {
		rest := strings.TrimLeft(line, " \t,")
		if strings.TrimRight(rest, " \t") == "*" {
			return true
		}
		for rest != "" {
			opaque := strings.TrimPrefix(rest, "W/")
			if opaque == "" || opaque[0] != '"' {
				break
			}
			// Commas belong to the tag while the quote is open.
			end := strings.IndexByte(opaque[1:], '"')
			if end < 0 {
				break
			}
			if opaque[:end+2] == etag {
				return true
			}
			rest = strings.TrimLeft(opaque[end+2:], " \t")
			if rest != "" && rest[0] != ',' {
				break
			}
			rest = strings.TrimLeft(rest, " \t,")
		}
	}
	return false
}
