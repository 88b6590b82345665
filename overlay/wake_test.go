package overlay

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The kernel can be watched for changes, and watching ends with stop.
func TestWatchMachineStops(t *testing.T) {
	stop, err := watchMachine(func() {})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { stop(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("still watching")
	}
}

// The several steps of one change of the network count as one change; the next change
// counts again.
func TestChangesSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tell func()
		var stirs, moved atomic.Int32
		stopped := false
		w := machine{
			notify: func(f func()) (func(), error) { tell = f; return func() { stopped = true }, nil },
			atOnce: func() { stirs.Add(1) }, moved: func() { moved.Add(1) }, log: slog.New(slog.DiscardHandler),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.watch(ctx); close(done) }()
		synctest.Wait()
		for change := int32(1); change <= 2; change++ {
			for range 3 {
				tell()
				time.Sleep(changeSettles / 4)
			}
			synctest.Wait()
			if stirs.Load() != change || moved.Load() != change-1 {
				t.Errorf("change %d, not settled: %d at once, %d after it", change, stirs.Load(), moved.Load())
			}
			time.Sleep(changeSettles)
			synctest.Wait()
			if stirs.Load() != change || moved.Load() != change {
				t.Errorf("change %d, settled: %d at once, %d after it", change, stirs.Load(), moved.Load())
			}
		}
		tell()
		synctest.Wait()
		cancel()
		if <-done; !stopped || moved.Load() != 2 {
			t.Errorf("ended: stopped %v, %d changes", stopped, moved.Load())
		}
	})
}
