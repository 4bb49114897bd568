package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	cachedriver "github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is what the connections of a fake driver share: it notes what is sent, and fails on request.
type server struct {
	mu     sync.Mutex
	sent   []string                 // guarded by mu
	opened int                      // guarded by mu
	skips  bool                     // arguments are for prepared statements
	on     func(query string) error // may panic
}

func (s *server) send(query string) error {
	s.mu.Lock()
	s.sent = append(s.sent, query)
	on := s.on
	s.mu.Unlock()
	if on != nil {
		return on(query)
	}
	return nil
}

func (s *server) Connect(context.Context) (driver.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if s.skips {
		return skippingConn{oldConn{s}}, nil
	}
	return oldConn{s}, nil
}

func (s *server) Driver() driver.Driver { return nil }

// oldConn has nothing but what a driver must have.
type oldConn struct{ s *server }

func (c oldConn) Prepare(query string) (driver.Stmt, error) { return oldStmt{c.s, query}, nil }
func (c oldConn) Close() error                              { return nil }
func (c oldConn) Begin() (driver.Tx, error)                 { return oldTx(c), c.s.send("driver's BEGIN") }

// skippingConn takes arguments only of what is prepared.
type skippingConn struct{ oldConn }

func (c skippingConn) ExecContext(_ context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) > 0 {
		return nil, driver.ErrSkip
	}
	return driver.RowsAffected(0), c.s.send(query)
}

type oldTx oldConn

func (t oldTx) Commit() error   { return t.s.send("driver's COMMIT") }
func (t oldTx) Rollback() error { return t.s.send("driver's ROLLBACK") }

type oldStmt struct {
	s     *server
	query string
}

func (s oldStmt) Close() error  { return nil }
func (s oldStmt) NumInput() int { return strings.Count(s.query, "?") }
func (s oldStmt) Exec(args []driver.Value) (driver.Result, error) {
	return driver.RowsAffected(len(args)), s.s.send(s.query + joined(args))
}
func (s oldStmt) Query(args []driver.Value) (driver.Rows, error) {
	return &oldRows{s: s.s}, s.s.send(s.query + joined(args))
}

func joined(args []driver.Value) (text string) {
	for _, a := range args {
		text += fmt.Sprint(a)
	}
	return text
}

// ColumnConverter makes every argument a text with its place.
func (s oldStmt) ColumnConverter(i int) driver.ValueConverter { return placed(i) }

type placed int

func (p placed) ConvertValue(v any) (driver.Value, error) { return fmt.Sprintf("<%d:%v>", p, v), nil }

type oldRows struct {
	s    *server
	read bool
}

func (r *oldRows) Columns() []string { return []string{"a"} }
func (r *oldRows) Close() error      { return r.s.send("close") }
func (r *oldRows) Next(dest []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read = true
	dest[0] = int64(1)
	return r.s.send("next")
}

// simple is a dialect in which the first word of a statement is its kind.
type simple struct{}

func (simple) Ready(context.Context, Sender) (bool, error) { return true, nil }
func (simple) KindOf(_ context.Context, _ Sender, query string) Kind {
	if strings.HasPrefix(query, "write") {
		return Writes
	}
	return Reads
}
func (simple) Begin(ctx context.Context, s Sender, _ sql.IsolationLevel, _ cachedriver.Mark, _ time.Duration) error {
	_, err := s.Send(ctx, "BEGIN")
	return err
}
func (simple) Touched(ctx context.Context, s Sender, mark cachedriver.Mark, _ time.Duration) ([]outbox.Row, error) {
	_, err := s.Send(ctx, "touched")
	return []outbox.Row{{ID: 1, Tag: "a:1", Mark: mark}}, err
}
func (simple) Undone(err error) bool { return errors.Is(err, errRefused) }
func (simple) Rollback(ctx context.Context, s Sender, check bool) error {
	_, err := s.Send(ctx, "ROLLBACK")
	return err
}
func (simple) Committed(context.Context, Sender) error                   { return nil }
func (simple) Log(*sql.DB, *slog.Logger) outbox.Log                      { return nil }
func (simple) Source(*sql.DB, *cache.Cache, outbox.Options) cache.Source { return nil }

var errRefused = errors.New("refused")

// open returns a database over the server, with a simple dialect.
func open(t *testing.T, s *server) *sql.DB {
	t.Helper()
	store := memstore.New(memstore.Config{})
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(&connector{s, &core{cache: c, dialect: simple{}}})
	db.SetMaxOpenConns(1)
	t.Cleanup(func() {
		if err := errors.Join(db.Close(), c.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return db
}

// A driver that has nothing but what it must have behaves as it does without the wrapper.
func TestOldDriver(t *testing.T) {
	t.Parallel()
	s := &server{}
	db := open(t, s)
	if _, err := db.ExecContext(t.Context(), "write ?", 7); err != nil {
		t.Fatal(err)
	}
	if want := []string{"BEGIN", "write ?<0:7>", "touched", "COMMIT"}; !slices.Equal(s.sent, want) {
		t.Errorf("sent %q, want %q", s.sent, want)
	}
	s.sent = nil
	rows, err := db.QueryContext(t.Context(), "write rows ?", "x")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := types[0].Length(); ok || types[0].ScanType() != reflect.TypeFor[any]() || types[0].DatabaseTypeName() != "" {
		t.Errorf("the driver knows no types, and the column has %+v", types[0])
	}
	for rows.Next() {
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if rows.NextResultSet() {
		t.Error("there is another result")
	}
	if want := []string{"BEGIN", "write rows ?<0:x>", "next", "close", "touched", "COMMIT"}; !slices.Equal(s.sent, want) {
		t.Errorf("sent %q, want %q", s.sent, want)
	}
	s.sent = nil
	if err := db.QueryRowContext(t.Context(), "read").Scan(new(int)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"read", "next", "close"}; !slices.Equal(s.sent, want) {
		t.Errorf("sent %q, want %q", s.sent, want)
	}
	if _, err := db.ExecContext(t.Context(), "write", sql.Named("n", 1)); err == nil {
		t.Error("the driver does not know names, and took one")
	}
	if _, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true}); err == nil {
		t.Error("the driver does not know read-only transactions, and began one")
	}
	if s.opened != 1 {
		t.Errorf("opened %d connections", s.opened)
	}
}

// A driver that takes arguments only of what is prepared costs a transaction in vain once.
func TestDriverThatSkips(t *testing.T) {
	t.Parallel()
	s := &server{skips: true}
	db := open(t, s)
	for i, want := range [][]string{
		{"BEGIN", "ROLLBACK", "BEGIN", "write ?<0:7>", "touched", "COMMIT"}, {"BEGIN", "write ?<0:7>", "touched", "COMMIT"},
	} {
		s.sent = nil
		if _, err := db.ExecContext(t.Context(), "write ?", 7); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.sent, want) {
			t.Errorf("time %d: sent %q, want %q", i, s.sent, want)
		}
	}
	s.sent = nil
	if _, err := db.ExecContext(t.Context(), "write"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"BEGIN", "write", "touched", "COMMIT"}; !slices.Equal(s.sent, want) {
		t.Errorf("sent %q, want %q", s.sent, want)
	}
}

// database/sql runs a statement again when the connection was bad, as long as it had no effect.
func TestBadConnectionIsTriedAgainBeforeCommitOnly(t *testing.T) {
	t.Parallel()
	for at, wantErr := range map[string]bool{"BEGIN": false, "write": false, "touched": false, "COMMIT": true} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			failed := false
			s := &server{on: func(query string) error {
				if query == at && !failed {
					failed = true
					return driver.ErrBadConn
				}
				return nil
			}}
			_, err := open(t, s).ExecContext(t.Context(), "write")
			if (err != nil) != wantErr || err != nil && !errors.Is(err, outbox.ErrUnknownOutcome) {
				t.Errorf("got %v; sent %q", err, s.sent)
			}
			commits := 0
			for _, q := range s.sent {
				if q == "COMMIT" {
					commits++
				}
			}
			if commits != 1 {
				t.Errorf("sent %q", s.sent)
			}
		})
	}
}

// A driver that panics leaves no transaction for the next caller. At COMMIT, it leaves the outcome open.
func TestDriverPanics(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"BEGIN", "write", "touched", "COMMIT", "next", "close", "ROLLBACK"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			s := &server{}
			s.on = func(query string) error {
				if query == at {
					panic("injected")
				}
				if query == "touched" && at == "ROLLBACK" {
					return errRefused
				}
				return nil
			}
			db := open(t, s)
			err := func() (err error) {
				defer func() {
					if v := recover(); v != nil {
						err = fmt.Errorf("panic: %v", v)
					}
				}()
				if at == "next" || at == "close" {
					return db.QueryRowContext(t.Context(), "write").Scan(new(int))
				}
				_, err = db.ExecContext(t.Context(), "write")
				return err
			}()
			if err == nil || errors.Is(err, outbox.ErrUnknownOutcome) != (at == "COMMIT") {
				t.Errorf("got %v", err)
			}
			if at == "next" || at == "close" {
				return // database/sql does not give such a connection back
			}
			s.mu.Lock()
			s.sent, s.on = nil, nil
			s.mu.Unlock()
			if _, err := db.ExecContext(t.Context(), "write"); err != nil {
				t.Error(err)
			}
			if s.opened != 2 {
				t.Errorf("the connection was used again: %d were opened, then sent %q", s.opened, s.sent)
			}
		})
	}
}

// A COMMIT that the server refuses is known to have had no effect.
func TestRefusedCommit(t *testing.T) {
	t.Parallel()
	s := &server{on: func(query string) error {
		if query == "COMMIT" {
			return errRefused
		}
		return nil
	}}
	_, err := open(t, s).ExecContext(t.Context(), "write")
	if !errors.Is(err, errRefused) || errors.Is(err, outbox.ErrUnknownOutcome) {
		t.Errorf("got %v", err)
	}
}

type sqlError string

func (e sqlError) Error() string    { return "SQLSTATE " + string(e) }
func (e sqlError) SQLState() string { return string(e) }

func TestWhichErrorsOfCommitLeaveTheOutcomeOpen(t *testing.T) {
	t.Parallel()
	p := &postgres{}
	for _, err := range []error{sqlError("23503"), sqlError("40001"), sqlError("25P03"), sqlError("57014"), sqlError("P0001"), fmt.Errorf("x: %w", sqlError("40P01"))} {
		if !p.Undone(err) {
			t.Errorf("%v: nothing was committed", err)
		}
	}
	for _, err := range []error{sqlError("57P01"), sqlError("08006"), sqlError("40003"), sqlError("25P04"), sqlError("XX000"), sqlError("53100"), sqlError("58030"), sqlError(""), sqlError("MY001"),
		driver.ErrBadConn, io.EOF, context.DeadlineExceeded} {
		if p.Undone(err) {
			t.Errorf("%v: the outcome is open", err)
		}
	}
}

func TestWhatWrapRefuses(t *testing.T) {
	t.Parallel()
	store := memstore.New(memstore.Config{})
	defer store.Close()
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	log := NewLog(&server{})
	defer log.Close()
	relay, err := outbox.NewRelay(c, log, outbox.RelayConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	good := Config{Options: outbox.Options{Relay: relay}}
	wrapped, err := Wrap(&server{}, c, good)
	if err != nil {
		t.Fatal(err)
	}
	for want, wrap := range map[string]func() error{
		"a cache": func() error { _, err := Wrap(&server{}, nil, good); return err },
		"Relay":   func() error { _, err := Wrap(&server{}, c, Config{}); return err },
		"wrapped": func() error { _, err := Wrap(wrapped, c, good); return err },
		"CommitTime": func() error {
			_, err := OpenDB(&server{}, c, Config{Options: outbox.Options{CommitTime: c.FenceLease()}})
			return err
		},
	} {
		if err := wrap(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %s", err, want)
		}
	}
}
