package cachetest

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"
)

// differenceOf says in what two results differ, or returns "".
func differenceOf[V any](a, b result[V]) string {
	switch {
	case a.found && b.found:
		return difference(reflect.ValueOf(&a.value).Elem(), reflect.ValueOf(&b.value).Elem())
	case a.found:
		return fmt.Sprintf("%s and not found", show(reflect.ValueOf(&a.value).Elem()))
	case b.found:
		return fmt.Sprintf("not found and %s", show(reflect.ValueOf(&b.value).Elem()))
	}
	return ""
}

// difference returns the first place at which two values of one type differ, and what is there:
// `Items[0].Price: 7 and 0`. It judges as reflect.DeepEqual does, but for times, types with
// an Equal method, and NaN.
func difference(a, b reflect.Value) string {
	c := comparison{seen: map[[2]uintptr]bool{}}
	at := c.differ(a, b, "")
	if at == nil {
		return ""
	}
	return fmt.Sprintf("%s: %s and %s", cmp.Or(at.path, "the value"), at.a, at.b)
}

type place struct{ path, a, b string }

type comparison struct{ seen map[[2]uintptr]bool }

func (c *comparison) differ(a, b reflect.Value, path string) *place {
	differs := func() *place { return &place{path, show(a), show(b)} }
	if !a.IsValid() || !b.IsValid() || a.Type() != b.Type() {
		if a.IsValid() == b.IsValid() && !a.IsValid() {
			return nil
		}
		return &place{path, showTyped(a), showTyped(b)}
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map, reflect.Func, reflect.Chan:
		if a.IsNil() != b.IsNil() {
			return differs()
		}
		if a.IsNil() {
			return nil
		}
	}
	if equal, ok := ownEqual(a, b); ok {
		if equal {
			return nil
		}
		return differs()
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Map: // may lead back to themselves
		pair := [2]uintptr{a.Pointer(), b.Pointer()}
		if c.seen[pair] {
			return nil
		}
		c.seen[pair] = true
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Interface:
		return c.differ(a.Elem(), b.Elem(), path)
	case reflect.Struct:
		for i := range a.NumField() {
			name := a.Type().Field(i).Name
			if path != "" {
				name = path + "." + name
			}
			if at := c.differ(a.Field(i), b.Field(i), name); at != nil {
				return at
			}
		}
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return &place{path, fmt.Sprintf("%d elements", a.Len()), fmt.Sprintf("%d", b.Len())}
		}
		for i := range a.Len() {
			if at := c.differ(a.Index(i), b.Index(i), fmt.Sprintf("%s[%d]", path, i)); at != nil {
				return at
			}
		}
	case reflect.Map:
		if a.Len() != b.Len() {
			return &place{path, fmt.Sprintf("%d elements", a.Len()), fmt.Sprintf("%d", b.Len())}
		}
		keys := a.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(show(a), show(b)) })
		for _, k := range keys {
			if at := c.differ(a.MapIndex(k), b.MapIndex(k), fmt.Sprintf("%s[%s]", path, show(k))); at != nil {
				return at
			}
		}
	case reflect.Func:
		if a.Pointer() != b.Pointer() {
			return differs()
		}
	case reflect.Float32, reflect.Float64:
		if a.Float() != b.Float() && !(math.IsNaN(a.Float()) && math.IsNaN(b.Float())) {
			return differs()
		}
	default:
		if !a.Equal(b) {
			return differs()
		}
	}
	return nil
}

// ownEqual compares two values as their type says, if it says.
func ownEqual(a, b reflect.Value) (equal, ok bool) {
	if !a.CanInterface() {
		return false, false
	}
	if at, isTime := reflect.TypeAssert[time.Time](a); isTime {
		bt := b.Interface().(time.Time)
		_, ao := at.Zone()
		_, bo := bt.Zone()
		return at.Equal(bt) && ao == bo, true
	}
	m := a.MethodByName("Equal")
	if !m.IsValid() {
		return false, false
	}
	if t := m.Type(); t.NumIn() != 1 || t.In(0) != a.Type() || t.NumOut() != 1 || t.Out(0).Kind() != reflect.Bool {
		return false, false
	}
	return m.Call([]reflect.Value{b})[0].Bool(), true
}

func show(v reflect.Value) string {
	if !v.IsValid() {
		return "nothing"
	}
	if v.CanInterface() {
		if t, ok := reflect.TypeAssert[time.Time](v); ok {
			return t.String()
		}
	}
	text := fmt.Sprintf("%#v", v)
	if len(text) > 100 {
		text = fmt.Sprintf("%.100s…", text)
	}
	return text
}

func showTyped(v reflect.Value) string {
	if !v.IsValid() {
		return "nothing"
	}
	return fmt.Sprintf("%s(%s)", v.Type(), show(v))
}

// equalTo returns a parameter equal to p by its content: what its pointers point to is copied,
// so that an address in a key shows.
func equalTo[P any](p P) P {
	copyPointers(reflect.ValueOf(&p).Elem())
	return p
}

func copyPointers(v reflect.Value) {
	if !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fresh := reflect.New(v.Type().Elem())
			fresh.Elem().Set(v.Elem())
			v.Set(fresh)
		}
	case reflect.Interface:
		if inner := v.Elem(); inner.Kind() == reflect.Pointer && !inner.IsNil() {
			fresh := reflect.New(inner.Type().Elem())
			fresh.Elem().Set(inner.Elem())
			v.Set(fresh)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			copyPointers(v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			copyPointers(v.Index(i))
		}
	}
}
