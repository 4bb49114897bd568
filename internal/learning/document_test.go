package learning

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func somePage(n int) CoursePage {
	p := CoursePage{Total: 70 + n, Courses: []Course{}}
	for i := range n {
		p.Courses = append(p.Courses, Course{
			// Text that looks like what is laid over it.
			ID: NewID[Course](), Title: fmt.Sprintf(`"isEnrolled":false} <%d>`, i), Description: "false}", Difficulty: Advanced, IsActive: true, EnrolledCount: i,
		})
	}
	return p
}

// What a viewer sees is what encoding the answer for that viewer alone would give.
func TestOverlay(t *testing.T) {
	t.Parallel()
	page := somePage(5)
	d, err := pageDocument(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, enrolled := range []map[CourseID]bool{
		nil, {},
		{page.Courses[0].ID: true},
		{page.Courses[4].ID: true, page.Courses[2].ID: true, page.Courses[1].ID: false},
		{NewID[Course](): true},
	} {
		var want []any
		for _, c := range page.Courses {
			want = append(want, viewOf(t, c, enrolled[c.ID]))
		}
		var got []any
		if err := json.Unmarshal(d.AppendTo([]byte(" "), enrolled), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("enrolled in %v: %v\n got %v\nwant %v", enrolled, err, got, want)
		}
	}
	if ids := d.Courses(); len(ids) != 5 || ids[0] != page.Courses[0].ID || ids[4] != page.Courses[4].ID {
		t.Errorf("courses are %v", ids)
	}
}

func viewOf(t *testing.T, c Course, enrolled bool) (v map[string]any) {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	v["isEnrolled"] = enrolled
	return v
}

func TestDocumentsComeBack(t *testing.T) {
	t.Parallel()
	page, err := pageDocument(somePage(3))
	if err != nil {
		t.Fatal(err)
	}
	empty, err := pageDocument(CoursePage{})
	if err != nil || string(empty.JSON) != "[]" {
		t.Errorf("an empty page is %s, %v", empty.JSON, err)
	}
	detail, err := detailDocument(CourseDetail{Course: somePage(1).Courses[0], CreatedAt: time.Unix(1, 5e6)})
	if err != nil || !strings.Contains(string(detail.JSON), `"modules":[],"createdAt":"1970-01-01T00:00:01.005Z"`) {
		t.Errorf("a detail is %s, %v", detail.JSON, err)
	}
	for _, d := range []Document{page, empty, detail} {
		b, _ := documentCodec{}.Encode(d)
		got, err := documentCodec{}.Decode(b)
		if err != nil || !bytes.Equal(got.JSON, d.JSON) || got.Total != d.Total || !bytes.Equal(got.flags, d.flags) {
			t.Errorf("%s came back as %s, %v", d.JSON, got.JSON, err)
		}
		bearer := Bearer{StellarAddress: "GABC", Profile: d}
		b, _ = bearerCodec{}.Encode(bearer)
		if got, err := (bearerCodec{}).Decode(b); err != nil || got.StellarAddress != "GABC" || !bytes.Equal(got.Profile.JSON, d.JSON) {
			t.Errorf("a bearer came back as %+v, %v", got, err)
		}
	}
}

// FuzzDocument: whatever lies in a shared cache, it is either a document that can be laid over
// or none.
func FuzzDocument(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		d, err := pageDocument(somePage(n))
		if err != nil {
			f.Fatal(err)
		}
		b, _ := documentCodec{}.Encode(d)
		f.Add(b)
		b, _ = bearerCodec{}.Encode(Bearer{"GABC", d})
		f.Add(b)
	}
	f.Add([]byte{0, 0, 0, 0, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = bearerCodec{}.Decode(b)
		d, err := documentCodec{}.Decode(b)
		if err != nil {
			return
		}
		all := map[CourseID]bool{}
		for _, id := range d.Courses() {
			all[id] = true
		}
		n := len(d.Courses())
		if got, want := d.AppendTo(nil, all), len(d.JSON)-n*len("false")+n*len("true"); len(got) != want {
			t.Errorf("%d bytes with all %d courses, want %d", len(got), n, want)
		}
		if again, _ := (documentCodec{}).Encode(d); !bytes.Equal(again, b) {
			t.Errorf("%x came back as %x", b, again)
		}
	})
}
