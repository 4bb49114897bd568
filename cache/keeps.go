package cache

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
)

// A value that JSON does not keep makes a cache lie without an error: the caller that loads
// has the whole value, and every later one gets what the encoding left of it. Nothing
// shows that at run time, so Define refuses the types for which it must happen.
//
// It judges types, not values. A string that is not UTF-8, a NaN, and an empty slice with
// omitempty are lost as well; cachetest.Verify finds those, in values that were loaded.

// jsonLosses returns what encoding/json does not keep of values of type t, one sentence for
// each place.
func jsonLosses(t reflect.Type) []string {
	w := jsonWalk{seen: map[jsonPlace]bool{}}
	root := t
	for root.Kind() == reflect.Pointer {
		root = root.Elem()
	}
	name, _, _ := strings.Cut(root.Name(), "[")
	w.walk(t, cmp.Or(name, "V"), false)
	return w.losses
}

var (
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// jsonPlace is a type where encoding/json can, or cannot, take its address: a method
// with a pointer receiver is called only where it can.
type jsonPlace struct {
	t           reflect.Type
	addressable bool
}

type jsonWalk struct {
	seen   map[jsonPlace]bool // a recursive type is walked once
	losses []string
}

func (w *jsonWalk) lost(path, format string, args ...any) {
	w.losses = append(w.losses, path+" "+fmt.Sprintf(format, args...))
}

func (w *jsonWalk) walk(t reflect.Type, path string, addressable bool) {
	if w.seen[jsonPlace{t, addressable}] {
		return
	}
	w.seen[jsonPlace{t, addressable}] = true
	if t.Kind() == reflect.Pointer { // its methods are those of what it points to
		w.walk(t.Elem(), path, true)
		return
	}
	if w.walkOwn(t, path, addressable) {
		return
	}
	switch t.Kind() {
	case reflect.Interface:
		if t.NumMethod() == 0 {
			w.lost(path, "is of type %v: what is in it comes back as another type, numbers as float64: give it a type", t)
		} else {
			w.lost(path, "is of type %v: an interface with methods cannot be decoded: give it the type that is in it", t)
		}
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		w.lost(path, "is of type %v, which cannot be encoded: leave it out", t)
	case reflect.Slice:
		w.walk(t.Elem(), path+"[]", true)
	case reflect.Array:
		w.walk(t.Elem(), path+"[]", addressable)
	case reflect.Map:
		w.walkKey(t.Key(), path)
		w.walk(t.Elem(), path+"[]", false)
	case reflect.Struct:
		w.walkStruct(t, path, addressable)
	}
}

// walkOwn says whether a type says itself how it is written, and what is wrong with that.
func (w *jsonWalk) walkOwn(t reflect.Type, path string, addressable bool) bool {
	for _, own := range []struct {
		marshaler, unmarshaler reflect.Type
		marshal, unmarshal     string
	}{
		{jsonMarshaler, jsonUnmarshaler, "MarshalJSON", "UnmarshalJSON"},
		{textMarshaler, textUnmarshaler, "MarshalText", "UnmarshalText"},
	} {
		p := reflect.PointerTo(t)
		if t.Kind() == reflect.Interface || !p.Implements(own.marshaler) {
			continue
		}
		switch {
		case !p.Implements(own.unmarshaler) && !p.Implements(jsonUnmarshaler) && !p.Implements(textUnmarshaler):
			w.lost(path, "is of type %v, which has %s and no %s: add it", t, own.marshal, own.unmarshal)
		case !addressable && !t.Implements(own.marshaler):
			w.lost(path, "is of type %v, whose %s has a pointer receiver and is not called here: use a pointer, *%v", t, own.marshal, t)
		default:
			if others := promotedPast(t, own.marshaler, own.marshal); len(others) > 0 {
				w.lost(path, "is of type %v, which has the %s of an embedded field, so that nothing else of it is written (%s): name the field, or write %s", t, own.marshal, strings.Join(others, ", "), own.marshal)
			}
		}
		return true
	}
	return false
}

// promotedPast returns the fields of a struct that a method does not know of, because it is
// that of an embedded field.
func promotedPast(t, marshaler reflect.Type, method string) (others []string) {
	if t.Kind() != reflect.Struct {
		return nil
	}
	from := false
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && (f.Type.Implements(marshaler) || reflect.PointerTo(f.Type).Implements(marshaler)) {
			from = true
		} else if !empty(f) {
			others = append(others, f.Name)
		}
	}
	if !from || len(others) == 0 || !promoted(t, method) {
		return nil
	}
	return others
}

// promoted says whether the compiler made a method of t, to call that of an embedded field.
func promoted(t reflect.Type, method string) bool {
	m, ok := t.MethodByName(method)
	if !ok {
		if m, ok = reflect.PointerTo(t).MethodByName(method); !ok {
			return false
		}
	}
	frames := runtime.CallersFrames([]uintptr{m.Func.Pointer() + 1})
	for { // the last is the function itself, those before are inlined in it
		frame, more := frames.Next()
		if !more {
			return frame.File == "<autogenerated>"
		}
	}
}

func (w *jsonWalk) walkKey(t reflect.Type, path string) {
	p := reflect.PointerTo(t)
	switch t.Kind() {
	case reflect.String:
		return
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if t.Implements(textMarshaler) == p.Implements(textUnmarshaler) {
			return
		}
	case reflect.Pointer: // an address, which is another one in another process
	default:
		if t.Implements(textMarshaler) && p.Implements(textUnmarshaler) {
			return
		}
	}
	w.lost(path, "has keys of type %v, which do not come back: use strings, integers, or a type with MarshalText and UnmarshalText", t)
}

// jsonField is a field as encoding/json sees it, which takes those of embedded structs for
// the struct's own.
type jsonField struct {
	name, path  string
	t           reflect.Type
	addressable bool
}

func (w *jsonWalk) walkStruct(t reflect.Type, path string, addressable bool) {
	fields := w.fieldsOf(t, path, addressable, nil)
	for i, f := range fields {
		var same []string
		for _, g := range fields {
			if g.name == f.name {
				same = append(same, g.path)
			}
		}
		if len(same) > 1 && same[0] == f.path {
			w.lost(strings.Join(same, " and "), "have one name in JSON, %q, so that one of them at most is written: rename one", f.name)
		}
		w.walk(fields[i].t, f.path, f.addressable)
	}
}

func (w *jsonWalk) fieldsOf(t reflect.Type, path string, addressable bool, within []reflect.Type) (fields []jsonField) {
	for i := range t.NumField() {
		f := t.Field(i)
		if empty(f) {
			continue
		}
		at := path + "." + f.Name
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		embeds := f.Anonymous && inner.Kind() == reflect.Struct
		switch {
		case tag == "-":
			w.lost(at, `is tagged json:"-": leave it out of the answer`)
			continue
		case embeds && !f.IsExported() && f.Type.Kind() == reflect.Pointer:
			w.lost(at, "is an embedded pointer to a struct that is not exported, which cannot be decoded: embed the struct itself")
			continue
		case embeds && name == "":
			if !slices.Contains(within, inner) {
				fields = append(fields, w.fieldsOf(inner, at, addressable || f.Type != inner, append(within, t))...)
			}
			continue
		case !f.IsExported():
			w.lost(at, "is not exported: export it, or leave it out of the answer")
			continue
		}
		fields = append(fields, jsonField{cmp.Or(name, f.Name), at, f.Type, addressable})
	}
	return fields
}

// empty says whether a field holds nothing that could be lost.
func empty(f reflect.StructField) bool { return f.Name == "_" || f.Type.Size() == 0 && !f.IsExported() }
