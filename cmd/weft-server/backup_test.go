package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// What a backup that was killed has left goes with the next one, and what one
// that runs is writing stays.
func TestWriteWholeSweeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[odd]") // no pattern
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, strings.Replace(unfinished, "*", "123", 1))
	other := filepath.Join(dir, ".other.tmp")
	for _, path := range []string{left, other} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	word := func(s string) func(*os.File) error {
		return func(f *os.File) error { _, err := f.WriteString(s); return err }
	}
	err := writeWhole(filepath.Join(dir, "slow"), func(f *os.File) error {
		if err := writeWhole(filepath.Join(dir, "quick"), word("quick")); err != nil {
			return err
		}
		return word("slow")(f)
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				if err := writeWhole(filepath.Join(dir, fmt.Sprintf("%d-%d", w, i)), word("whole")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 8*20+3 {
		t.Errorf("%d files: %v", len(list), list)
	}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || e.Name() != ".other.tmp" && len(b) < 4 || strings.HasPrefix(e.Name(), ".weft") {
			t.Errorf("%s: %q, %v", e.Name(), b, err)
		}
	}
}
