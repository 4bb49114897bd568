package main

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// What is in deploy/, and the questions to Prometheus in the documentation, name metrics that a
// service with PostgreSQL and Redis has.
func TestDeployedFilesNameMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	p := serve(t, t.TempDir(), map[string]string{
		"DATABASE_URL": testservers.SharedPostgres(t).Database(t), "REDIS_URL": testservers.SharedRedis(t).URL(), "JWT_SECRET": strings.Repeat("s", 32),
	})
	if status, _, _, err := request(t.Context(), "GET", p.api+"/courses", ""); err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %v", status, err)
	}
	_, _, metrics, err := request(t.Context(), "GET", p.private+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	// With labels: those that are there only once something has happened count, too.
	there := map[string]bool{"cache_store_errors_total": true, "cache_panics_total": true, "cache_invalidations_total": true}
	for _, name := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(string(metrics), -1) {
		there[name[1]] = true
	}
	files := []string{"../../docs/operations.md"}
	err = filepath.WalkDir("../../deploy", func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\b(cache|http|process|go)_[a-z0-9_]+\b`).FindAllString(string(text), -1) {
			named++
			if !there[name] && !there[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")] {
				t.Errorf("%s names %s, and the service has no such metric", file, name)
			}
		}
	}
	if named < 30 {
		t.Errorf("%d metrics are named: the test does not find them", named)
	}
}

// Prometheus takes the rules, each alert fires when it should and is quiet else, and each has its
// page in the runbook.
func TestAlerts(t *testing.T) {
	t.Parallel()
	alerts, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("../../deploy/prometheus/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(alerts, -1)
	if len(names) < 5 {
		t.Fatalf("%d alerts", len(names))
	}
	for _, name := range names {
		if !bytes.Contains(alerts, []byte("runbook: docs/operations.md#"+strings.ToLower(string(name[1]))+"\n")) {
			t.Errorf("%s names no page of the runbook", name[1])
		}
		if !bytes.Contains(runbook, []byte("\n### "+string(name[1])+"\n")) {
			t.Errorf("docs/operations.md does not say what to do about %s", name[1])
		}
		if !bytes.Contains(tests, []byte("- name: "+string(name[1])+"\n")) {
			t.Errorf("%s has no test", name[1])
		}
	}
	promtool := testservers.Require(t, "prometheus", "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}, {"check", "config", "--syntax-only", "prometheus.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = "../../deploy/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// A container of the service asks it by its own program.
func TestHealthCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	health := func(env map[string]string) (code int, stdout, stderr string) {
		t.Helper()
		cmd := command(t, dir, env, "health")
		var out, log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &log
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode(), out.String(), log.String()
	}
	p := serve(t, dir, nil)
	u, err := url.Parse(p.api)
	if err != nil {
		t.Fatal(err)
	}
	if code, out, log := health(map[string]string{"HOST": "0.0.0.0", "PORT": u.Port()}); code != exitOK || !strings.Contains(out, `"status":"ok"`) {
		t.Errorf("exit code %d\n%s%s", code, out, log)
	}
	if code, out, log := health(map[string]string{"PORT": "many"}); code != exitUsage || !strings.Contains(log, `PORT is "many"`) {
		t.Errorf("a port that is none: exit code %d\n%s%s", code, out, log)
	}
	p.stop(os.Interrupt)
	if code, out, log := health(map[string]string{"PORT": u.Port()}); code != exitFailed || !strings.Contains(log, "does not answer") {
		t.Errorf("without a service: exit code %d\n%s%s", code, out, log)
	}
}
