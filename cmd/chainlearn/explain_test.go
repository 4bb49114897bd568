package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestCacheExplain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := map[string]string{
		"DATABASE_URL": testservers.SharedPostgres(t).Database(t), "REDIS_URL": testservers.SharedRedis(t).URL(),
		"JWT_SECRET": strings.Repeat("s", 32), "CACHE_NEAR": "strict",
	}
	explain := func(env map[string]string, args ...string) (code int, stdout, stderr string) {
		t.Helper()
		cmd := command(t, dir, env, append([]string{"cache", "explain"}, args...)...)
		var out, log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &log
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode(), out.String(), log.String()
	}
	p := serve(t, dir, env)

	// Without a query it lists them, with parameters that it takes.
	code, out, log := explain(env)
	if code != exitOK || !strings.Contains(out, `courses:list`) || !strings.Contains(out, `{"Difficulty":"","Page":0,"Limit":0}`) {
		t.Errorf("exit code %d\n%s%s", code, out, log)
	}

	const first = `{"Difficulty":"","Page":1,"Limit":20}`
	if status, _, body, err := request(t.Context(), "GET", p.api+"/courses", ""); err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %v\n%s", status, err, body)
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) { // it is stored after it was answered
		code, out, log = explain(env, "courses:list", first)
		return code == exitOK && strings.Contains(out, "hit: answered with it"), out + log
	})
	for _, says := range []string{"courses:list:", "catalog:", "valid, and fresh for"} {
		if !strings.Contains(out, says) {
			t.Errorf("it does not say %q:\n%s", says, out)
		}
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) { // kept in memory, and proven by Redis
		_, header, _, err := request(t.Context(), "GET", p.api+"/courses", "")
		return err == nil && strings.HasSuffix(header.Get("Cache-Status"), "detail=near_proven"), header.Get("Cache-Status")
	})
	var queries []struct {
		Query           string
		FreshForSeconds float64
		Parameters      json.RawMessage
	}
	code, out, log = explain(env, "--json")
	if err := json.Unmarshal([]byte(out), &queries); err != nil || code != exitOK || len(queries) < 5 || queries[1].Query != "courses:list" || queries[1].FreshForSeconds != 30 {
		t.Errorf("exit code %d, %v\n%s%s", code, err, out, log)
	}
	var in struct {
		Key, Next       string
		Tags            []string
		Valid           bool
		FreshForSeconds float64
	}
	code, out, log = explain(env, "--json", "courses:list", first)
	if err := json.Unmarshal([]byte(out), &in); err != nil || code != exitOK || in.Next != "hit" || !in.Valid || len(in.Tags) == 0 || in.FreshForSeconds > 30 {
		t.Errorf("exit code %d, %v\n%s%s", code, err, out, log)
	}
	if code, out, log := explain(env, "courses:list", strings.Replace(first, "1", "7", 1)); code != exitOK || !strings.Contains(out, "miss: loads it, and stores it") {
		t.Errorf("exit code %d\n%s%s", code, out, log)
	}

	// Some operator's invalidation, and a purge, show to the running service.
	cacheCommand := func(args ...string) (code int, stdout, stderr string) {
		t.Helper()
		cmd := command(t, dir, map[string]string{"REDIS_URL": env["REDIS_URL"]}, append([]string{"cache"}, args...)...)
		var out, log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &log
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode(), out.String(), log.String()
	}
	if code, out, log := cacheCommand("invalidate", in.Tags[0]); code != exitOK || out != "invalidated: "+in.Tags[0]+"\n" {
		t.Errorf("exit code %d\n%s%s", code, out, log)
	}
	if _, header, _, err := request(t.Context(), "GET", p.api+"/courses", ""); err != nil || strings.Contains(header.Get("Cache-Status"), "; hit") {
		t.Errorf("after its tag was invalidated: %s, %v", header.Get("Cache-Status"), err)
	}
	if code, out, log := cacheCommand("invalidate", "course:1", "no tag"); code != exitUsage || !strings.Contains(log, "no tag") {
		t.Errorf("a malformed tag: exit code %d\n%s%s", code, out, log)
	}
	if code, out, log := cacheCommand("purge", "courses:*"); code != exitUsage || !strings.Contains(log, "--yes") {
		t.Errorf("purge without --yes: exit code %d\n%s%s", code, out, log)
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) { // the answer is stored again, at some time
		code, out, log := cacheCommand("purge", "--yes", "courses:*")
		return code == exitOK && strings.HasPrefix(out, "removed: ") && out != "removed: 0\n", out + log
	})

	for says, args := range map[string][]string{
		`there is no query "courses:lists": there are courses:count, courses:detail, courses:list`: {"courses:lists"},
		`unknown field "page_number"`: {"courses:list", `{"page_number":1}`},
	} {
		if code, out, log := explain(env, args...); code != exitUsage || !strings.Contains(log, says) {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out, log)
		}
	}
	if code, out, log := explain(map[string]string{"DATABASE_URL": env["DATABASE_URL"]}, "courses:list", first); code != exitUsage || !strings.Contains(log, "REDIS_URL is not set") {
		t.Errorf("without Redis: exit code %d\n%s%s", code, out, log)
	}
}
