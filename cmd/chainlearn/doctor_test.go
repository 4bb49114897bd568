package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/chainlearn/chainlearn/cache/outbox/sqlite"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestCacheDoctor(t *testing.T) {
	t.Parallel()
	dir, db := migrated(t)
	doctor := func(dir string, env map[string]string, args ...string) (code int, stdout, stderr string) {
		t.Helper()
		cmd := command(t, dir, env, append([]string{"cache", "doctor"}, args...)...)
		var out, log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &log
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode(), out.String(), log.String()
	}

	// Beside the service that holds the database.
	p := serve(t, dir, nil)
	if code, out, log := doctor(dir, nil); code != exitOK || !strings.Contains(out, "nothing is wrong") {
		t.Errorf("exit code %d\n%s%s", code, out, log)
	}
	if code, out, log := doctor(dir, nil, "--json"); code != exitOK || strings.TrimSpace(out) != "[]" {
		t.Errorf("exit code %d\n%s%s", code, out, log)
	}
	p.stop(syscall.SIGTERM)

	if _, err := db.Exec(`DELETE FROM cache_watches WHERE watched = 'revoked_tokens'`); err != nil {
		t.Fatal(err)
	}
	if code, out, log := doctor(dir, nil); code != exitFailed || !strings.Contains(out, "WRONG   query users:profile") || !strings.Contains(out, "token") ||
		!strings.Contains(out, "remedy: ") || !strings.Contains(log, "findings: 1") {
		t.Errorf("exit code %d\n%s%s", code, out, log)
	}
	var findings []struct {
		Subject, Problem, Remedy string
		Notice                   *bool
	}
	code, out, log := doctor(dir, nil, "--json")
	if err := json.Unmarshal([]byte(out), &findings); err != nil || code != exitFailed || len(findings) != 1 || findings[0].Remedy == "" ||
		findings[0].Notice == nil || *findings[0].Notice {
		t.Errorf("exit code %d, %v\n%s%s", code, err, out, log)
	}
	for watch, templates := range map[string][2]string{"chainlearn": {"revoked_tokens", "token:{jti}"}, "other": {"users", "other:{id}"}} {
		if err := sqlite.Watch(t.Context(), db, watch, templates[0], templates[1]); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, log := doctor(dir, nil); code != exitOK || !strings.Contains(out, "NOTICE  kind other") {
		t.Errorf("a notice is nothing wrong: exit code %d\n%s%s", code, out, log)
	}

	for _, tt := range []struct {
		name string
		dir  string
		env  map[string]string
		says string
	}{
		{"no database", t.TempDir(), nil, "there is no database"},
		{"a server that is not there", dir, map[string]string{"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none?connect_timeout=1"}, "could not be checked"},
		{"settings", dir, map[string]string{"REDIS_URL": "http://localhost"}, "REDIS_URL"},
	} {
		if code, out, log := doctor(tt.dir, tt.env); code != exitUsage || !strings.Contains(log, tt.says) {
			t.Errorf("%s: exit code %d\n%s%s", tt.name, code, out, log)
		}
		if files, err := os.ReadDir(tt.dir); tt.name == "no database" && (err != nil || len(files) > 0) {
			t.Errorf("it left %v, %v", files, err)
		}
	}
	if code, out, log := doctor(dir, nil, "--help"); code != exitOK || !strings.Contains(out, "$REDIS_URL") || !strings.Contains(out, "exit code") {
		t.Errorf("help: exit code %d\n%s%s", code, out, log)
	}

	// On PostgreSQL and Redis.
	url := testservers.SharedPostgres(t).Database(t)
	env := map[string]string{"DATABASE_URL": url, "REDIS_URL": testservers.SharedRedis(t).URL()}
	if code, out, log := doctor(dir, env); code != exitFailed || !strings.Contains(out, "WRONG   relay: none delivers") {
		t.Errorf("no service runs: exit code %d\n%s%s", code, out, log)
	}
	env["JWT_SECRET"] = strings.Repeat("s", 32)
	serve(t, dir, env)
	if code, out, log := doctor(dir, env); code != exitOK || !strings.Contains(out, "nothing is wrong") {
		t.Errorf("exit code %d\n%s%s", code, out, log)
	}
}
