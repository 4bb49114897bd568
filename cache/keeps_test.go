package cache_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
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

// A query of each of these types would make the compiler instantiate the whole library for it.
func lossesOf[V any]() string { return strings.Join(cache.JSONLosses(reflect.TypeFor[V]()), "\n") }

func TestWhatJSONLoses(t *testing.T) {
	for _, test := range []struct {
		losses string
		want   []string
	}{
		{lossesOf[lossyHidden](), []string{"lossyHidden.price is not exported"}},
		{lossesOf[*lossyHidden](), []string{"lossyHidden.price is not exported"}},
		{lossesOf[lossyDash](), []string{`lossyDash.Secret is tagged json:"-"`}},
		{lossesOf[lossyAny](), []string{"lossyAny.Extra is of type interface {}", "another type"}},
		{lossesOf[any](), []string{"is of type interface {}"}},
		{lossesOf[lossyError](), []string{"lossyError.Err is of type error", "cannot be decoded"}},
		{lossesOf[lossyIfaceSlice](), []string{"lossyIfaceSlice[] is of type fmt.Stringer"}},
		{lossesOf[lossyFunc](), []string{"lossyFunc.F is of type func()"}},
		{lossesOf[lossyChan](), []string{"lossyChan.C is of type chan int"}},
		{lossesOf[lossyComplex](), []string{"lossyComplex.C is of type complex128"}},
		{lossesOf[lossyTwice](), []string{"lossyTwice.A and lossyTwice.B", `"A"`}},
		{lossesOf[lossyShadow](), []string{"lossyShadow.lossyBase.Name and lossyShadow.Name", `"Name"`}},
		{lossesOf[lossyEmbeddedPointer](), []string{"lossyEmbeddedPointer.lossyBase", "embedded pointer"}},
		{lossesOf[lossyEmbeddedText](), []string{"lossyEmbeddedText.lossyText is not exported"}},
		{lossesOf[lossyKey](), []string{"lossyKey.M has keys of type cache_test.lossyBase"}},
		{lossesOf[lossyBoolKey](), []string{"lossyBoolKey.M has keys of type bool"}},
		{lossesOf[lossyMarshal](), []string{"lossyMarshal.M", "MarshalJSON and no UnmarshalJSON"}},
		{lossesOf[lossyMarshalT](), []string{"lossyMarshalT.M", "MarshalText and no UnmarshalText"}},
		{lossesOf[lossyPromoted](), []string{"lossyPromoted.Event", "MarshalJSON of an embedded field", "Name"}},
		{lossesOf[lossyBig](), []string{"lossyBig.Amount", "pointer", "*big.Int"}},
		{lossesOf[lossyBigInMap](), []string{"lossyBigInMap.Amounts[]", "pointer"}},
		{lossesOf[lossyDeep](), []string{"lossyDeep.Pages[][][].price"}},
		{lossesOf[lossyTree](), []string{"lossyTree.Value is of type interface"}},
		{lossesOf[map[string]url.URL](), []string{"User.username is not exported", "User.password"}},
	} {
		for _, want := range test.want {
			if !strings.Contains(test.losses, want) {
				t.Errorf("lost is %q, want it to say %q", test.losses, want)
			}
		}
	}
}

func TestWhatJSONKeeps(t *testing.T) {
	for _, losses := range []string{
		lossesOf[kept](), lossesOf[*kept](), lossesOf[map[string][]kept](), lossesOf[string](), lossesOf[[]byte](),
		lossesOf[struct{}](), lossesOf[time.Time](), lossesOf[json.RawMessage](), lossesOf[*big.Int](),
	} {
		if losses != "" {
			t.Errorf("it is refused: %s", losses)
		}
	}
}

func TestDefineRefusesWhatJSONLoses(t *testing.T) {
	message := defineV[lossyHidden](t, nil)
	for _, want := range []string{"Codec is nil", "lossyHidden.price is not exported", "cache.JSON[cache_test.lossyHidden]{}"} {
		if !strings.Contains(message, want) {
			t.Errorf("Define says %q, want it to say %q", message, want)
		}
	}
	if message := defineV(t, cache.Codec[lossyHidden](cache.JSON[lossyHidden]{})); message != "" {
		t.Errorf("a codec that was set by hand is refused: %s", message)
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
