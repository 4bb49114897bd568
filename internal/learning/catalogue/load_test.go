package catalogue

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// validCourse returns a course file without an error. What is asked in it carries the
// slug, so that several such files do not repeat each other.
func validCourse(slug string, day int) string {
	var modules []string
	for m := 1; m <= 3; m++ {
		var questions []string
		for q := 1; q <= 3; q++ {
			questions = append(questions, fmt.Sprintf(
				`{"id": "q%d", "text": "What is %s %d.%d?", "options": ["one", "two", "three"], "correctIndex": %d}`, q, slug, m, q, q-1))
		}
		modules = append(modules, fmt.Sprintf(
			`{"id": "module-%d", "title": "Part %d", "order": %d, "questions": [%s]}`, m, m, m, strings.Join(questions, ",\n")))
	}
	return fmt.Sprintf(`{"slug": "%s", "title": "All about %s", "description": "Built with web3.js. Is it short? It is.",
		"difficulty": "beginner", "active": true, "createdAt": "2025-01-%02dT09:00:00Z", "modules": [%s]}`,
		slug, slug, day, strings.Join(modules, ",\n"))
}

func TestLoadSound(t *testing.T) {
	got, err := load(fstest.MapFS{
		"courses/a.json": {Data: []byte(validCourse("a", 2))},
		"courses/b.json": {Data: []byte(validCourse("b", 1))},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Slug != "b" || got[1].Slug != "a" {
		t.Fatalf("got %+v, want b, then a", got)
	}
	q := got[1].Modules[2].Questions[1]
	if got[1].Modules[2].ID != "module-3" || q.Text != "What is a 3.2?" || q.Options[q.CorrectIndex] != "two" {
		t.Errorf("module 3, question 2 of a is %+v", q)
	}
}

// Each case spoils one thing in one of two sound files. The message must name
// the place and the field, and nothing else may be reported.
func TestLoadRejects(t *testing.T) {
	const (
		file   = "courses/a.json: "
		module = file + `modules[1] "module-2": `
		quest  = module + `questions[1] "q2": `

		q22 = `"text": "What is a 2.2?", "options": ["one", "two", "three"], "correctIndex": 1`
	)
	for _, tt := range []struct {
		name, old, new string
		want           string
	}{
		{"no JSON", `{"slug"`, `"slug"`, file},
		{"text behind the course", validCourse("a", 2), validCourse("a", 2) + "{}", file + "more text after the value"},
		{"unknown course field", `"active"`, `"level": 1, "active"`, file + `json: unknown field "level"`},
		{"unknown module field", `"order": 2`, `"order": 2, "minutes": 5`, file + `modules[1]: json: unknown field "minutes"`},
		{"unknown question field", q22, q22 + `, "hint": ""`, module + `questions[1]: json: unknown field "hint"`},
		{"mistyped question field", q22, strings.Replace(q22, ": 1", `: "1"`, 1), module + "questions[1]: json: cannot unmarshal string into Go struct field questionFile.correctIndex"},

		{"slug is not the file's name", `"slug": "a"`, `"slug": "other"`, file + `slug: is "other"; it must be the name of the file, "a"`},
		{"no title", `"title": "All about a"`, `"title": ""`, file + "title: is missing or empty"},
		{"long title", `All about a`, strings.Repeat("é", maxTitle+1), file + "title: has 101 characters"},
		{"title of another course", `All about a`, `ALL about b!`, `courses/b.json: title: "All about b" is already used in courses/a.json`},
		{"one sentence", "Built with web3.js. Is it short? It is.", "Built with web3.js", file + "description: has 0 sentences"},
		{"five sentences", "It is.", "It is. Is it? It is!", file + "description: has 5 sentences"},
		{"difficulty", `"beginner"`, `"expert"`, file + `difficulty: is "expert"; use one of beginner, intermediate, advanced`},
		{"active left out", `"active": true, `, ``, file + "active: is missing"},
		{"createdAt left out", `"createdAt": "2025-01-02T09:00:00Z", `, ``, file + "createdAt: is missing"},
		{"createdAt not in UTC", `09:00:00Z`, `09:00:00+02:00`, file + "createdAt: is 2025-01-02T09:00:00+02:00; use whole seconds in UTC"},
		{"createdAt with fraction", `09:00:00Z`, `09:00:00.5Z`, file + "createdAt: is 2025-01-02T09:00:00.5Z; use whole seconds in UTC"},
		{"createdAt of another course", `2025-01-02`, `2025-01-01`, `courses/b.json: createdAt: "2025-01-01T09:00:00Z" is already used in courses/a.json`},
		{"no modules", validCourse("a", 2)[strings.Index(validCourse("a", 2), `"modules"`):], `"modules": null}`, file + "modules: has 0; between 3 and 6"},

		{"module id", `"id": "module-2"`, `"id": "Module 2"`, file + `modules[1] "Module 2": id: is "Module 2"; use at most 100 lower-case`},
		{"module id repeated", `"id": "module-2"`, `"id": "module-1"`, file + `modules[1] "module-1": id: "module-1" is already used in ` + file + `modules[0] "module-1"`},
		{"module title with white space", `"Part 2"`, `"Part  2"`, module + `title: "Part  2" has outer, repeated or unusual white space`},
		{"module title repeated", `"Part 2"`, `"Part 1"`, module + `title: "Part 1" is already used`},
		{"order with a gap", `"order": 2`, `"order": 4`, module + "order: is 4; modules are numbered in the order of the file, so it must be 2"},
		{"no questions", between(validCourse("a", 2), `"order": 2, "questions": [`, "]},\n"), ``, module + "questions: has 0; between 3 and 20"},

		{"question id repeated", `"id": "q2", ` + q22, `"id": "q1", ` + q22, module + `questions[1] "q1": id: "q1" is already used`},
		{"question text left out", `"text": "What is a 2.2?", `, ``, quest + "text: is missing or empty"},
		{"question text repeated", "What is a 2.2?", "what is a 1.1", quest + `text: "what is a 1.1" is already used in ` + file + `modules[0] "module-1": questions[0] "q1"`},
		{"question text of another course", "What is a 2.2?", "What is b 3.3?", `courses/b.json: modules[2] "module-3": questions[2] "q3": text: "What is b 3.3?" is already used in ` + quest[:len(quest)-2]},
		{"too few options", q22, strings.Replace(q22, `, "three"`, ``, 1), quest + "options: has 2; between 3 and 4"},
		{"too many options", q22, strings.Replace(q22, `"three"`, `"three", "four", "five"`, 1), quest + "options: has 5; between 3 and 4"},
		{"empty option", q22, strings.Replace(q22, `"three"`, `""`, 1), quest + "options[2]: is missing or empty"},
		{"option with a control character", q22, strings.Replace(q22, `"three"`, `"th\u0000ree"`, 1), quest + `options[2]: "th\x00ree" holds a character`},
		{"option repeated", q22, strings.Replace(q22, `"three"`, `"One"`, 1), quest + `options[2]: "One" repeats options[0]`},
		{"blanket option", q22, strings.Replace(q22, `"three"`, `"All of the above"`, 1), quest + `options[2]: "All of the above" refers to other options`},
		{"right answer left out", q22, strings.Replace(q22, `, "correctIndex": 1`, ``, 1), quest + "correctIndex: is missing"},
		{"right answer negative", q22, strings.Replace(q22, `: 1`, `: -1`, 1), quest + "correctIndex: is -1; it must name one of the 3 options"},
		{"right answer past the end", q22, strings.Replace(q22, `: 1`, `: 3`, 1), quest + "correctIndex: is 3; it must name one of the 3 options"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			good := validCourse("a", 2)
			if !strings.Contains(good, tt.old) {
				t.Fatalf("the sound file does not contain %s", tt.old)
			}
			got, err := load(fstest.MapFS{
				"courses/a.json": {Data: []byte(strings.Replace(good, tt.old, tt.new, 1))},
				"courses/b.json": {Data: []byte(validCourse("b", 1))},
			})
			if err == nil || got != nil {
				t.Fatalf("accepted as %+v", got)
			}
			if !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("reported\n%v\nwant one line that begins\n%s", err, tt.want)
			}
		})
	}
}

// between returns what stands in s behind start and before the next end.
func between(s, start, end string) string {
	_, s, _ = strings.Cut(s, start)
	s, _, _ = strings.Cut(s, end)
	return s
}

func TestLoadReportsEverythingAtOnce(t *testing.T) {
	_, err := load(fstest.MapFS{
		"courses/a.json": {Data: []byte(strings.Replace(validCourse("a", 2), "beginner", "expert", 1))},
		"courses/b.json": {Data: []byte(strings.Replace(validCourse("b", 1), `"order": 3`, `"order": 9`, 1))},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 2 ||
		!strings.HasPrefix(lines[0], "courses/a.json: difficulty: ") ||
		!strings.HasPrefix(lines[1], `courses/b.json: modules[2] "module-3": order: `) {
		t.Errorf("reported\n%v\nwant one line on each file", err)
	}
}
