package store

import (
	"math/big"
	"testing"
	"time"
)

// What left the list is remembered up to a bound, and what goes beyond it is still
// covered by the date.
func TestDropped(t *testing.T) {
	s, _ := fresh(t, Options{})
	const many = maxDropped + 50
	now := day.Add(many * time.Second)
	write := func(f func(*Tx) error) {
		t.Helper()
		if err := s.Write(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	since := func(at time.Time) (since time.Time) {
		t.Helper()
		write(func(tx *Tx) (err error) { since, _, err = tx.Since(network, at); return err })
		return since
	}
	write(func(tx *Tx) error {
		for i := range many {
			if err := tx.AddRevoked(network, big.NewInt(int64(i+1)), false, day, day.Add(time.Duration(i)*time.Second)); err != nil {
				return err
			}
		}
		return nil
	})
	count := func(table string) (n int) {
		t.Helper()
		if err := s.Read(t.Context(), func(r *Reader) error { return r.row("SELECT COUNT(*) FROM "+table, nil, &n) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	revoked := func(at time.Time) (n int) {
		t.Helper()
		s.Read(t.Context(), func(r *Reader) error {
			serials, err := r.Revoked(network, at)
			if err != nil {
				t.Fatal(err)
			}
			n = len(serials)
			return nil
		})
		return n
	}
	if got := since(day.Add(-time.Second)); !got.IsZero() || revoked(day.Add(-time.Second)) != many {
		t.Errorf("before anything ended the list is complete since %v", got)
	}
	// Not moved yet, but left out of the list.
	if got, want := since(day.Add(9*time.Second)), day.Add(10*time.Second); !got.Equal(want) {
		t.Errorf("ten have ended: complete since %v, want %v", got, want)
	}
	write(func(tx *Tx) error { _, _, err := tx.Prune(network, now, time.Hour); return err })
	if n := count("dropped"); n > maxDropped || n < maxDropped-1 || count("issued") != 0 {
		t.Errorf("%d are remembered, %d still listed", n, count("issued"))
	}
	if got, want := since(now), day.Add(many*time.Second); !got.Equal(want) {
		t.Errorf("all have ended: complete since %v, want %v", got, want)
	}
	// The clock was wrong: some come back, those forgotten are covered.
	back := day.Add(5000 * time.Second)
	if got := since(back); got.After(back.Add(time.Second)) || got.Before(day.Add(50*time.Second)) {
		t.Errorf("by a clock that was set back: complete since %v, want until %v", got, back)
	}
	if got, want := revoked(back), many-5000-1; got != want {
		t.Errorf("%d are revoked again, want %d", got, want)
	}
	if got := since(day.Add(-time.Hour)); got.After(day.Add(-time.Hour + time.Second)) {
		t.Errorf("the list speaks against what has not ended: complete since %v", got)
	}
}

// A superseded certificate that the list dropped while the clock was wrong comes back as
// superseded, so that its device does not take itself for deleted; if the device was deleted
// meanwhile, as revoked.
func TestDroppedSuperseded(t *testing.T) {
	s, _ := fresh(t, Options{})
	write := func(f func(*Tx) error) {
		t.Helper()
		if err := s.Write(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	end := day.Add(time.Hour)
	write(func(tx *Tx) error {
		for i := 1; i <= 2; i++ {
			if err := addNode(tx, i); err != nil {
				return err
			}
			if err := tx.Issued(network, idOf(i), big.NewInt(int64(i)), end, Cause{}); err != nil {
				return err
			}
			if err := tx.Supersede(network, idOf(i), day); err != nil {
				return err
			}
		}
		return nil
	})
	write(func(tx *Tx) error { // years ahead
		_, _, err := tx.Prune(network, day.AddDate(14, 0, 0), time.Hour)
		if err != nil {
			return err
		}
		n, err := tx.Node(network, idOf(2))
		if err == nil {
			_, _, err = tx.DeleteNode(network, n, day)
		}
		return err
	})
	if err := s.Read(t.Context(), func(r *Reader) error {
		list, err := r.Dropped(network)
		if len(list) != 2 || !list["\x01"] || !list["\x02"] {
			t.Errorf("%d are remembered", len(list))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	write(func(tx *Tx) error {
		_, again, err := tx.Since(network, day)
		if again != 2 {
			t.Errorf("%d are revoked again", again)
		}
		return err
	})
	if err := s.Read(t.Context(), func(r *Reader) error {
		list, err := r.Revoked(network, day)
		for _, v := range list {
			if want := v.Serial.Int64() == 1; v.Superseded != want {
				t.Errorf("certificate %d: superseded %v, want %v", v.Serial, v.Superseded, want)
			}
		}
		if len(list) != 2 {
			t.Errorf("%d are revoked", len(list))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
