package cert

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func testCA(t testing.TB, name string) *CA {
	t.Helper()
	ca, err := NewCA(name, testNow)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func testAttributes() Attributes {
	return Attributes{
		Name: "kitchen-pi", FQDN: "kitchen-pi.weft.internal",
		IPv4: netip.MustParseAddr("100.64.0.7"), IPv6: netip.MustParseAddr("fd00:1234::7"),
		User: "alice", Groups: []string{"admins"}, Tags: []string{"device"},
	}
}

func signTestNode(t testing.TB, ca *CA, a Attributes) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.SignNode(&key.PublicKey, a, NewSerial(), testNow, testNow.Add(90*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func TestNodeCertificateSaysWhatWasSigned(t *testing.T) {
	ca := testCA(t, "network")
	network := PinOf(ca.Cert).NetworkID()
	key, der := signTestNode(t, ca, testAttributes())
	roots, err := NewNetworkRoots(network, [][]byte{ca.Cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	n, err := roots.VerifyNode(der, testNow.Add(time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	spki, _ := SPKI(&key.PublicKey)
	if n.ID != NodeIDOf(network, spki) {
		t.Errorf("node id %v is not the hash of its key", n.ID)
	}
	if n.Name != "kitchen-pi" || n.FQDN != "kitchen-pi.weft.internal" || n.User != "alice" || !n.Tagged() || n.Groups[0] != "admins" {
		t.Errorf("attributes read back as %+v", n.Attributes)
	}
	if !n.Has(netip.MustParseAddr("100.64.0.7")) || !n.Has(netip.MustParseAddr("fd00:1234::7")) || n.Has(netip.MustParseAddr("100.64.0.8")) {
		t.Errorf("addresses read back as %v, %v", n.IPv4, n.IPv6)
	}
	if len(der) > 700 {
		t.Errorf("certificate has %d bytes, want about 500", len(der))
	}
}

func TestVerifyNodeRefuses(t *testing.T) {
	ca, other := testCA(t, "network"), testCA(t, "network")
	network := PinOf(ca.Cert).NetworkID()
	roots, _ := NewNetworkRoots(network, [][]byte{ca.Cert.Raw})
	_, good := signTestNode(t, ca, testAttributes())
	_, foreign := signTestNode(t, other, testAttributes())
	key, _ := NewKey()
	server, err := ca.SignServer(&key.PublicKey, RoleServer, testNow, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	node, _ := ParseNode(network, good)
	list, _ := ca.SignCRL(1, []*big.Int{node.Serial}, time.Time{}, testNow)
	crl, err := roots.VerifyCRL(list)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		der  []byte
		now  time.Time
		crl  *CRL
		want error
	}{
		"another network's CA": {foreign, testNow, nil, ErrUntrusted},
		"a server certificate": {server, testNow, nil, nil},
		"the CA itself":        {ca.Cert.Raw, testNow, nil, nil},
		"not yet valid":        {good, testNow.Add(-time.Second), nil, ErrExpired},
		"expired":              {good, testNow.Add(91 * 24 * time.Hour), nil, ErrExpired},
		"revoked":              {good, testNow, crl, ErrRevoked},
		"truncated":            {good[:len(good)-1], testNow, nil, nil},
		"empty":                {nil, testNow, nil, nil},
	} {
		if n, err := roots.VerifyNode(c.der, c.now, c.crl); err == nil {
			t.Errorf("%s: accepted as %s", name, n.Name)
		} else if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := roots.VerifyNodeAnyTime(good); err != nil {
		t.Errorf("renewal of a good certificate: %v", err)
	}
}

// A signature (r, s) can be turned into the equally valid (r, n-s); the
// certificate then has another hash, but still the same serial number.
func TestRevocationSurvivesMalleatedSignature(t *testing.T) {
	ca := testCA(t, "network")
	roots, _ := NewNetworkRoots(PinOf(ca.Cert).NetworkID(), [][]byte{ca.Cert.Raw})
	_, der := signTestNode(t, ca, testAttributes())
	crt, _ := x509.ParseCertificate(der)
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(crt.Signature, &sig); err != nil {
		t.Fatal(err)
	}
	sig.S.Sub(crt.PublicKey.(*ecdsa.PublicKey).Params().N, sig.S)
	flipped, _ := asn1.Marshal(sig)
	var outer struct {
		TBS, Alg asn1.RawValue
		Sig      asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	outer.Sig = asn1.BitString{Bytes: flipped, BitLength: 8 * len(flipped)}
	altered, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := roots.VerifyNode(altered, testNow, nil); err != nil {
		t.Fatalf("the altered certificate should still verify: %v", err)
	}
	list, _ := ca.SignCRL(7, []*big.Int{crt.SerialNumber}, time.Time{}, testNow)
	crl, _ := roots.VerifyCRL(list)
	if _, err := roots.VerifyNode(altered, testNow, crl); !errors.Is(err, ErrRevoked) {
		t.Fatalf("altered certificate of a revoked node: %v, want revoked", err)
	}
}

func TestSuccessorCA(t *testing.T) {
	founder := testCA(t, "network")
	network := PinOf(founder.Cert).NetworkID()
	next, err := founder.Successor("network 2", testNow)
	if err != nil {
		t.Fatal(err)
	}
	third, _ := next.Successor("network 3", testNow)
	// The order of the certificates does not matter.
	roots, err := NewNetworkRoots(network, [][]byte{third.Cert.Raw, next.Cert.Raw, founder.Cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	_, der := signTestNode(t, third, testAttributes())
	if _, err := roots.VerifyNode(der, testNow, nil); err != nil {
		t.Errorf("node certified by the third CA: %v", err)
	}
	if _, err := NewNetworkRoots(network, [][]byte{founder.Cert.Raw, testCA(t, "x").Cert.Raw}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a CA that nobody signed: %v, want untrusted", err)
	}
	if _, err := NewNetworkRoots(network, [][]byte{next.Cert.Raw}); err == nil {
		t.Error("successor without founder was accepted")
	}
}

func TestVerifyServer(t *testing.T) {
	ca, networkCA := testCA(t, "server"), testCA(t, "network")
	pins, _ := NewServerRoots([]Pin{PinOf(ca.Cert)}, nil)
	key, _ := NewKey()
	chain := func(by *CA, role Role) []*x509.Certificate {
		der, err := by.SignServer(&key.PublicKey, role, testNow, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leaf, _ := x509.ParseCertificate(der)
		return []*x509.Certificate{leaf, by.Cert}
	}
	if err := pins.VerifyServer(chain(ca, RoleServer), RoleServer); err != nil {
		t.Errorf("pinned server: %v", err)
	}
	if err := pins.VerifyServer(chain(ca, RoleServer), RoleRelay); err != nil {
		t.Errorf("a server is a relay too: %v", err)
	}
	if err := pins.VerifyServer(chain(ca, RoleRelay), RoleServer); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a relay that poses as the server: %v, want untrusted", err)
	}
	if err := pins.VerifyServer(chain(networkCA, RoleServer), RoleServer); !errors.Is(err, ErrUntrusted) {
		t.Errorf("server certified by the network CA: %v, want untrusted", err)
	}
	_, node := signTestNode(t, ca, testAttributes())
	leaf, _ := x509.ParseCertificate(node)
	if err := pins.VerifyServer([]*x509.Certificate{leaf, ca.Cert}, RoleServer); !errors.Is(err, ErrUntrusted) {
		t.Errorf("node certificate as a server's: %v, want untrusted", err)
	}
	if err := pins.VerifyServer(nil, RoleServer); !errors.Is(err, ErrUntrusted) {
		t.Errorf("no certificate: %v, want untrusted", err)
	}
}

// A relay is accepted under its own id, at any date, and under no other. Without an id
// only a coordination server is accepted.
func TestVerifyRelay(t *testing.T) {
	ca, other := testCA(t, "server"), testCA(t, "another server")
	pins, _ := NewServerRoots([]Pin{PinOf(ca.Cert)}, nil)
	chain := func(by *CA, role Role, at time.Time) (c []*x509.Certificate, id string) {
		key, _ := NewKey()
		der, err := by.SignServer(&key.PublicKey, role, at, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leaf, _ := x509.ParseCertificate(der)
		return []*x509.Certificate{leaf, by.Cert}, RelayID(leaf.RawSubjectPublicKeyInfo)
	}
	for _, role := range []Role{RoleRelay, RoleServer} {
		for name, at := range map[string]time.Time{"now": testNow, "long ended": testNow.AddDate(-20, 0, 0), "not yet valid": testNow.AddDate(20, 0, 0)} {
			c, id := chain(ca, role, at)
			if err := pins.VerifyRelay(c, id); err != nil {
				t.Errorf("%s %s: %v", role, name, err)
			}
			_, another := chain(ca, RoleRelay, testNow)
			if err := pins.VerifyRelay(c, another); !errors.Is(err, ErrUntrusted) {
				t.Errorf("%s %s as another relay: %v", role, name, err)
			}
			if err := pins.VerifyRelay(c, ""); (err == nil) != (role == RoleServer) {
				t.Errorf("%s %s without an id: %v", role, name, err)
			}
		}
	}
	c, id := chain(other, RoleRelay, testNow)
	if err := pins.VerifyRelay(c, id); !errors.Is(err, ErrUntrusted) {
		t.Errorf("with the right key under another CA: %v", err)
	}
	if err := pins.VerifyRelay(nil, id); !errors.Is(err, ErrUntrusted) {
		t.Errorf("no certificate: %v", err)
	}
}

func TestTokenRoundTripAndDamage(t *testing.T) {
	tok := Token{URLs: []string{"https://203.0.113.7:8443", "https://vpn.example.org"}, Server: Pin{0: 1, 31: 9}, Network: Pin{0: 2}, Secret: NewSecret()}
	s := tok.String()
	got, err := ParseToken("  " + s[:40] + "\n" + s[40:] + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Server != tok.Server || got.Network != tok.Network || string(got.Secret) != string(tok.Secret) || strings.Join(got.URLs, " ") != strings.Join(tok.URLs, " ") {
		t.Errorf("read back as %+v", got)
	}
	for i := range len(s) {
		if _, err := ParseToken(s[:i]); err == nil {
			t.Fatalf("token cut after %d characters was accepted", i)
		}
	}
	swapped := []byte(s)
	swapped[60], swapped[61] = swapped[61]^1, swapped[60]
	for _, bad := range []string{string(swapped), "weft2" + s[5:], s + "A", strings.Replace(s, s[50:51], "-", 1), strings.Repeat("weft1A", 1000)} {
		if _, err := ParseToken(bad); err == nil {
			t.Errorf("accepted %q", bad)
		} else if strings.Contains(err.Error(), s[20:40]) {
			t.Errorf("the error repeats the token: %v", err)
		}
	}
	for _, u := range []string{"http://h:1", "https://h/path", "https://u@h", "https://", "ftp://h", "https://h?x=1"} {
		tok.URLs = []string{u}
		if _, err := ParseToken(tok.String()); err == nil {
			t.Errorf("token with address %q was accepted", u)
		}
	}
	if v := tok.LogValue().String(); strings.Contains(v, s[10:30]) {
		t.Errorf("log value %q shows the token", v)
	}
}

func TestClock(t *testing.T) {
	floor := testNow
	for name, c := range map[string]struct{ wall, want time.Time }{
		"right":       {floor.Add(24 * time.Hour), floor.Add(24 * time.Hour)},
		"in 1970":     {time.Unix(0, 0), floor},
		"in 2040":     {time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC), floor},
		"91 days on":  {floor.Add(91 * 24 * time.Hour), floor},
		"a bit early": {floor.Add(-time.Minute), floor},
	} {
		wall := c.wall
		clock := NewClock(floor, func() time.Time { return wall })
		if got := clock.Now(); !got.Equal(c.want) {
			t.Errorf("%s, no contact: %v, want %v", name, got, c.want)
		}
		server := floor.Add(48 * time.Hour)
		clock.Contact(server)
		wall = wall.Add(time.Hour)
		if got := clock.Now(); !got.Equal(server.Add(time.Hour)) {
			t.Errorf("%s, an hour after contact: %v, want %v", name, got, server.Add(time.Hour))
		}
		clock.Contact(server.Add(-24 * time.Hour)) // the server's earlier time may have been wrong
		if got := clock.Now(); !got.Equal(server.Add(-24 * time.Hour)) {
			t.Errorf("%s: weft time does not follow the server back: %v", name, got)
		}
	}
}

func TestKeysAndCSR(t *testing.T) {
	key, _ := NewKey()
	b, err := MarshalKey(key)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseKey(b)
	if err != nil || !back.Equal(key) {
		t.Fatalf("key read back: %v", err)
	}
	csr, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := CheckCSR(csr)
	if err != nil || !pub.Equal(&key.PublicKey) {
		t.Fatalf("CSR read back: %v", err)
	}
	csr[len(csr)-1] ^= 1
	if _, err := CheckCSR(csr); err == nil {
		t.Error("CSR with a broken signature was accepted")
	}
	ca := testCA(t, "network")
	pem, _ := ca.MarshalPEM()
	again, err := ParseCA(pem)
	if err != nil || !again.Cert.Equal(ca.Cert) {
		t.Fatalf("CA read back: %v", err)
	}
	if _, err := ParseCA(append(pem[:len(pem)-len(b)], b...)); err == nil {
		t.Error("CA with another's key was accepted")
	}
}

func TestSignNodeRefusesHostileNames(t *testing.T) {
	ca := testCA(t, "network")
	key, _ := NewKey()
	for _, name := range []string{"", "-x", "x-", "Kitchen", "../x", "a\"\nProxyCommand x", "<script>", "a.b", strings.Repeat("a", 64), "ü"} {
		a := testAttributes()
		a.Name, a.FQDN = name, name+".weft.internal"
		if _, err := ca.SignNode(&key.PublicKey, a, NewSerial(), testNow, testNow.Add(time.Hour)); err == nil {
			t.Errorf("name %q was signed", name)
		}
	}
	for _, user := range []string{"", "a b", "-x", "a:b", "a\nb", "../x"} {
		a := testAttributes()
		a.User = user
		if _, err := ca.SignNode(&key.PublicKey, a, NewSerial(), testNow, testNow.Add(time.Hour)); err == nil {
			t.Errorf("user %q was signed", user)
		}
	}
}

func FuzzParseNode(f *testing.F) {
	ca := testCA(f, "network")
	_, der := signTestNode(f, ca, testAttributes())
	f.Add(der)
	f.Add(ca.Cert.Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := ParseNode(NetworkID{}, b); err == nil && (!validLabel(n.Name) || n.User == "" || !n.IPv4.Is4()) {
			t.Errorf("accepted %+v", n.Attributes)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add(Token{URLs: []string{"https://h:1"}, Secret: NewSecret()}.String())
	f.Add("weft1")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(tok.String())
		if err != nil || again.String() != tok.String() {
			t.Errorf("token %q does not survive a round trip: %v", s, err)
		}
	})
}

func FuzzVerifyCRL(f *testing.F) {
	ca := testCA(f, "network")
	roots, _ := NewNetworkRoots(PinOf(ca.Cert).NetworkID(), [][]byte{ca.Cert.Raw})
	der, _ := ca.SignCRL(3, []*big.Int{NewSerial()}, testNow, testNow)
	f.Add(der)
	f.Fuzz(func(t *testing.T, b []byte) { roots.VerifyCRL(b) })
}

// Serial numbers are positive, never repeat, and are short, because all nodes hold a list
// of the revoked ones.
func TestSerials(t *testing.T) {
	ca, err := NewCA("test", testNow)
	if err != nil {
		t.Fatal(err)
	}
	var list []*big.Int
	seen := map[string]bool{}
	for range 20_000 {
		n := NewSerial()
		if n.Sign() <= 0 || len(n.Bytes()) != 9 || n.Bytes()[0] > 0x7f || seen[n.String()] {
			t.Fatalf("serial number %x", n)
		}
		seen[n.String()] = true
		list = append(list, n)
	}
	der, err := ca.SignCRL(1, list, time.Time{}, testNow)
	if err != nil || len(der) > len(list)*28+1000 {
		t.Errorf("%d bytes for %d entries, %v", len(der), len(list), err)
	}
}
