package cert

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// MaxCRL bounds a revocation list in bytes (DER): about 37,000 entries (see
// NewSerial). It stays
// below that because certificates that have ended leave the list: see Since.
const MaxCRL = 1 << 20

// oidExpiredCerts marks the extension expiredCertsOnCRL of ITU-T X.509: a
// GeneralizedTime, never critical. The list is complete for certificates that
// ended at that time or later, and says nothing of those that ended before.
var oidExpiredCerts = asn1.ObjectIdentifier{2, 5, 29, 60}

// CRL is a verified revocation list (RFC 5280 section 5) of one network. It is
// immutable.
type CRL struct {
	// Number only ever grows: max(last + 1, unix seconds). A server that may have
	// been restored from a backup stays just above its last one for a while, so
	// that those who hold a higher one bring it.
	Number uint64
	Raw    []byte // DER
	// Since is the end of certificates from which on the list is complete: who
	// ended before may have been dropped from it. Zero: the list does not say
	// (it is of a server from before 2026-11-29, or nothing was dropped yet).
	// It may be earlier than in a list with a lower number: see SignCRL.
	Since time.Time

	revoked map[string]struct{} // serial numbers, big-endian bytes
}

// Revoked reports whether the certificate with this serial number is revoked.
// Revocation goes by serial number, never by a hash over the certificate:
// an ECDSA signature can be altered without becoming invalid. The nil CRL
// revokes nothing.
func (c *CRL) Revoked(serial *big.Int) bool {
	if c == nil {
		return false
	}
	_, ok := c.revoked[string(serial.Bytes())]
	return ok
}

// Omits reports whether the list may have dropped a revoked certificate that
// ended at notAfter. Such a certificate is refused whatever the time is: who
// lies about that must not bring back who was deleted long ago. The nil CRL
// omits nothing.
func (c *CRL) Omits(notAfter time.Time) bool { return c != nil && notAfter.Before(c.Since) }

// Check says why a certificate is not to be believed by this list, whatever the
// time is: an error that wraps ErrRevoked or ErrExpired, nil for none.
func (c *CRL) Check(n *Node) error {
	switch {
	case c.Revoked(n.Serial):
		return fmt.Errorf("certificate of %s: %w", n.Name, ErrRevoked)
	case c.Omits(n.NotAfter):
		return fmt.Errorf("certificate of %s: %w (it ended %s, and the revocation list leaves out what ended before %s)", n.Name, ErrExpired,
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

// SignCRL makes the signed list with the given number. Serials may come in
// any order. since is CRL.Since, in whole seconds, zero for none. Every node that
// takes the list refuses certificates that ended before, so it is no later than
// what was really dropped, nor than now; a server whose clock stood in 2040 may
// take an earlier one back later.
func (ca *CA) SignCRL(number uint64, revoked []*big.Int, since, now time.Time) ([]byte, error) {
	var extensions []pkix.Extension
	if !since.IsZero() {
		value, err := asn1.MarshalWithParams(since.UTC(), "generalized")
		if err != nil {
			return nil, fmt.Errorf("sign CRL %d: %w", number, err)
		}
		extensions = []pkix.Extension{{Id: oidExpiredCerts, Value: value}}
	}
	entries := make([]x509.RevocationListEntry, len(revoked))
	for i, serial := range revoked {
		entries[i] = x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now}
	}
	slices.SortFunc(entries, func(a, b x509.RevocationListEntry) int { return a.SerialNumber.Cmp(b.SerialNumber) })
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number:                    new(big.Int).SetUint64(number),
		ThisUpdate:                now,
		NextUpdate:                now.Add(caLife), // an old list warns, it never cuts
		RevokedCertificateEntries: entries,
		ExtraExtensions:           extensions,
	}, ca.Cert, ca.Key)
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

// VerifyCRL checks the signature of a DER revocation list and indexes it. The
// dates in it do not matter: the number decides which of two lists is newer.
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
		return nil, fmt.Errorf("verify CRL: no usable number")
	}
	since, err := sinceOf(list)
	if err != nil {
		return nil, fmt.Errorf("verify CRL: %w", err)
	}
	c := &CRL{Since: since, Number: list.Number.Uint64(), Raw: list.Raw, revoked: make(map[string]struct{}, len(list.RevokedCertificateEntries))}
	for _, e := range list.RevokedCertificateEntries {
		c.revoked[string(e.SerialNumber.Bytes())] = struct{}{}
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
