package coursefile

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/internal/learning"
)

const id = "6b1d4f0e-6c1a-4b51-9d0a-0d5f7a3c9e11"

// documented returns the file that docs/import.md shows.
func documented(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/import.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "```yaml\n")
	file, _, closed := strings.Cut(after, "```\n")
	if !ok || !closed {
		t.Fatal("docs/import.md shows no file")
	}
	return file
}

func TestDocumentedFile(t *testing.T) {
	t.Parallel()
	courses, err := Parse("courses.yaml", []byte(documented(t)))
	if err != nil {
		t.Fatal(err)
	}
	course, err := learning.ParseID[learning.Course](id)
	if err != nil {
		t.Fatal(err)
	}
	want := []learning.CourseImport{{
		ID: course, Title: "Rust for the Impatient", Description: new("Ownership without tears."), Difficulty: new(learning.Intermediate),
		ContentHash: new("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPr"), IsActive: new(true),
		Modules: []learning.ModuleImport{{ID: "module-1", Title: new("Values have owners"), Questions: []learning.Question{
			{ID: "q1", Text: "What happens to a value when its owner goes out of scope?", Options: []string{"It is dropped", "It is leaked", "It is copied"}},
			{ID: "q2", Text: "How many mutable references may there be at one time?", Options: []string{"None", "One", "Any number"}, CorrectIndex: 1},
		}}},
	}}
	if !reflect.DeepEqual(courses, want) {
		t.Errorf("got\n%+v\nwant\n%+v", courses, want)
	}
}

// What docs/import.md shows as messages is what Parse says of that file with these mistakes in it.
func TestDocumentedMessages(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/import.md")
	if err != nil {
		t.Fatal(err)
	}
	file := strings.Replace(documented(t), "difficulty: intermediate", "difficulty: hard", 1)
	file = strings.Replace(file, "correctIndex: 0", "correctIndex: 3", 1)
	_, err = Parse("courses.yaml", []byte(file))
	if err == nil || !strings.Contains(string(text), "```\n"+err.Error()+"\n```") {
		t.Errorf("Parse says\n%v", err)
	}
}

// The same in JSON, with tabs; what is left out stays nil.
func TestJSON(t *testing.T) {
	t.Parallel()
	courses, err := Parse("courses.json", []byte("{\n\t\"courses\": [\n\t\t{\"id\": \""+strings.ToUpper(id)+"\", \"title\": \"Überall 学ぶ\\n\", \"active\": false}\n\t]\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(courses) != 1 || courses[0].ID.String() != id || courses[0].Title != "Überall 学ぶ\n" || *courses[0].IsActive ||
		courses[0].Description != nil || courses[0].Difficulty != nil || courses[0].ContentHash != nil || courses[0].Modules != nil {
		t.Errorf("got %+v", courses)
	}
}

func TestAliases(t *testing.T) {
	t.Parallel()
	courses, err := Parse("f", []byte(`
courses:
  - &one {id: `+id+`, title: &t "One", description: *t, modules: [{id: m, questions: &q [{id: q, text: "?", options: [a, b], correctIndex: 1}]}]}
  - {id: 6b1d4f0e-6c1a-4b51-9d0a-0d5f7a3c9e12, title: *t, modules: [{id: m, questions: *q}]}`))
	if err != nil || len(courses) != 2 || *courses[0].Description != "One" || courses[1].Title != "One" || courses[1].Modules[0].Questions[0].CorrectIndex != 1 {
		t.Errorf("%+v, %v", courses, err)
	}
}

func TestWhatIsWrong(t *testing.T) {
	t.Parallel()
	const question = `{id: q, text: "?", options: [a, b], correctIndex: 0}`
	course := func(fields string) string { return "courses:\n- id: " + id + "\n  title: T\n  " + fields + "\n" }
	module := func(fields string) string { return course("modules:\n  - id: m\n    " + fields) }
	for _, tt := range []struct{ name, file, says string }{
		{"nothing", "", "f: is empty"},
		{"only a comment", "# courses\n", "f: is empty"},
		{"no UTF-8", "courses: \"\xff\"", "f: is no text in UTF-8"},
		{"no YAML", "courses:\n- [", "f: is neither YAML nor JSON: yaml: line 2"},
		{"tabs", "courses:\n\t- id: x", "f: is neither YAML nor JSON: yaml: line 2"},
		{"a list", "- id: x", "f:1: must be an object with the fields courses, not a list"},
		{"a text", "courses", `f:1: must be an object with the fields courses, not "courses"`},
		{"two documents", "courses: [{id: " + id + ", title: T}]\n---\ncourses: []\n", "f:2: a second document begins here"},
		{"no courses", "{}", "f:1: courses is missing"},
		{"courses without a value", "courses:", "f:1: courses: has no value"},
		{"an empty list", "courses: []", "f:1: courses: has 0 elements: between 1 and 10000"},
		{"an unknown field", course("titel: x"), `f:4: courses[0]: has no field "titel": there are id, title, description, difficulty, contentHash, active, modules`},
		{"a field twice", course("title: x"), "f:4: courses[0].title: is given twice, first on line 3"},
		{"no id", "courses:\n- title: T\n", "f:2: courses[0]: id is missing"},
		{"a strange id", "courses:\n- {id: rust, title: T}\n", `f:2: courses[0].id: must be a UUID such as 00000000-0000-4000-8000-000000000001, not "rust"`},
		{"an id twice", "courses:\n- {id: " + id + ", title: T}\n- {id: " + strings.ToUpper(id) + ", title: U}\n", `f:3: courses[1].id: "` + id + `" stands on line 2 too`},
		{"a blank title", "courses:\n- {id: " + id + ", title: \" \"}\n", "f:2: courses[0].title: is blank"},
		{"a number for a text", "courses:\n- {id: " + id + ", title: 5}\n", `f:2: courses[0].title: must be a text, not "5": quotes make it one`},
		{"a long title", "courses:\n- {id: " + id + ", title: " + strings.Repeat("é", 201) + "}\n", "courses[0].title: has 201 characters: at most 200"},
		{"a control character", course(`description: "a\u0007"`), "f:4: courses[0].description: has a control character"},
		{"null", course("description: null"), "f:4: courses[0].description: has no value: leave the field out, and what is stored stays"},
		{"no difficulty of ours", course("difficulty: hard"), `f:4: courses[0].difficulty: is "hard": must be one of beginner, intermediate, advanced`},
		{"no boolean", course("active: maybe"), `f:4: courses[0].active: must be true or false, not "maybe"`},
		{"a text for a boolean", course(`active: "true"`), `f:4: courses[0].active: must be true or false`},
		{"no modules", course("modules: []"), "f:4: courses[0].modules: has 0 elements"},
		{"no list of modules", course("modules: {}"), "f:4: courses[0].modules: must be a list, not an object"},
		{"a module twice", course("modules: [{id: m}, {id: m}]"), `f:4: courses[0].modules[1].id: "m" stands on line 4 too`},
		{"a long module", course("modules: [{id: " + strings.Repeat("m", 101) + "}]"), "courses[0].modules[0].id: has 101 characters"},
		{"no questions", module("questions: []"), "f:6: courses[0].modules[0].questions: has 0 elements"},
		{"a question twice", module("questions: [" + question + ", " + question + "]"), `questions[1].id: "q" stands on line 6 too`},
		{"one option", module(`questions: [{id: q, text: "?", options: [a], correctIndex: 0}]`), "options: has 1 elements: between 2 and 20"},
		{"an option twice", module(`questions: [{id: q, text: "?", options: [a, a], correctIndex: 0}]`), `options[1]: "a" stands on line 6 too`},
		{"an option that is no text", module(`questions: [{id: q, text: "?", options: [yes, no, 1], correctIndex: 0}]`), `options[2]: must be a text, not "1": quotes`},
		{"an index beyond", module(`questions: [{id: q, text: "?", correctIndex: 2, options: [a, b]}]`), `questions[0].correctIndex: is "2": must be the number of an option, from 0 to 1`},
		{"a negative index", module(`questions: [{id: q, text: "?", correctIndex: -1, options: [a, b]}]`), `correctIndex: is "-1"`},
		{"an index that is none", module(`questions: [{id: q, text: "?", correctIndex: a, options: [a, b]}]`), `correctIndex: is "a"`},
		{"no index", module(`questions: [{id: q, text: "?", options: [a, b]}]`), "questions[0]: correctIndex is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			courses, err := Parse("f", []byte(tt.file))
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Parse says\n%v\nwant it to say\n%s", err, tt.says)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || courses != nil) {
				t.Errorf("Parse says\n%v\nwant one line, and no courses", err)
			}
		})
	}
}

// Everything is said at once, up to a bound.
func TestManyMistakes(t *testing.T) {
	t.Parallel()
	var file strings.Builder
	file.WriteString("courses:\n")
	for i := range 30 {
		fmt.Fprintf(&file, "- {id: x%d, title: T}\n", i)
	}
	_, err := Parse("f", []byte(file.String()))
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != mostProblems+1 || !strings.HasPrefix(lines[19], "f:21: courses[19].id: ") || lines[20] != "f: and 10 more" {
		t.Errorf("Parse says\n%v", err)
	}
}

// A file that says little and means much is refused before it fills the memory.
func TestFileThatGrows(t *testing.T) {
	t.Parallel()
	var file strings.Builder
	file.WriteString("courses:\n- {id: " + id + ", title: T, modules: &m [")
	for i := range 500 {
		fmt.Fprintf(&file, "{id: m%d, questions: ", i)
		if i == 0 {
			file.WriteString("&q [")
			for j := range 1000 {
				fmt.Fprintf(&file, `{id: q%d, text: "?", options: [a, b], correctIndex: 0}, `, j)
			}
			file.WriteString("]}, ")
			continue
		}
		file.WriteString("*q}, ")
	}
	file.WriteString("]}\n")
	_, err := Parse("f", []byte(file.String()))
	if err == nil || !strings.Contains(err.Error(), "is question 200001 of the file: split it") {
		t.Errorf("Parse says %.300v", err)
	}
	if _, err := Parse("f", make([]byte, MaxFile+1)); err == nil || !strings.Contains(err.Error(), "split it") {
		t.Errorf("of a file that is too large, Parse says %.300v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(documented(f)))
	for _, s := range []string{"courses: &a [*a]", "a: &a\n  <<: *a", "courses: [{id: !!binary aGk=, title: ? }]", `{"courses":[{"id":"` + id + `","title":"\ud800"}]}`, "%YAML 1.1\n---\ncourses: []", "courses: !!set {}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		courses, err := Parse("f", text)
		if (err == nil) != (len(courses) > 0) {
			t.Errorf("%d courses, and %v", len(courses), err)
		}
		for _, c := range courses {
			if strings.TrimSpace(c.Title) == "" {
				t.Error("a course without a title")
			}
		}
	})
}
