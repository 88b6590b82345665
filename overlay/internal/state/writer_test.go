package state

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/status"
)

// disk is a disk that can fail.
type disk struct {
	mu sync.Mutex
	// mu guards the following.
	broken  error
	written []string // file=content
}

func (d *disk) write(file string, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	d.written = append(d.written, file+"="+string(b))
	return nil
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = err
}

func (d *disk) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.written)
}

func kept(file string, content func() string) File {
	return File{Name: file, What: "the " + file, Content: func() ([]byte, error) {
		if s := content(); s != "" {
			return []byte(s), nil
		}
		return nil, nil
	}}
}

// Scheduled files are written in order, with their content at that time; files without
// content are not.
func TestKeeperWrites(t *testing.T) {
	d, health, now := &disk{}, &status.Warnings{}, "early"
	k := NewWriter([]File{
		kept("a", func() string { return now }),
		kept("b", func() string { return "b" }),
		kept("c", func() string { return "" }),
		kept("d", func() string { return now }),
	}, d.write, health, slog.New(slog.DiscardHandler))
	for _, file := range []string{"d", "c", "a", "d"} {
		k.Mark(file)
	}
	now = "late"
	if err := k.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := k.Flush(); err != nil { // nothing is scheduled
		t.Fatal(err)
	}
	if got := d.all(); !slices.Equal(got, []string{"a=late", "d=late"}) {
		t.Errorf("written: %v", got)
	}
}

// A file that cannot be written is tried again until it can, and reported to health
// meanwhile; what is scheduled at the end is left to Flush.
func TestKeeperTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, health := &disk{broken: errors.New("disk is full")}, &status.Warnings{}
		k := NewWriter([]File{kept("a", func() string { return "x" })}, d.write, health, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { k.Run(ctx) })
		k.Mark("a")
		time.Sleep(time.Hour)
		if !health.Has(status.CodeStateDirectory) {
			t.Error("nobody is told")
		}
		d.fail(nil)
		time.Sleep(2 * time.Minute)
		if got := d.all(); !slices.Equal(got, []string{"a=x"}) || health.Has(status.CodeStateDirectory) {
			t.Errorf("written: %v; %v", got, health.List())
		}
		cancel()
		wg.Wait()
		k.Mark("a")
		if err := k.Flush(); err != nil || len(d.all()) != 2 {
			t.Errorf("%v, %v", d.all(), err)
		}
	})
}

// Nothing is written while somebody removes files.
func TestKeeperPauses(t *testing.T) {
	var resumed atomic.Bool
	k := NewWriter([]File{kept("a", func() string { return "x" })}, func(string, []byte) error {
		if !resumed.Load() {
			t.Error("it was written")
		}
		return nil
	}, &status.Warnings{}, slog.New(slog.DiscardHandler))
	resume := k.Pause()
	k.Mark("a")
	done := make(chan error, 1)
	go func() { done <- k.Flush() }()
	runtime.Gosched() // let Run try
	resumed.Store(true)
	resume()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The report of a read-only disk does not end because there was nothing to write.
func TestKeeperHadNothingToWrite(t *testing.T) {
	var d disk
	var health status.Warnings
	content := ""
	k := NewWriter([]File{kept("release", func() string { return content })}, d.write, &health, slog.New(slog.DiscardHandler))
	health.Set(status.CodeStateDirectory, "it is read-only")
	k.Mark("release")
	if err := k.Flush(); err != nil || !health.Has(status.CodeStateDirectory) {
		t.Errorf("after nothing was written: %v, warnings %v", err, health.List())
	}
	content = "key"
	k.Mark("release")
	if err := k.Flush(); err != nil || health.Has(status.CodeStateDirectory) {
		t.Errorf("after something was written: %v, warnings %v", err, health.List())
	}
}
