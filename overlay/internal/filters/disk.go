package filters

import (
	"errors"
	"sync"
	"time"

	"weft/overlay/internal/state"
)

// diskPatience is how long opening something to a peer waits for the disk. A disk that
// hangs must not delay the removal of a right or of a deleted device for longer. What is
// open is then not on disk. That is safe while this process lives, and a process that
// hangs in disk I/O can end only together with its connections.
const diskPatience = 2 * time.Second

var errDiskHangs = errors.New("the disk does not answer")

// disk writes filters.json. Callers wait for diskPatience at most.
type disk struct {
	write  func([]byte) error
	remove func() error

	mu sync.Mutex
	// mu guards the following.
	next []byte // what to write next
	busy bool   // a goroutine is writing
}

func newDisk(d *state.Dir) *disk {
	return &disk{
		write:  func(b []byte) error { return d.Save(state.FiltersFile, b) },
		remove: func() error { return d.Remove(state.FiltersFile) },
	}
}

// put replaces the file with b, and removes the file if it cannot. When the disk hangs it
// returns errDiskHangs, the first time after diskPatience and then at once. When the disk
// works again, the latest b is written.
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
			default: // only the first call waits
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
