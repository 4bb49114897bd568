package httpapi

import (
	"strings"
	"testing"
)

func TestNamesETag(t *testing.T) {
	t.Parallel()
	const etag = `"abc"`
	for _, tt := range []struct {
		name  string
		lines []string
		want  bool // compared weakly
	}{
		{"none", nil, false},
		{"the tag", []string{`"abc"`}, true},
		{"weakly", []string{`W/"abc"`}, true},
		{"another", []string{`"abd"`}, false},
		{"in a list", []string{`"x", W/"y" ,"abc"`}, true},
		{"on a later line", []string{`"x"`, `"abc"`}, true},
		{"any", []string{"*"}, true},
		{"any, with room", []string{" * "}, true},
		{"a tag that is a star", []string{`"*"`}, false},
		{"commas inside a tag", []string{`"x,y", "abc"`}, true},
		{"the tag inside another", []string{`"x"abc"`, `"x,"abc""`}, false},
		{"empty members", []string{`,, "x",,"abc",`}, true},
		{"unquoted", []string{`abc`}, false},
		{"unclosed", []string{`"abc`}, false},
		{"lower-case weakness", []string{`w/"abc"`}, false},
		{"after rubbish", []string{`rubbish, "abc"`}, false},
		{"star in a list", []string{`"x", *`}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := namesETag(tt.lines, etag, true); got != tt.want {
				t.Errorf("%q names the tag: %v, want %v", tt.lines, got, tt.want)
			}
			if got, want := namesETag(tt.lines, etag, false), tt.want && tt.name != "weakly"; got != want {
				t.Errorf("compared strongly, %q names the tag: %v, want %v", tt.lines, got, want)
			}
		})
	}
}

func FuzzNamesETag(f *testing.F) {
	for _, s := range []string{`"abc"`, `W/"abc", "x"`, `*`, `,"`, `""`, "W/", `W/W/"abc"`, `"a","abc`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got := namesETag([]string{line}, `"abc"`, true)
		if got && !strings.Contains(line, `"abc"`) && strings.Trim(line, " \t,") != "*" {
			t.Errorf("namesETag(%q) matched what is not there", line)
		}
	})
}
