package cert

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxCAs bounds the set of CAs of one kind that a node will hold.
const maxCAs = 8

// Why a certificate is not believed. Callers branch on these with errors.Is.
var (
	ErrUntrusted = errors.New("not signed by a trusted CA")
	ErrExpired   = errors.New("outside its validity")
	ErrRevoked   = errors.New("revoked")
)

// NetworkRoots is the set of CAs that may certify nodes of one network. It is
// immutable.
type NetworkRoots struct {
	network NetworkID
	cas     []*x509.Certificate
}

// NewNetworkRoots builds the set from DER certificates. The founder is the CA whose key
// hashes to the network id; every other one must be signed, directly or in steps, by one
// already in the set. Any other certificate is an error, because then the server that
// sent the set cannot be trusted.
func NewNetworkRoots(network NetworkID, ders [][]byte) (*NetworkRoots, error) {
	cas, err := chainOfCAs(ders, func(ca *x509.Certificate) bool { return PinOf(ca).NetworkID() == network })
	if err != nil {
		return nil, fmt.Errorf("network CAs: %w", err)
	}
	return &NetworkRoots{network: network, cas: cas}, nil
}

// Network returns the id of the network.
func (r *NetworkRoots) Network() NetworkID { return r.network }

// chainOfCAs orders the CAs so that each is a root or signed by an earlier one.
func chainOfCAs(ders [][]byte, isRoot func(*x509.Certificate) bool) ([]*x509.Certificate, error) {
	if len(ders) > maxCAs {
		return nil, fmt.Errorf("%d certificates, at most %d", len(ders), maxCAs)
	}
	var open, trusted []*x509.Certificate
	for _, der := range ders {
		crt, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		if !crt.IsCA || crt.KeyUsage&x509.KeyUsageCertSign == 0 {
			return nil, fmt.Errorf("%q is not a CA", crt.Subject.CommonName)
		}
		open = append(open, crt)
	}
	for grown := true; grown; {
		grown = false
		open = slices.DeleteFunc(open, func(crt *x509.Certificate) bool {
			ok := isRoot(crt) || slices.ContainsFunc(trusted, func(ca *x509.Certificate) bool { return crt.CheckSignatureFrom(ca) == nil })
			if ok {
				trusted, grown = append(trusted, crt), true
			}
			return ok
		})
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("%q: %w", open[0].Subject.CommonName, ErrUntrusted)
	}
	if len(trusted) == 0 {
		return nil, errors.New("none has a pinned key")
	}
	return trusted, nil
}

// VerifyNode returns the node that a DER certificate states, after checking
// that it was signed by a CA of this network for use by nodes, is valid at
// now (weft time), is not revoked, and did not end so long ago that the list may
// have dropped it. crl may be nil: nothing is revoked.
func (r *NetworkRoots) VerifyNode(der []byte, now time.Time, crl *CRL) (*Node, error) {
	n, err := r.VerifyNodeAnyTime(der)
	if err != nil {
		return nil, err
	}
	if now.Before(n.NotBefore) || now.After(n.NotAfter) {
		return nil, fmt.Errorf("certificate of %s: %w (%s to %s, now %s)", n.Name, ErrExpired,
			n.NotBefore.UTC().Format(time.RFC3339), n.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if err := crl.Check(n); err != nil {
		return nil, err
	}
	return n, nil
}

// VerifyNodeAnyTime is VerifyNode without dates and revocation. It is for renewal, where
// the server's database decides.
func (r *NetworkRoots) VerifyNodeAnyTime(der []byte) (*Node, error) {
	n, err := ParseNode(r.network, der)
	if err != nil {
		return nil, err
	}
	if !signedByAny(n.Leaf, r.cas) {
		return nil, fmt.Errorf("certificate of %s: %w", n.Name, ErrUntrusted)
	}
	// Both usages: a node is client in one introduction and server in the next.
	for _, want := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if !slices.Contains(n.Leaf.ExtKeyUsage, want) {
			return nil, fmt.Errorf("certificate of %s: not a node certificate", n.Name)
		}
	}
	return n, nil
}

func signedByAny(leaf *x509.Certificate, cas []*x509.Certificate) bool {
	return slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return leaf.CheckSignatureFrom(ca) == nil })
}

// ServerRoots is the set of CAs that may certify coordination servers and
// relays. It is immutable.
type ServerRoots struct {
	pins []Pin
	cas  []*x509.Certificate // a handshake may present more
}

// NewServerRoots builds the set from pins (of a token) and, once known, DER
// certificates, which must be pinned or signed by a pinned one.
func NewServerRoots(pins []Pin, ders [][]byte) (*ServerRoots, error) {
	if len(pins) == 0 || len(pins) > maxCAs {
		return nil, fmt.Errorf("server CAs: %d pins, want 1 to %d", len(pins), maxCAs)
	}
	r := &ServerRoots{pins: slices.Clone(pins)}
	if len(ders) == 0 {
		return r, nil
	}
	cas, err := chainOfCAs(ders, r.pinned)
	if err != nil {
		return nil, fmt.Errorf("server CAs: %w", err)
	}
	r.cas = cas
	return r, nil
}

func (r *ServerRoots) pinned(ca *x509.Certificate) bool { return slices.Contains(r.pins, PinOf(ca)) }

// VerifyRelay checks the chain that a relay presented in its handshake, leaf first. The
// leaf's key must have id, from the node's config, as its RelayID. So a relay that was
// removed from the config is no longer trusted, however long its certificate is valid,
// and no relay can pass for another. With an empty id only a coordination server is
// accepted. Errors wrap ErrUntrusted.
func (r *ServerRoots) VerifyRelay(chain []*x509.Certificate, id string) error {
	if id == "" {
		return r.VerifyServer(chain, RoleServer)
	}
	if err := r.VerifyServer(chain, RoleRelay); err != nil {
		return err
	}
	if shown := RelayID(chain[0].RawSubjectPublicKeyInfo); shown != id {
		return fmt.Errorf("server certificate: it belongs to relay %s, not %s: %w", shown, id, ErrUntrusted)
	}
	return nil
}

// VerifyServer checks the chain that a server presented in its handshake, leaf first. It
// ignores dates on purpose: the pin is what makes the link trusted, and a device whose
// clock says 1970 or 2040 learns the time over it. So a certificate, once issued, stays
// valid for as long as its CA. For relays VerifyRelay therefore asks for more; the
// coordination server's key is stored beside the CA's own. A leaf for RoleServer is valid
// for RoleRelay too. Errors wrap ErrUntrusted.
func (r *ServerRoots) VerifyServer(chain []*x509.Certificate, role Role) error {
	if len(chain) == 0 {
		return fmt.Errorf("server certificate: none presented: %w", ErrUntrusted)
	}
	if len(chain) > maxCAs+1 {
		return fmt.Errorf("server certificate: chain of %d certificates: %w", len(chain), ErrUntrusted)
	}
	cas := slices.Clone(r.cas)
	for _, crt := range chain[1:] {
		if crt.IsCA && r.pinned(crt) {
			cas = append(cas, crt)
		}
	}
	leaf := chain[0]
	if leaf.IsCA || !signedByAny(leaf, cas) {
		return fmt.Errorf("server certificate: %w", ErrUntrusted)
	}
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return fmt.Errorf("server certificate: not issued for servers: %w", ErrUntrusted)
	}
	for _, u := range leaf.URIs {
		if u.String() == roleURI(role).String() || role == RoleRelay && u.String() == roleURI(RoleServer).String() {
			return nil
		}
	}
	return fmt.Errorf("server certificate: not issued for role %s: %w", role, ErrUntrusted)
}
