package overlay

import (
	"context"
	"fmt"
	"time"

	"weft/overlay/status"
)

// A device that its owner has deleted is told so: by the server, whatever it asks,
// and by the revocation list, which says it also when the server is away. It keeps
// its state, since a mistake on the server must not cost it its identity, and what
// the server says later counts: the first answer of use takes it back.

const (
	removedMessage = "this device was removed from the network"
	removedHint    = "to join again, run: weft logout, then weft up TOKEN"
	// upWait is how long Up waits to learn whether the device is still a member.
	upWait = 2 * time.Second
)

// removed notes that this device is no longer a member of its network.
func (n *Node) removed() {
	if n.health.Has(status.CodeRevoked) {
		return
	}
	n.health.Set(status.CodeRevoked, fmt.Sprintf("%s; it noticed at %s; %s", removedMessage, n.clock.Now().Local().Format("2006-01-02 15:04"), removedHint))
	n.log.Error(removedMessage, "hint", removedHint)
}

// removedError is what a user gets who wants to use a network from which this
// device was removed; nil if it was not.
func (n *Node) removedError() error {
	if !n.health.Has(status.CodeRevoked) {
		return nil
	}
	return &status.Error{Kind: status.KindFailed, Message: removedMessage, Hint: removedHint}
}

// settle waits, for a moment, until the relay has let this device in or it is
// known to have been removed. A relay that is away is no error.
func (n *Node) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upWait)
	defer cancel()
	for {
		changed := n.health.Changed()
		if err := n.removedError(); err != nil {
			return err
		}
		if n.State() != status.StateConnecting {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
