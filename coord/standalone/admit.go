package standalone

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// errNoList refuses all nodes: without a revocation list the relay cannot tell which
// certificates were revoked.
var errNoList = errors.New("there is no revocation list yet; the server has to send it first")

// verify admits the holder of a certificate of this network that was not revoked. Like the
// server it ignores the certificate's dates, because peers check them by weft time. Only a
// certificate that expired so long ago that the revocation list may have dropped it is refused;
// a device that was off for that long first renews its certificate at the server.
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
	// Load the list only after the serial is in admitted, so that a list that arrives
	// meanwhile is checked against it, either here or by takeCRL.
	crl := r.crl.Load()
	switch {
	case err != nil:
	case crl == nil:
		err = errNoList
	default:
		// A device with a superseded certificate still belongs to the network, and needs the
		// relay while it fetches another one; peers refuse the old certificate.
		if err = crl.Check(node); crl.Superseded(node.Serial) && !crl.Omits(node.NotAfter) {
			err = nil
		}
	}
	if err != nil {
		return cert.NetworkID{}, cert.NodeID{}, false, fmt.Errorf("node %s: %w", node.ID, err)
	}
	return node.Network, node.ID, node.Tagged(), nil
}

// forgetAbsentLocked forgets nodes that are not connected, once there are many.
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

// versionsOf returns the versions that a node should have. Until the server has told the
// relay about a node, only those of the names and of the revocation list are set.
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
