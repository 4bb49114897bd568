package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Of three conditions one is tested, one comes true in vain, and one never does.
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

func Even(n int) bool {
	if n%2 == 1 {
		return false
	}
	return true
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
	if Abs(-1) != 1 || Most(3) != 3 || !Even(2) {
		t.Fatal("wrong")
	}
	_ = Even(3)
	if Abs(4) != 4 {
		t.Fatal("wrong")
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := subject{dir, []string{dir}}
	conditions, err := conditionsOf(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := mutate(t.Context(), s, conditions, 2, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, without := report(s, conditions, reasons{dir + "/m.go: Even: n%2 == 1": "it is old", dir + "/m.go: Abs: n < 0": "none"})
	for _, want := range []string{
		"3 conditions, tested by " + dir + ": without 1 of them a test fails; 1 came true in no test, and 1 in tests that pass without.",
		"/m.go: Most: n > 10` (never true): NO REASON IS GIVEN",
		"/m.go: Even: n%2 == 1` (not missed): it is old",
		"/m.go: Abs: n < 0` is in reasons.txt, and needs no reason",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
	if without != 1 {
		t.Errorf("%d are without a reason, want 1", without)
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	all, err := readReasons("# remark\na: b\nc: d\n\tfor both\n\ne: f\n\tfor one\n")
	if err != nil || len(all) != 3 || all["a: b"] != "for both" || all["c: d"] != "for both" || all["e: f"] != "for one" {
		t.Errorf("%v, %v", all, err)
	}
	for _, wrong := range []string{"\tof nothing\n", "a: b\n"} {
		if _, err := readReasons(wrong); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
}
