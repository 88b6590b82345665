//go:build e2e

package e2e

import (
	"context"
	"crypto"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"weft/dns"
	"weft/scripts/e2e/lab"
)

// signedZone answers for signed.test, with signatures for clients that want them, for
// lan.test, and for all other names.
type signedZone struct {
	key  *mdns.DNSKEY
	priv crypto.Signer
}

func newSignedZone(t *testing.T) *signedZone {
	t.Helper()
	k := &mdns.DNSKEY{
		Hdr:   mdns.RR_Header{Name: "signed.test.", Rrtype: mdns.TypeDNSKEY, Class: mdns.ClassINET, Ttl: 60},
		Flags: 257, Protocol: 3, Algorithm: mdns.ECDSAP256SHA256,
	}
	priv, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	return &signedZone{k, priv.(crypto.Signer)}
}

func (z *signedZone) ServeDNS(w mdns.ResponseWriter, r *mdns.Msg) {
	m := new(mdns.Msg).SetReply(r)
	q := r.Question[0]
	hdr := mdns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: mdns.ClassINET, Ttl: 60}
	lower := strings.ToLower(q.Name)
	switch {
	case q.Qtype == mdns.TypeHINFO:
		m.Rcode = mdns.RcodeNameError
	case lower == "signed.test." && q.Qtype == mdns.TypeDNSKEY:
		m.Answer = []mdns.RR{z.key}
	case q.Qtype == mdns.TypeA && lower == "big.test.":
		for i := range 60 {
			m.Answer = append(m.Answer, &mdns.A{Hdr: hdr, A: net.IPv4(192, 0, 2, byte(i))})
		}
	case q.Qtype == mdns.TypeHTTPS:
		m.Answer = []mdns.RR{&mdns.HTTPS{SVCB: mdns.SVCB{Hdr: hdr, Priority: 1, Target: ".", Value: []mdns.SVCBKeyValue{&mdns.SVCBAlpn{Alpn: []string{"h3"}}}}}}
	case strings.HasPrefix(lower, "blocked."):
		m.Rcode = mdns.RcodeServerFailure
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &mdns.EDNS0_EDE{InfoCode: mdns.ExtendedErrorCodeBlocked, ExtraText: "by us"})
	case lower == "kitchen-pi.lan.test." && q.Qtype == mdns.TypeA:
		m.Answer = []mdns.RR{&mdns.A{Hdr: hdr, A: net.IPv4(192, 0, 2, 77)}}
	case strings.HasSuffix(lower, ".lan.test."):
		m.Rcode = mdns.RcodeNameError
	case q.Qtype == mdns.TypeA:
		m.Answer = []mdns.RR{&mdns.A{Hdr: hdr, A: net.IPv4(192, 0, 2, 1)}}
	}
	if opt := r.IsEdns0(); opt != nil && opt.Do() && mdns.IsSubDomain("signed.test.", lower) && len(m.Answer) > 0 {
		sig := &mdns.RRSIG{
			Hdr:       mdns.RR_Header{Name: q.Name, Rrtype: mdns.TypeRRSIG, Class: mdns.ClassINET, Ttl: 60},
			Algorithm: z.key.Algorithm, KeyTag: z.key.KeyTag(), SignerName: "signed.test.",
			Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(time.Hour).Unix()),
		}
		if sig.Sign(z.priv, m.Answer) == nil {
			m.Answer = append(m.Answer, sig)
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		m.Truncate(1232)
	}
	w.WriteMsg(m)
}

// The programs that people use query the resolver: dig, drill, kdig, delv, getent,
// dnsperf and Go's own resolver.
func TestDNSPrograms(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"drill", "kdig", "delv", "dnsperf"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v (scripts/test installs what is needed)", err)
		}
	}
	l := lab.New(t, bin)
	n := l.Host("resolver")
	zone := newSignedZone(t)
	for _, s := range []*mdns.Server{{PacketConn: n.ListenPacket("127.0.0.1:5300"), Handler: zone}, {Listener: n.Listen("127.0.0.1:5300"), Handler: zone}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
	set := &dns.Settings{
		Wildcards: []string{"kitchen-pi"}, KeepBrowsers: true,
		Aliases: []dns.Alias{{Name: "old-pi", Target: "kitchen-pi"}},
		Records: []dns.Record{
			{Name: "www", Type: "CNAME", Value: "web.test"}, {Name: "_http._tcp.weft.internal", Type: "SRV", Value: "0 5 80 kitchen-pi"},
			{Name: "müsli", Type: "A", Value: "192.0.2.5"},
		},
	}
	for i := range 60 {
		set.Records = append(set.Records, dns.Record{Name: "big", Type: "TXT", Value: fmt.Sprintf("%060d", i)})
	}
	names := &dns.Zone{
		Ready: true, Serial: 7, Suffix: "weft.internal", Complete: true,
		IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd00:77::/48"),
		Hosts: []dns.Host{
			{Name: "kitchen-pi", IPv4: netip.MustParseAddr("100.64.0.2"), IPv6: netip.MustParseAddr("fd00:77::2")},
			{Name: "v4only", IPv4: netip.MustParseAddr("100.64.0.3")},
		},
	}
	s := dns.New(dns.Config{
		Zone: func() *dns.Zone { return names }, Settings: func() *dns.Settings { return set },
		ResolvConf: l.WriteFile("upstreams", "nameserver 127.0.0.1:5300\n"),
		Dial:       func(ctx context.Context, network, addr string) (net.Conn, error) { return n.Dial(ctx, network, addr) },
	})
	s.Serve(n.ListenPacket("127.0.0.1:53"), n.Listen("127.0.0.1:53"))
	t.Cleanup(func() { s.Close() })
	n.Resolver("127.0.0.1")
	conf := func(lines string) {
		if err := os.WriteFile("/etc/netns/"+n.Name+"/resolv.conf", []byte(lines), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	anchor := l.WriteFile("anchor", fmt.Sprintf("trust-anchors { signed.test. static-key 257 3 13 %q; };\n", zone.key.PublicKey))
	wrong := l.WriteFile("wrong", fmt.Sprintf("trust-anchors { signed.test. static-key 257 3 13 %q; };\n", newSignedZone(t).key.PublicKey))
	for _, file := range []string{anchor, wrong} {
		os.Chmod(file, 0o644)
	}

	const soa = `(?m)^(weft\.internal|64\.100\.in-addr\.arpa)\.\s+5\s+IN\s+SOA\s.* 5$`
	for _, c := range []struct {
		line string
		want []string // regular expressions; "!" before one that must not match
	}{
		// Names and types that do not exist.
		{"dig nobody.weft.internal", []string{"status: NXDOMAIN", "flags: qr aa rd ra;", soa}},
		{"drill @127.0.0.1 nobody.weft.internal", []string{"rcode: NXDOMAIN", `SOA\s`}},
		{"dig AAAA v4only.weft.internal", []string{"status: NOERROR", "ANSWER: 0", soa}},
		{"dig TYPE9824 kitchen-pi.weft.internal", []string{"status: NOERROR", "ANSWER: 0", soa}},
		{"dig MX kitchen-pi.weft.internal", []string{"status: NOERROR", "ANSWER: 0", soa}},
		{"dig _tcp.weft.internal", []string{"status: NOERROR", "ANSWER: 0", soa}},
		{"dig SOA weft.internal +short", []string{`^_dns\.weft\.internal\. nobody\.invalid\. 7 `}},
		{"dig NS 127.100.in-addr.arpa +short", []string{`^_dns\.weft\.internal\.\n$`}},
		{"dig ANY kitchen-pi.weft.internal +notcp", []string{`HINFO\s+"RFC8482"`}},
		{"dig kItChEn-Pi.weft.internal", []string{`kItChEn-Pi\.weft\.internal\.\s+5\s+IN\s+A\s+100\.64\.0\.2`}},
		{"dig -x 100.64.0.2 +short", []string{`^kitchen-pi\.weft\.internal\.\n$`}},
		{"dig -x fd00:77::2 +short", []string{`^kitchen-pi\.weft\.internal\.\n$`}},
		{"drill -x @127.0.0.1 100.64.0.2", []string{`PTR\s+kitchen-pi\.weft\.internal\.`}},
		{"dig -x 100.64.9.9", []string{"status: NXDOMAIN", soa}},
		{"dig x.0.64.100.in-addr.arpa PTR", []string{"status: NXDOMAIN"}},
		// EDNS options and TCP.
		{"dig kitchen-pi.weft.internal +ednsopt=65001:00", []string{"udp: 1232", "100.64.0.2", "!COOKIE"}},
		{"dig kitchen-pi.weft.internal +noedns", []string{"!EDNS", "100.64.0.2"}},
		{"dig kitchen-pi.weft.internal +edns=1 +noednsnegotiation", []string{"status: BADVERS"}},
		{"kdig @127.0.0.1 +edns=1 kitchen-pi.weft.internal", []string{"BADVERS"}},
		{"dig +bufsize=600 +ignore TXT big.weft.internal", []string{`flags: qr aa tc`, "ANSWER: 0"}},
		{"dig +bufsize=600 TXT big.weft.internal", []string{"!flags: qr aa tc", "ANSWER: 60"}},
		{"dig +noedns +ignore TXT big.weft.internal", []string{"flags: qr aa tc"}},
		{"dig +tcp +keepopen kitchen-pi.weft.internal +short v4only.weft.internal +short", []string{`^100\.64\.0\.2\n100\.64\.0\.3\n$`}},
		{"kdig @127.0.0.1 +tcp +keepopen kitchen-pi.weft.internal v4only.weft.internal +short", []string{"100.64.0.2", "100.64.0.3"}},
		{"dig +tcp big.test", []string{"ANSWER: 60", "!flags:[a-z ]* tc"}},
		// Former names, IDN, other classes and operations.
		{"dig old-pi.weft.internal +short", []string{`^kitchen-pi\.weft\.internal\.\n100\.64\.0\.2\n$`}},
		{"dig +idnin müsli.weft.internal", []string{`192\.0\.2\.5`}},
		{"dig CH TXT version.bind", []string{"status: REFUSED"}},
		{"dig AXFR weft.internal", []string{"Transfer failed"}},
		{"dig +opcode=STATUS weft.internal", []string{"status: NOTIMP"}},
		{"dig +nosearch kitchen-pi", []string{"status: NXDOMAIN"}},
		// Extended errors, DNSSEC and service bindings.
		{"kdig @127.0.0.1 +edns blocked.test", []string{"SERVFAIL", "EDE: 15"}},
		{"delv @127.0.0.1 -a " + anchor + " +root=signed.test www.signed.test A", []string{"fully validated", `192\.0\.2\.1`}},
		{"delv @127.0.0.1 -a " + wrong + " +root=signed.test www.signed.test A", []string{"!fully validated"}},
		{"dig +dnssec www.signed.test", []string{"RRSIG", "flags: do"}},
		{"dig www.signed.test", []string{"!RRSIG"}},
		{"dig +dnssec +cd www.signed.test", []string{`flags: qr rd ra cd`}},
		{"dig DS weft.internal", []string{"status: NOERROR", "ANSWER: 0", soa}},
		{"dig HTTPS kitchen-pi.weft.internal", []string{"status: NOERROR", "ANSWER: 0"}},
		{"kdig @127.0.0.1 HTTPS www.test", []string{`HTTPS\s+1 \. alpn=h3`}},
		{"dig TYPE64 _dns.resolver.arpa", []string{"status: NOERROR", "ANSWER: 0"}},
		{"dig use-application-dns.net", []string{"status: NXDOMAIN"}},
		// Special names and extra records.
		{"dig printer.local", []string{"status: NXDOMAIN"}},
		{"dig PTR b._dns-sd._udp.test", []string{"status: NXDOMAIN"}},
		{"dig localhost +short", []string{`^127\.0\.0\.1\n$`}},
		{"dig x.onion", []string{"status: NXDOMAIN"}},
		{"dig www.weft.internal +short", []string{`^web\.test\.\n192\.0\.2\.1\n$`}},
		{"dig SRV _http._tcp.weft.internal +short", []string{`^0 5 80 kitchen-pi\.weft\.internal\.\n$`}},
		{"dig a.b.kitchen-pi.weft.internal +short", []string{`^100\.64\.0\.2\n$`}},
		// The system's own resolver.
		{"getent ahosts kitchen-pi.weft.internal", []string{`100\.64\.0\.2\s+STREAM`}},
		{"getent hosts kitchen-pi.weft.internal", []string{`fd00:77::2`}},
		{"getent ahostsv4 v4only.weft.internal", []string{`100\.64\.0\.3`}},
		{"getent ahosts v4only.weft.internal", []string{`100\.64\.0\.3`}},
		{"getent ahosts www.weft.internal", []string{`192\.0\.2\.1`}},
		{"getent hosts 100.64.0.2", []string{`kitchen-pi\.weft\.internal`}},
	} {
		args := strings.Fields(c.line)
		if args[0] == "dig" {
			args = append([]string{"dig", "@127.0.0.1", "+tries=1", "+time=5"}, args[1:]...)
		}
		r := n.Run(lab.Nobody, args...)
		for _, w := range c.want {
			w, not := strings.CutPrefix(w, "!")
			if regexp.MustCompile(w).MatchString(r.Out+r.Err) == not {
				t.Errorf("%q (unwanted: %v): %v", w, not, r)
			}
		}
	}

	// Short names by a search list, with the overlay's suffix first, or last if the
	// LAN's names take precedence.
	for _, c := range []struct {
		lanWins      bool
		search, want string
	}{{false, "weft.internal lan.test", "100.64.0.2"}, {true, "lan.test weft.internal", "192.0.2.77"}} {
		conf("nameserver 127.0.0.1\nsearch " + c.search + "\n")
		if r := n.Run(lab.Nobody, "getent", "ahostsv4", "kitchen-pi"); !strings.HasPrefix(r.Out, c.want+" ") {
			t.Errorf("LAN names win %v: %v", c.lanWins, r)
		}
		if r := n.Run(lab.Nobody, "getent", "ahostsv4", "v4only"); !strings.HasPrefix(r.Out, "100.64.0.3 ") {
			t.Errorf("LAN names win %v: %v", c.lanWins, r)
		}
	}

	// A program without the C library.
	static := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return n.Dial(ctx, network, "127.0.0.1:53")
	}}
	if ips, err := static.LookupHost(t.Context(), "kitchen-pi.weft.internal."); err != nil || len(ips) != 2 {
		t.Errorf("Go: %v %v", ips, err)
	}
	if txt, err := static.LookupTXT(t.Context(), "big.weft.internal."); err != nil || len(txt) != 60 {
		t.Errorf("Go, over TCP: %d %v", len(txt), err)
	}

	// Many queries at once, without losses.
	queries := l.WriteFile("queries", strings.Repeat("kitchen-pi.weft.internal A\nnobody.weft.internal AAAA\nwww.test A\n", 1000))
	os.Chmod(queries, 0o644)
	for _, mode := range []string{"udp", "tcp"} {
		r := n.Run(lab.Nobody, "dnsperf", "-s", "127.0.0.1", "-d", queries, "-n", "2", "-c", "10", "-m", mode)
		if r.Code != 0 || !strings.Contains(r.Out, "Queries completed:    6000 (100.00%)") {
			t.Errorf("dnsperf: %v", r)
		}
	}
	st := s.Status()
	if c := st.Counters; c["malformed"] != 0 || c["busy"] != 0 {
		t.Errorf("counters: %v", c)
	}
}
