package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Finding is something in the way a program is put together that makes its answers wrong, or
// may: see Cache.Check.
type Finding struct {
	Subject string // what it is about: "query shop:product", "table prices", "store"
	Problem string
	Remedy  string
	// Notice says that nothing need be wrong: a person should know of it. The others are
	// for a person to mend.
	Notice bool
}

func (f Finding) String() string { return f.Subject + ": " + f.Problem + ": " + f.Remedy }

// Source is what answers are loaded from and what records which tags its writes touch, as
// Cache.Check sees it: a database with an outbox. Its methods must be safe for concurrent use.
// A Source may be a Tracer and a DryRunner too.
type Source interface {
	// Kinds returns the kinds of the tags that writes of the source record: the words
	// before the first colon.
	Kinds(ctx context.Context) ([]string, error)
	// Check returns what is wrong with the source: a missing trigger, no relay, an old
	// schema. The error says that it could not find out.
	Check(ctx context.Context) ([]Finding, error)
}

// Tracer is a Source that sees what a loader reads. cachetest.Verify then demands that every
// table that is read is watched.
type Tracer interface {
	// Tables returns the names of the tables that read asks for while it runs, under the
	// context that it is given.
	Tables(ctx context.Context, read func(context.Context) error) ([]string, error)
	// Watched returns the names of the tables whose changes are recorded, spelled as those of
	// Tables.
	Watched(ctx context.Context) ([]string, error)
}

// DryRunner is a Source that tells which tags a change of the rows of a table touches.
// cachetest.Verify then demands that a change of what an answer is loaded from touches a tag of
// the answer.
type DryRunner interface {
	// Watched returns the names of the tables whose changes are recorded, as that of a Tracer.
	Watched(ctx context.Context) ([]string, error)
	// DryRun returns what changes of the rows that a watched table has now would record. It
	// changes nothing that others see, leaves nothing behind, and holds locks for the time of a
	// few statements.
	DryRun(ctx context.Context, table string) (DryRun, error)
}

// DryRun is what a DryRunner says of a table.
type DryRun struct {
	Tags []Tag // distinct; of each row by some change of it, whichever event its template is for
	Rows int   // that were looked at
	More bool  // there are more rows or more tags than were looked at
}

// InvalidatedByHand is a Source of tags that the program itself names, with
// Cache.Invalidate or with a call of its outbox, so that no watch has a template of their kind.
func InvalidatedByHand(kinds ...string) Source { return byHand(kinds) }

type byHand []string

func (b byHand) Kinds(context.Context) ([]string, error) { return b, nil }
func (byHand) Check(context.Context) ([]Finding, error)  { return nil, nil }

// Check looks for mistakes that no single line of a program shows, and that are silent
// otherwise:
//
//   - a query reads tags of a kind that no source records, such as a misspelt one or that of
//     a table which is not watched. A query's kinds are those of the answers it was asked for
//     so far, of what it keeps warm, and of the zero parameter (unless its Tags panics for
//     that one). Without sources, kinds are not judged.
//   - a query has answers without tags: no write ends them.
//   - another definition of a query is in the store, with another shape of V or another
//     codec: another release without another Revision, or another program with the same
//     prefix. Each decodes what the other stored. To find that out, Check leaves a record
//     of each query in the store, for a day: only programs that call it see each other.
//   - the store does not answer.
//   - whatever the sources find in themselves.
//
// A kind that is recorded and that no query reads is a Notice: another program may read it.
//
// The findings come in the order of definition, those of the sources last. The error, which
// may come with findings, says what could not be judged: a source that failed, a query
// whose Warm failed, the cause of ctx. It is ErrClosed after Close. Check takes the time
// of a few calls, or a second if the store is away; call it when the program has started,
// in a command for operators, and in tests (see cachetest.Verify). Safe for concurrent use.
func (c *Cache) Check(ctx context.Context, sources ...Source) ([]Finding, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	c.mu.Lock()
	defined := c.defined
	c.mu.Unlock()
	var errs []error
	declared := make([]declaration, len(defined))
	for i, d := range defined {
		var err error
		declared[i], err = d.declare(ctx)
		errs = append(errs, err)
	}

	findings := c.checkStore(ctx, declared)
	for _, d := range declared {
		if d.none {
			findings = append(findings, Finding{
				Subject: d.subject(),
				Problem: "it has answers with no tags, which no write ends before their time is over",
				Remedy:  "return from Tags what the answer depends on",
			})
		}
	}
	if len(sources) > 0 {
		recorded, err := kindsOf(ctx, sources)
		errs = append(errs, err)
		if err == nil {
			findings = append(findings, compareKinds(declared, recorded)...)
		}
	}
	for _, s := range sources {
		found, err := checkSource(ctx, s)
		findings = append(findings, found...)
		if err != nil {
			errs = append(errs, fmt.Errorf("check of a %T: %w", s, err))
		}
	}
	if ctx.Err() != nil {
		return findings, context.Cause(ctx)
	}
	return findings, errors.Join(errs...)
}

func kindsOf(ctx context.Context, sources []Source) (map[string]bool, error) {
	recorded := map[string]bool{}
	for _, s := range sources {
		kinds, err := kindsOfSource(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("kinds of a %T: %w", s, err)
		}
		for _, kind := range kinds {
			recorded[kind] = true
		}
	}
	return recorded, nil
}

func checkSource(ctx context.Context, s Source) (found []Finding, err error) {
	defer caught("Source.Check", &err)
	found, err = s.Check(ctx)
	return found, usable(err)
}

func kindsOfSource(ctx context.Context, s Source) (kinds []string, err error) {
	defer caught("Source.Kinds", &err)
	kinds, err = s.Kinds(ctx)
	return kinds, usable(err)
}

func compareKinds(declared []declaration, recorded map[string]bool) (findings []Finding) {
	read, all := map[string]bool{}, true
	for _, d := range declared {
		if d.unknown {
			all = false
			findings = append(findings, Finding{
				Subject: d.subject(),
				Problem: "its tags are not known: nothing was asked for yet, and Tags does not take the zero parameter",
				Remedy:  "check again when it has been asked",
				Notice:  true,
			})
		}
		all = all && !d.partly
		for _, kind := range d.kinds {
			read[kind] = true
			if !recorded[kind] {
				findings = append(findings, Finding{
					Subject: d.subject(),
					Problem: fmt.Sprintf("it reads tags of kind %s, which no source records (%s), so that no write ends its answers", kind, list(recorded)),
					Remedy:  "spell the kind as the watch does, watch the table, or name it in InvalidatedByHand if the program invalidates it itself",
				})
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(recorded)) {
		if all && !read[kind] {
			findings = append(findings, Finding{
				Subject: "kind " + kind,
				Problem: "a source records it, and no query of this program reads it",
				Remedy:  "remove the template, unless another program reads it",
				Notice:  true,
			})
		}
	}
	return findings
}

// list names what is in a set, some of it.
func list(set map[string]bool) string {
	names := slices.Sorted(maps.Keys(set))
	switch {
	case len(names) == 0:
		return "none is recorded"
	case len(names) > 10:
		names = append(names[:10], "…")
	}
	return "recorded are " + strings.Join(names, ", ")
}

// definition is a defined query without its types.
type definition interface {
	warm(ctx context.Context) error
	declare(ctx context.Context) (declaration, error)
	info() QueryInfo
	inspect(ctx context.Context, params []byte) (Inspection, error)
}

// declaration is what a query says of itself, and what was seen of it.
type declaration struct {
	name    string
	key     string   // of the record in the store
	kinds   []string // sorted
	unknown bool     // nothing is known of its kinds
	partly  bool     // there are more kinds
	none    bool     // it has answers without tags
	shape   recordedShape
}

func (d declaration) subject() string { return "query " + d.name }

// mostWarm bounds the parameters of Warm whose tags are looked at.
const mostWarm = 1000

func (d *Cached[P, V]) declare(ctx context.Context) (declaration, error) {
	said := declaration{
		name: d.q.Name, key: definedNamespace + ":" + strings.TrimSuffix(d.prefix, ":"),
		shape: newRecordedShape(reflect.TypeFor[V](), d.q.Codec),
	}
	var seen seenKinds
	for _, kind := range d.seen.kinds() {
		seen.add(kind)
	}
	said.none, said.partly = d.seen.none.Load(), d.seen.more.Load()

	// ask looks at the tags of one parameter, and says whether there were any.
	ask := func(p P) (asked, some bool) {
		tags, err := d.ownTags(p)
		if err != nil || checkTags(tags) != nil {
			return false, false // the caller that asks for it is told
		}
		if len(tags) > 0 {
			seen.note(tags)
		}
		return true, len(tags) > 0
	}
	warm, err := d.warmParameters(ctx)
	if err != nil {
		err = fmt.Errorf("check %s: %w", d.q.Name, err)
	}
	for _, p := range warm[:min(len(warm), mostWarm)] {
		if asked, some := ask(p); asked && !some {
			said.none = true
		}
	}
	used := len(seen.list()) > 0 || said.none // by parameters that are asked for
	var zero P
	asked, some := ask(zero)
	if !used {
		said.none, said.unknown = asked && !some, !asked
	}
	said.partly = said.partly || seen.more.Load()
	said.kinds = slices.DeleteFunc(slices.Sorted(slices.Values(seen.kinds())), func(kind string) bool {
		return kind == string(Everything) // every write may bump it
	})
	return said, err
}

// storeTries times storePause is how long Check waits for a store that is away: what has just
// begun, or was just lost, is usually back by then.
const (
	storeTries = 10
	storePause = 100 * time.Millisecond
)

// checkStore compares the definitions with those that others left in the store, and leaves
// those of this program.
func (c *Cache) checkStore(ctx context.Context, declared []declaration) []Finding {
	keys := make([]string, len(declared))
	for i, d := range declared {
		keys[i] = d.key
	}
	entries, err := c.readRecords(ctx, keys)
	for try := 1; err != nil && try < storeTries && pause(ctx, storePause); try++ {
		entries, err = c.readRecords(ctx, keys)
	}
	var findings []Finding
	if err == nil {
		findings, err = c.compareShapes(ctx, declared, entries)
	}
	if err != nil {
		if why := c.Health().Err; errors.Is(err, ErrUnavailable) && why != nil {
			err = why
		}
		findings = append(findings, Finding{
			Subject: "store",
			Problem: fmt.Sprintf("it cannot be used (%v): every answer comes from the source", err),
			Remedy:  "see that it runs, that its address is right, and that this program may read and write there",
		})
	}
	return findings
}

func (c *Cache) readRecords(ctx context.Context, keys []string) ([][]byte, error) {
	snapshot, err := c.read(ctx, nil, keys, 0)
	return snapshot.Entries, err
}
