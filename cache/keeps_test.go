package cache_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

type (
	lossyHidden struct {
		ID    int
		price int
	}
	lossyDash struct {
		ID     int
		Secret string `json:"-"`
	}
	lossyAny     struct{ Extra any }
	lossyError   struct{ Err error }
	lossyFunc    struct{ F func() }
	lossyChan    struct{ C chan int }
	lossyComplex struct{ C complex128 }
	lossyTwice   struct {
		A int
		B int `json:"A"`
	}
	lossyBase   struct{ Name string }
	lossyShadow struct {
		lossyBase
		Name string
	}
	lossyEmbeddedPointer struct {
		*lossyBase
		ID int
	}
	lossyEmbeddedText struct {
		lossyText
		ID int
	}
	lossyText     string
	lossyKey      struct{ M map[lossyBase]int }
	lossyBoolKey  struct{ M map[bool]int }
	lossyMarshal  struct{ M onlyMarshals }
	lossyMarshalT struct{ M onlyMarshalsText }
	lossyPromoted struct{ Event eventAt }
	lossyBig      struct{ Amount big.Int }
	lossyBigInMap struct{ Amounts map[string]big.Int }
	lossyDeep     struct{ Pages []map[string]*[2]lossyHidden }
	lossyTree     struct {
		Left, Right *lossyTree
		Value       any
	}
	lossyIfaceSlice []fmt.Stringer

	onlyMarshals     struct{ X int }
	onlyMarshalsText struct{ X int }

	// The MarshalJSON of the time is promoted: it writes the time and nothing else.
	eventAt struct {
		time.Time
		Name string
	}
)

func (onlyMarshals) MarshalJSON() ([]byte, error)     { return []byte(`"x"`), nil }
func (onlyMarshalsText) MarshalText() ([]byte, error) { return []byte("x"), nil }

type (
	keptUUID [16]byte
	keptText struct{ hidden int }
	keptOwn  struct{ hidden int }
	keptBase struct {
		ID   int
		Next *keptBase
	}
	keptDay  struct{ time.Time } // its whole content is the time
	keptOver struct {            // says itself how it is written
		time.Time
		Name string
	}
	kept struct {
		keptBase
		*KeptPointer
		Time     time.Time
		Times    []*time.Time
		Raw      json.RawMessage
		Number   json.Number
		NullS    sql.NullString
		NullT    sql.NullTime
		NullG    sql.Null[int64]
		Big      *big.Int
		Bigs     []big.Int
		Text     keptText
		Own      map[int8]keptOwn
		ByText   map[keptKey]string
		UUID     keptUUID
		Bytes    []byte
		Addr     netip.Addr
		Duration time.Duration
		Quoted   int64  `json:",string"`
		Name     string `json:"renamed,omitempty"`
		Dash     string `json:"-,"`
		Day      keptDay
		Over     keptOver
		Float    float32
		Anon     struct{ A, B bool }
		_        [0]func()
		none     struct{}
	}
	KeptPointer struct{ Deep string }
	keptKey     struct{ a, b byte }
)

func (keptText) MarshalText() ([]byte, error)  { return []byte("x"), nil }
func (*keptText) UnmarshalText([]byte) error   { return nil }
func (keptOwn) MarshalJSON() ([]byte, error)   { return []byte("{}"), nil }
func (*keptOwn) UnmarshalJSON([]byte) error    { return nil }
func (keptKey) MarshalText() ([]byte, error)   { return []byte("x"), nil }
func (*keptKey) UnmarshalText([]byte) error    { return nil }
func (keptUUID) MarshalText() ([]byte, error)  { return []byte("x"), nil }
func (*keptUUID) UnmarshalText([]byte) error   { return nil }
func (*keptOver) UnmarshalJSON(b []byte) error { return nil }
func (k keptOver) MarshalJSON() ([]byte, error) {
	return []byte(`{}`), nil
}

// defineV defines a query with answers of a type, and returns what Define says against it.
func defineV[V any](t *testing.T, codec cache.Codec[V]) string {
	t.Helper()
	c := newCache(t)
	return panicOf(func() {
		cache.Define(c.Cache, cache.Query[int, V]{
			Name: "any:thing", FreshFor: time.Minute, Codec: codec,
			Tags: func(id int) []cache.Tag { return cache.Tags("thing", id) },
			Load: func(context.Context, int) (v V, err error) { return v, nil },
		})
	})
}

func TestDefineRefusesWhatJSONLoses(t *testing.T) {
	for _, test := range []struct {
		message string
		want    []string
	}{
		{defineV[lossyHidden](t, nil), []string{"lossyHidden.price is not exported", "cache.JSON[cache_test.lossyHidden]{}"}},
		{defineV[*lossyHidden](t, nil), []string{"lossyHidden.price is not exported"}},
		{defineV[lossyDash](t, nil), []string{`lossyDash.Secret is tagged json:"-"`}},
		{defineV[lossyAny](t, nil), []string{"lossyAny.Extra is of type interface {}", "another type"}},
		{defineV[any](t, nil), []string{"is of type interface {}"}},
		{defineV[lossyError](t, nil), []string{"lossyError.Err is of type error", "cannot be decoded"}},
		{defineV[lossyIfaceSlice](t, nil), []string{"lossyIfaceSlice[] is of type fmt.Stringer"}},
		{defineV[lossyFunc](t, nil), []string{"lossyFunc.F is of type func()"}},
		{defineV[lossyChan](t, nil), []string{"lossyChan.C is of type chan int"}},
		{defineV[lossyComplex](t, nil), []string{"lossyComplex.C is of type complex128"}},
		{defineV[lossyTwice](t, nil), []string{"lossyTwice.A and lossyTwice.B", `"A"`}},
		{defineV[lossyShadow](t, nil), []string{"lossyShadow.lossyBase.Name and lossyShadow.Name", `"Name"`}},
		{defineV[lossyEmbeddedPointer](t, nil), []string{"lossyEmbeddedPointer.lossyBase", "embedded pointer"}},
		{defineV[lossyEmbeddedText](t, nil), []string{"lossyEmbeddedText.lossyText is not exported"}},
		{defineV[lossyKey](t, nil), []string{"lossyKey.M has keys of type cache_test.lossyBase"}},
		{defineV[lossyBoolKey](t, nil), []string{"lossyBoolKey.M has keys of type bool"}},
		{defineV[lossyMarshal](t, nil), []string{"lossyMarshal.M", "MarshalJSON and no UnmarshalJSON"}},
		{defineV[lossyMarshalT](t, nil), []string{"lossyMarshalT.M", "MarshalText and no UnmarshalText"}},
		{defineV[lossyPromoted](t, nil), []string{"lossyPromoted.Event", "MarshalJSON of an embedded field", "Name"}},
		{defineV[lossyBig](t, nil), []string{"lossyBig.Amount", "pointer", "*big.Int"}},
		{defineV[lossyBigInMap](t, nil), []string{"lossyBigInMap.Amounts[]", "pointer"}},
		{defineV[lossyDeep](t, nil), []string{"lossyDeep.Pages[][][].price"}},
		{defineV[lossyTree](t, nil), []string{"lossyTree.Value is of type interface"}},
		{defineV[map[string]url.URL](t, nil), []string{"User.username is not exported", "User.password"}},
	} {
		for _, want := range test.want {
			if !strings.Contains(test.message, want) {
				t.Errorf("Define says %q, want it to say %q", test.message, want)
			}
		}
	}
}

func TestDefineAcceptsWhatJSONKeeps(t *testing.T) {
	for name, message := range map[string]string{
		"kept":      defineV[kept](t, nil),
		"pointer":   defineV[*kept](t, nil),
		"many":      defineV[map[string][]kept](t, nil),
		"string":    defineV[string](t, nil),
		"bytes":     defineV[[]byte](t, nil),
		"empty":     defineV[struct{}](t, nil),
		"time":      defineV[time.Time](t, nil),
		"raw":       defineV[json.RawMessage](t, nil),
		"said so":   defineV(t, cache.Codec[lossyHidden](cache.JSON[lossyHidden]{})),
		"a pointer": defineV[*big.Int](t, nil),
	} {
		if message != "" {
			t.Errorf("%s is refused: %s", name, message)
		}
	}
}

// What is refused is indeed lost, and what is accepted comes back.
func TestJSONLosesWhatIsRefused(t *testing.T) {
	trip := func(v any, back any) string {
		b, err := json.Marshal(v)
		if err != nil {
			return err.Error()
		}
		if err := json.Unmarshal(b, back); err != nil {
			return err.Error()
		}
		return string(b)
	}
	var b lossyBig
	if got := trip(lossyBig{*big.NewInt(7)}, &b); b.Amount.Int64() == 7 {
		t.Errorf("big.Int by value: %s is kept", got)
	}
	var e eventAt
	if got := trip(eventAt{time.Now(), "launch"}, &e); e.Name != "" {
		t.Errorf("promoted: %s is kept", got)
	}
	var p lossyEmbeddedPointer
	if trip(lossyEmbeddedPointer{&lossyBase{"x"}, 1}, &p); p.lossyBase != nil {
		t.Error("embedded pointer: it is kept")
	}
	bigs := []big.Int{*big.NewInt(7)}
	var back []big.Int
	if got := trip(bigs, &back); len(back) != 1 || back[0].Int64() != 7 {
		t.Errorf("elements of a slice: %s is not kept", got)
	}
}
