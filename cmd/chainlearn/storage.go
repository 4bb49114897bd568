package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/postgres"
	"github.com/chainlearn/chainlearn/internal/ratelimit"
	"github.com/chainlearn/chainlearn/internal/seed"
	"github.com/chainlearn/chainlearn/internal/sqlite"
)

// storage is a database that the commands can work on.
type storage interface {
	learning.Storage
	seed.Sink
	Source() cache.Source
	Backlog(ctx context.Context) (rows int, oldest time.Duration, err error)
	Close() error
}

// cacheOptions says what the storage is to invalidate. The zero value is for commands that
// cache nothing: what they write is delivered by the services that do.
type cacheOptions struct {
	cache *cache.Cache
	// exclusive says that no other process shares the cache. Then no other may serve the same
	// embedded database: each would miss the other's invalidations.
	exclusive bool
	relay     outbox.RelayConfig
	noRelay   bool // others deliver
}

// openStorage is the one place that chooses a database. It brings the schema up to date.
func openStorage(ctx context.Context, db databaseConfig, cached cacheOptions, log *slog.Logger) (storage, error) {
	if db.path == "" {
		if cached.cache != nil && cached.exclusive {
			log.WarnContext(ctx, "PostgreSQL without REDIS_URL: the cache is in this process, so no other process may serve this database")
		}
		s, err := postgres.Open(ctx, db.url, postgres.Config{
			Cache: cached.cache, Relay: cached.relay, NoRelay: cached.noRelay, ReplicaURL: db.replicaURL, MaxConns: db.maxConns, Logger: log,
		})
		if err != nil {
			return nil, err // not a nil *postgres.Storage in an interface
		}
		return s, nil
	}
	s, err := sqlite.Open(ctx, db.path, sqlite.Config{
		Cache: cached.cache, Relay: cached.relay, NoRelay: cached.noRelay, Exclusive: cached.cache != nil && cached.exclusive,
	})
	if errors.Is(err, sqlite.ErrInUse) {
		return nil, fmt.Errorf("%w: stop the other chainlearn first, or give both the same REDIS_URL", err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// tagLife is how long Redis keeps the version of a tag at the least. A client may ask for any number of
// courses that do not exist, and each has a tag. That of an answer lives on: twice as long as the answer.
const tagLife = time.Minute

// redisPrefix begins the keys of every release of this program.
const redisPrefix = "chainlearn:"

// openStore is the one place that chooses where answers are kept, and says how long one
// call of it may take; 0 is the cache's default.
// Decision 20.
func openStore(ctx context.Context, redisURL string, log *slog.Logger) (driver.Store, time.Duration, error) {
	if redisURL == "" {
		// A store in this process cannot hang. If it seems to, the machine is busy, and
		// asking the database instead would make it busier.
		return memstore.New(memstore.Config{}), time.Second, nil
	}
	s, err := redisstore.Open(ctx, redisstore.Config{URL: redisURL, Prefix: redisPrefix, TagLife: tagLife, Logger: log})
	if err != nil {
		return nil, 0, fmt.Errorf("REDIS_URL: %w", err)
	}
	return s, 0, nil
}

// openLimiter is the one place that chooses where requests are counted.
func openLimiter(redisURL string, metrics prometheus.Registerer, log *slog.Logger) (*ratelimit.Limiter, error) {
	cfg := ratelimit.Config{Prefix: redisPrefix, Metrics: metrics, Logger: log}
	if redisURL != "" {
		options, err := redisstore.ParseURL(redisURL)
		if err != nil {
			return nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		cfg.Redis = &options
	}
	return ratelimit.New(cfg)
}

type migrateCommand struct {
	databaseSettings
	logSettings
}

func (s *migrateCommand) Run(env *environment) error {
	wrong := &settingsError{}
	db := s.databaseSettings.parse(wrong)
	log := s.logger(env, wrong)
	if err := wrong.err(); err != nil {
		return err
	}
	storage, err := openStorage(env.ctx, db, cacheOptions{}, log)
	if err != nil {
		return err
	}
	if err := storage.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.stdout, "the schema is up to date")
	return err
}
