package learning

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Document is an answer in the form in which clients get it. It is encoded once, when it is
// loaded, and kept as it is: a hit is neither decoded nor encoded. What differs between
// viewers is laid over it as it is written. Documents are shared and never changed; they
// are safe for concurrent use.
// Decision 22.
type Document struct {
	// JSON is the answer to a viewer without enrolments.
	JSON []byte
	// Total is how many rows there are, for one page of them.
	Total int

	// flags locate each course's "isEnrolled" value: the course's ID and the offset of its
	// "false" in JSON, in ascending order.
	flags []byte
}

const flagSize = 16 + 4

var notEnrolled = []byte("false")

// Courses are those that say whether the viewer is enrolled, in order.
func (d Document) Courses() []CourseID {
	ids := make([]CourseID, len(d.flags)/flagSize)
	for i := range ids {
		ids[i], _ = d.flag(i)
	}
	return ids
}

func (d Document) flag(i int) (id CourseID, at int) {
	s := d.flags[i*flagSize:]
	copy(id.UUID[:], s)
	return id, int(binary.BigEndian.Uint32(s[16:flagSize]))
}

// AppendTo appends the JSON to b as a viewer enrolled in those courses sees it.
func (d Document) AppendTo(b []byte, enrolled map[CourseID]bool) []byte {
	from := 0
	if len(enrolled) > 0 {
		for i := range len(d.flags) / flagSize {
			if id, at := d.flag(i); enrolled[id] {
				b = append(append(b, d.JSON[from:at]...), "true"...)
				from = at + len(notEnrolled)
			}
		}
	}
	return append(b, d.JSON[from:]...)
}

// documentCodec is the cache.Codec of Documents. All integers are big-endian.
//
//	offset  size
//	0       4     total
//	4       4     n, the number of flags
//	8       20 n  flags: course, offset
//	…       …     JSON
type documentCodec struct{}

const documentHeader = 8

func (documentCodec) Encode(d Document) ([]byte, error) {
	b := make([]byte, documentHeader, documentHeader+len(d.flags)+len(d.JSON))
	binary.BigEndian.PutUint32(b, uint32(d.Total))
	binary.BigEndian.PutUint32(b[4:], uint32(len(d.flags)/flagSize))
	return append(append(b, d.flags...), d.JSON...), nil
}

var errInvalidDocument = errors.New("not a document")

// Decode keeps b.
func (documentCodec) Decode(b []byte) (d Document, err error) {
	if len(b) < documentHeader {
		return d, errInvalidDocument
	}
	d.Total = int(binary.BigEndian.Uint32(b))
	n := uint64(binary.BigEndian.Uint32(b[4:]))
	b = b[documentHeader:]
	if n*flagSize > uint64(len(b)) {
		return d, errInvalidDocument
	}
	if d.JSON = b[n*flagSize:]; n > 0 {
		d.flags = b[: n*flagSize : n*flagSize]
	}
	end := 0
	for i := range int(n) {
		_, at := d.flag(i)
		if at < end || at+len(notEnrolled) > len(d.JSON) || !bytes.HasPrefix(d.JSON[at:], notEnrolled) {
			return Document{}, errInvalidDocument
		}
		end = at + len(notEnrolled)
	}
	return d, nil
}

// encodeDocument encodes what is the same for all viewers.
func encodeDocument(v any, total int) (Document, error) {
	b, err := AppendJSON(nil, v)
	return Document{JSON: b, Total: total}, err
}

// AppendJSON appends v to b as clients get it.
func AppendJSON(b []byte, v any) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false) // the nosniff header keeps browsers from reading answers as HTML
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return buf.Bytes()[:buf.Len()-1], nil // without the encoder's line end
}

// addCourse appends v, which ends with "isEnrolled":false for the course.
func (d *Document) addCourse(id CourseID, v any) (err error) {
	if d.JSON, err = AppendJSON(d.JSON, v); err != nil {
		return err
	}
	at := len(d.JSON) - len("false}")
	d.flags = binary.BigEndian.AppendUint32(append(d.flags, id.UUID[:]...), uint32(at))
	return nil
}

// Time is written in ISO 8601 with milliseconds, in UTC.
type Time time.Time

// AppendTo appends the text to b.
func (t Time) AppendTo(b []byte) []byte {
	return time.Time(t).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}

// MarshalJSON always writes three digits after the second, which time.Time does not.
func (t Time) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 26), '"')
	return append(t.AppendTo(b), '"'), nil
}
