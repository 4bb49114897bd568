// Command chainlearn serves the learning platform and looks after its database.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// environment is what a command reads and writes.
type environment struct {
	ctx            context.Context // ends when the program is to stop
	getenv         func(string) string
	stdout, stderr io.Writer
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line or the configuration is wrong
)

// exitError ends the program with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// cli is the command line.
type cli struct {
	Serve   serveCommand   `cmd:"" help:"Serve the API."`
	Health  healthCommand  `cmd:"" help:"Ask the service on this machine whether it is well."`
	Migrate migrateCommand `cmd:"" help:"Bring the database's schema up to date."`
	Seed    seedCommand    `cmd:"" help:"Fill the database with made-up data."`
	Import  importCommand  `cmd:"" help:"Create and change courses, as a file says."`
	Token   tokenCommand   `cmd:"" help:"Print a token for a user."`
	Key     keyCommand     `cmd:"" help:"Print a fresh key for STELLAR_SERVER_KEY."`
	Cache   cacheCommand   `cmd:"" help:"Look after the cache."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// run is the whole program but for its signals. Flags default from the environment, which
// is read through getenv and nowhere else.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	env := &environment{ctx: ctx, getenv: getenv, stdout: stdout, stderr: stderr}
	helped := false
	parser, err := kong.New(&cli{},
		kong.Name("chainlearn"),
		kong.Description("A learning platform whose answers are cached and never outdated."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }), // only --help calls it
		kong.Resolvers(fromEnvironment(getenv)),
		kong.ValueFormatter(helpWithVariable),
		kong.Bind(env),
	)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "chainlearn:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if helped {
		return exitOK
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "chainlearn: %v\nchainlearn --help lists commands and flags.\n", err)
		return exitUsage
	}
	err = command.Run()
	if wrong, ok := errors.AsType[*settingsError](err); ok {
		_, _ = fmt.Fprintln(stderr, wrong)
		return exitUsage
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "chainlearn:", err)
		if e, ok := errors.AsType[*exitError](err); ok {
			return e.code
		}
		return exitFailed
	}
	return exitOK
}

// settingsGroup is the group of the flags that the environment may set too. Others, such
// as --user, must not be read from a variable with another meaning.
const settingsGroup = "Settings"

func variableOf(flag *kong.Flag) string {
	if flag == nil || flag.Group == nil || flag.Group.Key != settingsGroup {
		return ""
	}
	return strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
}

// fromEnvironment takes the value of a setting from its variable. An empty variable is as
// good as none.
func fromEnvironment(getenv func(string) string) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if name := variableOf(flag); name != "" {
			if value := getenv(name); value != "" {
				return value, nil
			}
		}
		return nil, nil
	})
}

func helpWithVariable(value *kong.Value) string {
	if name := variableOf(value.Flag); name != "" {
		return value.Help + " ($" + name + ")"
	}
	return kong.DefaultHelpValueFormatter(value)
}

type versionCommand struct{}

func (versionCommand) Run(env *environment) error {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	_, err := fmt.Fprintln(env.stdout, "chainlearn", version)
	return err
}
