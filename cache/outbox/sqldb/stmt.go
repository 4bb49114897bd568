package sqldb

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
)

// stmt wraps a prepared statement of a driver.
type stmt struct {
	driver.Stmt
	c     *conn
	query string
}

var (
	_ driver.StmtExecContext   = (*stmt)(nil)
	_ driver.StmtQueryContext  = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
)

// convertingStmt is one of a driver that converts arguments by their place. database/sql behaves
// differently if a statement has the method at all.
type convertingStmt struct {
	*stmt
	inner driver.ColumnConverter //nolint:staticcheck // all that an old driver has
}

// ColumnConverter implements driver.ColumnConverter.
func (s convertingStmt) ColumnConverter(index int) driver.ValueConverter {
	return s.inner.ColumnConverter(index)
}

// ExecContext implements driver.StmtExecContext.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.c.exec(ctx, s.query, false, func() (driver.Result, error) { return s.innerExec(ctx, args) })
}

// QueryContext implements driver.StmtQueryContext.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.query(ctx, s.query, false, func() (driver.Rows, error) { return s.innerQuery(ctx, args) })
}

// CheckNamedValue implements driver.NamedValueChecker.
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return s.c.CheckNamedValue(v)
}

// innerExec is what database/sql does with a driver.
func (s *stmt) innerExec(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if inner, ok := s.Stmt.(driver.StmtExecContext); ok {
		return inner.ExecContext(ctx, args)
	}
	values, err := unnamed(ctx, args)
	if err != nil {
		return nil, err
	}
	return s.Stmt.Exec(values) //nolint:staticcheck // all that an old driver has
}

func (s *stmt) innerQuery(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if inner, ok := s.Stmt.(driver.StmtQueryContext); ok {
		return inner.QueryContext(ctx, args)
	}
	values, err := unnamed(ctx, args)
	if err != nil {
		return nil, err
	}
	return s.Stmt.Query(values) //nolint:staticcheck // all that an old driver has
}

// rows are those of a statement outside of a transaction, with something to do at their end. They
// have every optional interface: what the driver lacks behaves as if they lacked it.
type rows struct {
	driver.Rows
	failed error                    // of Next, other than io.EOF
	end    func(failed error) error // nil once it was called

	ahead   [][]driver.Value // were read ahead
	columns []column         // if all were, and the driver's rows are closed
}

// column is what a driver says of a column, as long as its rows are open.
type column struct {
	name                                 string
	scanType                             reflect.Type
	databaseType                         string
	length, precision, scale             int64
	nullable                             bool
	hasLength, hasNullable, hasPrecision bool
}

// Of what is read ahead there are at most so many bytes.
const (
	aheadBytes = 1 << 20
	valueBytes = 16 // at least
)

// readAhead reads rows until they have ended or failed, or would be too large to be kept.
func (r *rows) readAhead() (all bool) {
	names := r.Rows.Columns()
	for size := 0; size <= aheadBytes; {
		row := make([]driver.Value, len(names))
		if err := r.note(r.Rows.Next(row)); err != nil {
			if n, ok := r.Rows.(driver.RowsNextResultSet); ok && r.failed == nil && n.HasNextResultSet() {
				return false
			}
			r.columns = make([]column, len(names))
			for i, name := range names {
				r.columns[i] = r.describe(i, name)
			}
			return true
		}
		size += valueBytes
		for i, v := range row {
			size += valueBytes
			switch v := v.(type) {
			case []byte: // the driver's own until its next Next
				row[i] = bytes.Clone(v)
				size += len(v)
			case string:
				size += len(v)
			}
		}
		r.ahead = append(r.ahead, row)
	}
	return false
}

func (r *rows) describe(i int, name string) column {
	c := column{name: name, scanType: r.ColumnTypeScanType(i), databaseType: r.ColumnTypeDatabaseTypeName(i)}
	c.length, c.hasLength = r.ColumnTypeLength(i)
	c.nullable, c.hasNullable = r.ColumnTypeNullable(i)
	c.precision, c.scale, c.hasPrecision = r.ColumnTypePrecisionScale(i)
	return c
}

var (
	_ driver.RowsNextResultSet              = (*rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*rows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*rows)(nil)
	_ driver.RowsColumnTypeLength           = (*rows)(nil)
	_ driver.RowsColumnTypeNullable         = (*rows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*rows)(nil)
)

// Columns implements driver.Rows.
func (r *rows) Columns() []string {
	if r.end != nil {
		return r.Rows.Columns()
	}
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.name
	}
	return names
}

// Next implements driver.Rows.
func (r *rows) Next(dest []driver.Value) error {
	switch {
	case len(r.ahead) > 0:
		copy(dest, r.ahead[0])
		r.ahead = r.ahead[1:]
		return nil
	case r.end == nil:
		return io.EOF
	}
	return r.note(r.Rows.Next(dest))
}

func (r *rows) note(err error) error {
	if r.failed == nil {
		r.failed = notEOF(err)
	}
	return err
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Close ends the statement. Its error is that of the commit, too: database/sql returns it from
// Rows.Close, Rows.Err and Row.Scan.
func (r *rows) Close() error {
	if r.end == nil {
		return nil
	}
	err := r.Rows.Close()
	end := r.end
	r.end = nil
	if r.failed == nil {
		r.failed = err
	}
	return end(r.failed)
}

// HasNextResultSet implements driver.RowsNextResultSet.
func (r *rows) HasNextResultSet() bool {
	n, ok := r.Rows.(driver.RowsNextResultSet)
	return ok && r.end != nil && n.HasNextResultSet()
}

// NextResultSet implements driver.RowsNextResultSet.
func (r *rows) NextResultSet() error {
	if n, ok := r.Rows.(driver.RowsNextResultSet); ok && r.end != nil {
		return r.note(n.NextResultSet())
	}
	return io.EOF
}

// ColumnTypeScanType implements driver.RowsColumnTypeScanType.
func (r *rows) ColumnTypeScanType(index int) reflect.Type {
	if r.end == nil {
		return r.columns[index].scanType
	}
	if t, ok := r.Rows.(driver.RowsColumnTypeScanType); ok {
		return t.ColumnTypeScanType(index)
	}
	return reflect.TypeFor[any]()
}

// ColumnTypeDatabaseTypeName implements driver.RowsColumnTypeDatabaseTypeName.
func (r *rows) ColumnTypeDatabaseTypeName(index int) string {
	if r.end == nil {
		return r.columns[index].databaseType
	}
	if t, ok := r.Rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return t.ColumnTypeDatabaseTypeName(index)
	}
	return ""
}

// ColumnTypeLength implements driver.RowsColumnTypeLength.
func (r *rows) ColumnTypeLength(index int) (int64, bool) {
	if r.end == nil {
		return r.columns[index].length, r.columns[index].hasLength
	}
	if t, ok := r.Rows.(driver.RowsColumnTypeLength); ok {
		return t.ColumnTypeLength(index)
	}
	return 0, false
}

// ColumnTypeNullable implements driver.RowsColumnTypeNullable.
func (r *rows) ColumnTypeNullable(index int) (nullable, ok bool) {
	if r.end == nil {
		return r.columns[index].nullable, r.columns[index].hasNullable
	}
	if t, ok := r.Rows.(driver.RowsColumnTypeNullable); ok {
		return t.ColumnTypeNullable(index)
	}
	return false, false
}

// ColumnTypePrecisionScale implements driver.RowsColumnTypePrecisionScale.
func (r *rows) ColumnTypePrecisionScale(index int) (precision, scale int64, ok bool) {
	if r.end == nil {
		return r.columns[index].precision, r.columns[index].scale, r.columns[index].hasPrecision
	}
	if t, ok := r.Rows.(driver.RowsColumnTypePrecisionScale); ok {
		return t.ColumnTypePrecisionScale(index)
	}
	return 0, 0, false
}
