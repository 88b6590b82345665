package cert

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// A list is what crypto/x509 makes of it, up to the signature, which verifies.
func TestListAsX509(t *testing.T) {
	ca := testCA(t, "network")
	many := make([]x509.RevocationListEntry, 3000)
	for i := range many {
		many[i] = x509.RevocationListEntry{SerialNumber: NewSerial(), RevocationTime: testNow, ReasonCode: i % 11 &^ 7}
	}
	late := time.Date(2051, 3, 4, 5, 6, 7, 8, time.FixedZone("", 3600))
	long := new(big.Int).Lsh(big.NewInt(255), 150)
	for name, list := range map[string]*x509.RevocationList{
		"empty":           {Number: big.NewInt(1), ThisUpdate: testNow},
		"one entry":       {Number: big.NewInt(128), ThisUpdate: testNow, RevokedCertificateEntries: many[:1]},
		"many":            {Number: new(big.Int).SetUint64(1<<64 - 1), ThisUpdate: testNow, RevokedCertificateEntries: many},
		"after 2050":      {Number: big.NewInt(1), ThisUpdate: late, RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: long, RevocationTime: late}}},
		"with extensions": {Number: big.NewInt(1), ThisUpdate: testNow, ExtraExtensions: []pkix.Extension{{Id: oidExpiredCerts, Value: []byte("\x18\x0f20261129120001Z")}}},
	} {
		list.NextUpdate = list.ThisUpdate.Add(caLife)
		der, err := ca.signList(list)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		read, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := read.CheckSignatureFrom(ca.Cert); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := x509.CreateRevocationList(rand.Reader, list, ca.Cert, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := x509.ParseRevocationList(again); !bytes.Equal(read.RawTBSRevocationList, want.RawTBSRevocationList) {
			t.Errorf("%s: encoded as\n%x\nx509 has\n%x", name, read.RawTBSRevocationList, want.RawTBSRevocationList)
		}
	}
}

// No list is signed in the name of a CA whose nodes would refuse it.
func TestListOfWrongCA(t *testing.T) {
	ca, other := testCA(t, "network"), testCA(t, "other")
	if _, err := (&CA{Cert: ca.Cert, Key: other.Key}).SignCRL(1, nil, time.Time{}, testNow); err == nil {
		t.Error("signed with the key of another CA")
	}
	leaf := *ca.Cert
	leaf.KeyUsage = x509.KeyUsageCertSign
	if _, err := (&CA{Cert: &leaf, Key: ca.Key}).SignCRL(1, nil, time.Time{}, testNow); err == nil {
		t.Error("signed by a CA that is not for lists")
	}
	if _, err := ca.SignCRL(1, []*big.Int{big.NewInt(1)}, time.Time{}, time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil {
		t.Error("signed with a time that no list can have")
	}
}

func BenchmarkSignCRL(b *testing.B) {
	ca := testCA(b, "network")
	serials := make([]*big.Int, 1000)
	for i := range serials {
		serials[i] = NewSerial()
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ca.SignCRL(1, serials, testNow, testNow); err != nil {
			b.Fatal(err)
		}
	}
}
