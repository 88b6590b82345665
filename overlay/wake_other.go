//go:build !linux

package overlay

import (
	"sync"
	"time"
)

// sleepCheck is how often the clocks are compared on systems that do not report a sleep.
const sleepCheck = 30 * time.Second

// watchMachine calls tell when the wall clock has advanced more than the monotonic one:
// the machine slept, or its clock was set. stop ends it and waits.
func watchMachine(tell func()) (stop func(), err error) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		last := time.Now()
		for {
			select {
			case <-done:
				return
			case <-time.After(sleepCheck):
			}
			now := time.Now()
			if now.Round(0).Sub(last.Round(0))-now.Sub(last) > sleepCheck/3 {
				tell()
			}
			last = now
		}
	})
	return func() { close(done); wg.Wait() }, nil
}
