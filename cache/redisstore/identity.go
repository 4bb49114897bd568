package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// identity stands for one incarnation of a server's data. It is combined with the stored
// versions, so that a version of another incarnation never equals one of this.
type identity [16]byte

// effective returns the version that readers see for a stored one.
// Decision 7.
func (id identity) effective(stored string) driver.Version {
	var v driver.Version
	for i := range v {
		v[i] = id[i] ^ stored[i]
	}
	return v
}

// serverInfo is what a server reports about itself.
type serverInfo struct {
	identity     identity
	withoutRunID bool   // the server does not tell its run id: identity holds for one generation
	version      string // "redis 7.0.15"
	mode         string // standalone, cluster or sentinel
}

// infoSections are fetched in one round trip. Several sections in one INFO need Redis 7.
var infoSections = []string{"server", "replication", "persistence"}

// fetchServerInfo asks the server behind client for its identity. It fails if the server is not
// a master, or does not serve yet. gen is the generation of e, the endpoint of client.
func fetchServerInfo(ctx context.Context, client rueidis.Client, e *endpoint, gen uint64) (serverInfo, error) {
	requests := make([]rueidis.Completed, 0, len(infoSections)+1)
	requests = append(requests, client.B().Arbitrary("HELLO").Build())
	for _, section := range infoSections {
		requests = append(requests, client.B().Arbitrary("INFO", section).Build())
	}
	replies := client.DoMulti(ctx, requests...)
	var text strings.Builder
	for _, r := range replies[1:] {
		s, err := r.ToString()
		if re, ok := rueidis.IsRedisErr(err); ok {
			if !isForbidden(re) {
				return serverInfo{}, err
			}
			return infoWithoutRunID(replies[0], e, gen)
		} else if err != nil {
			return serverInfo{}, err
		}
		text.WriteString(s)
	}
	return parseInfo(text.String(), e, gen)
}

// isForbidden reports that a command is not allowed to the account, or unknown: renamed or
// removed by the operator of the server.
func isForbidden(err *rueidis.RedisError) bool {
	s := err.Error()
	return strings.HasPrefix(s, "NOPERM") || strings.Contains(s, "unknown command") || strings.Contains(s, "not allowed")
}

// parseInfo reads the sections of INFO.
func parseInfo(text string, e *endpoint, gen uint64) (serverInfo, error) {
	field := func(name string) string { return infoField(text, name) }
	if role := field("role"); role != "master" {
		return serverInfo{}, fmt.Errorf("it is a %s and not the master", orUnknown(role))
	}
	if field("loading") == "1" {
		return serverInfo{}, errors.New("it is still loading its data")
	}
	info := serverInfo{mode: field("redis_mode"), version: "redis " + field("redis_version")}
	if v := field("valkey_version"); v != "" {
		info.version, info.mode = "valkey "+v, field("server_mode")
	}
	run := field("run_id")
	if strings.Trim(run, "0") == "" {
		info.identity, info.withoutRunID = e.identityWithoutRunID(gen), true
		return info, nil
	}
	// The replication id changes where the run id does not: when a server was a replica for a
	// while, took over the data of its master, and is master again.
	info.identity = digest(run, field("master_replid"))
	return info, nil
}

// infoField returns the value of a line of INFO, or "".
func infoField(text, name string) string {
	_, rest, found := strings.Cut("\n"+text, "\n"+name+":")
	if !found {
		return ""
	}
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSuffix(value, "\r")
}

func orUnknown(role string) string {
	if role == "" {
		return "server of unknown role"
	}
	return role
}

// infoWithoutRunID reads the reply to HELLO where INFO is forbidden. Every account may use HELLO,
// but nothing in its reply changes with the incarnation.
func infoWithoutRunID(hello rueidis.RedisResult, e *endpoint, gen uint64) (serverInfo, error) {
	info, err := parseHello(hello)
	if re, ok := rueidis.IsRedisErr(err); err != nil && (!ok || !isForbidden(re)) {
		return serverInfo{}, err
	}
	info.identity, info.withoutRunID = e.identityWithoutRunID(gen), true
	return info, nil
}

// parseHello reads the reply to HELLO, and fails if it is not from a master.
func parseHello(hello rueidis.RedisResult) (serverInfo, error) {
	fields, err := hello.AsMap()
	if err != nil {
		return serverInfo{}, err
	}
	text := func(name string) string {
		m := fields[name]
		s, _ := m.ToString()
		return s
	}
	if role := text("role"); role != "master" {
		return serverInfo{}, fmt.Errorf("it is a %s and not the master", orUnknown(role))
	}
	return serverInfo{version: text("server") + " " + text("version"), mode: text("mode")}, nil
}

// identityWithoutRunID returns a random identity for each generation of connections: without a
// run id, every new connection may lead to another server.
func (e *endpoint) identityWithoutRunID(gen uint64) identity {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.randomIDGeneration != gen {
		e.randomIDGeneration = gen
		_, _ = rand.Read(e.randomID[:])
	}
	return e.randomID
}

// Decision 14.
func digest(parts ...string) identity {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return identity(sum[:16])
}

// nameLife is longer than a program that is in use stays without a start. Losing the name is safe:
// the outbox takes the store for a new one, and all it holds is invalidated once.
const nameLife = 30 * 24 * time.Hour

// Name implements driver.Store. The name is kept beside the data, so that it goes where they go:
// through restarts and failovers, and not to another server that has the same prefix. Each
// process that asks for it renews its life; a prefix that is no longer used leaves nothing.
func (s *Store) Name(ctx context.Context) (string, error) {
	key, life := []string{s.names.self()}, millis(nameLife)
	replies, err := s.exec(ctx, []command{
		{nil, key, []string{"SET", rand.Text(), "NX", "PX", life}},
		{nil, key, []string{"GET"}},
		{nil, key, []string{"PEXPIRE", life}},
	})
	if err != nil {
		return "", fmt.Errorf("redisstore: name: %w", err)
	}
	name, err := replies[1].ToString()
	if err != nil {
		return "", fmt.Errorf("redisstore: name: %w", err)
	}
	return "redis:" + string(s.names) + name, nil
}
