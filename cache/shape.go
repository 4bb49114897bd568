package cache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Two programs that share a store, or two releases of one, must mean the same by the name of
// a query: one decodes what the other stored, and JSON decodes nearly anything into nearly
// anything. So Check keeps a record in the store for each query, of the shapes that its
// answers had lately:
//
//	this release                    store                     another release
//	Check: nothing is there         []
//	leave {shape 1, now}            [1]
//	                                [1]    <----------------  Check: 1 is not mine, a Finding
//	                                [1 2]  <----------------  leave {shape 2, now}
//	Check: 2 is not mine, a Finding [1 2]
//
// Reading and leaving are two calls: of two that check at the same moment one may overwrite
// the record of the other, which is back with the other's next Check. Neither misses it for
// longer, as long as both check again.

const (
	definedNamespace = "define"
	// shapeLife is how long a program that no longer checks is compared with: longer than
	// releases overlap, and than most entries live.
	shapeLife = 24 * time.Hour
	maxShapes = 16  // of one query, the latest
	maxLines  = 200 // of one shape that are kept, for saying what differs
)

// recordedShape is what one program stores under a query's keys.
type recordedShape struct {
	Hash    string    `json:"hash"` // of everything that matters
	Type    string    `json:"type"` // for people, like all that follows
	Codec   string    `json:"codec"`
	Lines   []string  `json:"lines"`
	Program string    `json:"program"`
	Seen    time.Time `json:"seen"`
}

func newRecordedShape[V any](t reflect.Type, codec Codec[V]) recordedShape {
	r := recordedShape{Type: typeName(t), Codec: typeName(reflect.TypeOf(codec)), Program: program()}
	_, isJSON := any(codec).(JSON[V])
	if isJSON {
		r.Codec = "JSON"
	}
	r.Lines = shapeOf(t, isJSON)
	sum := sha256.Sum256([]byte(r.Codec + "\n" + strings.Join(r.Lines, "\n")))
	r.Hash = hex.EncodeToString(sum[:16])
	r.Lines = r.Lines[:min(len(r.Lines), maxLines)]
	return r
}

// program names this program, for people.
func program() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Path != "" && info.Path != "command-line-arguments" {
		return info.Path
	}
	return filepath.Base(os.Args[0])
}

// typeName is the name of a type without the path of its package, which differs between
// versions of a module.
func typeName(t reflect.Type) string { return paths.ReplaceAllString(t.String(), "") }

var paths = regexp.MustCompile(`[^\s\[\],*]*/`)

// shapeOf describes a type in lines: "Items[].Price int". For JSON the names are those in JSON,
// and what it does not write does not count.
func shapeOf(t reflect.Type, isJSON bool) (lines []string) {
	var walk func(t reflect.Type, path string, within []reflect.Type)
	walk = func(t reflect.Type, path string, within []reflect.Type) {
		p := reflect.PointerTo(t)
		own := t.Kind() != reflect.Pointer && (p.Implements(jsonMarshaler) || p.Implements(textMarshaler))
		switch {
		case own || slices.Contains(within, t):
			lines = append(lines, path+" "+typeName(t))
			return
		case t.Kind() == reflect.Pointer, t.Kind() == reflect.Slice, t.Kind() == reflect.Array:
			suffix := map[reflect.Kind]string{reflect.Pointer: "", reflect.Slice: "[]", reflect.Array: fmt.Sprintf("[%d]", arrayLen(t))}
			walk(t.Elem(), path+suffix[t.Kind()], append(within, t))
			return
		case t.Kind() == reflect.Map:
			walk(t.Elem(), path+"["+t.Key().Kind().String()+"]", append(within, t))
			return
		case t.Kind() != reflect.Struct:
			lines = append(lines, path+" "+t.Kind().String())
			return
		}
		lines = append(lines, path+" struct")
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if isJSON && (f.Tag.Get("json") == "-" || !f.IsExported() && !f.Anonymous) {
				continue
			}
			if !isJSON {
				name = f.Name
			}
			at := strings.TrimPrefix(path+"."+cmp.Or(name, f.Name), ".")
			if isJSON && f.Anonymous && name == "" {
				at = path // its fields are the struct's own
			}
			walk(f.Type, at, append(within, t))
		}
	}
	walk(t, "", nil)
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

func arrayLen(t reflect.Type) int {
	if t.Kind() == reflect.Array {
		return t.Len()
	}
	return 0
}

// compareShapes finds the definitions of others in the records, and leaves those of this
// program beside them.
func (c *Cache) compareShapes(ctx context.Context, declared []declaration, entries [][]byte) ([]Finding, error) {
	now := time.Now()
	var findings []Finding
	fills := make([]driver.Fill, len(declared))
	for i, d := range declared {
		var shapes []recordedShape
		if json.Unmarshal(entries[i], &shapes) != nil {
			shapes = nil // absent, or of a release that wrote something else
		}
		shapes = slices.DeleteFunc(shapes, func(s recordedShape) bool {
			return s.Hash == d.shape.Hash || now.Sub(s.Seen) > shapeLife
		})
		for _, s := range shapes {
			findings = append(findings, Finding{
				Subject: d.subject(),
				Problem: fmt.Sprintf("the store has another definition of it, by %s %v ago: %s", s.Program, now.Sub(s.Seen).Round(time.Second), differenceOf(d.shape, s)),
				Remedy:  "raise its Revision if that is another release, or give one of the two programs another prefix in the store, or one of the queries another name",
			})
		}
		own := d.shape
		own.Seen = now
		shapes = append([]recordedShape{own}, shapes...)
		entry, err := json.Marshal(shapes[:min(len(shapes), maxShapes)])
		if err != nil {
			return findings, err
		}
		fills[i] = driver.Fill{Key: d.key, Token: driver.Token(driver.NewVersion()), Entry: entry, Life: shapeLife}
	}
	if len(fills) == 0 {
		return findings, nil
	}
	_, err := c.settle(ctx, fills)
	return findings, err
}

// differenceOf says in what two definitions differ.
func differenceOf(here, there recordedShape) string {
	if here.Codec != there.Codec {
		return fmt.Sprintf("%s by the codec %s here, %s by the codec %s there", here.Type, here.Codec, there.Type, there.Codec)
	}
	only := func(a, b recordedShape) string {
		for _, line := range a.Lines {
			if !slices.Contains(b.Lines, line) {
				return line
			}
		}
		return "nothing else"
	}
	return fmt.Sprintf("%s with %s here, %s with %s there", here.Type, only(here, there), there.Type, only(there, here))
}
