package sqlite

import (
	"context"
	"database/sql/driver"
)

// hookedConnector opens connections that report each statement before it runs. It reaches
// below database/sql, so nothing is missed and nothing counted twice.
type hookedConnector struct {
	driver.Connector
	hook func(query string)
}

func (c *hookedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &hookedConn{conn.(sqliteConn), c.hook}, nil
}

// sqliteConn is what the driver's connections can do beyond driver.Conn.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type hookedConn struct {
	sqliteConn
	hook func(query string)
}

func (c *hookedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.hook(query)
	return c.sqliteConn.ExecContext(ctx, query, args)
}

func (c *hookedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.hook(query)
	return c.sqliteConn.QueryContext(ctx, query, args)
}

func (c *hookedConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *hookedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	stmt, err := c.sqliteConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &hookedStmt{stmt.(sqliteStmt), query, c.hook}, nil
}

func (c *hookedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.hook("BEGIN")
	tx, err := c.sqliteConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &hookedTx{tx, c.hook}, nil
}

func (c *hookedConn) Ping(ctx context.Context) error {
	c.hook("SELECT 1") // what the driver sends
	return c.sqliteConn.Ping(ctx)
}

type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type hookedStmt struct {
	sqliteStmt
	query string
	hook  func(query string)
}

func (s *hookedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.hook(s.query)
	return s.sqliteStmt.ExecContext(ctx, args)
}

func (s *hookedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.hook(s.query)
	return s.sqliteStmt.QueryContext(ctx, args)
}

type hookedTx struct {
	driver.Tx
	hook func(query string)
}

func (t *hookedTx) Commit() error {
	t.hook("COMMIT")
	return t.Tx.Commit()
}

func (t *hookedTx) Rollback() error {
	t.hook("ROLLBACK")
	return t.Tx.Rollback()
}
