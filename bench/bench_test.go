package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/bench/internal/child"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestMain(m *testing.M) {
	child.Serve(roles) // the experiments start this program again
	os.Exit(m.Run())
}

// The figures of so short a run mean nothing, but everything that makes them has run.
func TestShortestRun(t *testing.T) {
	testservers.Require(t, "redis-server", "redis-server")
	out := t.TempDir()
	args := []string{"-only", "^(near|miss|stampede|growth-size)$", "-rounds", "1", "-slice", "5ms", "-out", out}
	if err := run(t.Context(), args, t.Output()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "REPORT.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## Bars", "| near hit, typed struct, 2 tags checked |", "| miss, load of 1 ms |",
		"| github.com/viccon/sturdyc | v1", "(growth-size.svg)",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	for _, lib := range peers.All {
		for _, m := range lib.Modules {
			if v := peers.Version(m); !strings.HasPrefix(v, "v") && v != "this tree" {
				t.Errorf("the version of %s is %s", m, v)
			}
		}
	}
	for _, name := range []string{"growth-size.svg", "raw/near.csv", "raw/stampede.csv"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The service is built, filled and asked; a refused request ends the run.
func TestServiceIsMeasured(t *testing.T) {
	testservers.Require(t, "redis-server", "redis-server")
	out := t.TempDir()
	err := run(t.Context(), []string{"-only", "^service$", "-rounds", "1", "-slice", "20ms", "-out", out}, t.Output())
	if missing, ok := errors.AsType[*testservers.MissingError](err); ok && os.Getenv("CI") == "" {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "README-table.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| service: credentials |", "| service, CACHE_NEAR=1s: list |",
		"| service: list under 100 enrolments/s |",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
}

func TestEverythingWrongIsReported(t *testing.T) {
	_, err := parse([]string{"-only", "(", "-rounds", "0", "-slice", "-1s", "more"}, t.Output())
	for _, want := range []string{"-only", "-rounds", "-slice", "more"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error %v does not name %s", err, want)
		}
	}
	if err := run(t.Context(), []string{"-only", "nothing like it"}, t.Output()); err == nil || !strings.Contains(err.Error(), "stampede") {
		t.Errorf("no experiment matches, and the error is %v: it should list them", err)
	}
}
