package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Of each user so many results are stored, and answers of so many bytes: the latest, and
// the one that was just made in any case.
func TestDoneIsBounded(t *testing.T) {
	s, _ := fresh(t, Options{})
	at := time.Unix(1_700_000_000, 0)
	write := func(n int, f func(tx *Tx, i int) error) { // in one transaction
		t.Helper()
		err := s.Write(t.Context(), func(tx *Tx) (err error) {
			for i := 0; i < n && err == nil; i++ {
				err = f(tx, i)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stored := func(user, key string) (is bool) {
		t.Helper()
		err := s.Read(t.Context(), func(r *Reader) error {
			d, err := r.DoneWith(network, user, key, at)
			is = err == nil && d.Key == key
			if errors.Is(err, ErrNotFound) {
				err = nil
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	write(1, func(tx *Tx, _ int) error {
		return tx.AddDone(network, Done{UserID: "other", Key: "first", Answer: "{}", At: at})
	})
	long := strings.Repeat("é", 128<<10) // 256 KiB
	write(100, func(tx *Tx, i int) error {
		at = at.Add(time.Second)
		return tx.AddDone(network, Done{Key: fmt.Sprint("long-", i), Answer: long, At: at})
	})
	for i := range 100 {
		if is := stored("", fmt.Sprint("long-", i)); is != (i >= 100-doneBytes/len(long)) {
			t.Errorf("answer %d of 100 that are long: stored %v", i, is)
		}
	}
	write(doneMax+5, func(tx *Tx, i int) error {
		at = at.Add(time.Second)
		return tx.AddDone(network, Done{Key: fmt.Sprint("short-", i), Answer: "{}", At: at})
	})
	for key, want := range map[string]bool{"long-99": false, "short-4": false, "short-5": true, fmt.Sprint("short-", doneMax+4): true} {
		if stored("", key) != want {
			t.Errorf("%s: stored %v", key, !want)
		}
	}
	for i := range 40 { // in one second, and the last in the order of their keys
		key := fmt.Sprint("z-", i+10)
		write(1, func(tx *Tx, _ int) error { return tx.AddDone(network, Done{Key: key, Answer: long, At: at}) })
		if !stored("", key) {
			t.Errorf("%s is gone as soon as it was made", key)
		}
	}
	if !stored("other", "first") {
		t.Error("a user's results push out those of another one")
	}
}
