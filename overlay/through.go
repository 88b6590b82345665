package overlay

import (
	"context"
	"errors"
	"time"

	"weft/overlay/cert"
	"weft/overlay/status"
)

const (
	// proveAfter is how long a connection over an existing tunnel may take before the
	// node checks that the peer is alive; it is longer if one and a half round trips are.
	proveAfter = 500 * time.Millisecond
	// deadAfter is how long after that nothing may arrive through the tunnel before this
	// node introduces itself anew; it is longer under the same condition.
	deadAfter = time.Second
	// goneAgain is how long after a relay has said that a peer is not connected the node
	// asks again, while the direct path may still answer.
	goneAgain = 100 * time.Millisecond
)

// errRenewed ends an attempt whose tunnel was made anew meanwhile.
var errRenewed = errors.New("the tunnel was made anew")

// through runs try, which sends something to a node and waits for the answer, and
// meanwhile makes sure that there is a tunnel and the peer is alive. If not, try's
// context ends and the reason is returned. If the tunnel was made anew, what try has sent
// is lost, so try is run once more.
func (r *running) through(ctx context.Context, id cert.NodeID, try func(context.Context) error) error {
	if err := r.peers.Refused(); err != nil {
		return err
	}
	for first := true; ; first = false {
		tctx, cancel := context.WithCancelCause(ctx)
		settled := make(chan struct{}) // closed when try has returned
		watched := make(chan struct{}) // closed when watchTunnel has returned
		go func() {
			defer close(watched)
			if err := r.watchTunnel(tctx, id, settled, first); err != nil {
				cancel(err)
			}
		}()
		begun := time.Now()
		err := try(tctx)
		if err == nil {
			r.peers.Took(id, time.Since(begun))
		}
		close(settled)
		cause := context.Cause(tctx)
		cancel(nil)
		<-watched
		switch {
		case err == nil || cause == nil || cause == context.Cause(ctx):
			return err
		case !errors.Is(cause, errRenewed):
			return cause
		case ctx.Err() != nil: // it ended, so there is no time for another attempt
			return ctx.Err()
		}
	}
}

// watchTunnel watches the tunnel for through.
func (r *running) watchTunnel(ctx context.Context, id cert.NodeID, settled <-chan struct{}, again bool) error {
	if err := r.peers.Ensure(ctx, id); err != nil {
		return err
	}
	watch, stop := r.peers.Watch(id)
	defer stop()
	gone, renewed := watch.Gone, watch.Renewed
	if !again {
		renewed = nil
	}
	patience := max(proveAfter, r.peers.TripTo(id)*3/2)
	wait := patience
	if watch.WasGone {
		wait = 0 // it may be back, with other keys, and nobody would say so
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	begun := time.Now()
	for proved := false; ; {
		select {
		case <-settled:
			return nil
		case <-ctx.Done():
			return nil
		case <-renewed:
			return errRenewed
		case <-gone:
		case <-t.C:
		}
		gone = nil
		if !proved {
			err := r.peers.Prove(ctx, id, watch.Gone)
			switch {
			case err == nil, ctx.Err() != nil:
				proved = true
				t.Reset(max(deadAfter, r.peers.TripTo(id)*3/2))
			case status.KindOf(err) == status.KindUnreachable && r.peers.Views()[id].Direct() && time.Since(begun) < patience:
				t.Reset(goneAgain) // the relay does not know whether the direct path works
			default:
				return err
			}
			continue
		}
		// The peer is alive. If nevertheless nothing arrives through the tunnel, on this
		// side or on the other, the two ends have different keys: after two introductions
		// at once with one answer lost, or after two WireGuard handshakes, of which
		// wireguard-go may keep one under the index of the other.
		st, ok := r.stats(id)
		if ok && st.LastRx.After(begun) && r.peers.Receives(ctx, id, begun) {
			continue
		}
		if err := r.peers.CallAnew(ctx, id); err != nil && ctx.Err() == nil {
			return err
		}
		if again && ctx.Err() == nil {
			return errRenewed
		}
	}
}
