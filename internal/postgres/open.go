package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	outboxpostgres "github.com/chainlearn/chainlearn/cache/outbox/postgres"
)

// Config of Open. Its zero value is good.
type Config struct {
	// Cache holds the answers that writes invalidate, and Relay is how its relay delivers
	// what other programs wrote. Default nil: this process caches nothing, and what it
	// writes is delivered by those that do.
	Cache *cache.Cache
	Relay outbox.RelayConfig
	// NoRelay is for a command that looks, beside the services that deliver.
	NoRelay bool
	// RequireFence refuses to write while the shared tier cannot be told beforehand.
	RequireFence bool

	// ReplicaURL is of a standby that follows the database by streaming replication. It
	// answers loads when it has replayed everything that was written before they began.
	// Default none.
	ReplicaURL string
	// ReplicaWait is how long a load waits for the standby to catch up before the primary
	// answers. Default 20 ms.
	ReplicaWait time.Duration

	// MaxConns is the most connections to the database, and to the replica; one more
	// listens. Default 16.
	MaxConns int
	// ConnectTimeout bounds the opening of a connection. Default 5 s.
	ConnectTimeout time.Duration
	// ReadTimeout is how long one question may take, with the wait for a connection. Default 5 s.
	ReadTimeout time.Duration
	// LockTimeout is how long a statement waits for a lock, such as of a table that another
	// session changes. Default 2 s.
	LockTimeout time.Duration

	// Logger receives what an operator should know, and how migrations come along.
	// Default: discarded.
	Logger *slog.Logger

	// OnQuery, if set, is called with every statement that is sent to the database or the
	// replica, transaction control and the relay's housekeeping (which names cache_outbox)
	// included, migrations not. It must be safe for concurrent use.
	OnQuery func(query string)
}

func (c Config) withDefaults() Config {
	c.ReplicaWait = cmp.Or(c.ReplicaWait, 20*time.Millisecond)
	c.MaxConns = cmp.Or(c.MaxConns, 16)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 5*time.Second)
	c.ReadTimeout = cmp.Or(c.ReadTimeout, 5*time.Second)
	c.LockTimeout = cmp.Or(c.LockTimeout, 2*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Relay.Logger = cmp.Or(c.Relay.Logger, c.Logger)
	return c
}

func (c Config) validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"ReplicaWait", c.ReplicaWait}, {"ConnectTimeout", c.ConnectTimeout}, {"ReadTimeout", c.ReadTimeout}, {"LockTimeout", c.LockTimeout}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: %s", f.name, f.value))
		}
	}
	if c.MaxConns < 2 {
		errs = append(errs, fmt.Errorf("MaxConns is %d: must be at least 2, one for a write and one for the relay", c.MaxConns))
	}
	return errors.Join(errs...)
}

// drainTimeout bounds how long a start waits for the outbox and the shared tier.
const drainTimeout = 2 * time.Second

// Open connects to the database at url and brings its schema up to date, from nothing or from
// tables that another program made; on large tables that takes a while, and reports to
// the logger. Any number of processes may do so at once. A database of a newer release is
// refused with a NewerError.
func Open(ctx context.Context, url string, cfg Config) (*Storage, error) {
	s, err := openStorage(ctx, url, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return s, nil
}

func openStorage(ctx context.Context, url string, cfg Config) (_ *Storage, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Storage{goroutines: newGoroutineGroup(), readTimeout: cfg.ReadTimeout}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.pool, err = connect(ctx, url, cfg); err != nil {
		return nil, err
	}
	if err := migrate(ctx, s.pool.Config().ConnConfig, cfg.Logger); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	s.enrolmentBatcher = newEnrolmentBatcher(s.pool, cfg.ReadTimeout, s.goroutines)
	if cfg.ReplicaURL != "" {
		pool, err := connect(ctx, cfg.ReplicaURL, cfg)
		if err != nil {
			return nil, fmt.Errorf("replica: %w", err)
		}
		s.replica = newReplica(s.pool, pool, cfg.ReplicaWait, cfg.Logger, s.goroutines)
	}
	s.log = outboxpostgres.NewLog(s.pool, cfg.Logger)
	if cfg.Cache != nil && !cfg.NoRelay {
		if s.relay, err = outbox.NewRelay(cfg.Cache, s.log, cfg.Relay); err != nil {
			return nil, err
		}
		s.relay.Start()
		// What was written while no relay ran is delivered before the first request. If the
		// shared tier is down, the cache waits for it before it serves what is stored.
		waiting, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		if err := cfg.Cache.WaitServing(waiting); err != nil {
			cfg.Logger.WarnContext(ctx, "the outbox was not drained at start; stored answers are not served until it is", "err", err)
		}
	}
	s.db, err = outboxpostgres.NewDB(s.log, cfg.Cache, outboxpostgres.Config{
		Options: outbox.Options{Relay: s.relay, RequireFence: cfg.RequireFence},
	})
	if err != nil {
		return nil, err
	}
	limits := s.db.Limits()
	cfg.Logger.InfoContext(ctx, "database is open", "host", s.pool.Config().ConnConfig.Host, "database", s.pool.Config().ConnConfig.Database,
		"max_conns", cfg.MaxConns, "replica", cfg.ReplicaURL != "", "read_timeout", cfg.ReadTimeout, "lock_timeout", cfg.LockTimeout,
		"write_statement_timeout", limits.Statement, "write_idle_timeout", limits.Idle, "write_transaction_timeout", limits.Transaction)
	return s, nil
}

// connect opens a pool that suits whatever answers, the server or a proxy before it.
func connect(ctx context.Context, url string, cfg Config) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err // pgx leaves the password out of it
	}
	config.MaxConns = int32(min(cfg.MaxConns, 1<<15))
	config.PrepareConn = prepareConn
	config.MaxConnLifetimeJitter = 5 * time.Minute // of an hour: not all at once
	config.ConnConfig.ConnectTimeout = cfg.ConnectTimeout
	if cfg.OnQuery != nil {
		config.ConnConfig.Tracer = tracer{cfg.OnQuery}
	}
	params := config.ConnConfig.RuntimeParams
	setDefault(params, "application_name", "chainlearn")
	params["timezone"] = "UTC"

	settings := map[string]string{
		"statement_timeout": strconv.FormatInt(cfg.ReadTimeout.Milliseconds(), 10),
		"lock_timeout":      strconv.FormatInt(cfg.LockTimeout.Milliseconds(), 10),
		// A caller that leaves closes its connection; the server is to notice and stop working.
		"client_connection_check_interval": "1000",
		// Each statement is to see what was committed before it; see replica.
		"default_transaction_isolation": "read committed",
	}
	for name, value := range settings {
		setDefault(params, name, value)
	}
	pool, err := dial(ctx, config)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && strings.Contains(e.Message, "unsupported startup parameter") {
		// PgBouncer does not let a client set them for a connection that it shares.
		for name := range settings {
			delete(params, name)
		}
		cfg.Logger.WarnContext(ctx, "a proxy refuses startup parameters: give the role a statement_timeout and a lock_timeout, "+
			"or the server will not limit how long it works on a question and waits for a lock", "err", e.Message)
		pool, err = dial(ctx, config)
	}
	if err != nil || strings.Contains(config.ConnString(), "default_query_exec_mode") {
		return pool, err // an explicit mode in the URL wins
	}
	shared, err := sharesSessions(ctx, pool)
	if err == nil && !shared {
		return pool, nil
	}
	pool.Close()
	if err != nil {
		return nil, err
	}
	// A statement that is prepared in one session is unknown in the next, or another client's.
	cfg.Logger.InfoContext(ctx, "a proxy answers for the database: statements are not prepared, unless the URL sets default_query_exec_mode")
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	return dial(ctx, config)
}

// sharesSessions says whether a proxy such as PgBouncer answers: the session that works is
// not the one that the connection was opened to.
func sharesSessions(ctx context.Context, pool *pgxpool.Pool) (shared bool, err error) {
	err = pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		var working uint32
		if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`, pgx.QueryExecModeSimpleProtocol).Scan(&working); err != nil {
			return err
		}
		shared = working != conn.Conn().PgConn().PID()
		return nil
	})
	return shared, err
}

func setDefault(params map[string]string, name, value string) {
	if _, set := params[name]; !set {
		params[name] = value
	}
}

func dial(ctx context.Context, config *pgxpool.Config) (*pgxpool.Pool, error) {
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// tracer reports statements as they are sent.
type tracer struct{ onQuery func(query string) }

const pingQuery = "-- ping" // what pgx sends to see whether an idle connection is alive

func (t tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL != pingQuery {
		t.onQuery(data.SQL)
	}
	return ctx
}

func (tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (t tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		t.onQuery(q.SQL)
	}
	return ctx
}

func (tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (tracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}
