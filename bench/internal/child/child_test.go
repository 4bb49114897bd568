package child_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/bench/internal/child"
)

type spec struct {
	N    int
	Fail bool
	Hang bool
}

func TestMain(m *testing.M) {
	child.Serve(map[string]child.Role{"double": double, "sender": sender})
	os.Exit(m.Run())
}

func double(_ context.Context, p *child.Parent) (any, error) {
	var s spec
	if err := p.Spec(&s); err != nil {
		return nil, err
	}
	fmt.Println("this is no message") // as libraries print
	begin, err := p.Ready()
	if err != nil {
		return nil, err
	}
	switch {
	case s.Fail:
		panic("as specified")
	case s.Hang:
		select {}
	case time.Now().Before(begin):
		return nil, errors.New("began too early")
	}
	return 2 * s.N, nil
}

func sender(_ context.Context, p *child.Parent) (any, error) {
	if err := p.Send(os.Getpid()); err != nil {
		return nil, err
	}
	_, err := p.Ready()
	return "done", err
}

func TestChildSendsBeforeItsResult(t *testing.T) {
	p, err := child.Start(t.Context(), "sender", nil)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	var result string
	if err := errors.Join(p.Receive(&pid), p.Ready(), p.Begin(time.Now()), p.Result(&result)); err != nil {
		t.Fatal(err)
	}
	if pid != p.PID() || result != "done" {
		t.Errorf("process %d sent %d, and its result is %q", p.PID(), pid, result)
	}
}

func TestTogether(t *testing.T) {
	prepared := false
	got, err := child.RunTogether[int](t.Context(), "double", 3, func(i int) any { return spec{N: i + 1} },
		func() error { prepared = true; return nil })
	if err != nil || fmt.Sprint(got) != "[2 4 6]" || !prepared {
		t.Errorf("got %v, %v, prepared %v", got, err, prepared)
	}
}

func TestDeathIsReported(t *testing.T) {
	_, err := child.RunTogether[int](t.Context(), "double", 1, func(int) any { return spec{Fail: true} }, nil)
	crash, ok := errors.AsType[*child.DeathError](err)
	if !ok || !strings.Contains(crash.Output, "as specified") {
		t.Errorf("a child that panicked gives %v, want a DeathError with its output", err)
	}
	if _, err := child.RunTogether[int](t.Context(), "no such role", 1, func(int) any { return spec{} }, nil); err == nil {
		t.Error("a child without a role is no error")
	}
}

func TestKill(t *testing.T) {
	p, err := child.Start(t.Context(), "double", spec{Hang: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Ready(), p.Begin(time.Now()), p.Kill(), p.Close()); err != nil {
		t.Error(err)
	}
}

// Orphans would go on loading the machine.
func TestChildEndsWithItsParent(t *testing.T) {
	p, err := child.Start(t.Context(), "double", spec{Hang: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Ready(), p.Begin(time.Now())); err != nil {
		t.Fatal(err)
	}
	// Close closes the pipe, as the parent's death does, and waits for the child.
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
