package cache

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"reflect"
	"strconv"
	"time"

	store "github.com/chainlearn/chainlearn/cache/driver"
)

// Key joins parts into a key, with a colon between them: Key("all", 1, 20) is "all:1:20".
// Each part is the text of a value, as T spells it, escaped so that no two lists of parts (of
// the same texts) give one key: letters, digits and -._~@+=,/ stand for themselves, every other
// byte becomes %XX, and an empty part becomes a lone %. So a key holds no control
// character, no Redis hash tag, and nothing that a purge pattern takes for a wildcard.
//
// Normalise the parts first: an identity in upper case or a default left out should not
// become a copy of its own. A value without a text of its own (a map, a nil pointer) is
// spelled as fmt.Sprint does.
func Key(parts ...any) string {
	b := make([]byte, 0, 64)
	for i, part := range parts {
		if i > 0 {
			b = append(b, ':')
		}
		text, problem := textOf(part)
		if problem != "" {
			text = fmt.Sprint(part)
		}
		b = store.EscapePart(b, text)
	}
	return string(b)
}

// Date is the part of a tag or a key for a column of type date: the day of t in its own
// location.
func Date(t time.Time) string { return t.Format(time.DateOnly) }

// textOf returns the one text of a value, which is also that of a database column that holds
// it, or says why there is none.
//
// What a value means comes before how it is built: a driver.Valuer is what it stores, then a
// Stringer what it says, then the basic kinds. Other pointers are followed: an address is not
// a value.
func textOf(v any) (text, problem string) {
	switch v := v.(type) { // the common ones, without reflection
	case string:
		return v, ""
	case int:
		return strconv.Itoa(v), ""
	case int64:
		return strconv.FormatInt(v, 10), ""
	case bool:
		return strconv.FormatBool(v), ""
	case []byte:
		return hex.EncodeToString(v), ""
	case time.Time:
		return instant(v), ""
	case nil:
		return "", "it is nil"
	case float32, float64, complex64, complex128, time.Duration:
		return "", fmt.Sprintf("a %T has no text that every writer spells alike: use an integer or a string", v)
	}
	r := reflect.ValueOf(v)
	if r.Kind() == reflect.Pointer && r.IsNil() {
		return "", "it is a nil pointer"
	}
	switch v := v.(type) {
	case driver.Valuer:
		stored, err := v.Value()
		switch {
		case err != nil:
			return "", fmt.Sprintf("a %T has no value: %v", v, err)
		case stored == nil:
			return "", fmt.Sprintf("a %T is NULL", v)
		}
		if _, again := stored.(driver.Valuer); !again {
			return textOf(stored)
		}
	case fmt.Stringer:
		return v.String(), ""
	}
	switch r.Kind() {
	case reflect.Pointer:
		return textOf(r.Elem().Interface())
	case reflect.String:
		return r.String(), ""
	case reflect.Bool:
		return strconv.FormatBool(r.Bool()), ""
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(r.Int(), 10), ""
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.FormatUint(r.Uint(), 10), ""
	case reflect.Slice:
		if r.Type().Elem().Kind() == reflect.Uint8 {
			return hex.EncodeToString(r.Bytes()), ""
		}
	case reflect.Array:
		if r.Type().Elem().Kind() == reflect.Uint8 && r.Len() == 16 {
			// The driver of a database may return a UUID like this, whose column has another text.
			return "", fmt.Sprintf("a %T may be a UUID or 16 bytes: use a UUID type, a string or a []byte", v)
		}
		if r.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, r.Len())
			reflect.Copy(reflect.ValueOf(b), r)
			return hex.EncodeToString(b), ""
		}
	}
	return "", fmt.Sprintf("a %T has no text that every writer spells alike: name its parts", v)
}

// instant spells a moment as PostgreSQL's timestamp types keep it, in microseconds.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// keyOfType returns the function that derives the key of a parameter from its value: of a
// struct or an array the texts of its fields in order. Bytes are hexadecimal. It
// returns an error for a type that is compared by something other than its value.
func keyOfType[P comparable]() (func(P) string, error) {
	t := reflect.TypeFor[P]()
	write, err := partsOf(t)
	if err != nil {
		return nil, fmt.Errorf("Key is nil, and none can be derived from %v: %w: set Key", t, err)
	}
	return func(p P) string {
		return string(write(make([]byte, 0, 64), reflect.ValueOf(&p).Elem())[1:])
	}, nil
}

// partWriter appends a colon and a part, for each part of a value.
type partWriter func(b []byte, v reflect.Value) []byte

var timeType = reflect.TypeFor[time.Time]()

func partsOf(t reflect.Type) (partWriter, error) {
	text := func(textOf func(reflect.Value) string) partWriter {
		return func(b []byte, v reflect.Value) []byte {
			return store.EscapePart(append(b, ':'), textOf(v))
		}
	}
	switch t.Kind() {
	case reflect.String:
		return text(reflect.Value.String), nil
	case reflect.Bool:
		return text(func(v reflect.Value) string { return strconv.FormatBool(v.Bool()) }), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(b []byte, v reflect.Value) []byte { return strconv.AppendInt(append(b, ':'), v.Int(), 10) }, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return func(b []byte, v reflect.Value) []byte { return strconv.AppendUint(append(b, ':'), v.Uint(), 10) }, nil
	case reflect.Float32, reflect.Float64:
		return text(func(v reflect.Value) string { return strconv.FormatFloat(v.Float(), 'g', -1, 64) }), nil
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return writeBytes, nil
		}
		element, err := partsOf(t.Elem())
		if err != nil {
			return nil, err
		}
		return func(b []byte, v reflect.Value) []byte {
			for i := range v.Len() {
				b = element(b, v.Index(i))
			}
			return b
		}, nil
	case reflect.Struct:
		if t == timeType {
			// An instant: == also compares the location and the monotonic clock. A field that is
			// not exported cannot be read as a time.
			return func(b []byte, v reflect.Value) []byte {
				return store.EscapePart(append(b, ':'), v.Interface().(time.Time).UTC().Format(time.RFC3339Nano))
			}, nil
		}
		var fields []partWriter
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Type == timeType && !f.IsExported() {
				return nil, fmt.Errorf("field %s is a time.Time that is not exported", f.Name)
			}
			field, err := partsOf(f.Type)
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", f.Name, err)
			}
			fields = append(fields, field)
		}
		return func(b []byte, v reflect.Value) []byte {
			for i, field := range fields {
				b = field(b, v.Field(i))
			}
			if len(fields) == 0 {
				b = append(b, ":%"...)
			}
			return b
		}, nil
	}
	return nil, fmt.Errorf("a %v is compared by its address or by what it happens to hold, not by its value", t)
}

// writeBytes writes an array of bytes in hexadecimal. What its String method says, if it has
// one, need not tell two values apart.
func writeBytes(b []byte, v reflect.Value) []byte {
	const digits = "0123456789abcdef"
	b = append(b, ':')
	for i := range v.Len() {
		c := v.Index(i).Uint()
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}

// comparedByValue says whether two equal parameters of type t always ask for the same.
func comparedByValue(t reflect.Type) bool {
	_, err := partsOf(t)
	return err == nil
}
