package overlay

import (
	"fmt"
	"log/slog"
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
)

// removal is what is noticed and said of that.
type removal struct {
	health *status.Warnings
	now    func() time.Time // weft time
	log    *slog.Logger
}

// noticed notes that this device is no longer a member of its network.
func (r removal) noticed() {
	if r.health.Has(status.CodeRevoked) {
		return
	}
	r.health.Set(status.CodeRevoked, fmt.Sprintf("%s; it noticed at %s; %s", removedMessage, r.now().Local().Format("2006-01-02 15:04"), removedHint))
	r.log.Error(removedMessage, "hint", removedHint)
}

// err is what a user gets who wants to use a network from which this device was removed;
// nil if it was not.
func (r removal) err() error {
	if !r.health.Has(status.CodeRevoked) {
		return nil
	}
	return &status.Error{Kind: status.KindFailed, Message: removedMessage, Hint: removedHint}
}
