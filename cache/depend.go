package cache

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Tags that a load names, with DependOn.
//
// What an answer depends on is often known only when it has been loaded: each product that a
// listing shows, the author of an article. Then the versions of its tags cannot all be from before
// its load, which is what the guard rests on. Three rules keep such answers as exact as others.
//
// A load runs under the versions of the tags that the load before it named. They are read with the
// entry. If the load names the same ones, or some of them, it is stored under their versions. If it
// names another one, whose version was not read, it is repeated once, under that version too:
//
//	loader                               writer
//	read versions: shelf:3
//	SELECT products of shelf 3  -> 7
//	DependOn product:7
//	                                     UPDATE product 7, COMMIT, bump product:7
//	read versions: shelf:3, product:7    (read before the load, this one would be the old one)
//	SELECT products of shelf 3  -> 7
//	DependOn product:7: its version is from before this load
//	store under shelf:3, product:7
//
// If the second run names yet another one, its answer is given to its callers and not stored.
//
// A caller joins a load only if nothing that the load depends on can have been written since it
// began. A caller that comes while a load runs has seen the versions of the tags that were known. So
// a load that names others answers no caller: those that came while it ran wait for its repetition,
// which begins after they came, and which no caller can join any more. The same holds for its failure.
//
// An entry carries the tags that its load named, and its guard digests their versions too. A
// reader whose process does not know of them reads the versions once more, with theirs, before it
// judges the entry; then the process remembers them. So a hit is one round trip when the process
// remembers, and two otherwise.
// Decision 49.

// DependOn says, inside Load or LoadMany, that the answer depends on tags as well as on those of
// Query.Tags: of what was found while it was loaded. Inside LoadMany it is said of each answer of
// the run; see Loaded.Tags for one of them. It may be called at any depth and on any goroutine
// of the load, with a context that comes from the load's; any other context has no load, and then
// nothing happens, so that a function may be used in both. If the load asks for another answer,
// that answer's tags are its own: name them again.
//
// A malformed tag is an error of the load. An answer with more than 1,000 tags is not stored. A call
// that comes after the load has returned is too late, and is logged.
func DependOn(ctx context.Context, tags ...Tag) {
	if s, _ := ctx.Value(saidKey{}).(*said); s != nil {
		s.dependOn(tags)
	}
}

// KeepFor says, inside Load or LoadMany, that the answer is fresh for d and not for FreshFor (or
// NotFound), such as the max-age of a response that it was made of. Below a millisecond it is not
// stored at all: a later caller has it loaded again. Of several calls the shortest
// counts. Where it may be called is said at DependOn.
func KeepFor(ctx context.Context, d time.Duration) {
	if s, _ := ctx.Value(saidKey{}).(*said); s != nil {
		s.keepFor(d)
	}
}

// CollectTags returns a context for a loader that is called without a cache, and a function that
// returns what DependOn has named under it so far, sorted, each once. It is for tests and for tools.
func CollectTags(ctx context.Context) (context.Context, func() []Tag) {
	s := &said{}
	return context.WithValue(ctx, saidKey{}, s), func() []Tag {
		named, _ := s.about(nil, nil, 0)
		return named
	}
}

type saidKey struct{}

// said is what a run of Load or LoadMany said of its answers.
type said struct {
	late func(what string) // tells of a call that came too late

	mu    sync.Mutex
	tags  map[Tag]bool
	keep  *time.Duration
	wrong error // the first malformed tag
	over  bool  // the answers have been made
}

func (s *said) dependOn(tags []Tag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		s.late(fmt.Sprintf("DependOn of %d tags", len(tags)))
		return
	}
	if s.tags == nil {
		s.tags = make(map[Tag]bool, len(tags))
	}
	for _, t := range tags {
		switch err := t.Check(); {
		case err != nil:
			s.wrong = cmp.Or(s.wrong, fmt.Errorf("DependOn: %w", err))
		case len(s.tags) <= mostTags: // one more than may be is enough to know
			s.tags[t] = true
		}
	}
}

func (s *said) keepFor(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		s.late("KeepFor")
		return
	}
	if s.keep == nil || d < *s.keep {
		s.keep = &d
	}
}

// finish returns the error of what was said, if there is one. Nothing can be said any more.
func (s *said) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	return s.wrong
}

// about returns what was said of an answer that depends on own anyway: by the run, and with its
// result.
func (s *said) about(own, more []Tag, keepFor time.Duration) (named []Tag, keep *time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if keep = s.keep; keepFor != 0 && (keep == nil || keepFor < *keep) {
		keep = &keepFor
	}
	if len(s.tags)+len(more) == 0 {
		return nil, keep
	}
	named = slices.AppendSeq(make([]Tag, 0, len(s.tags)+len(more)), maps.Keys(s.tags))
	named = append(named, more...)
	slices.Sort(named)
	named = slices.DeleteFunc(slices.Compact(named), func(t Tag) bool { return slices.Contains(own, t) })
	if len(named) == 0 {
		return nil, keep
	}
	return named, keep
}

// namedTags are the tags that the last load of an answer named, sorted, each once. nil is none.
type namedTags struct {
	tags    []Tag
	tooMany int // how many they were, if more than may be: then the answer is not stored
}

func (n *namedTags) list() []Tag {
	if n == nil {
		return nil
	}
	return n.tags
}

// mostRemembered bounds how many tags a query remembers of all its answers.
const mostRemembered = 1 << 18

// learnt is what a query remembers of the tags that loads of its answers named. Forgetting costs a
// round trip. It is made when the first load names one: most queries never do.
type learnt struct {
	table atomic.Pointer[otter.Cache[string, *namedTags]]
	once  sync.Once
}

func (l *learnt) get(key string) *namedTags {
	table := l.table.Load()
	if table == nil {
		return nil
	}
	n, _ := table.GetIfPresent(key)
	return n
}

// remember keeps what a load of an answer named, or its entry carries.
func (d *Cached[P, V]) remember(r *request[P], named []Tag, tooMany int) {
	d.seen.noteAnswer(r.own, named)
	table := d.learnt.table.Load()
	if table == nil {
		if len(named) == 0 && tooMany == 0 {
			return
		}
		d.learnt.once.Do(func() { d.learnt.table.Store(newLearntTable(d.c)) })
		table = d.learnt.table.Load()
	}
	before, ok := table.GetIfPresent(r.key)
	switch {
	case len(named) == 0 && tooMany == 0:
		if ok {
			table.Invalidate(r.key)
		}
	case !ok || before.tooMany != tooMany || !slices.Equal(before.tags, named):
		table.Set(r.key, &namedTags{named, tooMany})
	}
}

func newLearntTable(c *Cache) *otter.Cache[string, *namedTags] {
	return otter.Must(&otter.Options[string, *namedTags]{
		MaximumWeight: mostRemembered,
		Weigher:       func(_ string, n *namedTags) uint32 { return uint32(1 + len(n.tags)) },
		Executor:      c.upkeep,
	})
}

// maxRereads bounds how often a reader adopts the tags of an entry that is being replaced all the
// time. Then it loads.
const maxRereads = 3

// naming returns the request with more tags, whose versions are to be read.
func (d *Cached[P, V]) naming(r *request[P], more []Tag) *request[P] {
	with := *r
	all := slices.Concat(r.named.list(), more)
	slices.Sort(all)
	with.named = &namedTags{tags: slices.Compact(all)}
	with.tags, with.states = d.seen.dependencies(with.own, with.named.tags), nil
	if d.near != nil {
		with.near = d.near.snapshot(with.tags)
	}
	return &with
}

// having returns the request with what was read of its tags, which is needed only if some of
// them were named.
func (r *request[P]) having(states []driver.TagState) *request[P] {
	if r.named == nil {
		return r
	}
	with := *r
	with.states = states
	return &with
}

// covers says whether the versions of the tags that a load named are among those of the request.
func (r *request[P]) covers(named []Tag) bool {
	known := r.named.list()
	if len(named) > len(known) {
		return false
	}
	for _, t := range named {
		if _, ok := slices.BinarySearch(known, t); !ok {
			return false
		}
	}
	return true
}

// guardFor returns the guard of an answer whose load named these tags, out of the versions that
// the request has read, whose guard is all. It returns false if one of them has not been read.
func (d *Cached[P, V]) guardFor(r *request[P], named []Tag, all driver.Guard) (driver.Guard, bool) {
	if slices.Equal(named, r.named.list()) {
		return all, true
	}
	if !r.covers(named) || r.states == nil {
		return driver.Guard{}, false
	}
	var read union
	read.add(r.tags)
	tags := d.seen.dependencies(r.own, named)
	return guardOf(tags, read.statesOf(tags, r.states)), true
}
