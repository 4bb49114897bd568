package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var ablate = flag.Bool("ablate", false, "take out each mechanism of the protocol in turn, and see that tests fail")

// An ablation takes one mechanism out of the program and names the tests that must fail then.
// It is applied by go test -overlay: the program itself has no switches for it.
type ablation struct {
	mechanism string
	file      string // from the root of the repository
	old, new  string // old occurs once
	tests     []failingTest
}

// failingTest is a test that fails without the mechanism. It is run by itself.
type failingTest struct {
	pkg, name string
	args      []string
}

const (
	inCache   = "./cache"
	inOutbox  = "./cache/outbox"
	inRedis   = "./cache/redisstore"
	inHere    = "./internal/proof/soak"
	goTimeout = 5 * time.Minute
)

func test(pkg, name string) failingTest { return failingTest{pkg, name, nil} }

var acknowledgedWrites = test(inHere, "TestAcknowledgedWritesAreSeenEverywhere")

var ablations = []ablation{
	{
		"guard: an entry is valid while its digest is that of the present versions",
		"cache/guard.go", "if e.guard != guard {", "if false {",
		[]failingTest{test(inCache, "TestLateFillIsNeverServed"), acknowledgedWrites},
	},
	{
		"fence: no stored answer is served while a writer is in flight",
		"cache/redisstore/tags.go", "if err := s.setVersions(ctx, tags, mark, millis(lease)); err != nil {", "if err := error(nil); err != nil {",
		[]failingTest{test(inRedis, "TestStoreOnOneServer"), acknowledgedWrites},
	},
	{
		"fence: it is renewed while COMMIT is under way",
		"cache/outbox/commit.go", "defer fence.Keep(ctx)()", "_ = fence",
		[]failingTest{test(inOutbox, "TestFenceStandsUntilTheCommitHasEnded"), test(inOutbox+"/postgres", "TestFenceStandsWhileCommitWaitsForAStandby")},
	},
	{
		"bypass: nothing that is loaded under a fence is stored",
		"cache/read.go", "fenced: anyFenced(reply.states)", "fenced: false",
		[]failingTest{test(inCache, "TestFencedTagSendsReadersToTheSource")},
	},
	{
		"bypass: also of a caller that meets the fence after its wait for another process's load",
		"cache/miss.go", "if anyFenced(snapshot.States) {", "if false {",
		[]failingTest{test(inCache, "TestFenceIsSeenAfterTheWaitForAnotherProcess")},
	},
	{
		"recovery gate: after an outage the outbox is drained before entries are served",
		"cache/recovery.go", "range drains {", "range drains[:0] {",
		[]failingTest{test(inCache, "TestNothingWrittenDuringAnOutageIsServedStaleAfterIt"), test(inOutbox+"/sqlite", "TestProtocol/TestRecoveryDrainsTheOutbox")},
	},
	{
		"recovery gate: a recovery during which something else went wrong begins again",
		"cache/recovery.go", "if h.suspicions != seen {", "if false && h.suspicions != seen {",
		[]failingTest{test(inCache, "TestTroubleDuringARecoveryBeginsItAgain")},
	},
	{
		"recovery gate: a bump that fails during a recovery is made before its end",
		"cache/recovery.go", "if h.bumps.owed() {", "if false && h.bumps.owed() {",
		[]failingTest{test(inCache, "TestBumpThatFailsIsRepeatedAndNothingIsDrained")},
	},
	{
		"audits: a write on its way is given time to arrive",
		"cache/audit.go", "!pause(ctx, sum(auditGrace, d.q.Near))", "!pause(ctx, 1)",
		[]failingTest{test(inCache, "TestAuditTakesNoWriteOnItsWayForAFault")},
	},
	{
		"audits: what is no longer served is not old",
		"cache/audit.go", "sum(auditGrace, d.q.Near)) || !stillServed() {", "sum(auditGrace, d.q.Near)) {",
		[]failingTest{test(inCache, "TestAuditTakesNoWriteOnItsWayForAFault")},
	},
	{
		"audits: a source that says something else each time proves nothing",
		"cache/audit.go", "case second != third:", "case false && second != third:",
		[]failingTest{test(inCache, "TestAuditOfASourceThatProvesNothing")},
	},
	{
		"audits: what is old is ended",
		"cache/audit.go", "err := d.Forget(ctx, p)", "var err error",
		[]failingTest{test(inCache, "TestAuditEndsAnswersThatNothingTellsOf")},
	},
	{
		"near and strict: a proof is waited for",
		"cache/near.go", "if !ok || !n.unchanged(a, n.now()) || !n.prove(ctx) {", "if !ok || !n.unchanged(a, n.now()) || n.prover == nil {",
		[]failingTest{test(inCache, "TestNearStrictWaitsForWhatIsReportedLate"), test(inRedis, "TestNearStrictAnswersAreNeverBehind")},
	},
	{
		"near and strict: what was heard before the proof counts",
		"cache/near.go", "\tif !n.unchanged(a, now) {\n\t\treturn nil, now\n\t}\n\treturn a, now\n", "\treturn a, now\n",
		[]failingTest{test(inCache, "TestNearStrictWaitsForWhatIsReportedLate")},
	},
	{
		"near and strict: a proof is of one's own watch",
		"cache/changes.go", "return err == nil && t.proven.Load() > at", "_ = at\n\treturn err == nil",
		[]failingTest{test(inCache, "TestNearStrictWithoutReports")},
	},
	{
		"near: a server that reports in another order proves nothing",
		"cache/redisstore/tracked.go", "if !t.ordered.Load() {", "if false {",
		[]failingTest{test(inRedis, "TestServerThatReportsOutOfOrderProvesNothing")},
	},
	{
		"near: a proof is what was heard, not what was sent",
		"cache/redisstore/tracked.go", "return t.awaitPush(ctx)", "return nil",
		[]failingTest{test(inRedis, "TestProofIsHeardAndNotReplied")},
	},
	{
		"recovery gate: recovery waits for processes that do not fence again yet",
		"cache/recovery.go", "!pause(ctx, 2*probeEvery+h.timeout)", "false",
		[]failingTest{test(inCache, "TestTrustWaitsForTheLastProcessToFenceAgain")},
	},
	{
		"trust by a write: a store that refuses writes is not trusted by a process that only reads",
		"cache/recovery.go", "err := h.call(bounded, \"check writes\", h.store.CheckWrites)", "err := bounded.Err()",
		[]failingTest{test(inCache, "TestStoreThatRefusesWritesIsNotTrusted"), test(inRedis, "TestServerThatRefusesWritesIsNotTrusted")},
	},
	{
		"trust by a write: a recovery needs one",
		"cache/recovery.go", "if err := h.try(ctx, 0, h.store.CheckWrites); err != nil {", "if err := error(nil); err != nil {",
		[]failingTest{test(inCache, "TestStoreThatRefusesWritesIsNotTrusted"), test(inCache, "TestLastingTroubleIsSaidNowAndThen")},
	},
	{
		"epoch replay: recent bumps are repeated in another incarnation of the store",
		"cache/recovery.go", "\t}, all)\n", "\t}, false)\n",
		[]failingTest{test(inCache, "TestRecentBumpsAreReplayedIntoAnotherIncarnation")},
	},
	{
		"a failed bump: this process serves no entry until the bump is delivered",
		"cache/fence.go", "\tif err != nil {\n\t\tc.health.bumpFailed(err)\n", "\tif err != nil {\n",
		[]failingTest{test(inCache, "TestFailedBumpIsNotForgotten")},
	},
	{
		"identity: versions of one incarnation of Redis are not those of another",
		"cache/redisstore/identity.go", "v[i] = id[i] ^ stored[i]", "v[i] = stored[i]",
		[]failingTest{test(inRedis, "TestVersionsRolledBackByAnOldSnapshotAreOthers"), test(inRedis, "TestPromotedReplicaWithoutTheLastBumps")},
	},
	{
		"unknown means no: a version that was lost is replaced by a random one",
		"cache/redisstore/scripts.go", "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n  return ARGV[1]",
		"local known = string.rep('v', 16)\n  redis.call('SET', KEYS[1], known, 'PX', ARGV[2])\n  return known",
		[]failingTest{test(inRedis, "TestFlushedVersionsNeverComeBack")},
	},
	{
		"repetition: a bump that is sent again has another version",
		"cache/redisstore/exec.go", "client, requests, err := s.route(commands, inFull)\n",
		// The versions that build appends come too late then: the script takes the first.
		"if c := &commands[0]; c.script == setVersionScript && len(c.args) == 3 {\nv := driver.NewVersion()\n" +
			"for range c.keys {\nc.args = append(c.args, string(v[:]))\n}\n}\nclient, requests, err := s.route(commands, inFull)\n",
		[]failingTest{test(inRedis, "TestRepeatedBumpIsAnotherVersion")},
	},
	{
		"fill lease: one process loads at a time",
		"cache/redisstore/scripts.go", "if l.ends > t and l.guard == ARGV[2] and l.token ~= ARGV[1] then", "if false then",
		[]failingTest{test(inRedis, "TestOneLeaseInTheFleet"), test(inHere, "TestCrowdsOfAFleet")},
	},
	{
		"remembered failure: it holds for the guard of its load, so that a write ends it",
		"cache/redisstore/scripts.go", "if l.retry > t and l.guard == ARGV[2] then", "if l.retry > t then",
		[]failingTest{test(inRedis, "TestWriteEndsARememberedFailure"), test(inRedis, "TestStoreOnOneServer")},
	},
	{
		"remembered failure: the same in memory",
		"cache/memstore/leases.go", "case now.Before(l.retry) && l.guard == c.Guard:", "case now.Before(l.retry):",
		[]failingTest{test(inCache, "TestWriteEndsARememberedFailure")},
	},
	{
		"lease token: a process that lost its lease settles nothing under the lease of another",
		"cache/redisstore/scripts.go", "local mine = l.ends > t and l.token == ARGV[1]", "local mine = l.ends > t",
		[]failingTest{test(inRedis, "TestStoreOnOneServer")},
	},
	{
		"named tags: who came while a load ran waits for its repetition",
		"cache/miss.go", "if r.covers(out.named) || r.repeated {", "if true || r.covers(out.named) || r.repeated {",
		[]failingTest{test(inCache, "TestCallerWhoCameDuringALoadSeesWhatItNames")},
	},
	{
		"named tags: the same in a batch",
		"cache/many.go", "if !it.covers(a.named) && !it.repeated {", "if false && !it.covers(a.named) && !it.repeated {",
		[]failingTest{test(inCache, "TestBatchSeesWhatItsLoadNames")},
	},
	{
		"named tags: no caller joins a repetition",
		"cache/miss.go", "\t\t\tcloseCall()\n\t\t\tsettle()\n", "\t\t\tsettle()\n",
		[]failingTest{test(inCache, "TestNobodyJoinsARepetition")},
	},
	{
		"slow calls: they do not open the breaker while the store answers a recovery",
		"cache/storecall.go", "(h.validated.Load() || h.answering.Load())", "h.validated.Load()",
		[]failingTest{test(inCache, "TestSlowCallsDoNotKeepARecoveryFromItsEnd")},
	},
	{
		"joining: only a load that began under the versions that the caller has seen",
		"cache/calls.go", "if k.guarded != nil && k.guarded.guard == guard {", "if k.guarded != nil {",
		[]failingTest{test(inCache, "TestLoadUnderOldVersionsIsNotJoined")},
	},
	{
		"near's bound: nothing near is served beyond the bound after the last proof that notifications arrive",
		"cache/near.go", "now-n.proven.Load() > n.bound || ", "",
		[]failingTest{test(inCache, "TestDeafProcessServesNothingNearForLongerThanTheBound")},
	},
	{
		"near: a change invalidates the near answers that depend on it",
		"cache/near.go", " && !a.as.generations.changed()", "",
		[]failingTest{test(inCache, "TestOwnWriteEndsNearAnswersAtOnce")},
	},
	{
		"triggers: every write records what it touches",
		"cache/outbox/pgschema/outbox.sql", "ALTER TABLE ONLY %I.%I ENABLE ALWAYS TRIGGER", "ALTER TABLE ONLY %I.%I DISABLE TRIGGER",
		[]failingTest{test(inOutbox+"/postgres", "TestEveryWayToChangeARow"), acknowledgedWrites},
	},
	{
		"bump: what was loaded before the commit is invalid when the write is acknowledged",
		"cache/outbox/commit.go", "if fence.Bump(detached) != nil {", "if false {",
		[]failingTest{test(inOutbox+"/sqlite", "TestProtocol/TestOrderOfSteps")},
	},
	{
		"outbox: rows stay when their bump failed",
		"cache/outbox/commit.go", "return err // not delivered: the rows stay for a relay, and the cache knows", "_ = err",
		[]failingTest{test(inOutbox, "TestRowsStayWhenTheBumpFailed")},
	},
	{
		"unknown outcome: an error of COMMIT that a server on its way down sends leaves it open",
		"cache/outbox/postgres/tx.go", "!strings.HasPrefix(e.Code, \"57P\") &&", "true &&",
		[]failingTest{test(inOutbox+"/postgres", "TestWhichErrorsOfCommitLeaveTheOutcomeOpen")},
	},
	{
		"unknown outcome: database/sql must not run a statement again whose COMMIT may have taken effect",
		"cache/outbox/sqldb/tx.go", "t.late(lost{err})", "t.late(err)",
		[]failingTest{test(inOutbox+"/sqldb", "TestBadConnectionIsTriedAgainBeforeCommitOnly")},
	},
	{
		"relay: the outbox rows of a killed writer are delivered",
		"cache/outbox/relay.go", "n, err := r.deliverAll(ctx)", "n, err := 0, error(nil)",
		[]failingTest{test(inOutbox+"/sqlite", "TestProtocol/TestStrangersWritesAreSeenSoon"), test(inHere, "TestWriterIsKilledAtEveryStep")},
	},
}

// The list must stay correct: each text occurs once in its file, and each test exists.
func TestAblationsFitTheProgram(t *testing.T) {
	for _, a := range slices.Concat(ablations, wiringAblations) {
		if n := strings.Count(source(t, a.file), a.old); n != 1 {
			t.Errorf("%s: %q occurs %d times in %s, want once", a.mechanism, a.old, n, a.file)
		}
		if len(a.tests) == 0 {
			t.Errorf("%s: no test is named", a.mechanism)
		}
		for _, c := range a.tests {
			if !exists(t, c) {
				t.Errorf("%s: there is no %s in %s", a.mechanism, c.name, c.pkg)
			}
		}
	}
}

const root = "../../.."

func source(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(t *testing.T, c failingTest) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, c.pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	shared, err := filepath.Glob(filepath.Join(root, inOutbox, "internal", "outboxtest", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	name := path.Base(c.name) // of a subtest: TestProtocol runs those that adapters share
	for _, file := range append(files, shared...) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("func "+name+"(")) {
			return true
		}
	}
	return false
}

// Without any one of its mechanisms the program fails the tests named. It takes minutes: run it
// with -ablate, or make ablate.
func TestEveryMechanismIsMissed(t *testing.T) {
	if !*ablate {
		t.Skip("run it with -ablate, or make ablate")
	}
	for _, a := range slices.Concat(ablations, wiringAblations) {
		t.Run(a.mechanism, func(t *testing.T) {
			overlay := a.overlay(t)
			for _, c := range a.tests {
				began := time.Now()
				if output, failed := c.run(t, overlay); !failed {
					t.Errorf("%s passes without it:\n%s", c.name, output)
				} else {
					t.Logf("caught by %s in %s: %s", c.name, time.Since(began).Round(time.Second), firstFailure(output))
				}
			}
		})
	}
}

// overlay writes the changed file, and the file that -overlay reads.
func (a ablation) overlay(t *testing.T) string {
	t.Helper()
	original, err := filepath.Abs(filepath.Join(root, a.file))
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), filepath.Base(a.file))
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	name := changed + ".json"
	for path, text := range map[string]string{changed: strings.Replace(source(t, a.file), a.old, a.new, 1), name: string(list)} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// run runs the test with the overlay, and reports whether it failed. A program that does not
// compile, or a test that is not run, fails the test at hand.
func (c failingTest) run(t *testing.T, overlay string) (output string, failed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), goTimeout)
	defer cancel()
	args := append([]string{"test", "-count=1", "-v", "-vet=off", "-overlay", overlay, "-run", "^" + c.name + "$", "."}, c.args...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(root, c.pkg) // which may be in another module
	b, err := cmd.CombinedOutput()
	output = string(b)
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		t.Fatal(err)
	}
	if !strings.Contains(output, "=== RUN   "+c.name) || strings.Contains(output, "--- SKIP: "+c.name) {
		t.Fatalf("%s was not run:\n%s", c.name, output)
	}
	return output, strings.Contains(output, "--- FAIL: "+c.name)
}

var testMessage = regexp.MustCompile(`(?m)^ +\w+\.go:\d+: (.+)$`)

// firstFailure returns the first message of a failed test that is not a log line.
func firstFailure(output string) string {
	last := "it ended without a message"
	for _, m := range testMessage.FindAllStringSubmatch(output, -1) {
		last = strings.TrimSpace(m[1])
		if !strings.HasPrefix(last, "level=") && !strings.HasPrefix(last, "time=") {
			break
		}
	}
	return last
}
