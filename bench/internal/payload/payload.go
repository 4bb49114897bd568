// Package payload makes what all contenders cache, and the order in which it is
// asked for: the same answers under the same keys for every one of them.
package payload

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Key names one answer. Libraries whose keys are strings get Text, which is made before
// anything is measured; those that take comparable keys get ID.
type Key struct {
	ID   uuid.UUID
	Text string
}

// Keys returns n keys whose texts begin with prefix.
func Keys(prefix string, n int) []Key {
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = KeyOf(prefix, i)
	}
	return keys
}

// KeyOf returns the key with the given number.
func KeyOf(prefix string, i int) Key {
	id := IDOf(i)
	return Key{ID: id, Text: prefix + id.String()}
}

// IDOf returns the identity with the given number, the same in every process.
func IDOf(i int) uuid.UUID {
	r := rand.NewPCG(uint64(i), 0x9e3779b97f4a7c15)
	var id uuid.UUID
	for half := range 2 {
		bits := r.Uint64()
		for n := range 8 {
			id[half*8+n] = byte(bits >> (8 * n))
		}
	}
	return id
}

// TextID returns the identity at the end of a key's text.
func TextID(text string) (uuid.UUID, error) {
	if len(text) < 36 {
		return uuid.UUID{}, fmt.Errorf("key %q ends in no identity", text)
	}
	return uuid.Parse(text[len(text)-36:])
}

// Course is a typical typed answer, about 1 KB as JSON.
type Course struct {
	ID          string    `json:"id"`
	Title       string    `json:"title"`
	Description string    `json:"description"`
	Difficulty  string    `json:"difficulty"`
	IsActive    bool      `json:"isActive"`
	Enrolled    int       `json:"enrolledCount"`
	ContentHash string    `json:"contentHash"`
	Modules     []Module  `json:"modules"`
	CreatedAt   time.Time `json:"createdAt"`
}

// Module is a part of a Course.
type Module struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Order int    `json:"order"`
}

const prose = "What a ledger is, why nobody has to be trusted with it, and what it costs to agree. "

// CourseOf returns the course with the given identity.
func CourseOf(id uuid.UUID) *Course {
	c := &Course{
		ID:          id.String(),
		Title:       "Consensus from first principles",
		Description: strings.Repeat(prose, 5),
		Difficulty:  "intermediate",
		IsActive:    true,
		Enrolled:    int(id[0]),
		ContentHash: fmt.Sprintf("%x", id),
		CreatedAt:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	for i := range 5 {
		c.Modules = append(c.Modules, Module{
			ID:    fmt.Sprintf("module-%d", i+1),
			Title: "Messages that arrive late, twice or never",
			Order: i + 1,
		})
	}
	return c
}

// EncodedCourse returns the course as JSON.
func EncodedCourse(id uuid.UUID) []byte {
	b, err := json.Marshal(CourseOf(id))
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return b
}

// Bytes returns size bytes that compress about as well as JSON of prose does.
func Bytes(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields(prose)
	b := make([]byte, 0, size+16)
	for len(b) < size {
		b = append(b, words[r.IntN(len(words))]...)
		b = append(b, '"', byte('0'+r.IntN(10)), byte('0'+r.IntN(10)), ',')
	}
	return b[:size]
}

// Distribution says how often each key is asked for.
type Distribution string

// The distributions.
const (
	Zipf    Distribution = "zipf"    // exponent 0.99: a few keys take most of the requests
	Uniform Distribution = "uniform" // all alike
)

const zipfExponent = 0.99

// Sequence returns length key numbers below n, in the order in which they are asked for.
// It is made beforehand so that drawing takes no part in what is measured. The hot
// keys of Zipf are spread over the numbers.
func Sequence(d Distribution, n, length int) []uint32 {
	r := rand.New(rand.NewPCG(uint64(n), uint64(length)))
	sequence := make([]uint32, length)
	if d == Uniform {
		for i := range sequence {
			sequence[i] = uint32(r.IntN(n))
		}
		return sequence
	}
	cumulated := make([]float64, n)
	sum := 0.0
	for rank := range cumulated {
		sum += 1 / math.Pow(float64(rank+1), zipfExponent)
		cumulated[rank] = sum
	}
	spread := r.Perm(n)
	for i := range sequence {
		rank, _ := slices.BinarySearch(cumulated, r.Float64()*sum)
		sequence[i] = uint32(spread[min(rank, n-1)])
	}
	return sequence
}
