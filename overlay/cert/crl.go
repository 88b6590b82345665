package cert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// MaxCRL bounds a revocation list in bytes (DER): about 37,000 entries (see NewSerial).
// The list stays shorter because expired certificates leave it: see CRL.Since.
const MaxCRL = 1 << 20

// oidExpiredCerts marks the extension expiredCertsOnCRL of ITU-T X.509: a
// GeneralizedTime, never critical. The list is complete for certificates that expired at
// that time or later, and says nothing of those that expired before.
var oidExpiredCerts = asn1.ObjectIdentifier{2, 5, 29, 60}

// CRL is a verified revocation list (RFC 5280 section 5) of one network. It is
// immutable.
type CRL struct {
	// Number only ever grows: max(last + 1, unix seconds). A server that may have been
	// restored from a backup stays just above its last number for a while, so that nodes
	// with a higher number send it their list.
	Number uint64
	Raw    []byte // DER
	// The list is complete for certificates that expire at Since or later. Revoked ones
	// that expired before may have been dropped from it. Zero: nothing was dropped yet,
	// or the server is older than 2026-11-29 and does not say. It may be earlier than in
	// a list with a lower number: see SignCRL.
	Since time.Time

	revoked map[string]bool // by serial number, big-endian bytes: whether it was superseded
}

// Revoked reports whether the certificate with this serial number is revoked. It compares
// serial numbers, never a hash of the certificate, because an ECDSA signature can be
// altered and stay valid. The nil CRL revokes nothing.
func (c *CRL) Revoked(serial *big.Int) bool {
	if c == nil {
		return false
	}
	_, ok := c.revoked[string(serial.Bytes())]
	return ok
}

// reasonSuperseded is the reason code of RFC 5280 section 5.3.1 for a certificate whose device
// has another one by now, because its tags or its owner changed. Nodes and relays that do
// not know the reason refuse the certificate all the same.
const reasonSuperseded = 4

// Superseded reports whether the certificate with this serial number is revoked because
// its device has got another one: the device still belongs to the network.
func (c *CRL) Superseded(serial *big.Int) bool { return c != nil && c.revoked[string(serial.Bytes())] }

// Omits reports whether the list may have dropped a revoked certificate that expired at
// notAfter. Such a certificate is refused whatever this node believes the time is, so
// that a false time cannot bring back a node that was deleted long ago. The nil CRL omits
// nothing.
func (c *CRL) Omits(notAfter time.Time) bool { return c != nil && notAfter.Before(c.Since) }

// Check returns why this list refuses a certificate, independent of the current time: an
// error that wraps ErrRevoked or ErrExpired, or nil.
func (c *CRL) Check(n *Node) error {
	switch {
	case c.Revoked(n.Serial):
		return fmt.Errorf("certificate of %s: %w", n.Name, ErrRevoked)
	case c.Omits(n.NotAfter):
		return fmt.Errorf("certificate of %s: %w (it expired %s; the revocation list no longer covers certificates that expired before %s)", n.Name, ErrExpired,
			n.NotAfter.UTC().Format(time.RFC3339), c.Since.UTC().Format(time.RFC3339))
	}
	return nil
}

// Len returns the number of revoked certificates.
func (c *CRL) Len() int {
	if c == nil {
		return 0
	}
	return len(c.revoked)
}

// SignCRL makes the signed list with the given number. superseded are the serial numbers
// of revoked certificates whose devices have others. Serials may come in any order.
// since is CRL.Since, in whole seconds, zero for none. Every node that takes the list
// refuses certificates that expired before since, so it must be no later than the
// certificates that were dropped require, and no later than now. A server whose clock
// once said 2040 may go back to an earlier since.
func (ca *CA) SignCRL(number uint64, revoked []*big.Int, since, now time.Time, superseded ...*big.Int) ([]byte, error) {
	var extensions []pkix.Extension
	if !since.IsZero() {
		value, err := asn1.MarshalWithParams(since.UTC(), "generalized")
		if err != nil {
			return nil, fmt.Errorf("sign CRL %d: %w", number, err)
		}
		extensions = []pkix.Extension{{Id: oidExpiredCerts, Value: value}}
	}
	entries := make([]x509.RevocationListEntry, 0, len(revoked)+len(superseded))
	for _, serial := range revoked {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now})
	}
	for _, serial := range superseded {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now, ReasonCode: reasonSuperseded})
	}
	slices.SortFunc(entries, func(a, b x509.RevocationListEntry) int { return a.SerialNumber.Cmp(b.SerialNumber) })
	der, err := ca.signList(&x509.RevocationList{
		Number:                    new(big.Int).SetUint64(number),
		ThisUpdate:                now,
		NextUpdate:                now.Add(caLife), // an old list causes a warning; it never cuts nodes off
		RevokedCertificateEntries: entries,
		ExtraExtensions:           extensions,
	})
	if err != nil {
		return nil, fmt.Errorf("sign CRL %d: %w", number, err)
	}
	return der, nil
}

// Serials returns the serial numbers that the list names, in no order.
func (c *CRL) Serials() []*big.Int {
	out := make([]*big.Int, 0, len(c.revoked))
	for s := range c.revoked {
		out = append(out, new(big.Int).SetBytes([]byte(s)))
	}
	return out
}

// VerifyCRL checks the signature of a DER revocation list and indexes it. The dates in it
// are ignored: of two lists the one with the higher number is newer. Errors wrap
// ErrUntrusted if the signature is not of a CA of the network.
func (r *NetworkRoots) VerifyCRL(der []byte) (*CRL, error) {
	if len(der) > MaxCRL {
		return nil, fmt.Errorf("parse CRL: %d bytes, at most %d", len(der), MaxCRL)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("parse CRL: %w", err)
	}
	if !slices.ContainsFunc(r.cas, func(ca *x509.Certificate) bool { return list.CheckSignatureFrom(ca) == nil }) {
		return nil, fmt.Errorf("verify CRL: %w", ErrUntrusted)
	}
	if list.Number == nil || !list.Number.IsUint64() {
		return nil, fmt.Errorf("verify CRL: its number is missing or out of range")
	}
	since, err := sinceOf(list)
	if err != nil {
		return nil, fmt.Errorf("verify CRL: %w", err)
	}
	c := &CRL{Since: since, Number: list.Number.Uint64(), Raw: list.Raw, revoked: make(map[string]bool, len(list.RevokedCertificateEntries))}
	for _, e := range list.RevokedCertificateEntries {
		c.revoked[string(e.SerialNumber.Bytes())] = e.ReasonCode == reasonSuperseded
	}
	return c, nil
}

// sinceOf reads the extension expiredCertsOnCRL.
func sinceOf(list *x509.RevocationList) (since time.Time, err error) {
	for _, e := range list.Extensions {
		if !e.Id.Equal(oidExpiredCerts) {
			continue
		}
		if rest, err := asn1.Unmarshal(e.Value, &since); err != nil || len(rest) > 0 {
			return time.Time{}, errors.New("malformed expiredCertsOnCRL")
		}
	}
	return since, nil
}
