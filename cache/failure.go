package cache

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"sync"
	"time"
)

// A failing load is remembered in the store, for everybody, and not repeated for a while
// that doubles with each failure in a row. What is remembered is how many there were, and
// the error's text. It holds for callers that have seen the guard of the load, as an entry does:
// a write that the answer depends on may have ended the cause, so it ends the memory.
const (
	firstHold       = 100 * time.Millisecond
	longestHold     = 5 * time.Second
	longestError    = 1024 // bytes
	rememberedError = 1024 // errors kept in process, per query
)

// transient says whether a failure is not to be remembered. It says nothing about the answer, and
// another process that remembers its text only could not tell its callers what it was.
func transient(err error) bool {
	return errors.Is(err, ErrTransient) || errors.Is(err, ErrLoadTimeout)
}

func holdAfter(failures uint64) time.Duration {
	if failures >= 7 { // 100 ms · 2⁶ is beyond the longest
		return longestHold
	}
	return min(firstHold<<(max(failures, 1)-1), longestHold)
}

// Decision 2.
func encodeFailure(failures uint64, err error) []byte {
	text := strings.ToValidUTF8(errorText(err), "?")
	return append(binary.AppendUvarint(nil, failures), text[:min(len(text), longestError)]...)
}

// decodeFailure returns zero failures for what it does not understand.
func decodeFailure(b []byte) (failures uint64, text string) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n == math.MaxUint64 {
		return 0, ""
	}
	return n, string(b[size:])
}

// errorMemory keeps the errors that this process has seen itself, so that a caller who
// comes while a failure is remembered gets the loader's own error where possible.
// Decision 9.
type errorMemory struct {
	mu    sync.Mutex
	byKey map[string]error
}

func (m *errorMemory) put(key string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byKey == nil || len(m.byKey) >= rememberedError {
		m.byKey = map[string]error{} // starting over is bound enough for a convenience
	}
	m.byKey[key] = err
}

// get returns the error behind text: this process's own, or one that only has the text.
func (m *errorMemory) get(key, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.byKey[key]; err != nil && strings.HasPrefix(strings.ToValidUTF8(errorText(err), "?"), text) {
		return err
	}
	return remoteError(text)
}
