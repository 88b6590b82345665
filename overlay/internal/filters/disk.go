package filters

import (
	"errors"
	"sync"
	"time"

	"weft/overlay/internal/state"
)

// diskPatience is how long opening something to a peer waits for the disk. One
// that hangs must not put off for longer that a right is withdrawn or a deleted
// device is dropped. What is open then is not noted; that is safe for as long as
// this process lives, and it cannot be ended while it hangs in the disk, but
// together with the connections.
const diskPatience = 2 * time.Second

var errDiskHangs = errors.New("the disk does not answer")

// disk writes filters.json. Nobody waits for it for long.
type disk struct {
	write  func([]byte) error
	remove func() error

	mu sync.Mutex
	// mu guards the following.
	next []byte // what is to be written
	busy bool   // a goroutine writes
}

func newDisk(d *state.Dir) *disk {
	return &disk{
		write:  func(b []byte) error { return d.Save(state.FiltersFile, b) },
		remove: func() error { return d.Remove(state.FiltersFile) },
	}
}

// put writes b in place of what is there, and removes that when it cannot. When the
// disk hangs it returns errDiskHangs, after diskPatience for the first time and then
// at once, and the latest b is written when the disk works again.
func (d *disk) put(b []byte) error {
	d.mu.Lock()
	d.next = b
	if d.busy {
		d.mu.Unlock()
		return errDiskHangs
	}
	d.busy = true
	d.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		for {
			d.mu.Lock()
			b := d.next
			d.next = nil
			d.mu.Unlock()
			err := d.write(b)
			if err != nil {
				d.remove()
			}
			d.mu.Lock()
			d.busy = d.next != nil
			again := d.busy
			d.mu.Unlock()
			select {
			case done <- err:
			default: // that was for the first
			}
			if !again {
				return
			}
		}
	}()
	timer := time.NewTimer(diskPatience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errDiskHangs
	}
}
