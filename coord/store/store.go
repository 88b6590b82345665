package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Errors that callers distinguish.
var (
	ErrNotFound = errors.New("not found")
	ErrTaken    = errors.New("already taken")
	ErrFull     = errors.New("no free address left")
	ErrClosed   = errors.New("the store is closed")
)

// Options configure Open.
type Options struct {
	Path    string // the database file; made if it does not exist
	Log     *slog.Logger
	Readers int // reading connections; 0 means 3

	// Seal, when set, is called once at the end of each batch of writes that has notes,
	// before the commit, with all notes (Tx.Note) in the order of the writes. Its error fails
	// the batch.
	Seal func(tx *Tx, notes []any) error

	// Written, when set, is called after each commit that wrote rows of devices, with which
	// ones: before the functions of Tx.After, and before whoever wrote is answered. It must
	// not block or call the store.
	Written func([]Rows)

	// BeforeCommit, when set, is called before each commit; its error makes the commit fail.
	// For fault injection.
	BeforeCommit func() error
	// BeforeStatement, when set, is called with the text of each statement of the writer
	// before it runs; its error becomes the statement's error. For fault injection.
	BeforeStatement func(query string) error
}

// Store is an open database. All methods may be called from many goroutines.
type Store struct {
	// constant after Open
	db        *sql.DB
	log       *slog.Logger
	before    func() error
	statement func(query string) error
	seal      func(*Tx, []any) error
	ops       chan *op
	readers   chan *Reader
	nread     int
	done      chan struct{} // closed when the writer has ended
	written   func([]Rows)

	mu     sync.RWMutex // held for reading while an op is passed to the writer
	closed bool
}

// Open opens the database, migrates its schema and starts the writer. Only one Store may have
// a database open; the caller holds a lock that ensures that.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Readers == 0 {
		o.Readers = 3
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db, err := openSQLite(o.Path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		db: db, log: o.Log, before: o.BeforeCommit, statement: o.BeforeStatement, seal: o.Seal, written: o.Written,
		ops:     make(chan *op, maxBatch),
		readers: make(chan *Reader, o.Readers),
		nread:   o.Readers,
		done:    make(chan struct{}),
	}
	db.SetMaxOpenConns(o.Readers + 2) // the writer, the readers, a backup
	db.SetMaxIdleConns(o.Readers + 2)
	if err := s.start(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) error {
	w, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if err := migrate(ctx, w); err != nil {
		return err
	}
	for range s.nread {
		c, err := s.db.Conn(ctx)
		if err != nil {
			return fmt.Errorf("open database: %w", err)
		}
		if _, err := c.ExecContext(ctx, "PRAGMA query_only = 1"); err != nil {
			return fmt.Errorf("open database: %w", err)
		}
		s.readers <- &Reader{conn: c, stmts: map[string]*sql.Stmt{}}
	}
	go s.writeLoop(&Reader{conn: w, stmts: map[string]*sql.Stmt{}, before: s.statement})
	return nil
}

// Backup writes a consistent copy of the database to path, which must not exist, while reads
// and writes continue.
func (s *Store) Backup(ctx context.Context, path string) error {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, "VACUUM INTO $1", path); err != nil {
		if isDiskFull(err) {
			err = fmt.Errorf("%w: %w", ErrDiskFull, err)
		}
		return fmt.Errorf("back up to %s: %w", path, err)
	}
	return nil
}

// Close finishes the writes that were accepted, waits for readers, and closes
// the database. It may be called more than once.
func (s *Store) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	if first {
		close(s.ops)
	}
	s.mu.Unlock()
	<-s.done
	if !first {
		return nil
	}
	for range s.nread {
		r := <-s.readers
		r.close()
	}
	close(s.readers)
	return s.db.Close()
}
