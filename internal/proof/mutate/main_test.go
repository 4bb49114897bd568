package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Of two conditions one is tested, and the other is not.
func TestWhatNoTestMissesIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.org/m\n\ngo 1.26\n",
		"m.go": `package m

func Abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}

func Most(n int) int {
	if n > 10 {
		return 10
	}
	return n
}
`,
		"m_test.go": `package m

import "testing"

func TestAbs(t *testing.T) {
	if Abs(-1) != 1 || Most(3) != 3 {
		t.Fatal("wrong")
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	m := mutator{limit: time.Minute, out: &out, progress: io.Discard}
	if err := m.mutate(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	report := out.String()
	if !strings.Contains(report, "2 conditions: 1 are missed by a test, 0 do not compile without, 1 are missed by none") ||
		!strings.Contains(report, "m.go:11: n > 10") || strings.Contains(report, "n < 0") {
		t.Errorf("the report is\n%s", report)
	}
}
