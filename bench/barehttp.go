package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/bench/internal/child"
)

// bareRole is a process with an HTTP handler that writes what it was given.
const bareRole = "bare"

// recordedAnswer is an answer as the service gave it.
type recordedAnswer struct {
	Path   string // without the query
	Header http.Header
	Body   []byte
}

func bareServer(ctx context.Context, parent *child.Parent) (any, error) {
	var answers []recordedAnswer
	if err := parent.Spec(&answers); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, a := range answers {
		mux.HandleFunc("GET "+a.Path, func(w http.ResponseWriter, _ *http.Request) {
			maps.Copy(w.Header(), a.Header)
			_, _ = w.Write(a.Body) // the client may have gone
		})
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	if err := parent.Send(listener.Addr().String()); err != nil {
		return nil, err
	}
	if _, err := parent.Ready(); err != nil {
		return nil, err
	}
	return nil, <-failed // it serves until its parent ends it
}

// fetch gets one answer as a client sees it.
func fetch(ctx context.Context, addr, path, token string) (http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %.300s", path, resp.Status, body)
	}
	return resp.Header, body, err
}

// startBare starts a bare server of the answers that the service gives to requests now.
func startBare(ctx context.Context, addr string, cases []serviceCase) (*service, error) {
	var answers []recordedAnswer
	seen := map[string]bool{}
	for _, c := range cases {
		r := c.requests[0]
		path, _, _ := strings.Cut(r.Path, "?")
		if seen[path] {
			continue // with another token; the answer is as long
		}
		seen[path] = true
		header, body, err := fetch(ctx, addr, r.Path, r.Token)
		if err != nil {
			return nil, err
		}
		header.Del("Date") // every server writes its own
		header.Set("Content-Length", strconv.Itoa(len(body)))
		answers = append(answers, recordedAnswer{Path: path, Header: header, Body: body})
	}
	p, err := child.Start(ctx, bareRole, answers)
	if err != nil {
		return nil, err
	}
	s := &service{name: bareName, pid: p.PID(), stop: func() error { return errors.Join(p.Kill(), p.Close()) }}
	if err := errors.Join(p.Receive(&s.addr), p.Ready(), p.Begin(time.Now())); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return s, nil
}
