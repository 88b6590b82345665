package ops

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// What the listeners need from the operations: who may use the relay, and what the
// server shows and counts.

// VerifyClient says who wants to use the relay: a node of this network that
// exists, and whether it carries tags. Whether its certificate has expired by this
// server's clock does not matter, for the same reason as in the node API: peers
// judge that by weft time.
func (s *Service) VerifyClient(leaf *x509.Certificate) (network cert.NetworkID, id cert.NodeID, tagged bool, err error) {
	node, err := s.auth.Roots.VerifyNodeAnyTime(leaf.Raw)
	if err != nil {
		return cert.NetworkID{}, cert.NodeID{}, false, err
	}
	tagged, ok := s.index.has(node.ID)
	if !ok {
		return cert.NetworkID{}, cert.NodeID{}, false, fmt.Errorf("node %s: %w", node.ID, ErrNotFound)
	}
	return s.network, node.ID, tagged, nil
}

// Holds notes that a node reported that it holds these versions.
func (s *Service) Holds(node cert.NodeID, v api.Versions) { s.index.tell(node, v.Config) }

// Leaf returns the certificate that nodes and relays are shown.
func (s *Service) Leaf() (*tls.Certificate, error) { return s.auth.Leaf(s.now()) }

// CloseStreams ends all streams of changes, those of subscribers and of standalone
// relays, and refuses new ones.
func (s *Service) CloseStreams() {
	s.events.close()
	s.relays.close()
}

// CountDevices returns how many devices there are, and how many are online.
func (s *Service) CountDevices() (all, online int) {
	_, all = s.index.counts("")
	return all, min(s.presence.Online(), all)
}

// CountRelays returns how many relays run alone, and how many of them are heard of.
func (s *Service) CountRelays() (all, online int) {
	for _, r := range s.index.allRelays() {
		all++
		if _, ok := s.RelayHeard(r.ID); ok {
			online++
		}
	}
	return all, online
}

// RelayID is the id of the relay in this process.
func (s *Service) RelayID() string { return s.auth.RelayID() }

// Online returns the devices that are connected to a relay.
func (s *Service) Online() []cert.NodeID { return s.presence.Connected() }

// Dir is the data directory.
func (s *Service) Dir() string { return s.data }
