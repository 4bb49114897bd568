package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache/coalesce"
)

var errClosed = errors.New("closed")

// server answers every question with the question and the time at which it came.
type server struct {
	away time.Duration // of each call

	mu    sync.Mutex
	calls [][]string
	err   error
	gone  bool
}

type answer struct {
	key string
	arg int
	at  time.Time
}

func (s *server) calling(alone, most int) *coalesce.Calls[string, int, answer] {
	many := func(_ context.Context, keys []string, args []int) ([]answer, error) {
		s.mu.Lock()
		s.calls = append(s.calls, slices.Clone(keys))
		err := s.err
		s.mu.Unlock()
		at := time.Now()
		time.Sleep(s.away)
		answers := make([]answer, len(keys))
		for i := range keys {
			answers[i] = answer{keys[i], args[i], at}
		}
		return answers, err
	}
	return &coalesce.Calls[string, int, answer]{
		Alone: alone, Most: most, Wait: time.Millisecond, Many: many,
		One: func(ctx context.Context, key string, arg int) (answer, error) {
			answers, err := many(ctx, []string{key}, []int{arg})
			return answers[0], err
		},
		Spawn: func(f func(context.Context)) bool {
			if s.gone {
				return false
			}
			go f(context.Background())
			return true
		},
		Closed: errClosed,
	}
}

// asks makes a call, and checks that the answer is one to key, and not older than the question.
func asks(t *testing.T, callers *sync.WaitGroup, c *coalesce.Calls[string, int, answer], key string, arg int) {
	asked := time.Now()
	callers.Go(func() {
		a, err := c.Do(context.Background(), key, arg)
		if err != nil || a.key != key || a.arg != arg || a.at.Before(asked) {
			t.Errorf("asked for %s %d at %v: %+v, error %v", key, arg, asked, a, err)
		}
	})
	synctest.Wait()
}

func wantCalls(t *testing.T, s *server, want ...[]string) {
	t.Helper()
	if !slices.EqualFunc(s.calls, want, slices.Equal) {
		t.Errorf("calls of %v, want %v", s.calls, want)
	}
	s.calls = nil
}

func TestCallersShareTheNextCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: 900 * time.Microsecond}
		c := s.calling(2, 10)
		var callers sync.WaitGroup
		for range 2 { // a finished call makes room for another
			for i, key := range []string{"a", "b", "c", "d", "c"} {
				asks(t, &callers, c, key, map[bool]int{true: 3, false: i + 1}[key == "c"])
			}
			callers.Wait()
			wantCalls(t, s, []string{"a"}, []string{"b"}, []string{"c", "d"})
		}
	})
}

// There is one call for a key at a time, even if more calls may run.
func TestCallersOfAKeyShareTheNextCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: 500 * time.Microsecond}
		c := s.calling(10, 10)
		var callers sync.WaitGroup
		for _, key := range []string{"a", "a", "b", "a"} {
			asks(t, &callers, c, key, 0)
		}
		time.Sleep(s.away)
		synctest.Wait() // the second call of a is running
		for _, key := range []string{"a", "a", "c"} {
			asks(t, &callers, c, key, 0)
		}
		callers.Wait()
		wantCalls(t, s, []string{"a"}, []string{"b"}, []string{"a"}, []string{"c"}, []string{"a"})
		asks(t, &callers, c, "a", 0)
		asks(t, &callers, c, "b", 0)
		callers.Wait()
		wantCalls(t, s, []string{"a"}, []string{"b"})
	})
}

// No caller joins a running call. Callers that come during a shared call share the one after it.
func TestCallBeginsAfterItsCallersCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: 900 * time.Microsecond}
		c := s.calling(1, 10)
		var callers sync.WaitGroup
		for i := range 10 {
			asks(t, &callers, c, "a", 0)
			time.Sleep(time.Duration(i) * 100 * time.Microsecond)
		}
		callers.Wait()
		if n := len(s.calls); n < 4 || n > 9 {
			t.Errorf("%d calls for ten callers during five of them", n)
		}
	})
}

func TestSlowServerIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: 30 * time.Millisecond}
		c := s.calling(1, 10)
		var callers sync.WaitGroup
		began := time.Now()
		asks(t, &callers, c, "a", 0)
		asks(t, &callers, c, "b", 0)
		callers.Wait()
		if took := time.Since(began); took != 31*time.Millisecond {
			t.Errorf("the second caller waited for %v", took)
		}
		s.away = 900 * time.Microsecond
		s.calls = nil
		for _, key := range []string{"a", "b", "c"} { // the call beside the slow one does not raise the limit
			asks(t, &callers, c, key, 0)
		}
		callers.Wait()
		wantCalls(t, s, []string{"a"}, []string{"b", "c"})
	})
}

func TestCallIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: 900 * time.Microsecond}
		c := s.calling(1, 2)
		var callers sync.WaitGroup
		for _, key := range []string{"a", "b", "c", "d", "b"} {
			asks(t, &callers, c, key, 0)
		}
		callers.Wait()
		wantCalls(t, s, []string{"a"}, []string{"d"}, []string{"b", "c"})
	})
}

// Whatever was asked for, nothing is remembered of it once it has been answered.
func TestKeysAreForgotten(t *testing.T) {
	s := &server{}
	c := s.calling(10, 10)
	for i := range 1000 {
		if _, err := c.Do(t.Context(), fmt.Sprint(i), i); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.Running(); n != 0 {
		t.Errorf("%d keys are remembered after their calls", n)
	}
}

func TestErrorIsForAllThatShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: 900 * time.Microsecond, err: errors.New("broken")}
		c := s.calling(1, 10)
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				if _, err := c.Do(t.Context(), "a", 0); !errors.Is(err, s.err) {
					t.Errorf("error %v", err)
				}
			})
		}
		callers.Wait()
	})
}

func TestCallerMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: 900 * time.Microsecond}
		c := s.calling(1, 10)
		var callers sync.WaitGroup
		asks(t, &callers, c, "a", 0)
		left := errors.New("left")
		ctx, hangUp := context.WithCancelCause(t.Context())
		callers.Go(func() {
			if _, err := c.Do(ctx, "b", 0); !errors.Is(err, left) {
				t.Errorf("the caller that left got %v", err)
			}
		})
		synctest.Wait()
		asks(t, &callers, c, "b", 0)
		hangUp(left)
		callers.Wait()
	})
}

// A shared call that cannot start fails, and does not block callers that come later.
func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{away: 900 * time.Microsecond}
		c := s.calling(1, 10)
		var callers sync.WaitGroup
		asks(t, &callers, c, "a", 0)
		s.gone = true
		for range 3 {
			callers.Go(func() {
				if _, err := c.Do(t.Context(), "b", 0); !errors.Is(err, errClosed) {
					t.Errorf("error %v", err)
				}
			})
		}
		callers.Wait()
		asks(t, &callers, c, "c", 0)
		callers.Wait()
		wantCalls(t, s, []string{"a"}, []string{"c"})
	})
}

func TestCallAloneAllocatesNothing(t *testing.T) {
	c := &coalesce.Calls[string, int, int]{
		Alone: 8, Most: 8, Wait: time.Second,
		One: func(context.Context, string, int) (int, error) { return 1, nil },
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Do(ctx, "key", 1) }); n >= 1 {
		t.Errorf("%.0f allocations", n)
	}
}
