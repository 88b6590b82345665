package overlay

import (
	"testing"
	"time"
)

// The kernel's notices can be had, and watching them ends when told.
func TestNotifyWorldStops(t *testing.T) {
	stop, err := notifyWorld(func() {})
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
