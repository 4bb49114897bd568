package httpapi

import (
	"net/http"
	"strings"
)

// mayChange says whether the If-Match and If-None-Match fields of a request allow it to change a
// resource whose representation has the tag: RFC 9110, section 13.2.2. What is malformed names
// no tag.
func mayChange(h http.Header, etag string) bool {
	if lines, given := h["If-Match"]; given && !namesETag(lines, etag, false) {
		return false
	}
	return !namesETag(h["If-None-Match"], etag, true)
}

// namesETag says whether a field that lists entity tags, which may come in several lines, has
// etag, which is strong, or is "*". If-None-Match compares weakly: W/"a" is "a". If-Match compares
// strongly: a weak tag equals none. A malformed rest of a line names nothing.
func namesETag(lines []string, etag string, weakly bool) bool {
	for _, line := range lines {
		rest := strings.TrimLeft(line, " \t,")
		if strings.TrimRight(rest, " \t") == "*" {
			return true
		}
		for rest != "" {
			opaque, weak := strings.CutPrefix(rest, "W/")
			if opaque == "" || opaque[0] != '"' {
				break
			}
			// Commas belong to the tag while the quote is open.
			end := strings.IndexByte(opaque[1:], '"')
			if end < 0 {
				break
			}
			if opaque[:end+2] == etag && (weakly || !weak) {
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
