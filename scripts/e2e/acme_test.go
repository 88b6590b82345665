//go:build e2e

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"weft/coord/install"
	"weft/scripts/e2e/lab"
)

// A server with a domain name gets a certificate from an ACME CA (Pebble), with the
// challenge on its one TLS port, while nodes keep using the same port.
func TestACME(t *testing.T) {
	t.Parallel()
	const domain = "weft.example.test"
	l := lab.New(t, bin)
	host, ca := l.Host("server"), l.Host("ca")
	names := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		if q := req.Question[0]; strings.EqualFold(q.Name, domain+".") && q.Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.ParseIP(host.Addr)})
		}
		w.WriteMsg(m)
	})
	resolver := l.Host("dns")
	for _, s := range []*dns.Server{{PacketConn: resolver.ListenPacket(resolver.Addr + ":53"), Handler: names}, {Listener: resolver.Listen(resolver.Addr + ":53"), Handler: names}} {
		go s.ActivateAndServe()
	}
	host.Resolver(resolver.Addr)

	sys := l.DebianRoot(ca, false, "openssl", "pebble")
	sys.Must("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
		"-keyout", "/tmp/key.pem", "-out", "/tmp/cert.pem", "-subj", "/CN=acme", "-addext", "subjectAltName=IP:"+ca.Addr)
	sys.WriteFile("/tmp/pebble.json", `{"pebble":{"listenAddress":"0.0.0.0:14000","managementListenAddress":"0.0.0.0:15000","certificate":"/tmp/cert.pem","privateKey":"/tmp/key.pem","httpPort":80,"tlsPort":443,"certificateValidityPeriod":15}}`)
	pebble := sys.Start("env", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "pebble", "-config", "/tmp/pebble.json", "-strict", "-dnsserver", resolver.Addr+":53")
	roots := l.WriteFile("acme-ca.pem", sys.ReadFile("/tmp/cert.pem"))
	directory := "https://" + ca.Addr + ":14000/dir"
	l.Until(30*time.Second, "pebble answers", func() bool {
		c := ca.HTTP("")
		c.Transport.(*http.Transport).TLSClientConfig = lab.InsecureTLS
		res, err := c.Get(directory)
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})

	s := l.Serve(host, ":443", "https://"+domain, "--url", "https://"+host.Addr, "--domain", domain, "--acme-directory", directory, "--acme-ca", roots, "--acme-email", "owner@example.test")
	leaf := func(name string) *x509.Certificate {
		var state tls.ConnectionState
		host.Do(func() {
			c, err := tls.Dial("tcp", host.Addr+":443", &tls.Config{InsecureSkipVerify: true, ServerName: name})
			if err != nil {
				t.Fatal(err)
			}
			state = c.ConnectionState()
			c.Close()
		})
		return state.PeerCertificates[0]
	}
	issued := func(c *x509.Certificate) bool { return strings.HasPrefix(c.Issuer.CommonName, "Pebble Intermediate") }
	took := l.Until(60*time.Second, "a certificate of the CA's", func() bool { return issued(leaf(domain)) })
	t.Logf("a certificate after %v", took.Round(time.Millisecond))
	if !strings.Contains(s.Err(), "the console has a certificate") {
		t.Errorf("the log does not say so:\n%s", s.Err())
	}
	// At its IP address it serves its self-signed certificate.
	if c := leaf(""); issued(c) || c.Subject.CommonName != "weft console" {
		t.Errorf("by address: %v", c.Subject)
	}
	// The install line pins the certificate at the name, since browsers do not know
	// this CA.
	l.Release(filepath.Join(s.Dir, "releases"), filepath.Join(l.Dir, "release.key"), "1.0.0", nil)
	client := &http.Client{Transport: &http.Transport{DialContext: host.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: domain}, DisableKeepAlives: true}}
	for base, want := range map[string]string{"https://" + host.Addr: install.Pin(leaf(""))} {
		if got := script(t, client, base); !strings.Contains(got, "PIN='"+want+"'") {
			t.Errorf("%s: want %s in\n%.2000s", base, want, got)
		}
	}
	// Nodes use the same port.
	device := l.Node(l.Home("pi").Namespace, "kitchen-pi")
	device.Host.Resolver(resolver.Addr)
	device.Up(s.Token)
	if out := s.Admin("doctor", "--listen", ":443").Out; !strings.Contains(out, "https://"+domain) || strings.Contains(out, "somebody else") {
		t.Error(out)
	}

	// A certificate in the data directory is used at once, and renewed when it is due.
	first := leaf(domain)
	l.Until(60*time.Second, "the time to renew", func() bool { return time.Until(first.NotAfter) < first.NotAfter.Sub(first.NotBefore)/4 })
	s.Stop()
	s.Start()
	l.Until(60*time.Second, "another certificate of the CA's", func() bool {
		c := leaf(domain)
		return issued(c) && c.SerialNumber.Cmp(first.SerialNumber) != 0
	})

	// While the CA is away, the server keeps working.
	pebble.Kill()
	s.Stop()
	s.Start()
	device.Must("wait", "--timeout", "45s")
	leaf(domain)
}

// script fetches the install script.
func script(t *testing.T, c *http.Client, base string) string {
	t.Helper()
	res, err := c.Get(base + "/install")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(fmt.Errorf("%s: %s: %w", base, res.Status, err))
	}
	return string(b)
}
