package cache

import "encoding/json"

// Codec turns answers into bytes for the shared tier and back. It must be safe for
// concurrent use. Decode may keep b but must not change it: others read it too. A decoding
// error is counted, and the entry is treated as absent.
type Codec[V any] interface {
	Encode(v V) ([]byte, error)
	Decode(b []byte) (V, error)
}

// JSON is the default Codec. Set by hand, it is not checked against V: what encoding/json does
// not write or read is missing from every answer but the one that was just loaded.
type JSON[V any] struct{}

func (JSON[V]) Encode(v V) ([]byte, error) { return json.Marshal(v) }

func (JSON[V]) Decode(b []byte) (V, error) {
	var v V
	err := json.Unmarshal(b, &v)
	return v, err
}
