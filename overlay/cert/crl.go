package cert

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// MaxCRL bounds a revocation list in bytes (DER): about 37,000 entries (see
// NewSerial). Only certificates that have not expired are listed.
const MaxCRL = 1 << 20

// CRL is a verified revocation list (RFC 5280 section 5) of one network. It is
// immutable.
type CRL struct {
	// Number only ever grows: max(last + 1, unix seconds), so that a server
	// restored from a backup never goes back.
	Number uint64
	Raw    []byte // DER

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

// Len returns the number of revoked certificates.
func (c *CRL) Len() int {
	if c == nil {
		return 0
	}
	return len(c.revoked)
}

// SignCRL makes the signed list with the given number. Serials may come in
// any order.
func (ca *CA) SignCRL(number uint64, revoked []*big.Int, now time.Time) ([]byte, error) {
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
	c := &CRL{Number: list.Number.Uint64(), Raw: list.Raw, revoked: make(map[string]struct{}, len(list.RevokedCertificateEntries))}
	for _, e := range list.RevokedCertificateEntries {
		c.revoked[string(e.SerialNumber.Bytes())] = struct{}{}
	}
	return c, nil
}
