package overlay

import (
	"context"
	"log/slog"
	"time"

	"weft/overlay/internal/pause"
)

// changeSettles is how long to wait after a change before the relay is pinged: a new
// Wi-Fi causes several changes.
const changeSettles = 300 * time.Millisecond

// machine handles changes of the machine's clock and interfaces.
type machine struct {
	notify func(tell func()) (stop func(), err error) // calls tell at each change; tell does not block
	atOnce func()                                     // at once: the clock may have been set
	moved  func()                                     // once the network has settled
	log    *slog.Logger
}

// machine returns the handling for r: relay connections may be dead without notice after
// the machine has slept, its clock was set, or its interfaces have changed.
func (n *Node) machine(r *running) machine {
	return machine{
		notify: n.tuning.watchMachine, log: n.log,
		atOnce: r.peers.ClockSet,
		moved: func() {
			n.cfg.NetworkChanged()
			r.dialer.Forget()
			r.home.Moved()
			r.peers.NetworkChanged()
		},
	}
}

// watch handles changes until ctx ends.
func (w machine) watch(ctx context.Context) {
	changes := make(chan struct{}, 1)
	tell := func() {
		select {
		case changes <- struct{}{}:
		default:
		}
	}
	stop, err := w.notify(tell)
	if err != nil {
		w.log.Info("cannot watch for changes of the network", "err", err)
	}
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
		}
		w.atOnce()
		if !pause.Sleep(ctx, changeSettles) {
			return
		}
		select {
		case <-changes: // another step of the same change
		default:
		}
		w.log.Debug("the network may have changed")
		w.moved()
	}
}
