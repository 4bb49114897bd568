package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Query describes an answer once: what it is called, what distinguishes one from another,
// what it depends on, how to get it, and how long it keeps. P is what a caller asks with,
// and V the answer.
type Query[P comparable, V any] struct {
	// Decision 1.
	// Name is "namespace:query", such as "courses:list": the beginning of every key, and
	// the labels of the metrics. Lower-case letters, digits, and -._ only.
	Name string

	// Revision sets apart answers of another shape. Raise it when V changes such that old
	// stored answers would decode wrongly: two releases then share a store without
	// reading or overwriting each other's answers. Default 0, which adds nothing to keys.
	Revision int

	// Owner, for private answers, returns whom the answer belongs to. It becomes part of
	// the key, so that no mistake in Key can show one user's answer to another, and an
	// empty owner is refused. Default nil: the answer is everybody's.
	Owner func(P) string

	// Key returns what distinguishes the answer from others of the query; build it with
	// the function Key. Equal parameters must give equal keys, and parameters that ask for
	// different answers must not. A hash takes the place of a key of more than 1,024 bytes.
	// Default: the value of the parameter, with every field.
	Key func(P) string

	// Tags returns what the answer depends on, made with T, in a fixed order. Collections
	// are tags too: a list depends on rows that do not exist yet. The families of the
	// tags are added by the library. An answer with more than 1,000 is not stored: let it
	// depend on a collection instead.
	Tags func(P) []Tag

	// Load asks the source. Its context ends after LoadTimeout, and never because a
	// caller left. It holds none of the caller's values but those of ContextKeys: one load
	// serves many callers. What the answer depends on belongs into P. Load must read what is committed now: not inside a transaction begun
	// earlier, not from a replica that lags. It returns ErrNotFound (wrapped or not)
	// for what does not exist.
	Load func(context.Context, P) (V, error)

	// ContextKeys are the keys of context values that Load and LoadMany are to see, from the
	// caller that happens to begin the load, such as a logger. They must not change
	// the answer. Default: none.
	ContextKeys []any

	// LoadMany, if any, loads for GetMany what it finds missing, in one go: one Loaded for
	// each parameter, in order; at most 1,000 at a time. Default: one Load each, at the same time.
	LoadMany func(context.Context, []P) ([]Loaded[V], error)

	// FreshFor is how long an answer serves without question; each entry's is shortened by
	// up to a tenth, at random, so that entries stored together do not expire together.
	// Required, and at least 1 ms: stores keep times in milliseconds.
	FreshFor time.Duration

	// StaleWhileRevalidate is for how long after that an answer is served while it is being refreshed in
	// the background. Only time makes an answer stale: one that a write invalidated is
	// never served. Default 0.
	StaleWhileRevalidate time.Duration

	// StaleIfError is for how long after FreshFor an answer is served if it cannot be loaded
	// again. Default 0.
	StaleIfError time.Duration

	// Near, if not zero, also keeps answers in process, as values, and serves them without
	// asking the store while the store reports every change of their tags. A report takes
	// the time of a message, typically under 5 ms; Near is the worst case: when the
	// store has not proven for so long that nothing was missed, nothing near is served. This
	// process's own writes are seen at once. Values are shared by all callers: they must
	// not be changed. Default 0: every answer is checked in the store.
	//
	// A store in this process (memstore) reports a change before the call that makes it returns.
	// Its answers are kept as values unasked, and are as exact as what is read from it.
	Near time.Duration

	// NearStrict keeps answers in process, as values, like Near, and serves them as exactly as those
	// of the store: each read waits until the store has proven that nothing of what the answer
	// depends on has changed. That is one small call, which all reads of the process share, whatever
	// they ask for, and no value is sent or decoded. It needs a store that can (driver.Prover, as
	// redisstore is); with another, nothing is kept near. Near must be 0.
	NearStrict bool

	// NearSize bounds the answers kept as values in process, give or take a few that are on their
	// way out. An answer of more than 4 KiB, encoded, counts once for each 4 KiB. Default 10,000.
	NearSize int

	// NotFound is how long it is remembered that something does not exist. Default: FreshFor,
	// at most 10 seconds.
	NotFound time.Duration

	// LoadTimeout bounds one load. Default: the Cache's.
	LoadTimeout time.Duration

	// MaxLoads bounds the loads of this query that run at the same time in this process,
	// and MaxQueue those that wait for a place; a caller beyond gets an OverloadError. A load
	// that waits for answers it asks for itself does not count meanwhile, if it asks with its
	// context. The loads of one GetMany count as one caller.
	// Default 16 and 256.
	MaxLoads int
	MaxQueue int

	// Codec turns values into bytes and back. Default JSON[V], for types that it keeps:
	// Define refuses a V with fields that are not exported or tagged "-", interfaces, two
	// fields of one name, and whatever else encoding/json writes and does not read. A caller
	// that loads would have what no later caller gets. JSON[V]{} set here is taken for
	// "I know".
	Codec Codec[V]

	// Warm returns parameters whose answers are kept warm: loaded by Cache.Warm, and again
	// every WarmEvery (give or take a tenth), by one process of all. With WarmEvery
	// below four fifths of FreshFor plus
	// StaleWhileRevalidate they never go cold. Default: none.
	Warm      func(context.Context) ([]P, error)
	WarmEvery time.Duration
}

// Loaded is one result of LoadMany.
type Loaded[V any] struct {
	Value V
	Err   error // ErrNotFound (wrapped or not) for what does not exist

	// Tags are what this answer depends on besides those of Query.Tags and of DependOn.
	Tags []Tag
	// KeepFor is how long it is fresh; negative: it is not stored; 0: as KeepFor says, or the query.
	KeepFor time.Duration
}

const (
	resolution      = time.Millisecond // of the times in a store
	defaultNotFound = 10 * time.Second
	defaultMaxLoads = 16
	defaultMaxQueue = 256
)

func (q Query[P, V]) withDefaults(c Config) Query[P, V] {
	q.NotFound = cmp.Or(q.NotFound, min(q.FreshFor, defaultNotFound))
	q.LoadTimeout = cmp.Or(q.LoadTimeout, c.LoadTimeout)
	q.NearSize = cmp.Or(q.NearSize, defaultNearSize)
	q.MaxLoads = cmp.Or(q.MaxLoads, defaultMaxLoads)
	q.MaxQueue = cmp.Or(q.MaxQueue, defaultMaxQueue)
	q.Codec = cmp.Or(q.Codec, Codec[V](JSON[V]{}))
	if q.Key == nil {
		q.Key, _ = keyOfType[P]() // validate has looked at the error
	}
	return q
}

var queryName = regexp.MustCompile(`^[a-z0-9._-]+:[a-z0-9._-]+$`)

// Stores keep these beside the entries, under the same prefix.
var reservedNamespaces = []string{"tag", "lease", "told", "warm", partNamespace, definedNamespace}

func (q Query[P, V]) validate(keepsValues bool) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	namespace, _, _ := strings.Cut(q.Name, ":")
	if !queryName.MatchString(q.Name) {
		wrong(`Name is %q: must be "namespace:query" in lower-case letters, digits, and -._`, q.Name)
	} else if slices.Contains(reservedNamespaces, namespace) {
		wrong("Name is %q: the namespace %s belongs to the stores", q.Name, namespace)
	}
	if q.Key == nil {
		if _, err := keyOfType[P](); err != nil {
			wrong("%w", err)
		}
	} else if (q.Near > 0 || q.NearStrict) && !comparedByValue(reflect.TypeFor[P]()) {
		wrong("Near is %v and NearStrict %v, but %v is not compared by its value, as near answers are found by it: use a parameter without pointers and interfaces", q.Near, q.NearStrict, reflect.TypeFor[P]())
	}
	if q.Tags == nil {
		wrong("Tags is nil")
	}
	if q.Load == nil {
		wrong("Load is nil")
	}
	if q.Codec == nil {
		if losses := jsonLosses(reflect.TypeFor[V]()); len(losses) > 0 {
			wrong("Codec is nil, and JSON does not keep the answers:\n\t%s\nset a Codec that keeps them, or Codec: cache.JSON[%v]{} if what is lost does not matter", strings.Join(losses, "\n\t"), reflect.TypeFor[V]())
		}
	}
	if q.FreshFor < resolution {
		wrong("FreshFor is %v: must be at least %v", q.FreshFor, resolution)
	}
	if q.WarmEvery > 0 && q.WarmEvery < resolution {
		wrong("WarmEvery is %v: must be at least %v, or 0 for never", q.WarmEvery, resolution)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"StaleWhileRevalidate", q.StaleWhileRevalidate}, {"StaleIfError", q.StaleIfError}, {"NotFound", q.NotFound},
		{"LoadTimeout", q.LoadTimeout}, {"WarmEvery", q.WarmEvery}, {"Near", q.Near},
	} {
		if d.value < 0 {
			wrong("%s is negative: %v", d.field, d.value)
		}
	}
	for _, n := range []struct {
		field string
		value int
	}{{"Revision", q.Revision}, {"MaxLoads", q.MaxLoads}, {"MaxQueue", q.MaxQueue}, {"NearSize", q.NearSize}} {
		if n.value < 0 {
			wrong("%s is negative: %d", n.field, n.value)
		}
	}
	for i, key := range q.ContextKeys {
		if key == nil || !reflect.TypeOf(key).Comparable() {
			wrong("ContextKeys[%d] is of type %T, and no key of a context: use a type that can be compared", i, key)
		}
	}
	if q.Near > 0 && q.NearStrict {
		wrong("Near is %v and NearStrict is set: Near allows answers that are behind, NearStrict none; set one of them", q.Near)
	}
	if q.Near == 0 && !q.NearStrict && q.NearSize > 0 && !keepsValues {
		wrong("NearSize is %d, but Near is 0 and NearStrict is not set: nothing is kept near", q.NearSize)
	}
	if q.WarmEvery > 0 && q.Warm == nil {
		wrong("WarmEvery is %v, but Warm is nil", q.WarmEvery)
	}
	return errors.Join(errs...)
}

// Cached is a defined Query: ask it with Get, Lookup or GetMany. It is safe for concurrent use.
type Cached[P comparable, V any] struct {
	q        Query[P, V]
	c        *Cache
	prefix   string // name, revision if any, and a colon
	reads    reads[V]
	calls    calls[V]
	failures errorMemory
	near     *near[P, V] // nil if nothing is kept near
	loads    *admission
	observer QueryObserver // nil: none
	seen     seenKinds
	learnt   learnt
	size     atomic.Int64 // of what was loaded of late, encoded; see noteSize

	saidBytes, saidTags sync.Once // that an answer is too large
	saidLate            sync.Once // that a load said more after it had returned
}

// Define adds a query to c. It panics if the definition is malformed, naming everything
// that is wrong, or if c already has a query of the name: both are mistakes in the program.
func Define[P comparable, V any](c *Cache, q Query[P, V]) *Cached[P, V] {
	if err := q.validate(c.keepsValues()); err != nil {
		panic(fmt.Sprintf("cache: query %q: %v", q.Name, err))
	}
	q = q.withDefaults(c.cfg)
	d := &Cached[P, V]{q: q, c: c, prefix: q.Name + ":"}
	if q.Revision > 0 {
		d.prefix = q.Name + "@" + strconv.Itoa(q.Revision) + ":"
	}
	d.loads = newAdmission(q.Name, q.MaxLoads, q.MaxQueue, q.LoadTimeout)
	if c.cfg.Observer != nil {
		d.observer = c.cfg.Observer.Query(q.Name)
	}
	d.coalesceReads()
	if err := c.define(q.Name, d); err != nil {
		panic(fmt.Sprintf("cache: query %q: %v", q.Name, err))
	}
	strict := q.NearStrict && !c.keepsValues()
	switch {
	case strict && c.changes.prover == nil:
		c.cfg.Logger.Warn("near answers are off: this store does not prove that they are as of now", "query", q.Name)
	case strict || q.Near > 0 || c.keepsValues() && comparedByValue(reflect.TypeFor[P]()):
		d.near = newNear[P, V](c, q.Near, strict, q.NearSize)
		c.watch()
	}
	if q.Warm != nil && q.WarmEvery > 0 {
		c.start(d.keepWarm)
	}
	return d
}

// errNoOwner guards private answers against a caller that was not identified.
var errNoOwner = errors.New("private answer asked for without an owner")

// keyOf returns the whole key of an answer, without the store's prefix.
func (d *Cached[P, V]) keyOf(p P) (string, error) {
	key, err := d.buildKey(p)
	if err != nil {
		return "", fmt.Errorf("cache: key of query %q: %w", d.q.Name, err)
	}
	return key, nil
}

func (d *Cached[P, V]) buildKey(p P) (key string, err error) {
	defer caught("Key", &err)
	if d.q.Owner == nil {
		return d.boundedKey(d.prefix + d.q.Key(p)), nil
	}
	owner := d.q.Owner(p)
	if owner == "" {
		return "", errNoOwner
	}
	return d.boundedKey(d.prefix + Key(owner) + ":" + d.q.Key(p)), nil
}
