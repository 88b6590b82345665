package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Reader reads one consistent state of the database. It is valid only inside the function
// that it was passed to, on that goroutine.
type Reader struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // prepared once per connection; the program has a fixed set of texts
	ctx   context.Context      // of the running operation
	// before is called before each statement; nil for none.
	before func(query string) error
}

// Read runs f on a reading connection inside a read transaction. f may be
// long: it blocks neither the writer nor, as long as a connection is free,
// other readers.
func (s *Store) Read(ctx context.Context, f func(*Reader) error) (err error) {
	var r *Reader
	var ok bool
	select {
	case r, ok = <-s.readers:
		if !ok {
			return ErrClosed
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	defer func() { s.readers <- r }()
	if closed {
		return ErrClosed
	}
	// The statements run without the caller's ctx: an interrupted BEGIN or ROLLBACK would
	// leave the shared connection inside a transaction.
	r.ctx = context.WithoutCancel(ctx)
	if err := r.exec("BEGIN"); err != nil {
		return fmt.Errorf("begin read: %w", err)
	}
	defer func() {
		if e := r.exec("ROLLBACK"); e != nil && err == nil {
			err = fmt.Errorf("end read: %w", e)
		}
	}()
	return f(r)
}

func (r *Reader) prepare(query string) (*sql.Stmt, error) {
	if r.before != nil {
		if err := r.before(query); err != nil {
			return nil, err
		}
	}
	if st := r.stmts[query]; st != nil {
		return st, nil
	}
	st, err := r.conn.PrepareContext(r.ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	r.stmts[query] = st
	return st, nil
}

func (r *Reader) exec(query string, args ...any) error {
	_, err := r.execN(query, args...)
	return err
}

// execN returns the number of changed rows.
func (r *Reader) execN(query string, args ...any) (int64, error) {
	st, err := r.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(r.ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row scans the only row; ErrNotFound if there is none.
func (r *Reader) row(query string, args []any, dest ...any) error {
	st, err := r.prepare(query)
	if err != nil {
		return err
	}
	err = st.QueryRowContext(r.ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// each calls f with a scanner for each row.
func (r *Reader) each(query string, args []any, f func(scan func(...any) error) error) error {
	st, err := r.prepare(query)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(r.ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (r *Reader) close() {
	for _, st := range r.stmts {
		st.Close()
	}
	r.conn.Close()
}
