package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"time"
)

// MaxNodeCert bounds a node certificate in bytes (DER). They usually have about 500.
const MaxNodeCert = 4096

// Node is what a node certificate says. It is immutable once made.
type Node struct {
	ID      NodeID
	Network NetworkID
	Attributes

	Serial    *big.Int
	NotBefore time.Time
	NotAfter  time.Time

	Raw  []byte // DER
	Leaf *x509.Certificate
}

// Tagged reports whether the node acts as its tags rather than as its owner.
func (n *Node) Tagged() bool { return len(n.Tags) > 0 }

// Has reports whether a is one of the node's overlay addresses.
func (n *Node) Has(a netip.Addr) bool { return a == n.IPv4 || a == n.IPv6 }

// ParseNode parses a node certificate. It checks the form only, neither signature nor
// dates: call NetworkRoots.VerifyNode before trusting what it says.
func ParseNode(network NetworkID, der []byte) (*Node, error) {
	if len(der) > MaxNodeCert {
		return nil, fmt.Errorf("parse node certificate: %d bytes, at most %d", len(der), MaxNodeCert)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse node certificate: %w", err)
	}
	return nodeOf(network, crt)
}

func nodeOf(network NetworkID, crt *x509.Certificate) (*Node, error) {
	pub, ok := crt.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || pub.Curve != elliptic.P256():
		return nil, errors.New("node certificate: key is not ECDSA P-256")
	case crt.IsCA:
		return nil, errors.New("node certificate: it is a CA certificate")
	case len(crt.DNSNames) != 1 || len(crt.IPAddresses) != 2:
		return nil, errors.New("node certificate: want one DNS name and two addresses")
	case crt.SerialNumber.Sign() <= 0:
		return nil, errors.New("node certificate: serial number is not positive")
	}
	n := &Node{
		ID:        NodeIDOf(network, crt.RawSubjectPublicKeyInfo),
		Network:   network,
		Serial:    crt.SerialNumber,
		NotBefore: crt.NotBefore,
		NotAfter:  crt.NotAfter,
		Raw:       crt.Raw,
		Leaf:      crt,
	}
	n.FQDN = crt.DNSNames[0]
	n.Name, _, ok = strings.Cut(n.FQDN, ".")
	if !ok || !validLabel(n.Name) || len(n.FQDN) > 253 {
		return nil, fmt.Errorf("node certificate: invalid name %q", n.FQDN)
	}
	v4, ok4 := netip.AddrFromSlice(crt.IPAddresses[0])
	v6, ok6 := netip.AddrFromSlice(crt.IPAddresses[1])
	n.IPv4, n.IPv6 = v4.Unmap(), v6
	if !ok4 || !ok6 || !usable(n.IPv4) || !usable(n.IPv6) || !n.IPv4.Is4() || !n.IPv6.Is6() || n.IPv6.Is4In6() {
		return nil, fmt.Errorf("node certificate: invalid addresses %v", crt.IPAddresses)
	}
	for _, u := range crt.URIs {
		if u.Scheme != uriScheme {
			continue
		}
		kind, word, ok := strings.Cut(u.Opaque, ":")
		if !ok || !validWord(word) {
			return nil, fmt.Errorf("node certificate: invalid attribute %q", u)
		}
		switch kind {
		case "user":
			if n.User != "" {
				return nil, errors.New("node certificate: more than one owner")
			}
			n.User = word
		case "group":
			n.Groups = append(n.Groups, word)
		case "tag":
			n.Tags = append(n.Tags, word)
		}
	}
	if n.User == "" {
		return nil, errors.New("node certificate: no owner")
	}
	return n, nil
}

// usable refuses addresses with which a hostile CA could reach the host itself or its
// LAN.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
