// Package network is what a node holds of its network, and how it changes.
//
// A Network is one moment of that: this node's certificate, the configuration, whom
// to trust and whom no more, checked and fit for one another. It is immutable. A
// Holder has the current one, which exists exactly while the node is in a network, and
// whoever needs it gets it once and hands it down: a logout may come between two
// readings. What has to follow when it changes is an ordered list of Sinks.
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

// Network is what a node holds of its network: immutable, replaced as a whole.
type Network struct {
	Self        *cert.Node
	Config      *api.Config
	Roots       *cert.NetworkRoots
	ServerRoots *cert.ServerRoots
	CRL         *cert.CRL // nil: nothing revoked yet
}

// New checks everything that a config and a certificate say about trust before any
// of it is used. The certificate is id's, crl (DER) may be absent or damaged: then
// none is held, and it is fetched again.
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
	// A config is used without the addresses that are of no use, so that one
	// bad row on the server costs no more than itself.
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
	n.Config = &usable
	return n, nil
}

// Bounds of what a server may tell a node.
const (
	maxURLs   = 8 // of the server, and of each relay
	maxRelays = 64
)

// GoodURLs returns the addresses that a node may be sent to: https, and not the
// machine itself or its link, unless it joined by such an address. A server
// must not be able to make its nodes knock at what is private to them.
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

// isLocal reports whether a URL leads to the machine itself or no farther than
// its link (where clouds keep their metadata).
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

// MergeURLs keeps every address ever learned, the current ones first, so that
// a server can move by adding its new address before it goes.
func MergeURLs(current, old []string) []string {
	out := slices.Clone(current)
	for _, u := range old {
		if !slices.Contains(out, u) && len(out) < maxURLs {
			out = append(out, u)
		}
	}
	return out
}

// checkPrefixes refuses address ranges that are no network's: what is in them
// goes to the overlay.
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
			return fmt.Errorf("address range %q is none that %s can be in", p.text, p.addr)
		}
	}
	return nil
}

// Ranges are the network's addresses; the zero Prefix is none.
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

// ReadsDirectory reports whether the node holds the list of the nodes it may
// reach: not when it may reach none, and not when there are too many.
func (n *Network) ReadsDirectory() bool { return n.Config.Directory && !n.Config.Lookup }

// STUN returns the STUN servers of all relays as "host:port", first those of the relay
// with the id home.
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

// OneRelay reports whether there is but one: who is not there is offline.
func (n *Network) OneRelay() bool { return len(n.Config.Relays) <= 1 }

// VerifyShown is how a certificate is checked that a node shows in an introduction,
// at weft time now. Its errors wrap those of package cert.
func (n *Network) VerifyShown(der []byte, now time.Time) (*cert.Node, error) {
	node, err := n.Roots.VerifyNode(der, now, n.CRL)
	if err != nil {
		return nil, err
	}
	return node, n.belongs(node)
}

// VerifyListed is how certificates from the server are checked: signed by our
// network's CA and not revoked. Dates are judged when a peer shows its own.
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

// belongs refuses a node whose addresses cannot be its own: ours, or outside of
// the network's range.
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
