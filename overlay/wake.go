package overlay

import (
	"context"
	"log/slog"
	"time"

	"weft/overlay/internal/pause"
)

// changeSettles is how long the network is left alone after a change before
// the relay is asked: a new Wi-Fi announces itself in several steps.
const changeSettles = 300 * time.Millisecond

// world is what this node has to do with changes of its machine and its links.
type machine struct {
	notify func(tell func()) (stop func(), err error) // has tell called at each change; tell does not wait
	atOnce func()                                     // at once: the clock may have been set
	moved  func()                                     // once the network has settled
	log    *slog.Logger
}

// world is what r has to do with them: the relay connection may be dead when the machine
// has slept, its clock jumped, or its links changed, without anybody having said so.
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

// watch does it, until ctx ends.
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
		w.log.Info("changes of the network are not seen", "err", err)
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
		case <-changes: // of the same change
		default:
		}
		w.log.Debug("the network may have changed")
		w.moved()
	}
}
