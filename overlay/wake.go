package overlay

import (
	"context"
	"time"

	"weft/overlay/internal/pause"
)

// changeSettles is how long the network is left alone after a change before
// the relay is asked: a new Wi-Fi announces itself in several steps.
const changeSettles = 300 * time.Millisecond

// watchWorld wakes the home connection when the machine has slept, its clock
// jumped, or its links changed, until ctx ends: the relay connection may be
// dead then without anybody having said so.
func (n *Node) watchWorld(ctx context.Context, r *running) {
	changes := make(chan struct{}, 1)
	tell := func() {
		select {
		case changes <- struct{}{}:
		default:
		}
	}
	stop, err := n.notifyWorld(tell)
	if err != nil {
		n.log.Info("changes of the network are not seen", "err", err)
	}
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
		}
		r.peers.ClockSet()
		if !pause.Sleep(ctx, changeSettles) {
			return
		}
		select {
		case <-changes: // of the same change
		default:
		}
		n.log.Debug("the network may have changed")
		n.cfg.NetworkChanged()
		r.dialer.Forget()
		r.home.Moved()
		r.peers.WorldChanged()
	}
}
