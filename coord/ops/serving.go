package ops

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// What the listeners need of the service.

// VerifyClient identifies a client of the relay by its certificate: the client must be a node of
// this network that exists. tagged reports whether it has tags. Whether the certificate has
// expired by this server's clock does not matter, because peers check that by weft time.
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

// Holds records which versions a node has reported to have.
func (s *Service) Holds(node cert.NodeID, v api.Versions) { s.index.tell(node, v.Config) }

// Leaf returns the server's certificate for connections of nodes and relays.
func (s *Service) Leaf() (*tls.Certificate, error) { return s.auth.Leaf(s.now()) }

// CloseStreams ends all subscriptions and answers the waiting syncs of standalone relays. It
// refuses new subscriptions.
func (s *Service) CloseStreams() {
	s.events.close()
	s.relays.close()
}

// CountDevices returns how many devices there are, and how many are online.
func (s *Service) CountDevices() (all, online int) {
	_, all = s.index.counts("")
	return all, min(s.presence.Online(), all)
}

// CountRelays returns the number of standalone relays, and how many of them are online.
func (s *Service) CountRelays() (all, online int) {
	for _, r := range s.index.allRelays() {
		all++
		if _, ok := s.RelayHeard(r.ID); ok {
			online++
		}
	}
	return all, online
}

// RelayID returns the id of the relay in this process.
func (s *Service) RelayID() string { return s.auth.RelayID() }

// Online returns the devices that are connected to a relay.
func (s *Service) Online() []cert.NodeID { return s.presence.Connected() }

// Dir returns the data directory.
func (s *Service) Dir() string { return s.data }
