package standalone

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// errNoList refuses everybody: who was revoked cannot be told.
var errNoList = errors.New("there is no revocation list yet; the server has to send it first")

// verify says who wants to use the relay: the holder of a certificate of this
// network that was not revoked. Its dates do not matter, for the reason that
// they do not at the server: peers judge them by weft time. But one that ended so
// long ago that the list may have dropped it is refused; a device that was off
// for that long renews it at the server first.
func (r *Relay) verify(leaf *x509.Certificate) (cert.NetworkID, cert.NodeID, bool, error) {
	node, err := r.id.Load().roots.VerifyNodeAnyTime(leaf.Raw)
	if err != nil {
		return cert.NetworkID{}, cert.NodeID{}, false, err
	}
	r.mu.Lock()
	if at, ok := r.gone[node.ID]; ok && time.Since(at) < goneFor {
		err = errors.New("the server knows no such device")
	} else {
		delete(r.gone, node.ID)
		r.admitted[node.ID] = node.Serial
	}
	r.forgetAbsentLocked()
	r.mu.Unlock()
	// After the serial was noted: a list that comes now finds it there.
	crl := r.crl.Load()
	switch {
	case err != nil:
	case crl == nil:
		err = errNoList
	default:
		// A device with a superseded certificate still belongs to the network, and fetches
		// another one; other devices refuse it until then.
		if err = crl.Check(node); crl.Superseded(node.Serial) && !crl.Omits(node.NotAfter) {
			err = nil
		}
	}
	if err != nil {
		return cert.NetworkID{}, cert.NodeID{}, false, fmt.Errorf("node %s: %w", node.ID, err)
	}
	return node.Network, node.ID, node.Tagged(), nil
}

// forgetAbsentLocked bounds what is remembered of nodes that left.
func (r *Relay) forgetAbsentLocked() {
	if len(r.admitted) <= 2*r.relay.Stats().Clients+slackNodes {
		return
	}
	network := r.id.Load().Network
	for id := range r.admitted {
		if _, ok := r.relay.Online(network, id); !ok {
			delete(r.admitted, id)
			delete(r.versions, id)
		}
	}
}

// versionsOf returns what a node should hold; of a node that the server has
// said nothing about yet only the revocation list is known.
func (r *Relay) versionsOf(node cert.NodeID) api.Versions {
	r.mu.RLock()
	v := r.versions[node]
	v.Names = r.names
	r.mu.RUnlock()
	if crl := r.crl.Load(); crl != nil {
		v.CRL = crl.Number
	}
	return v
}
