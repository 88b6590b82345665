package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"weft/coord/doctor"
)

// site answers as a weft server does at an address, with a certificate that
// ends at a time.
func site(t *testing.T, l net.Listener, ends time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "h"}, DNSNames: []string{"h"}, NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok\n")) }))
	s.Listener.Close()
	s.Listener = l
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// twoAddrs listens on one port of two addresses.
func twoAddrs(t *testing.T) (a, b net.Listener) {
	t.Helper()
	var err error
	for range 20 { // the port may be taken at the other
		if a, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(a.Addr().String())
		if b, err = net.Listen("tcp", net.JoinHostPort("127.0.0.2", port)); err == nil {
			return a, b
		}
		a.Close()
	}
	t.Fatal(err)
	return nil, nil
}

// Each address of a host is looked at, and the one with the old
// certificate is named.
func TestEachAddressIsLookedAt(t *testing.T) {
	now := time.Now()
	good, old := twoAddrs(t)
	_, port, _ := net.SplitHostPort(good.Addr().String())
	u := &url.URL{Scheme: "https", Host: net.JoinHostPort("h", port)}
	a, b := site(t, good, now.AddDate(1, 0, 0)), site(t, old, now.AddDate(0, 0, -3))
	look := func(own ...*x509.Certificate) []string {
		var ders [][]byte
		for _, c := range own {
			ders = append(ders, c.Raw)
		}
		sites := checkAddrs(t.Context(), u, []string{"127.0.0.1", "127.0.0.2"}, ders)
		var found []string
		for _, f := range doctor.Diagnose(doctor.Facts{Now: now, Sites: sites, Free: -1}) {
			if f.Code == "url" || f.Code == "certificate" {
				found = append(found, string(f.Level)+" "+f.Message)
			}
		}
		return found
	}
	for _, c := range []struct {
		name string
		got  []string
		want []string // parts of the findings, in their order
	}{
		{"an old certificate", look(a, b), []string{"error the certificate of " + u.String() + " at 127.0.0.2 ended 3 days ago", "ok " + u.String() + " at 127.0.0.1 answers"}},
		{"somebody else's", look(a), []string{"error somebody else answers at " + u.String() + " at 127.0.0.2,", "ok " + u.String() + " at 127.0.0.1 answers"}},
	} {
		if len(c.got) != len(c.want) || !strings.HasPrefix(c.got[0], c.want[0]) || !strings.HasPrefix(c.got[1], c.want[1]) {
			t.Errorf("%s: %q", c.name, c.got)
		}
	}
	one := checkAddrs(t.Context(), u, []string{"127.0.0.2"}, [][]byte{b.Raw})
	if len(one) != 1 || one[0].Addr != "" || !one[0].Own {
		t.Errorf("the only address: %+v", one)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a)
	roots.AddCert(b)
	if !trusted([]*x509.Certificate{a}, "h", roots) || !trusted([]*x509.Certificate{b}, "h", roots) {
		t.Error("a certificate is not trusted, or not because it ended")
	}
	if trusted([]*x509.Certificate{a}, "other", roots) || trusted([]*x509.Certificate{a}, "h", nil) {
		t.Error("a certificate for another host, or of nobody that is trusted, is trusted")
	}
}
