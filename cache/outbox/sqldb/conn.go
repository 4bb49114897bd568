package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// connector wraps that of a driver.
type connector struct {
	driver.Connector
	core *core
}

// Connect opens a connection whose transactions go through outbox.Commit.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{core: c.core, inner: inner}, nil
}

// Close closes the driver's connector, if it can be.
func (c *connector) Close() error {
	if closer, ok := c.Connector.(interface{ Close() error }); ok {
		return closer.Close()
	}
	return nil
}

// state of a connection.
type state int

const (
	outside  state = iota // no transaction is open
	plainTx               // one is that needs no protocol: it is read only, or there is no outbox
	manualTx              // one that a statement has begun
	unknown               // a statement may have begun one
)

// conn wraps a connection of a driver. It has every optional interface: what the driver lacks
// behaves as if the conn lacked it. database/sql uses it from one goroutine at a time.
type conn struct {
	core  *core
	inner driver.Conn
	state state
	tx    *tx  // that is open and goes through the protocol, or nil
	given bool // DriverConn has handed out the driver's connection
	skips bool // the driver has refused arguments of a statement that was not prepared
	bad   bool // whether a transaction is open on the server is not known: not to be used again
}

var (
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
)

// DriverConn returns the driver's own connection of what sql.Conn.Raw hands out, which is
// returned as it is if it is no connection of this package:
//
//	conn.Raw(func(c any) error {
//		pgxConn := sqldb.DriverConn(c).(*stdlib.Conn).Conn()
//		…
//	})
//
// What is sent through it within a transaction of the same sql.Conn is part of it. Outside of one
// it is an external writer's: a relay delivers it soon after. It must not begin or end a
// transaction that outlives the function.
func DriverConn(driverConn any) driver.Conn {
	switch c := driverConn.(type) {
	case *conn:
		c.given = true
		return c.inner
	case driver.Conn:
		return c
	}
	return nil
}

// Close closes the driver's connection.
func (c *conn) Close() error { return c.inner.Close() }

// Ping implements driver.Pinger.
func (c *conn) Ping(ctx context.Context) error {
	if p, ok := c.inner.(driver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// ResetSession implements driver.SessionResetter.
func (c *conn) ResetSession(ctx context.Context) error {
	if !c.clean() {
		return driver.ErrBadConn
	}
	if r, ok := c.inner.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

// IsValid implements driver.Validator.
func (c *conn) IsValid() bool {
	if !c.clean() {
		return false
	}
	if v, ok := c.inner.(driver.Validator); ok {
		return v.IsValid()
	}
	return true
}

// clean says whether another caller may have the connection.
func (c *conn) clean() bool { return !c.bad && c.tx == nil && c.state == outside }

// CheckNamedValue implements driver.NamedValueChecker.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.inner.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// Begin is not used: there is BeginTx.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

var errOpenTx = errors.New("outbox/sqldb: a transaction that a statement has begun may be open on this connection: end it with a statement, or begin it with BeginTx")

// BeginTx begins a transaction that goes through outbox.Commit, unless it is read only.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.tx != nil || c.state != outside {
		return nil, errOpenTx
	}
	ready := !opts.ReadOnly
	if ready {
		var err error
		if ready, err = c.ready(ctx); err != nil {
			return nil, err
		}
	}
	if ready {
		t, err := c.begin(ctx, sql.IsolationLevel(opts.Isolation))
		if err != nil {
			return nil, err
		}
		return userTx{t}, nil
	}
	inner, err := c.innerBegin(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.state = plainTx
	return userPlainTx{c, inner, ctx}, nil
}

// ready says whether the database has an outbox. Until it has, as before its migration, what is written
// here needs no protocol, and is said.
func (c *conn) ready(ctx context.Context) (bool, error) {
	ready, err := c.core.dialect.Ready(ctx, c)
	if err == nil && !ready {
		c.core.undelivered(ctx, errNoOutbox)
	}
	return ready, err
}

// innerBegin is what database/sql does with a driver.
func (c *conn) innerBegin(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if b, ok := c.inner.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, opts)
	}
	if sql.IsolationLevel(opts.Isolation) != sql.LevelDefault {
		return nil, errors.New("sql: driver does not support non-default isolation level")
	}
	if opts.ReadOnly {
		return nil, errors.New("sql: driver does not support read-only transactions")
	}
	tx, err := c.inner.Begin() //nolint:staticcheck // all that an old driver has
	if err == nil && ctx.Err() != nil {
		_ = tx.Rollback() // as database/sql does
		return nil, ctx.Err()
	}
	return tx, err
}

// userPlainTx is a transaction of the driver's own.
type userPlainTx struct {
	c     *conn
	inner driver.Tx
	ctx   context.Context // of BeginTx
}

func (t userPlainTx) Commit() error {
	t.end()
	return t.inner.Commit()
}

func (t userPlainTx) Rollback() error {
	t.end()
	return t.inner.Rollback()
}

func (t userPlainTx) end() {
	t.c.state = outside
	// database/sql closes the connection of a transaction whose context has ended, unless the driver
	// knows how to reset and to judge it.
	_, resets := t.c.inner.(driver.SessionResetter)
	_, judges := t.c.inner.(driver.Validator)
	t.c.bad = t.c.bad || t.ctx.Err() != nil && !(resets && judges)
}

// A plan is how a statement is run.
type plan int

const (
	asItIs  plan = iota
	inOwnTx      // and committed through the protocol
	deliver      // as it is, and the outbox is delivered before it returns
)

// plan returns how a statement is run that is about to be.
func (c *conn) plan(ctx context.Context, query string) (plan, error) {
	if c.tx != nil {
		c.tx.used = true
		return asItIs, nil
	}
	if c.state == plainTx {
		return asItIs, nil
	}
	kind := c.core.dialect.KindOf(ctx, c, query)
	switch c.state {
	case manualTx:
		switch kind {
		case CommitsTx:
			c.state = outside
			return deliver, nil
		case BeginsTx:
			return deliver, nil // some servers commit what was open
		case RollsTxBack:
			c.state = outside
		case Unclear:
			c.state = unknown
			return deliver, nil
		}
		return asItIs, nil
	case unknown:
		return deliver, nil
	}
	switch kind {
	case Reads, Session, RollsTxBack:
		return asItIs, nil
	case BeginsTx:
		c.state = manualTx
		return asItIs, nil
	case Unclear:
		c.state = unknown
	}
	ready, err := c.ready(ctx)
	if err != nil || !ready {
		return asItIs, err
	}
	if kind == Writes {
		return inOwnTx, nil
	}
	return deliver, nil
}

// noting returns run, after which the state is right also if it fails: what state the statement was to
// lead to is not certain then. Nor is it whether the server has ended the transaction.
func noting[T any](c *conn, before state, run func() (T, error)) func() (T, error) {
	return func() (T, error) {
		result, err := run()
		if c.tx != nil {
			c.tx.undone = err != nil && c.core.dialect.Undone(err)
		}
		switch {
		case c.state == before:
		case errors.Is(err, driver.ErrSkip):
			c.state = before // it is prepared next
		case err != nil:
			c.state = unknown
		}
		return result, err
	}
}

// exec runs a statement that returns no rows, in one of three ways. If it is skippable, database/sql prepares it
// where the driver says driver.ErrSkip.
func (c *conn) exec(ctx context.Context, query string, skippable bool, run func() (driver.Result, error)) (driver.Result, error) {
	before := c.state
	plan, err := c.plan(ctx, query)
	if err != nil {
		return nil, err
	}
	run = noting(c, before, run)
	switch plan {
	case inOwnTx:
		if skippable && c.skips {
			return nil, driver.ErrSkip
		}
		t, err := c.begin(ctx, sql.LevelDefault)
		if err != nil {
			return nil, err
		}
		t.used = true
		defer t.abandon() // run may panic
		result, err := run()
		if err != nil {
			// Next time database/sql prepares it at once, instead of after a transaction in vain.
			c.skips = c.skips || skippable && errors.Is(err, driver.ErrSkip)
			t.undo(ctx)
			return nil, err
		}
		if err := t.commit(); err != nil {
			return nil, err
		}
		return result, nil
	case deliver:
		result, err := run()
		if !errors.Is(err, driver.ErrSkip) { // also after an error: a procedure may have committed before it
			c.core.deliver(ctx)
		}
		return result, err
	}
	return run()
}

// query runs a statement that returns rows. In a transaction of its own they are read ahead, and it is
// committed before the first is handed out: a program may well use them before it closes
// them, and wait for a lock that the transaction holds. What is too large for that is committed
// when the rows are closed; so is the outbox delivered.
func (c *conn) query(ctx context.Context, query string, skippable bool, run func() (driver.Rows, error)) (driver.Rows, error) {
	before := c.state
	plan, err := c.plan(ctx, query)
	if err != nil {
		return nil, err
	}
	run = noting(c, before, run)
	switch plan {
	case inOwnTx:
		if skippable && c.skips {
			return nil, driver.ErrSkip
		}
		t, err := c.begin(ctx, sql.LevelDefault)
		if err != nil {
			return nil, err
		}
		t.used = true
		begun := false
		defer func() {
			if !begun {
				t.abandon()
			}
		}()
		found, err := run()
		if err != nil {
			// Next time database/sql prepares it at once, instead of after a transaction in vain.
			c.skips = c.skips || skippable && errors.Is(err, driver.ErrSkip)
			t.undo(ctx)
			return nil, err
		}
		r := &rows{Rows: found, end: func(failed error) error {
			if failed != nil {
				t.undo(ctx)
				return failed
			}
			return t.commit()
		}}
		if r.readAhead() {
			if err := r.Close(); err != nil {
				return nil, err
			}
		}
		begun = true
		return r, nil
	case deliver:
		found, err := run()
		if err != nil {
			if !errors.Is(err, driver.ErrSkip) {
				c.core.deliver(ctx)
			}
			return nil, err
		}
		return &rows{Rows: found, end: func(failed error) error {
			c.core.deliver(ctx)
			return failed
		}}, nil
	}
	return run()
}

// ExecContext implements driver.ExecerContext.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !c.execs() {
		return nil, driver.ErrSkip
	}
	return c.exec(ctx, query, len(args) > 0, func() (driver.Result, error) { return c.innerExec(ctx, query, args) })
}

// QueryContext implements driver.QueryerContext.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !c.queries() {
		return nil, driver.ErrSkip
	}
	return c.query(ctx, query, len(args) > 0, func() (driver.Rows, error) { return c.innerQuery(ctx, query, args) })
}

func (c *conn) execs() bool {
	switch c.inner.(type) {
	case driver.ExecerContext, driver.Execer: //nolint:staticcheck // all that an old driver has
		return true
	}
	return false
}

func (c *conn) queries() bool {
	switch c.inner.(type) {
	case driver.QueryerContext, driver.Queryer: //nolint:staticcheck // all that an old driver has
		return true
	}
	return false
}

// innerExec is what database/sql does with a driver.
func (c *conn) innerExec(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	switch inner := c.inner.(type) {
	case driver.ExecerContext:
		return inner.ExecContext(ctx, query, args)
	case driver.Execer: //nolint:staticcheck // all that an old driver has
		values, err := unnamed(ctx, args)
		if err != nil {
			return nil, err
		}
		return inner.Exec(query, values)
	}
	return nil, driver.ErrSkip
}

func (c *conn) innerQuery(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	switch inner := c.inner.(type) {
	case driver.QueryerContext:
		return inner.QueryContext(ctx, query, args)
	case driver.Queryer: //nolint:staticcheck // all that an old driver has
		values, err := unnamed(ctx, args)
		if err != nil {
			return nil, err
		}
		return inner.Query(query, values)
	}
	return nil, driver.ErrSkip
}

// unnamed returns arguments for a driver that knows neither names nor contexts.
func unnamed(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, arg := range args {
		if arg.Name != "" {
			return nil, errors.New("sql: driver does not support the use of Named Parameters")
		}
		values[i] = arg.Value
	}
	return values, ctx.Err()
}

// Prepare is not used: there is PrepareContext.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if c.tx != nil {
		c.tx.used = true
	}
	inner, err := c.innerPrepare(ctx, query)
	if err != nil {
		return nil, err
	}
	s := &stmt{Stmt: inner, c: c, query: query}
	if converter, ok := inner.(driver.ColumnConverter); ok { //nolint:staticcheck // all that an old driver has
		return convertingStmt{s, converter}, nil
	}
	return s, nil
}

func (c *conn) innerPrepare(ctx context.Context, query string) (driver.Stmt, error) {
	if p, ok := c.inner.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	s, err := c.inner.Prepare(query)
	if err == nil && ctx.Err() != nil {
		_ = s.Close() // as database/sql does
		return nil, ctx.Err()
	}
	return s, err
}

// Send implements Sender.
func (c *conn) Send(ctx context.Context, statements ...string) (driver.Result, error) {
	if c.execs() {
		if result, err := c.innerExec(ctx, strings.Join(statements, "; "), nil); !errors.Is(err, driver.ErrSkip) {
			return result, err
		}
	}
	var result driver.Result
	for _, s := range statements {
		prepared, err := c.innerPrepare(ctx, s)
		if err != nil {
			return nil, err
		}
		result, err = (&stmt{Stmt: prepared, c: c}).innerExec(ctx, nil)
		if err = errors.Join(err, prepared.Close()); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// Ask implements Sender.
func (c *conn) Ask(ctx context.Context, query string, each func(row []driver.Value) error) (err error) {
	found, err := c.innerQuery(ctx, query, nil)
	if errors.Is(err, driver.ErrSkip) {
		prepared, err := c.innerPrepare(ctx, query)
		if err != nil {
			return err
		}
		defer prepared.Close()
		found, err = (&stmt{Stmt: prepared, c: c}).innerQuery(ctx, nil)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	row := make([]driver.Value, len(found.Columns()))
	for {
		if err := found.Next(row); err != nil {
			return notEOF(err)
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// begin begins a transaction that goes through the protocol.
func (c *conn) begin(ctx context.Context, level sql.IsolationLevel) (*tx, error) {
	t := &tx{c: c, ctx: ctx, mark: c.core.newMark(ctx)}
	c.bad = true // until it is known to have begun, or not
	// Not by BeginTx of the driver: many end the transaction when the context does that they were given
	// there, if need be in the middle of COMMIT. And this way the mark travels with BEGIN.
	if err := c.core.dialect.Begin(ctx, c, level, t.mark, c.core.lease); err != nil {
		if errors.Is(err, errIsolation) {
			c.bad = false
		}
		return nil, fmt.Errorf("begin: %w", err)
	}
	c.bad, c.tx = false, t
	return t, nil
}

// lost is an error of a driver that does not match driver.ErrBadConn: database/sql would run the
// statement again, and it may have taken effect.
type lost struct{ err error }

func (l lost) Error() string        { return l.err.Error() }
func (l lost) As(target any) bool   { return errors.As(l.err, target) }
func (l lost) Is(target error) bool { return target != driver.ErrBadConn && errors.Is(l.err, target) }
