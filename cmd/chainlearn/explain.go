package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

type explainCommand struct {
	besideSettings
	Query  string `arg:"" optional:"" help:"Name of a query. Without one, the queries are listed."`
	Params string `arg:"" optional:"" help:"Its parameters, as JSON. Default: those of the list, which shows their form."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (s *explainCommand) Help() string {
	return `Says what Redis has of an answer, whether it is valid, and what the next read would do. It loads and changes nothing, and may run beside the service.

Examples:
  chainlearn cache explain
  chainlearn cache explain courses:list '{"Difficulty":"","Page":1,"Limit":20}'

The exit code is 0, or 2 if there is nothing to explain. Opens the database as serve does, which brings its schema up to date.`
}

func (s *explainCommand) Run(env *environment) error {
	wrong := &settingsError{}
	db, log := s.parse(env, wrong)
	if s.Query != "" && s.RedisURL == "" {
		wrong.add("REDIS_URL", "is not set: then each process has a cache of its own, of which another can tell nothing")
	}
	if err := wrong.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(env.ctx, besideTimeout)
	defer cancel()
	if err := s.explain(ctx, env.stdout, db, log); err != nil {
		return &exitError{exitUsage, err}
	}
	return nil
}

func (s *explainCommand) explain(ctx context.Context, out io.Writer, db databaseConfig, log *slog.Logger) (err error) {
	opened, err := openBeside(ctx, db, s.storeSettings, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	if s.Query == "" {
		return s.printQueries(out, opened.cache.Queries())
	}
	in, err := opened.cache.Inspect(ctx, s.Query, []byte(s.Params))
	if err != nil {
		return err
	}
	return s.printInspection(out, in)
}

func (s *explainCommand) printQueries(out io.Writer, infos []cache.QueryInfo) error {
	if s.JSON {
		type query struct {
			Query      string          `json:"query"`
			FreshFor   float64         `json:"freshForSeconds"`
			StaleFor   float64         `json:"staleForSeconds"`
			Parameters json.RawMessage `json:"parameters"`
		}
		list := make([]query, len(infos))
		for i, q := range infos {
			list[i] = query{q.Name, q.FreshFor.Seconds(), staleFor(q).Seconds(), q.Params}
		}
		return printJSON(out, list)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "QUERY\tFRESH FOR\tSTALE FOR\tPARAMETERS")
	for _, q := range infos {
		_, _ = fmt.Fprintf(w, "%s\t%v\t%v\t%s\n", q.Name, q.FreshFor, staleFor(q), q.Params)
	}
	return w.Flush()
}

// staleFor is for how long an answer may be served after it has been fresh, whatever the reason.
func staleFor(q cache.QueryInfo) time.Duration { return max(q.StaleWhileRevalidate, q.StaleIfError) }

func (s *explainCommand) printInspection(out io.Writer, in cache.Inspection) error {
	if s.JSON {
		failed := ""
		if in.StoreErr != nil {
			failed = in.StoreErr.Error()
		}
		return printJSON(out, struct {
			Query     string      `json:"query"`
			Key       string      `json:"key"`
			Tags      []cache.Tag `json:"tags"`
			Named     []cache.Tag `json:"named"`
			Added     []cache.Tag `json:"added"`
			Fenced    []cache.Tag `json:"fenced"`
			Stored    bool        `json:"stored"`
			Valid     bool        `json:"valid"`
			Found     bool        `json:"found"`
			Bytes     int         `json:"bytes"`
			Age       float64     `json:"ageSeconds"`
			FreshFor  float64     `json:"freshForSeconds"` // negative: past it
			Next      string      `json:"next"`
			Detail    string      `json:"detail"`
			StoreFail string      `json:"storeError"`
		}{
			in.Query, in.Key, in.Tags, in.Named, in.Added, in.Fenced, in.Stored, in.Valid, in.Found, in.Bytes,
			in.Age.Seconds(), in.TTL.Seconds(), in.Next.String(), in.Detail, failed,
		})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { _, _ = fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	line("query", "%s", in.Query)
	line("key", "%s", in.Key)
	line("depends on", "%s", joined(in.Tags))
	if len(in.Named) > 0 {
		line("  its load named", "%s", joined(in.Named))
	}
	line("  and so, unasked, on", "%s", joined(in.Added))
	switch {
	case in.StoreErr != nil:
		line("stored", "unknown: Redis does not answer: %v", in.StoreErr)
	case !in.Stored:
		line("stored", "no")
	case !in.Valid:
		line("stored", "%d bytes, loaded %v ago; no longer valid: something that it depends on was written since", in.Bytes, in.Age.Round(time.Millisecond))
	case in.TTL <= 0:
		line("stored", "%d bytes, loaded %v ago; valid, and past its time for %v", in.Bytes, in.Age.Round(time.Millisecond), -in.TTL.Round(time.Millisecond))
	default:
		line("stored", "%d bytes, loaded %v ago; valid, and fresh for %v", in.Bytes, in.Age.Round(time.Millisecond), in.TTL.Round(time.Millisecond))
	}
	if in.Valid && !in.Found {
		line("", "it says that there is nothing")
	}
	if len(in.Fenced) > 0 {
		line("fenced", "%s: a write is under way, or ended without saying so a moment ago", joined(in.Fenced))
	}
	next := map[cache.Status]string{
		cache.Hit: "answered with it", cache.Stale: "answered with it, which is loaded again behind",
		cache.Miss: "loads it, and stores it", cache.Bypass: "loads it, and stores nothing",
	}[in.Next]
	if in.Detail != "" {
		next += " (" + in.Detail + ")"
	}
	line("the next read", "%s: %s", in.Next, next)
	return w.Flush()
}

func joined(tags []cache.Tag) string {
	texts := make([]string, len(tags))
	for i, tag := range tags {
		texts[i] = string(tag)
	}
	return strings.Join(texts, " ")
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
