package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// identity stands for one incarnation of a server's data. It is combined with the stored
// versions, so that those of another incarnation never equal it.
type identity [16]byte

// effective is the version that readers see of a stored one.
func (id identity) effective(stored string) driver.Version {
	var v driver.Version
	for i := range v {
		v[i] = id[i] ^ stored[i]
	}
	return v
}

// serverInfo is what a server says of itself.
type serverInfo struct {
	identity identity
	nameless bool   // the server does not tell who it is: identity holds for one connection
	version  string // "redis 7.0.15"
	mode     string // standalone, cluster or sentinel
}

// infoCommands are asked in one trip. Several sections in one INFO need Redis 7.
var infoCommands = []string{"server", "replication", "persistence"}

// interrogate asks the server behind client who it is, and fails if it is not a master
// that serves.
func interrogate(ctx context.Context, client rueidis.Client, nd *node, gen uint64) (serverInfo, error) {
	asks := make([]rueidis.Completed, 0, len(infoCommands)+1)
	asks = append(asks, client.B().Arbitrary("HELLO").Build())
	for _, section := range infoCommands {
		asks = append(asks, client.B().Arbitrary("INFO", section).Build())
	}
	replies := client.DoMulti(ctx, asks...)
	var text strings.Builder
	for _, r := range replies[1:] {
		s, err := r.ToString()
		if re, ok := rueidis.IsRedisErr(err); ok {
			if !refusal(re) {
				return serverInfo{}, err
			}
			return introduce(replies[0], nd, gen)
		} else if err != nil {
			return serverInfo{}, err
		}
		text.WriteString(s)
	}
	return parseInfo(text.String(), nd, gen)
}

// refusal reports that a command is forbidden to the account, or unknown: renamed or
// left out by who hosts the server.
func refusal(err *rueidis.RedisError) bool {
	s := err.Error()
	return strings.HasPrefix(s, "NOPERM") || strings.Contains(s, "unknown command") || strings.Contains(s, "not allowed")
}

// parseInfo reads the sections of INFO.
func parseInfo(text string, nd *node, gen uint64) (serverInfo, error) {
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
		info.identity, info.nameless = nd.anonymousAt(gen), true
		return info, nil
	}
	// The replication id changes where the run id does not: when a server that was made
	// a replica for a while, and has the data of another since, is master again.
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

// introduce takes what HELLO tells, which every account may use, where INFO is refused:
// nothing that changes with the incarnation.
func introduce(hello rueidis.RedisResult, nd *node, gen uint64) (serverInfo, error) {
	info, err := greet(hello)
	if re, ok := rueidis.IsRedisErr(err); err != nil && (!ok || !refusal(re)) {
		return serverInfo{}, err
	}
	info.identity, info.nameless = nd.anonymousAt(gen), true
	return info, nil
}

// greet reads the reply to HELLO, and fails if it is not from a master.
func greet(hello rueidis.RedisResult) (serverInfo, error) {
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

// anonymousAt makes up an identity for each generation of connections: without a name,
// every new connection may lead to another server.
func (n *node) anonymousAt(gen uint64) identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nameless != gen {
		n.nameless = gen
		_, _ = rand.Read(n.anonymous[:])
	}
	return n.anonymous
}

func digest(parts ...string) identity {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return identity(sum[:16])
}
