// Package network holds what a node knows of its network, and says how it changes.
//
// A Network is an immutable snapshot: this node's certificate, the configuration, the CAs
// to trust and the revocation list, all checked and consistent with each other. A Holder
// has the current one, which exists exactly while the node is in a network. A caller gets
// it once and passes it on, because a logout may come between two calls of Get. Sinks are
// called in order when it changes.
//
// The package does no I/O, starts no goroutine and reads no clock.
package network

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// Network is what a node knows of its network. It is immutable and replaced as a whole.
type Network struct {
	Self        *cert.Node
	Config      *api.Config
	Roots       *cert.NetworkRoots
	ServerRoots *cert.ServerRoots
	CRL         *cert.CRL            // nil: there is none, so nothing is revoked
	Overdue     map[cert.NodeID]bool // Config.Overdue
}

// New checks everything in the config and in id's certificate that concerns trust, and
// makes a Network of them. crl (DER) may be absent or damaged: then the Network has none,
// and it is fetched again.
func New(id *Identity, config *api.Config, crl []byte) (*Network, error) {
	roots, err := cert.NewNetworkRoots(id.Network, config.NetworkCAs)
	if err != nil {
		return nil, err
	}
	serverRoots, err := cert.NewServerRoots(id.ServerPins, config.ServerCAs)
	if err != nil {
		return nil, err
	}
	self, err := roots.VerifyNodeAnyTime(id.Certificate)
	if err != nil {
		return nil, err
	}
	n := &Network{Self: self, Config: config, Roots: roots, ServerRoots: serverRoots}
	if len(crl) > 0 {
		n.CRL, _ = roots.VerifyCRL(crl)
	}
	// Unusable addresses in a config are left out, so that one bad entry on the server
	// affects nothing else.
	usable := *config
	usable.ServerURLs = id.GoodURLs(config.ServerURLs)
	usable.Relays = nil
	for _, r := range config.Relays {
		if r.URLs = id.GoodURLs(r.URLs); len(r.URLs) > 0 && len(usable.Relays) < maxRelays {
			usable.Relays = append(usable.Relays, r)
		}
	}
	if len(config.Relays) > 0 && len(usable.Relays) == 0 {
		return nil, errors.New("none of the relays has a usable address")
	}
	if err := checkPrefixes(&usable, self); err != nil {
		return nil, err
	}
	for _, word := range config.Overdue {
		id, err := cert.ParseNodeID(word)
		if err != nil {
			return nil, fmt.Errorf("overdue: %w", err)
		}
		if n.Overdue == nil {
			n.Overdue = make(map[cert.NodeID]bool, len(config.Overdue))
		}
		n.Overdue[id] = true
	}
	n.Config = &usable
	return n, nil
}

// Bounds of what a server may send to a node.
const (
	maxURLs   = 8 // of the server, and of each relay
	maxRelays = 64
)

// GoodURLs returns the addresses that a server may give to its nodes: https, and not on
// the machine itself or link-local, unless the node has joined through such an address. A
// server must not make its nodes connect to their own private services.
func (id *Identity) GoodURLs(urls []string) []string {
	local := slices.ContainsFunc(id.URLs, isLocal)
	var out []string
	for _, u := range urls {
		if cert.CheckURL(u) == nil && (local || !isLocal(u)) && len(out) < maxURLs {
			out = append(out, u)
		}
	}
	return out
}

// isLocal reports whether a URL leads to the machine itself or to a link-local address
// (where clouds have their metadata).
func isLocal(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return true
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	return err == nil && (ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast())
}

// MergeURLs returns all addresses ever received, the current ones first, so that a server
// can move by adding its new address first.
func MergeURLs(current, old []string) []string {
	out := slices.Clone(current)
	for _, u := range old {
		if !slices.Contains(out, u) && len(out) < maxURLs {
			out = append(out, u)
		}
	}
	return out
}

// checkPrefixes refuses address ranges that cannot be a network's, because packets to
// them go to the overlay.
func checkPrefixes(config *api.Config, self *cert.Node) error {
	for _, p := range []struct {
		text string
		addr netip.Addr
		bits int
	}{{config.Self.IPv4Prefix, self.IPv4, 8}, {config.Self.IPv6Prefix, self.IPv6, 32}} {
		if p.text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(p.text)
		if err != nil || prefix.Bits() < p.bits || !prefix.Contains(p.addr) {
			return fmt.Errorf("address range %q cannot contain this node's address %s", p.text, p.addr)
		}
	}
	return nil
}

// Ranges returns the network's address ranges; the zero Prefix for none.
func (n *Network) Ranges() (v4, v6 netip.Prefix) {
	v4, _ = netip.ParsePrefix(n.Config.Self.IPv4Prefix)
	v6, _ = netip.ParsePrefix(n.Config.Self.IPv6Prefix)
	return v4, v6
}

// Contains reports whether an address belongs to the network.
func (n *Network) Contains(a netip.Addr) bool {
	v4, v6 := n.Ranges()
	return v4.Contains(a) || v6.Contains(a) || n.Self.Has(a)
}

// ReadsDirectory reports whether the node fetches the directory: not if it may reach
// nobody, and not if there are too many nodes.
func (n *Network) ReadsDirectory() bool { return n.Config.Directory && !n.Config.Lookup }

// STUN returns the STUN servers of all relays as "host:port", those of the relay home (a
// Relay.ID) first.
func (n *Network) STUN(home string) []string {
	var list []string
	for _, first := range []bool{true, false} {
		for _, rl := range n.Config.Relays {
			if (rl.ID == home) == first {
				list = append(list, rl.STUN...)
			}
		}
	}
	return list
}

// OneRelay reports whether the network has only one relay, so that a peer that is not
// connected to it is offline.
func (n *Network) OneRelay() bool { return len(n.Config.Relays) <= 1 }

// VerifyShown checks a certificate that a node presents in an introduction, at weft time
// now. Its errors wrap those of package cert.
func (n *Network) VerifyShown(der []byte, now time.Time) (*cert.Node, error) {
	node, err := n.Roots.VerifyNode(der, now, n.CRL)
	if err != nil {
		return nil, err
	}
	return node, n.belongs(node)
}

// VerifyListed checks a certificate from the server: it must be signed by this network's
// CA and not revoked. Dates are checked when a peer presents its own.
func (n *Network) VerifyListed(der []byte) (*cert.Node, error) {
	node, err := n.Roots.VerifyNodeAnyTime(der)
	switch {
	case err != nil:
		return nil, err
	case n.CRL.Revoked(node.Serial):
		return nil, cert.ErrRevoked
	}
	return node, n.belongs(node)
}

// belongs refuses a node with addresses that cannot be its own: this node's, or outside
// the network's ranges.
func (n *Network) belongs(node *cert.Node) error {
	if node.ID == n.Self.ID {
		return nil
	}
	v4, v6 := n.Ranges()
	for _, p := range []struct {
		prefix netip.Prefix
		addr   netip.Addr
	}{{v4, node.IPv4}, {v6, node.IPv6}} {
		if n.Self.Has(p.addr) || p.prefix.IsValid() && !p.prefix.Contains(p.addr) {
			return fmt.Errorf("certificate of %s: address %v is not its own: %w", node.Name, p.addr, cert.ErrUntrusted)
		}
	}
	return nil
}
