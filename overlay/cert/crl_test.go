package cert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"
)

// A list with a date refuses certificates that expired before it, whatever the time is:
// those of devices that were deleted so long ago that they have left the list.
func TestListThatOmits(t *testing.T) {
	ca := testCA(t, "network")
	roots, _ := NewNetworkRoots(PinOf(ca.Cert).NetworkID(), [][]byte{ca.Cert.Raw})
	_, der := signTestNode(t, ca, testAttributes())
	node, err := roots.VerifyNode(der, testNow, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := func(since time.Time) *CRL {
		t.Helper()
		der, err := ca.SignCRL(1, []*big.Int{NewSerial()}, since, node.NotAfter.AddDate(1, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		crl, err := roots.VerifyCRL(der)
		if err != nil || !crl.Since.Equal(since) {
			t.Fatalf("since %v read back as %v, %v", since, crl, err)
		}
		return crl
	}
	for name, c := range map[string]struct {
		crl  *CRL
		want error
	}{
		"no list":                         {nil, nil},
		"an old server's":                 {list(time.Time{}), nil},
		"complete since it ended":         {list(node.NotAfter), nil},
		"complete since a second later":   {list(node.NotAfter.Add(time.Second)), ErrExpired},
		"complete since a year later":     {list(node.NotAfter.AddDate(1, 0, 0)), ErrExpired},
		"of 2060, beyond what UTCTime is": {list(time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC)), ErrExpired},
	} {
		// With a clock that was set back to when the certificate was valid.
		if _, err := roots.VerifyNode(der, testNow, c.crl); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := roots.VerifyNodeAnyTime(der); err != nil {
		t.Errorf("it cannot be renewed: %v", err)
	}
}

// The date is in the extension of ITU-T X.509, which is not critical, so other programs
// need not know it.
func TestSinceOnTheWire(t *testing.T) {
	ca := testCA(t, "network")
	since := time.Date(2026, 11, 29, 12, 0, 1, 0, time.UTC)
	der, err := ca.SignCRL(1, nil, since, testNow)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range list.Extensions {
		if e.Id.String() == "2.5.29.60" {
			found = true
			if e.Critical || string(e.Value) != "\x18\x0f20261129120001Z" {
				t.Errorf("critical %v, value %q", e.Critical, e.Value)
			}
		}
	}
	if !found {
		t.Error("no expiredCertsOnCRL")
	}
	roots, _ := NewNetworkRoots(PinOf(ca.Cert).NetworkID(), [][]byte{ca.Cert.Raw})
	for _, bad := range []string{"", "\x18\x01x", "\x05\x00", "\x18\x0f20261129120001Z\x00"} {
		der, err := x509.CreateRevocationList(nil, &x509.RevocationList{
			Number: big.NewInt(2), ThisUpdate: testNow, NextUpdate: testNow,
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 60}, Value: []byte(bad)}},
		}, ca.Cert, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := roots.VerifyCRL(der); err == nil {
			t.Errorf("a list with %q is taken", bad)
		}
	}
}
