package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	encoding "encoding/asn1"
	"errors"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidECDSAWithSHA256 = encoding.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidAuthorityKeyID  = encoding.ObjectIdentifier{2, 5, 29, 35}
	oidCRLNumber       = encoding.ObjectIdentifier{2, 5, 29, 20}
	oidReasonCode      = encoding.ObjectIdentifier{2, 5, 29, 21}
)

// signList encodes and signs a list as x509.CreateRevocationList does, byte for byte up to
// the signature. A server with thousands of entries signs one for each few deletions, and
// there x509 spends ten times as long, on encoding entries by reflection and on verifying
// what it has just signed. Of a list's entries it takes the serial number, the time and
// the reason.
func (ca *CA) signList(list *x509.RevocationList) ([]byte, error) {
	if key, ok := ca.Key.Public().(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() || !key.Equal(ca.Cert.PublicKey) {
		return nil, errors.New("the key of the CA is not that of its certificate, or not of P-256")
	}
	if ca.Cert.KeyUsage&x509.KeyUsageCRLSign == 0 || len(ca.Cert.SubjectKeyId) == 0 {
		return nil, errors.New("the certificate of the CA is not for signing lists")
	}
	tbs := cryptobyte.NewBuilder(make([]byte, 0, 1024+48*len(list.RevokedCertificateEntries)))
	tbs.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { ca.addList(b, list) })
	signed, err := tbs.Bytes()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(signed)
	signature, err := ca.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	der := cryptobyte.NewBuilder(make([]byte, 0, len(signed)+256))
	der.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(signed)
		addAlgorithm(b)
		b.AddASN1BitString(signature)
	})
	return der.Bytes()
}

// addList adds what a TBSCertList has in it (RFC 5280 section 5.1).
func (ca *CA) addList(b *cryptobyte.Builder, list *x509.RevocationList) {
	b.AddASN1Int64(1) // version 2
	addAlgorithm(b)
	b.AddBytes(ca.Cert.RawSubject)
	addTime(b, list.ThisUpdate)
	addTime(b, list.NextUpdate)
	if len(list.RevokedCertificateEntries) > 0 {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			var when time.Time
			var at []byte // when, encoded: most entries have one time
			for i := range list.RevokedCertificateEntries {
				e := &list.RevokedCertificateEntries[i]
				if at == nil || !e.RevocationTime.Equal(when) {
					when, at = e.RevocationTime, encodedTime(b, e.RevocationTime)
				}
				addEntry(b, e, at)
			}
		})
	}
	b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, oidAuthorityKeyID, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(ca.Cert.SubjectKeyId) })
				})
			})
			addExtension(b, oidCRLNumber, func(b *cryptobyte.Builder) { b.AddASN1BigInt(list.Number) })
			for _, e := range list.ExtraExtensions {
				addExtension(b, e.Id, func(b *cryptobyte.Builder) { b.AddBytes(e.Value) })
			}
		})
	})
}

// addEntry adds an entry with its time, encoded.
func addEntry(b *cryptobyte.Builder, e *x509.RevocationListEntry, at []byte) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(e.SerialNumber)
		b.AddBytes(at)
		if e.ReasonCode == 0 {
			return
		}
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, oidReasonCode, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(e.ReasonCode)) })
		})
	})
}

// addExtension adds an extension that is not critical.
func addExtension(b *cryptobyte.Builder, id encoding.ObjectIdentifier, value func(*cryptobyte.Builder)) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddASN1(asn1.OCTET_STRING, value)
	})
}

func addAlgorithm(b *cryptobyte.Builder) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidECDSAWithSHA256) })
}

// addTime adds a Time: of before 2050 as UTCTime, later as GeneralizedTime.
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t = t.UTC(); t.Year() < 2050 {
		b.AddASN1UTCTime(t)
	} else {
		b.AddASN1GeneralizedTime(t)
	}
}

// encodedTime is what addTime adds. An error is noted in b.
func encodedTime(b *cryptobyte.Builder, t time.Time) []byte {
	var one cryptobyte.Builder
	addTime(&one, t)
	at, err := one.Bytes()
	if err != nil {
		b.SetError(err)
	}
	return at
}
