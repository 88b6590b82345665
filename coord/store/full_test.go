package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// A disk without room fails writes, each with ErrDiskFull and whole, whatever
// else shares their transaction. Reading goes on, and once there is room so
// does writing, with everything that was acknowledged.
func TestDiskFull(t *testing.T) {
	s, path := fresh(t, Options{})
	limit := func(pages string) {
		t.Helper()
		// The pragma is of the connection, and outlives the transaction.
		err := s.Write(t.Context(), func(tx *Tx) error {
			var n int
			return tx.row("PRAGMA max_page_count = "+pages, nil, &n)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var next, acked atomic.Int64
	many := func() (full int64) {
		var wg sync.WaitGroup
		var failed atomic.Int64
		for range 8 {
			wg.Go(func() {
				for range 100 {
					i := int(next.Add(1))
					switch err := s.Write(t.Context(), func(tx *Tx) error { return addNode(tx, i) }); {
					case err == nil:
						acked.Add(1)
					case errors.Is(err, ErrDiskFull):
						failed.Add(1)
					default:
						t.Errorf("write %d: %v", i, err)
					}
				}
			})
		}
		wg.Wait()
		return failed.Load()
	}
	count := func(s *Store) (n int64) {
		t.Helper()
		if err := s.Read(t.Context(), func(r *Reader) error { return r.row("SELECT COUNT(*) FROM nodes", nil, &n) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	limit("80") // 4 KiB each; 40 are the schema's
	if many() == 0 {
		t.Fatal("the limit was not met")
	}
	if n := count(s); n != acked.Load() || n == 0 {
		t.Errorf("%d nodes, %d acknowledged", n, acked.Load())
	}
	limit("100000")
	if full := many(); full != 0 {
		t.Errorf("%d writes failed with room again", full)
	}
	if n := count(s); n != acked.Load() {
		t.Errorf("%d nodes, %d acknowledged", n, acked.Load())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(open(t, path, Options{})); n != acked.Load() {
		t.Errorf("after a restart %d nodes, %d acknowledged", n, acked.Load())
	}
	if isDiskFull(nil) || isDiskFull(fmt.Errorf("write: %w", ErrNotFound)) {
		t.Error("another error passes for a full disk")
	}
}
