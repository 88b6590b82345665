package overlay

import (
	"fmt"
	"log/slog"
	"time"

	"weft/overlay/status"
)

// A device that was deleted finds out from the server's refusals, and from the revocation
// list even when the server is unreachable. A certificate that the list calls superseded
// is no sign of that: the device only needs another one. It keeps its state, because a mistake on the
// server must not cost it its identity. Later answers count: the first useful one ends
// the removal.

const (
	removedMessage = "this device was removed from the network"
	removedHint    = "to join again, run: weft logout, then weft up TOKEN"
)

// removal reports that this device was deleted.
type removal struct {
	health *status.Warnings
	now    func() time.Time // weft time
	log    *slog.Logger
}

// noticed records that this device is no longer a member of its network.
func (r removal) noticed() {
	if r.health.Has(status.CodeRevoked) {
		return
	}
	r.health.Set(status.CodeRevoked, fmt.Sprintf("%s; it noticed at %s; %s", removedMessage, r.now().Local().Format("2006-01-02 15:04"), removedHint))
	r.log.Error(removedMessage, "hint", removedHint)
}

// err returns the error for a user of a network from which this device was removed; nil
// if it was not removed.
func (r removal) err() error {
	if !r.health.Has(status.CodeRevoked) {
		return nil
	}
	return &status.Error{Kind: status.KindFailed, Message: removedMessage, Hint: removedHint}
}
