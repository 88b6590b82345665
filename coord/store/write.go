package store

// The steps of a write, in order: Write passes an op to the writer, writeLoop collects a
// batch, runBatch runs it as one transaction, runOp runs each op under its savepoint,
// Options.Seal completes the batch with its notes, and after the commit the After functions
// run and the calls of Write return.

import (
	"context"
	"fmt"
	"runtime/debug"

	"weft/overlay/cert"
)

// maxBatch bounds how many writes share one transaction, and how many wait.
const maxBatch = 256

// Tx is a Reader that may also write. It is valid only inside the function that it was passed
// to, on the writer's goroutine. That function does no I/O except on the database.
type Tx struct {
	Reader
	after []func()
	notes []any
	rows  []Rows
	audit *audits // of the whole batch
}

// After registers f to run once the transaction is committed, in commit
// order, on the writer's goroutine. f must not block or call the store.
func (tx *Tx) After(f func()) { tx.after = append(tx.after, f) }

// Note passes v to Options.Seal, together with the notes of the other writes of the batch.
// The notes of a write that fails are dropped.
func (tx *Tx) Note(v any) { tx.notes = append(tx.notes, v) }

// Rows are rows of devices: that of one, or those of a class where Class is not "".
type Rows struct {
	Node  cert.NodeID
	Class string
}

// touch notes that the row of a device changed, was inserted or deleted. Every method that
// writes rows of devices does, for Options.Written.
func (tx *Tx) touch(node cert.NodeID) { tx.rows = append(tx.rows, Rows{Node: node}) }

type op struct {
	ctx  context.Context
	f    func(*Tx) error
	err  error
	done chan struct{}
}

// Write runs f in a write transaction and returns once its changes are durable. If f or the
// commit fails, nothing was changed. ctx can end the call only until f starts; from then on
// Write waits for the result.
func (s *Store) Write(ctx context.Context, f func(*Tx) error) error {
	o := &op{ctx: ctx, f: f, done: make(chan struct{})}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return ErrClosed
	}
	select {
	case s.ops <- o:
		s.mu.RUnlock()
	case <-ctx.Done():
		s.mu.RUnlock()
		return ctx.Err()
	}
	<-o.done
	return o.err
}

// writeLoop owns the writing connection until Close.
func (s *Store) writeLoop(r *Reader) {
	defer close(s.done)
	defer r.close()
	batch := make([]*op, 0, maxBatch)
	for o := range s.ops {
		batch = append(batch[:0], o)
	gather:
		for len(batch) < maxBatch {
			select {
			case o, ok := <-s.ops:
				if !ok {
					break gather
				}
				batch = append(batch, o)
			default:
				break gather
			}
		}
		s.runBatch(r, batch)
		for i := range batch {
			batch[i] = nil
		}
	}
}

func (s *Store) runBatch(r *Reader, batch []*op) {
	r.ctx = context.Background()
	after, err := s.transact(r, batch)
	if isDiskFull(err) {
		err = fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	if err != nil {
		s.log.Error("write transaction failed", "writes", len(batch), "err", err)
		for _, o := range batch {
			if o.err == nil {
				o.err = err
			}
		}
	} else {
		for _, f := range after {
			f()
		}
	}
	for _, o := range batch {
		close(o.done)
	}
}

// transact returns the functions to run after the commit.
func (s *Store) transact(r *Reader, batch []*op) (after []func(), err error) {
	if err := r.exec("BEGIN IMMEDIATE"); err != nil {
		return nil, fmt.Errorf("begin write: %w", err)
	}
	defer func() {
		if err != nil {
			if e := r.exec("ROLLBACK"); e != nil {
				// SQLite has rolled back by itself (disk full, I/O error).
				s.log.Debug("rollback", "err", e)
			}
		}
	}()
	var notes []any
	var rows []Rows
	var ends audits
	for _, o := range batch {
		tx, err := runOp(r, o, &ends)
		if err != nil {
			return nil, err
		}
		if tx == nil {
			continue // it failed and was rolled back
		}
		after, notes, rows = append(after, tx.after...), append(notes, tx.notes...), append(rows, tx.rows...)
	}
	if s.seal != nil && len(notes) > 0 {
		tx := &Tx{Reader: *r, audit: &ends}
		if err := call(func(tx *Tx) error { return s.seal(tx, notes) }, tx); err != nil {
			return nil, fmt.Errorf("complete the batch: %w", err)
		}
		after, rows = append(after, tx.after...), append(rows, tx.rows...)
	}
	if err := ends.signed(); err != nil {
		return nil, err
	}
	if s.before != nil {
		if err := s.before(); err != nil {
			return nil, fmt.Errorf("commit: %w", err)
		}
	}
	if err := r.exec("COMMIT"); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	if s.written != nil && len(rows) > 0 {
		s.written(rows)
	}
	return after, nil
}

// runOp runs one write under a savepoint. An error of the write itself goes
// to the op, and tx is nil; an error of the savepoint fails the batch.
func runOp(r *Reader, o *op, ends *audits) (tx *Tx, err error) {
	if err := o.ctx.Err(); err != nil {
		o.err = err
		return nil, nil
	}
	if err := r.exec("SAVEPOINT op"); err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	tx = &Tx{Reader: *r, audit: ends}
	before := ends.clone()
	if o.err = call(o.f, tx); o.err != nil {
		if isDiskFull(o.err) {
			// SQLite has rolled back the whole transaction, not only this write.
			err, o.err = o.err, nil
			return nil, err
		}
		tx, *ends = nil, before
		if err := r.exec("ROLLBACK TO op"); err != nil {
			return nil, fmt.Errorf("undo write: %w", err)
		}
	}
	if err := r.exec("RELEASE op"); err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	return tx, nil
}

// call turns a panic into an error: the writer serves everybody.
func call(f func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("write panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return f(tx)
}
