package testservers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// With this variable set the test binary is the child of TestServersDieWithTheirProcess.
const childEnv = "TESTSERVERS_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := startAndWait(); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(testservers.Main(m))
}

// startAndWait starts one server of every state that could keep it alive,
// prints what there is of them and waits to be killed.
func startAndWait() error {
	ctx := context.Background()
	var left leftovers
	for _, freeze := range []bool{false, true} {
		r, err := testservers.OpenRedis(ctx, testservers.RedisConfig{})
		if err != nil {
			return err
		}
		p, err := testservers.OpenPostgres(ctx, testservers.PostgresConfig{})
		if err != nil {
			return err
		}
		m, err := testservers.OpenMariaDB(ctx, testservers.MariaDBConfig{})
		if err != nil {
			return err
		}
		for _, s := range []interface {
			PIDs() ([]int, error)
			Home() string
			Freeze() error
		}{r, p, m} {
			pids, err := s.PIDs()
			if err != nil {
				return err
			}
			left.PIDs = append(left.PIDs, pids...)
			left.Homes = append(left.Homes, s.Home())
			if freeze {
				if err := s.Freeze(); err != nil {
					return err
				}
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(left); err != nil {
		return err
	}
	_, err := os.Stdin.Read(make([]byte, 1)) // until this process is killed
	return err
}

// leftovers are what a killed process could leave behind.
type leftovers struct {
	PIDs  []int
	Homes []string
}

func TestServersDieWithTheirProcess(t *testing.T) {
	t.Parallel()
	testservers.SharedRedis(t)    // skips where there is none
	testservers.SharedPostgres(t) // skips where there is none
	testservers.SharedMariaDB(t)  // skips where there is none
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"=1")
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	testservers.Must(t, err)
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	testservers.Must(t, err)
	testservers.Must(t, child.Start())
	var left leftovers
	readErr := json.NewDecoder(stdout).Decode(&left)
	testservers.Must(t, child.Process.Kill())
	_ = child.Wait()
	testservers.Must(t, readErr)
	defer func() {
		for _, home := range left.Homes { // or the disk holds them until the next sweep
			testservers.Must(t, os.RemoveAll(home))
		}
	}()

	if len(left.PIDs) < 8 {
		t.Fatalf("the child named the processes %v, want two Redis servers, two MariaDB servers, and two PostgreSQL servers with children", left.PIDs)
	}
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		for _, pid := range left.PIDs {
			if !testservers.Gone(pid) {
				return false, fmt.Sprintf("process %d outlives the one that started it", pid)
			}
		}
		return true, ""
	})
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	p := testservers.StartPostgres(t, testservers.PostgresConfig{})
	m := testservers.StartMariaDB(t, testservers.MariaDBConfig{})
	connect(t, p.URL())
	for _, s := range []interface {
		PIDs() ([]int, error)
		Home() string
		Freeze() error
		Close() error
	}{r, p, m} {
		pids, err := s.PIDs()
		testservers.Must(t, err)
		testservers.Must(t, s.Freeze()) // the state that is hardest to end
		testservers.Must(t, s.Close())
		testservers.Must(t, s.Close())
		for _, pid := range pids {
			if !testservers.Gone(pid) {
				t.Errorf("process %d is still there after Close", pid)
			}
		}
		if _, err := os.Stat(s.Home()); !os.IsNotExist(err) {
			t.Errorf("%s is still there after Close (%v)", s.Home(), err)
		}
	}
}
