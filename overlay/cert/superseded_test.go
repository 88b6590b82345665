package cert

import (
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
	"time"
)

// A superseded certificate is refused like any revoked one. The list says that its device
// was not deleted, in the reason code that X.509 has for it.
func TestSuperseded(t *testing.T) {
	ca := testCA(t, "network")
	roots, _ := NewNetworkRoots(PinOf(ca.Cert).NetworkID(), [][]byte{ca.Cert.Raw})
	_, der := signTestNode(t, ca, testAttributes())
	node, err := roots.VerifyNode(der, testNow, nil)
	if err != nil {
		t.Fatal(err)
	}
	deleted, other := NewSerial(), NewSerial()
	list, err := ca.SignCRL(1, []*big.Int{deleted}, time.Time{}, testNow, node.Serial)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := roots.VerifyCRL(list)
	if err != nil || crl.Len() != 2 || len(crl.Serials()) != 2 {
		t.Fatalf("%+v, %v", crl, err)
	}
	for _, c := range []struct {
		name                string
		serial              *big.Int
		revoked, superseded bool
	}{{"superseded", node.Serial, true, true}, {"deleted", deleted, true, false}, {"neither", other, false, false}} {
		if crl.Revoked(c.serial) != c.revoked || crl.Superseded(c.serial) != c.superseded {
			t.Errorf("%s: revoked %v, superseded %v", c.name, crl.Revoked(c.serial), crl.Superseded(c.serial))
		}
	}
	if (*CRL)(nil).Superseded(other) {
		t.Error("no list names somebody")
	}
	if _, err := roots.VerifyNode(der, testNow, crl); !errors.Is(err, ErrRevoked) {
		t.Errorf("a superseded certificate: %v", err)
	}
	raw, err := x509.ParseRevocationList(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range raw.RevokedCertificateEntries {
		want := 0
		if e.SerialNumber.Cmp(node.Serial) == 0 {
			want = 4 // RFC 5280 section 5.3.1
		}
		if e.ReasonCode != want {
			t.Errorf("reason %d, want %d", e.ReasonCode, want)
		}
	}
}
