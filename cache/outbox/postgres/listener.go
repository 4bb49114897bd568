package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	// ErrNotListening says that notifications do not arrive, so that the outbox must be polled.
	ErrNotListening = errors.New("outbox: notifications do not arrive")

	errClosed     = errors.New("outbox: log is closed")
	errConnecting = errors.New("not connected yet")
	errNoProof    = errors.New("LISTEN succeeds but a notification does not arrive, as through a proxy that pools transactions")
)

const (
	channel = "cache_outbox"

	connectTime = 5 * time.Second
	// A connection whose other end has vanished is as silent as one on which nothing happens, so
	// it is tried when it has been silent for this long.
	silence  = 5 * time.Second
	pingTime = 2 * time.Second
	// Through a proxy that pools transactions LISTEN succeeds and nothing ever arrives. So
	// one notification is sent from another connection, and must arrive in time.
	proofTime = 2 * time.Second

	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	proxyRetry = time.Minute // a proxy does not change its ways
)

// Wait returns nil when a transaction without a mark has touched something, or may have while
// no connection listened. While notifications do not arrive it fails at once with ErrNotListening.
// The first Wait opens the connection that listens.
func (l *Log) Wait(ctx context.Context) error { return l.listener.wait(ctx) }

// A listener is a connection that listens. A goroutine keeps it open, from the first wait until
// close: connecting may take longer than anybody wants to wait.
type listener struct {
	pool  *pgxpool.Pool
	log   *slog.Logger
	heard chan struct{} // has room for one: there may be something to deliver
	open  sync.Once
	done  chan struct{} // closed when the goroutine has ended

	life context.Context // ends with close
	end  context.CancelCauseFunc

	mu          sync.Mutex
	unavailable error // nil: it hears; guarded by mu
}

func newListener(pool *pgxpool.Pool, log *slog.Logger) *listener {
	e := &listener{pool: pool, log: log, heard: make(chan struct{}, 1), done: make(chan struct{}), unavailable: errConnecting}
	e.life, e.end = context.WithCancelCause(context.Background())
	return e
}

func (e *listener) close() {
	e.end(errClosed)
	e.open.Do(func() { close(e.done) })
	<-e.done
}

func (e *listener) wait(ctx context.Context) error {
	e.open.Do(func() { go e.run() })
	e.mu.Lock()
	unavailable := e.unavailable
	e.mu.Unlock()
	if e.life.Err() != nil {
		return errClosed
	}
	if unavailable != nil {
		return fmt.Errorf("%w: %w", ErrNotListening, unavailable)
	}
	select {
	case <-e.heard:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-e.life.Done():
		return errClosed
	}
}

func (e *listener) run() {
	defer close(e.done)
	reported := false
	for retry := firstRetry; e.life.Err() == nil; {
		conn, err := e.listen(e.life)
		if err == nil {
			e.set(nil)
			if reported {
				e.log.Info("outbox is listened to again")
			}
			reported, retry = false, firstRetry
			err = e.receive(e.life, conn)
			e.closeConn(conn)
		}
		if e.life.Err() != nil {
			return
		}
		e.set(err)
		if !reported {
			reported = true
			e.log.Warn("outbox is polled instead of listened to: changes by other programs are noticed later", "err", err)
		}
		if errors.Is(err, errNoProof) {
			retry = proxyRetry
		}
		select {
		case <-time.After(retry):
		case <-e.life.Done():
		}
		retry = min(2*retry, lastRetry)
	}
}

// set notes whether notifications arrive, and wakes all waiters: what was left before they did
// was not announced, and when they cease to, no caller must go on waiting.
func (e *listener) set(unavailable error) {
	e.mu.Lock()
	e.unavailable = unavailable
	e.mu.Unlock()
	e.wake()
}

func (e *listener) wake() {
	select {
	case e.heard <- struct{}{}:
	default: // it is known already
	}
}

// listen opens a connection that has proven to hear.
func (e *listener) listen(ctx context.Context) (_ *pgx.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	pool := e.pool.Config()
	config := pool.ConnConfig
	config.OnNotification = nil    // the caller's own, if there is one, would take them away
	if pool.BeforeConnect != nil { // such as for a password that rotates
		if err := pool.BeforeConnect(ctx, config); err != nil {
			return nil, err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.closeConn(conn)
		}
	}()
	// Only to this at first: a session that a proxy shares would go on listening, and its next
	// clients would get what no other client does.
	proof := channel + "_" + strings.ToLower(rand.Text())
	if _, err := conn.Exec(ctx, "listen "+proof); err != nil {
		return nil, err
	}
	if _, err := e.pool.Exec(ctx, `SELECT pg_notify($1::text, '') /* cache_outbox */`, proof); err != nil {
		return nil, err
	}
	proofCtx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(proofCtx)
		if proofCtx.Err() != nil {
			return nil, errNoProof
		}
		if err != nil {
			return nil, err
		}
		if n.Channel == proof {
			break
		}
	}
	_, err = conn.Exec(ctx, "listen "+channel+"; unlisten "+proof)
	return conn, err
}

// receive passes notifications on until the connection fails.
func (e *listener) receive(ctx context.Context, conn *pgx.Conn) error {
	for {
		silent, cancel := context.WithTimeout(ctx, silence)
		_, err := conn.WaitForNotification(silent)
		cancel()
		switch {
		case err == nil:
			e.wake()
		case ctx.Err() != nil || conn.IsClosed():
			return err
		default:
			ping, cancel := context.WithTimeout(ctx, pingTime)
			err := conn.Ping(ping)
			cancel()
			if err != nil {
				return err
			}
		}
	}
}

func (e *listener) closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), pingTime)
	defer cancel()
	_ = conn.Close(ctx) // it has failed already, or is not needed any more
}
