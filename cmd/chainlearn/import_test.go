package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// What a file says is shown by the services that run, on either database.
func TestImport(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]map[string]string{
		"embedded": {},
		"fleet": {
			"DATABASE_URL": testservers.SharedPostgres(t).Database(t),
			"REDIS_URL":    testservers.SharedRedis(t).URL(),
			"JWT_SECRET":   strings.Repeat("s", httpapi.MinSecret),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			const course = "6b1d4f0e-6c1a-4b51-9d0a-0d5f7a3c9e11"
			file := filepath.Join(dir, "courses.yaml")
			write := func(title, difficulty string) {
				t.Helper()
				testservers.Must(t, os.WriteFile(file, []byte(`courses:
  - id: `+course+`
    title: `+title+`
    difficulty: `+difficulty+`
    modules:
      - id: module-1
        questions:
          - {id: q1, text: "?", options: [a, b], correctIndex: 0}
`), 0o600))
			}
			// imports runs the command, and demands its exit code and its output.
			imports := func(code int, want string, args ...string) {
				t.Helper()
				cmd := command(t, dir, env, append([]string{"import"}, args...)...)
				if args[len(args)-1] == "-" {
					in, err := os.Open(file)
					testservers.Must(t, err)
					defer in.Close()
					cmd.Stdin = in
				}
				out, _ := cmd.CombinedOutput()
				if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
					t.Errorf("import %v: exit code %d, want %d, and it says\n%s\nwant\n%s", args, got, code, out, want)
				}
			}
			replicas := []*process{serve(t, dir, env)}
			if env["REDIS_URL"] != "" {
				replicas = append(replicas, serve(t, dir, env))
			}
			shows := func(path, text string) {
				t.Helper()
				for _, p := range replicas {
					testservers.Eventually(t, visibilityTimeout, func() (bool, string) {
						_, _, body := p.get(p.api + path)
						return strings.Contains(body, text), "it shows " + body
					})
				}
			}
			shows("/courses/"+course, `"Course not found"`)
			shows("/courses?limit=50", `"total":0`)

			write("One", "advanced")
			imports(exitOK, "+ course "+course+` "One": 1 module, 1 question`, "--dry-run", file)
			imports(exitOK, "a dry run: 2 changes would be made, and none was", "--dry-run", file)
			shows("/courses/"+course, `"Course not found"`)
			imports(exitOK, "imported 1 courses: 2 changes", "-")
			shows("/courses/"+course, `"title":"One","description":"","difficulty":"advanced"`)
			shows("/courses?limit=50", `"total":1`)
			imports(exitOK, "nothing to change: the courses are as the file says", file)
			write("Two", "beginner")
			imports(exitOK, `~ course `+course+` "Two": title "One" → "Two"; difficulty advanced → beginner`, file)
			shows("/courses/"+course, `"title":"Two"`)
			shows("/courses?difficulty=advanced", `"total":0`)

			write("Three", "hard")
			imports(exitFailed, file+`:4: courses[0].difficulty: is "hard": must be one of beginner, intermediate, advanced`, file)
			imports(exitFailed, "no such file", filepath.Join(dir, "nothing.yaml"))
			imports(exitUsage, "expected \"<file>\"", "--dry-run")
			shows("/courses/"+course, `"title":"Two"`)
			for _, p := range replicas {
				p.stop(syscall.SIGTERM)
			}
		})
	}
}
