// Package docs_test holds the documentation to the tree: what it names must exist.
package docs_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	testFunc    = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)
	testName    = regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z]\\w*)`")
	mapRow      = regexp.MustCompile("(?m)^\\| `([^`]+)/` \\| [^|]+ \\|$")
	codeName    = regexp.MustCompile("`([\\w./-]+/[\\w.-]+\\.(?:go|sql|sh))(?::([\\w.]+))?`")
	decisionRef = regexp.MustCompile(`(?://|--|and) Decision (\d+)\b`)
	recordHead  = regexp.MustCompile(`^# \d+\. .+\n\n- Date: \d{4}-\d\d-\d\d\n- Status: (?:proposed|accepted|superseded by \[)`)
	localLink   = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

func TestNamedTestsExist(t *testing.T) {
	have := map[string]bool{}
	walk(t, "..", ".go", func(_, text string) { // some are in packages that adapters run
		for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
			have[m[1]] = true
		}
	})
	named := 0
	walk(t, "..", ".md", func(path, text string) {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			named++
			if !have[m[1]] {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
	})
	if named < 30 {
		t.Errorf("only %d tests are named: has the documentation moved?", named)
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	walk(t, "..", ".md", func(path, text string) {
		for _, m := range localLink.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, m[1])
			}
		}
	})
}

// A newcomer to the library sees all of it at once: "go doc" of package cache fits a screen.
func TestOverviewFitsAScreen(t *testing.T) {
	overview, err := exec.CommandContext(t.Context(), "go", "doc", "../cache").CombinedOutput()
	if err != nil {
		t.Fatalf("go doc: %v: %s", err, overview)
	}
	if lines := strings.Count(string(overview), "\n"); lines > 60 {
		t.Errorf("go doc of package cache has %d lines, more than 60: does each name belong to those who describe and ask for answers?", lines)
	}
}

// The map in architecture.md has every folder with Go code, and no folder that is not there.
func TestMapHasEveryPackage(t *testing.T) {
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	mapped := map[string]bool{}
	for _, m := range mapRow.FindAllStringSubmatch(string(text), -1) {
		mapped[m[1]] = true
		if info, err := os.Stat(filepath.Join("..", m[1])); err != nil || !info.IsDir() {
			t.Errorf("the map has %s/, which is no folder of the repository", m[1])
		}
	}
	packages := map[string]bool{}
	walk(t, "..", ".go", func(file, _ string) {
		packages[path.Dir(filepath.ToSlash(strings.TrimPrefix(file, ".."+string(filepath.Separator))))] = true
	})
	if len(packages) < 20 {
		t.Errorf("only %d packages were found", len(packages))
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if !mapped[dir] {
			t.Errorf("the map in architecture.md lacks %s/", dir)
		}
	}
}

// `dir/file.go` names a file of the repository, and `dir/file.go:Name` or `dir/file.go:Type.Method`
// what is declared in it.
func TestNamedCodeExists(t *testing.T) {
	named := 0
	walk(t, "..", ".md", func(doc, text string) {
		for _, m := range codeName.FindAllStringSubmatch(text, -1) {
			named++
			code, err := os.ReadFile(filepath.Join("..", m[1]))
			if err != nil {
				t.Errorf("%s names %s, which does not exist", doc, m[1])
				continue
			}
			if m[2] != "" && !declaration(m[2]).Match(code) {
				t.Errorf("%s names %s in %s, which does not declare it", doc, m[2], m[1])
			}
		}
	})
	if named < 30 {
		t.Errorf("only %d files are named: has the documentation moved?", named)
	}
}

func declaration(name string) *regexp.Regexp {
	if receiver, method, ok := strings.Cut(name, "."); ok {
		return regexp.MustCompile(`(?m)^func \((?:\w+ )?\*?` + receiver + `(?:\[[^\]]*\])?\) ` + method + `\(`)
	}
	return regexp.MustCompile(`(?m)^(?:(?:func|type|var|const) |\t)` + name + `\b`)
}

// Records of decisions are numbered without gaps, short, dated, and in the index.
func TestDecisionsAreInTheIndex(t *testing.T) {
	index, err := os.ReadFile("decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	records, err := filepath.Glob("decisions/[0-9]*.md")
	if err != nil || len(records) == 0 {
		t.Fatalf("no records: %v", err)
	}
	for i, record := range records { // in order
		name := filepath.Base(record)
		if want := fmt.Sprintf("%04d-", i+1); !strings.HasPrefix(name, want) {
			t.Errorf("%s should begin with %s", name, want)
		}
		if !strings.Contains(string(index), "]("+name+")") {
			t.Errorf("the index lacks %s", name)
		}
		text, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		if !recordHead.Match(text) {
			t.Errorf("%s has no number, date or status", name)
		}
		for _, part := range []string{"Context", "Decision", "Consequences"} {
			if !strings.Contains(string(text), "\n## "+part+"\n") {
				t.Errorf("%s has no %s", name, part)
			}
		}
		if n := strings.Count(string(text), "\n"); n < 10 || n > 40 {
			t.Errorf("%s has %d lines, want 10 to 40", name, n)
		}
	}
	named := map[int]bool{}
	for _, suffix := range []string{".go", ".sql"} {
		walk(t, "..", suffix, func(file, text string) {
			for _, m := range decisionRef.FindAllStringSubmatch(text, -1) {
				n, err := strconv.Atoi(m[1])
				if err != nil || n < 1 || n > len(records) {
					t.Errorf("%s refers to decision %s, which does not exist", file, m[1])
				}
				named[n] = true
			}
		})
	}
	if len(named) < 25 {
		t.Errorf("the code names only %d decisions", len(named))
	}
}

func walk(t *testing.T, root, suffix string, visit func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && d.Name() != ".":
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, suffix):
			return nil
		}
		text, err := os.ReadFile(path)
		visit(path, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The example of depending.md is what TestManyToManyExample runs.
func TestExampleIsWhatTheTestRuns(t *testing.T) {
	page, err := os.ReadFile("depending.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("../cache/outbox/postgres/many_to_many_test.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{}
	for line := range strings.Lines(string(code)) {
		lines[strings.TrimSpace(line)] = true
	}
	shown, in := 0, false
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "```go" || line == "```sql":
			in = true
		case strings.HasPrefix(line, "```"):
			in = false
		case in && line != "":
			shown++
			if !lines[line] && !lines[strings.TrimSuffix(line, ";")+";`"] {
				t.Errorf("no line of the test is %q", line)
			}
		}
	}
	if shown < 20 {
		t.Errorf("only %d lines of code found", shown)
	}
}
