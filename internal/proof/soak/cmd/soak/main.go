// Command soak attacks the cache with real servers and processes for a given time, and
// reports what broke.
//
//	soak -duration 1h
//	soak -duration 5m -seed 42 -faults frozen,flushed -v
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/soak"
)

func main() {
	soak.BecomeWorker()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

var errViolated = errors.New("promises were broken, see above")

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	var cfg soak.Config
	flags.DurationVar(&cfg.Duration, "duration", 10*time.Minute, "how long to inject faults")
	flags.Uint64Var(&cfg.Seed, "seed", 0, "of the schedule; 0 draws one")
	flags.IntVar(&cfg.Workers, "workers", 4, "processes")
	flags.IntVar(&cfg.Workload.Readers, "readers", 12, "reading clients of each process")
	flags.IntVar(&cfg.Workload.Writers, "writers", 2, "writing clients of each process")
	flags.DurationVar(&cfg.Workload.Pace, "pace", 6*time.Millisecond, "pause of a reader between two reads")
	flags.DurationVar(&cfg.Workload.WritePace, "write-pace", 30*time.Millisecond, "pause of a writer between two writes")
	flags.DurationVar(&cfg.Repair, "repair", 5*time.Second, "how long writes that cannot be strict may take to show everywhere")
	flags.BoolVar(&cfg.NoFaults, "no-faults", false, "inject no faults")
	names := flags.String("faults", "", "inject only those whose names contain one of these, separated by commas:\n"+strings.Join(soak.Faults(), "\n"))
	report := flags.String("report", "", "also write the report to this file")
	verbose := flags.Bool("v", false, "log every segment")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *names != "" {
		cfg.Faults = strings.Split(*names, ",")
	}
	for cfg.Seed == 0 {
		cfg.Seed = rand.Uint64N(1 << 32) // short enough to type
	}
	if *verbose {
		cfg.Log = out
	}
	_, _ = fmt.Fprintf(out, "soak: %s with seed %d\n", cfg.Duration, cfg.Seed)
	found, err := soak.Run(ctx, cfg)
	if found != nil {
		if _, err := fmt.Fprint(out, found); err != nil {
			return err
		}
		if *report != "" {
			err = errors.Join(err, os.WriteFile(*report, []byte(found.String()), 0o644))
		}
		if len(found.Violations) > 0 {
			err = errors.Join(err, errViolated)
		}
	}
	return err
}
