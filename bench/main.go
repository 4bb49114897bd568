// Bench compares package cache with other Go cache libraries, and the service with a bare
// HTTP handler, and writes a report.
//
//	go run . [flags]        everything, in less than ten minutes
//	go run . -only hits     only the experiments whose names match
//	go run . -long          more rounds, and the sizes that take long
//
// It starts the servers that it needs: redis-server has to be installed, and for the
// experiment "service" PostgreSQL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/chainlearn/chainlearn/bench/internal/child"
)

func main() {
	child.Serve(roles)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// experiments in the order in which they run and are reported.
var experiments = []experiment{
	nearHits,
	redisHits,
	misses,
	stampede,
	failures,
	frozen,
	staleStore,
	tagInvalidation,
	memory,
	growthKeys,
	growthTags,
	namedTags,
	growthSize,
	growthProcesses,
	growthWriters,
	serviceLoad,
}

// roles of the processes that experiments start.
var roles = map[string]child.Role{
	callersRole: callers,
	frozenRole:  duringFreeze,
	hitsRole:    measureHitsInProcess,
	heapRole:    heapOfNear,
	bareRole:    bareServer,
}

type settings struct {
	only   *regexp.Regexp
	out    string
	rounds int
	slice  time.Duration
	long   bool
	// profile writes a CPU profile of each experiment beside its raw values. Labels
	// select a subject: go tool pprof -tagfocus 'subject=chainlearn' FILE.
	profile bool
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "run only the experiments whose names match this regular expression")
	flags.StringVar(&s.out, "out", "results", "directory for the report, the plots and the raw values")
	flags.IntVar(&s.rounds, "rounds", 5, "how often each contender is measured")
	flags.DurationVar(&s.slice, "slice", 100*time.Millisecond, "how long each contender is measured in one round")
	flags.BoolVar(&s.long, "long", false, "also the sizes that take long, and slices three times as long")
	flags.BoolVar(&s.profile, "profile", false, "write a CPU profile of each experiment to raw/, with the labels case and subject")
	flags.Usage = func() {
		log.New(stderr, "", 0).Printf("Usage: bench [flags]\n\nExperiments: %s.\n", strings.Join(names(), ", "))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	var errs []error
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		errs = append(errs, fmt.Errorf("-only: %w", err))
	}
	if s.rounds < 1 {
		errs = append(errs, fmt.Errorf("-rounds is %d: must be at least 1", s.rounds))
	}
	if s.slice <= 0 {
		errs = append(errs, fmt.Errorf("-slice is %v: must be positive", s.slice))
	}
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected %q: there are only flags", flags.Args()))
	}
	if s.long {
		s.slice *= 3
	}
	return s, errors.Join(errs...)
}

func names() []string {
	var all []string
	for _, e := range experiments {
		all = append(all, e.name)
	}
	return all
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	var chosen []experiment
	for _, e := range experiments {
		if s.only.MatchString(e.name) {
			chosen = append(chosen, e)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("-only %s: no experiment matches; there are %s", s.only, strings.Join(names(), ", "))
	}
	progress := log.New(stderr, "", 0)
	progress.Printf("%d experiments, %d rounds, on %d processors", len(chosen), s.rounds, runtime.GOMAXPROCS(0))
	return runExperiments(ctx, s, chosen, "go run . "+strings.Join(args, " "), progress)
}
