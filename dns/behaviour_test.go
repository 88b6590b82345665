package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// These tests check the behaviours of a good resolver, one each, through the resolver's
// sockets. Tests that need programs of the system are in scripts/e2e.

// both asks over UDP and TCP.
func both(t *testing.T, addr, name string, typ uint16, check func(t *testing.T, r *dns.Msg), change ...func(*dns.Msg)) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(fmt.Sprintf("%s %s %s", network, name, dns.Type(typ)), func(t *testing.T) {
			t.Helper()
			check(t, ask(t, addr, network, name, typ, change...))
		})
	}
}

// want checks the rcode, the answers and the zone of the SOA in the authority section.
func want(rcode int, data, soa string) func(*testing.T, *dns.Msg) {
	return func(t *testing.T, r *dns.Msg) {
		t.Helper()
		zone, _, _ := strings.Cut(soaOf(r), " ")
		if r.Rcode != rcode || answers(r) != data || zone != soa {
			t.Errorf("%s %q, SOA %q; want %s %q, SOA %q", rcodeName(r.Rcode), answers(r), soaOf(r), rcodeName(rcode), data, soa)
		}
	}
}

const (
	nx = dns.RcodeNameError
	ok = dns.RcodeSuccess
	sf = dns.RcodeServerFailure
)

func edns(m *dns.Msg) { m.SetEdns0(1232, false) }

// edeOf returns the extended errors of an answer.
func edeOf(m *dns.Msg) (codes []uint16) {
	if o := m.IsEdns0(); o != nil {
		for _, x := range o.Option {
			if e, ok := x.(*dns.EDNS0_EDE); ok {
				codes = append(codes, e.InfoCode)
			}
		}
	}
	return codes
}

// settings serves settings that never change.
func settings(s Settings) func() *Settings { return func() *Settings { return &s } }

func TestNXDOMAIN(t *testing.T) {
	_, addr := start(t, Config{})
	both(t, addr, "nobody.weft.internal.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		want(nx, "", "weft.internal.")(t, r)
		if !r.Authoritative || soaOf(r) != "weft.internal. ttl=5 min=5" {
			t.Errorf("%v", r)
		}
	})
}

func TestIPv4OnlyIsNotNXDOMAIN(t *testing.T) {
	_, addr := start(t, Config{})
	both(t, addr, "v4only.weft.internal.", dns.TypeAAAA, want(ok, "", "weft.internal."))
}

func TestOtherTypes(t *testing.T) {
	_, addr := start(t, Config{})
	for _, typ := range []uint16{9824, dns.TypeMX, dns.TypeTXT, dns.TypeSRV, dns.TypeNAPTR, 65280} {
		both(t, addr, "kitchen-pi.weft.internal.", typ, want(ok, "", "weft.internal."))
	}
}

func TestEmptyNonTerminals(t *testing.T) {
	_, addr := start(t, Config{Settings: settings(Settings{Records: []Record{{Name: "_http._tcp.www.weft.internal", Type: "SRV", Value: "0 5 80 kitchen-pi"}}})})
	for name, rcode := range map[string]int{
		"site1.weft.internal.": ok, "cam.site1.weft.internal.": ok, "x.site1.weft.internal.": nx,
		"_tcp.www.weft.internal.": ok, "www.weft.internal.": ok, "x.www.weft.internal.": nx, "_udp.www.weft.internal.": nx,
	} {
		both(t, addr, name, dns.TypeTXT, want(rcode, "", "weft.internal."))
	}
}

func TestApexes(t *testing.T) {
	var z atomic.Pointer[Zone]
	z.Store(testZone)
	_, addr := start(t, Config{Zone: z.Load})
	for _, apex := range []string{"weft.internal.", "64.100.in-addr.arpa.", "127.100.in-addr.arpa.", reverseApex6} {
		both(t, addr, apex, dns.TypeSOA, want(ok, "_dns.weft.internal. nobody.invalid. 42 3600 600 86400 5", ""))
		both(t, addr, apex, dns.TypeNS, want(ok, "_dns.weft.internal.", ""))
	}
	next := *testZone
	next.Serial++
	z.Store(&next)
	both(t, addr, "weft.internal.", dns.TypeSOA, want(ok, "_dns.weft.internal. nobody.invalid. 43 3600 600 86400 5", ""))
}

// ANY gets a minimal answer.
func TestAllAddressesRotatedAndANY(t *testing.T) {
	_, addr := start(t, Config{Settings: settings(Settings{Records: []Record{
		{Name: "many", Type: "A", Value: "192.0.2.1"}, {Name: "many", Type: "A", Value: "192.0.2.2"}, {Name: "many", Type: "A", Value: "192.0.2.3"},
	}})})
	firsts := map[string]bool{}
	for range 6 {
		r := ask(t, addr, "udp", "many.weft.internal.", dns.TypeA)
		want(ok, "192.0.2.1 192.0.2.2 192.0.2.3", "")(t, r)
		firsts[r.Answer[0].String()] = true
	}
	if len(firsts) != 3 {
		t.Errorf("%d of 3 addresses were first once", len(firsts))
	}
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeANY, want(ok, `"RFC8482" ""`, ""))
	both(t, addr, "many.weft.internal.", dns.TypeANY, want(ok, `"RFC8482" ""`, ""))
}

func TestFlags(t *testing.T) {
	_, addr := start(t, Config{}, fakeUpstream(t, static("192.0.2.1")))
	for name, aa := range map[string]bool{"kitchen-pi.weft.internal.": true, "nobody.weft.internal.": true, "2.0.64.100.in-addr.arpa.": true, "example.com.": false} {
		both(t, addr, name, dns.TypeA, func(t *testing.T, r *dns.Msg) {
			if r.Authoritative != aa || !r.RecursionAvailable || !r.RecursionDesired || r.Zero || r.AuthenticatedData || r.CheckingDisabled {
				t.Errorf("flags %+v", r.MsgHdr)
			}
		}, func(m *dns.Msg) { m.Zero = true })
	}
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		if r.RecursionDesired || !r.CheckingDisabled {
			t.Errorf("flags %+v", r.MsgHdr)
		}
	}, func(m *dns.Msg) { m.RecursionDesired, m.CheckingDisabled = false, true })
}

// The answer repeats the question's spelling. TestEDNSOptions covers cookies,
// TestDNSSECPassesThrough the DO bit.
func TestCase(t *testing.T) {
	_, addr := start(t, Config{}, fakeUpstream(t, static("192.0.2.1")))
	for _, name := range []string{"KITCHEN-pi.wEfT.InTernal.", "eXample.COM.", "example.com.", "EXAMPLE.com."} {
		both(t, addr, name, dns.TypeA, func(t *testing.T, r *dns.Msg) {
			if r.Question[0].Name != name || len(r.Answer) != 1 || r.Answer[0].Header().Name != name {
				t.Errorf("%v", r)
			}
		})
	}
}

func TestReverseIPv4(t *testing.T) {
	_, addr := start(t, Config{})
	both(t, addr, "2.0.64.100.in-addr.arpa.", dns.TypePTR, want(ok, "kitchen-pi.weft.internal.", ""))
	both(t, addr, "100.100.100.100.in-addr.arpa.", dns.TypePTR, want(ok, "_dns.weft.internal.", ""))
	both(t, addr, "77.0.64.100.in-addr.arpa.", dns.TypePTR, want(nx, "", "64.100.in-addr.arpa."))
	// The service address is ours also in a network with other ranges.
	z := *testZone
	z.IPv4 = netip.MustParsePrefix("10.5.0.0/16")
	_, addr = start(t, Config{Zone: func() *Zone { return &z }})
	both(t, addr, "100.100.100.100.in-addr.arpa.", dns.TypePTR, want(ok, "_dns.weft.internal.", ""))
}

func TestReverseIPv6(t *testing.T) {
	_, addr := start(t, Config{})
	name := reverse6("fd00:77::2")
	both(t, addr, name, dns.TypePTR, want(ok, "kitchen-pi.weft.internal.", ""))
	both(t, addr, strings.ToUpper(name), dns.TypePTR, want(ok, "kitchen-pi.weft.internal.", ""))
	for _, bad := range []string{"zz." + reverseApex6, "0.0." + name, "10." + reverseApex6, "g." + name[2:]} {
		both(t, addr, bad, dns.TypePTR, want(nx, "", reverseApex6))
	}
}

func TestOnlyOurReverseZones(t *testing.T) {
	var got atomic.Pointer[string]
	up := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) { got.Store(&r.Question[0].Name); rcode(nx)(w, r) })
	public := fakeUpstream(t, func(_ dns.ResponseWriter, r *dns.Msg) { t.Errorf("public resolver asked for %s", r.Question[0].Name) })
	z := *testZone
	z.IPv4 = netip.MustParsePrefix("100.64.0.0/12")
	_, addr := start(t, Config{Zone: func() *Zone { return &z }, Settings: settings(Settings{
		Nameservers: []Nameserver{{Address: public}}, Routes: []Route{{Suffix: "20.172.in-addr.arpa", Nameservers: []Nameserver{{Address: up}}}},
	})}, up)
	for name, forwarded := range map[string]bool{
		"1.2.79.100.in-addr.arpa.": false, "1.2.80.100.in-addr.arpa.": true, "1.2.127.100.in-addr.arpa.": true,
		"1.1.168.192.in-addr.arpa.": true, "1.0.0.10.in-addr.arpa.": true, "1.0.20.172.in-addr.arpa.": true, reverse6("fd99::1"): true,
	} {
		got.Store(nil)
		ask(t, addr, "udp", name, dns.TypePTR)
		if (got.Load() != nil) != forwarded {
			t.Errorf("%s: forwarded %v, want %v", name, !forwarded, forwarded)
		}
	}
	// Without a resolver on a private network: NXDOMAIN from us, no question to a
	// public resolver.
	s, _ := start(t, Config{ResolvConf: writeConf(t, "192.0.2.1"), Dial: nobodyDials(t)})
	a, err := s.Query(t.Context(), "192.168.1.1", "")
	if err != nil || a.Rcode != "NXDOMAIN" {
		t.Errorf("%+v %v", a, err)
	}
}

func TestEDNSOptions(t *testing.T) {
	_, addr := start(t, Config{})
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		if r.IsEdns0() != nil {
			t.Error("an OPT for a client that sent none")
		}
	})
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		o := r.IsEdns0()
		if o == nil || o.UDPSize() != 1232 || o.Version() != 0 || len(o.Option) != 0 || answers(r) != "100.64.0.2" {
			t.Errorf("%v", r)
		}
	}, func(m *dns.Msg) {
		m.SetEdns0(4096, true)
		o := m.IsEdns0()
		o.Option = append(o.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")})
		m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "x.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{1, 2, 3, 4}})
	})
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		if r.Rcode != dns.RcodeBadVers || r.IsEdns0() == nil || r.IsEdns0().Version() != 0 {
			t.Errorf("%v", r)
		}
	}, func(m *dns.Msg) { edns(m); m.IsEdns0().SetVersion(1) })
}

// At most 1,232 bytes.
func TestUDPSize(t *testing.T) {
	var records []Record
	for i := range 40 {
		records = append(records, Record{Name: "big", Type: "TXT", Value: fmt.Sprintf("%060d", i)})
	}
	for i := range 8 {
		records = append(records, Record{Name: "two", Type: "A", Value: fmt.Sprintf("192.0.2.%d", i)})
	}
	_, addr := start(t, Config{Settings: settings(Settings{Records: records})})
	for size, room := range map[uint16]int{0: 512, 100: 512, 600: 600, 1232: 1232, 65535: 1232} {
		r := ask(t, addr, "udp", "big.weft.internal.", dns.TypeTXT, func(m *dns.Msg) {
			if size > 0 {
				m.SetEdns0(size, false)
			}
		})
		// The set is dropped as a whole.
		if b, _ := r.Pack(); len(b) > room || !r.Truncated || len(r.Answer) != 0 {
			t.Errorf("size %d: %d bytes, TC %v, %d records", size, len(b), r.Truncated, len(r.Answer))
		}
	}
	if r := ask(t, addr, "udp", "two.weft.internal.", dns.TypeA); r.Truncated || len(r.Answer) != 8 {
		t.Errorf("%v", r)
	}
	if r := ask(t, addr, "tcp", "big.weft.internal.", dns.TypeTXT); r.Truncated || len(r.Answer) != 40 {
		t.Errorf("over TCP: TC %v, %d records", r.Truncated, len(r.Answer))
	}
}

func TestTTL(t *testing.T) {
	for cfg, want := range map[int]uint32{0: 5, 1: 1, 60: 60, 61: 5, -1: 5} {
		_, addr := start(t, Config{Settings: settings(Settings{TTL: cfg})})
		both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
			if r.Answer[0].Header().Ttl != want {
				t.Errorf("TTL %d, want %d", r.Answer[0].Header().Ttl, want)
			}
		})
	}
	// The TTLs of cached data decrease.
	s, addr := start(t, Config{}, fakeUpstream(t, static("192.0.2.1")))
	first := ask(t, addr, "udp", "example.com.", dns.TypeA).Answer[0].Header().Ttl
	end := time.Now().Add(10 * time.Second)
	for {
		u, c := ask(t, addr, "udp", "example.com.", dns.TypeA).Answer[0].Header().Ttl, ask(t, addr, "tcp", "EXAMPLE.com.", dns.TypeA).Answer[0].Header().Ttl
		if u < first && c < first && u > 0 && c > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("TTL %d at first, then %d and %d", first, u, c)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if s.counts.answered[outCached].Load() == 0 {
		t.Error("nothing came from the cache")
	}
}

func TestFormerNames(t *testing.T) {
	_, addr := start(t, Config{Settings: settings(Settings{Aliases: []Alias{
		{Name: "old-pi", Target: "kitchen-pi", Until: time.Now().Add(time.Hour)}, {Name: "older-pi", Target: "kitchen-pi", Until: time.Now().Add(-time.Second)},
		{Name: "old4", Target: "v4only"}, {Name: "google", Target: "kitchen-pi"}, {Name: "gone", Target: "nobody"},
	}})})
	both(t, addr, "old-pi.weft.internal.", dns.TypeA, want(ok, "100.64.0.2 kitchen-pi.weft.internal.", ""))
	both(t, addr, "older-pi.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
	both(t, addr, "old4.weft.internal.", dns.TypeAAAA, want(ok, "v4only.weft.internal.", "weft.internal."))
	both(t, addr, "google.weft.internal.", dns.TypeA, want(ok, "100.64.0.10", "")) // a device has that name now
	both(t, addr, "gone.weft.internal.", dns.TypeA, want(nx, "nobody.weft.internal.", "weft.internal."))
	// A former name that expires during the test.
	_, ending := start(t, Config{Settings: settings(Settings{Aliases: []Alias{{Name: "old-pi", Target: "kitchen-pi", Until: time.Now().Add(300 * time.Millisecond)}}})})
	eventually(t, "the former name's end", func() bool {
		return ask(t, ending, "udp", "old-pi.weft.internal.", dns.TypeA).Rcode == dns.RcodeNameError
	})
	// Former names of devices that are looked up.
	part := *testZone
	part.Complete = false
	_, addr = start(t, Config{Zone: func() *Zone { return &part }, Lookup: func(_ context.Context, name string, _ netip.Addr) (Host, error) {
		return Host{Name: "far", Former: "was-far", IPv4: netip.MustParseAddr("100.64.3.3")}, nil
	}})
	both(t, addr, "was-far.weft.internal.", dns.TypeA, want(ok, "100.64.3.3 far.weft.internal.", ""))
	both(t, addr, "was-far.weft.internal.", dns.TypeAAAA, want(ok, "far.weft.internal.", "weft.internal."))
	both(t, addr, "liar.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
}

func TestIDN(t *testing.T) {
	z := *testZone
	z.Hosts = append(z.Hosts[:len(z.Hosts):len(z.Hosts)], Host{Name: "xn--kche-0ra", IPv4: netip.MustParseAddr("100.64.9.9")})
	s, addr := start(t, Config{Zone: func() *Zone { return &z }, Settings: settings(Settings{Records: []Record{{Name: "Gerät", Type: "A", Value: "192.0.2.7"}}})})
	both(t, addr, "xn--kche-0ra.weft.internal.", dns.TypeA, want(ok, "100.64.9.9", ""))
	both(t, addr, "xn--gert-noa.weft.internal.", dns.TypeA, want(ok, "192.0.2.7", ""))
	for name, data := range map[string]string{"küche": "100.64.9.9", "KÜCHE.weft.internal": "100.64.9.9", "gerät": "192.0.2.7"} {
		a, err := s.Query(t.Context(), name, "A")
		if err != nil || len(a.Answers) != 1 || !strings.HasSuffix(a.Answers[0], data) {
			t.Errorf("%s: %+v %v", name, a, err)
		}
	}
	for _, bad := range []string{"-ü", "ü..x"} {
		if _, err := s.Query(t.Context(), bad, "A"); err == nil {
			t.Errorf("%q is accepted as a name", bad)
		}
	}
}

func TestLongNames(t *testing.T) {
	l63, up := strings.Repeat("a", 63), fakeUpstream(t, static("192.0.2.1"))
	_, addr := start(t, Config{}, up)
	legal := strings.Repeat(l63+".", 3) + strings.Repeat("b", 57) + ".com." // 255 octets on the wire
	both(t, addr, legal, dns.TypeA, want(ok, "192.0.2.1", ""))
	own := strings.Repeat(l63+".", 3) + strings.Repeat("b", 47) + ".weft.internal."
	both(t, addr, own, dns.TypeA, want(nx, "", "weft.internal."))
	head := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	long := append(append([]byte(nil), head...), strings.Repeat("\x3f"+l63, 4)+"\x00\x00\x01\x00\x01"...)
	if r := exchangeRaw(t, addr, long); r == nil || r.Rcode != dns.RcodeFormatError {
		t.Errorf("256 octets: %v", r)
	}
	wide := append(append([]byte(nil), head...), "\x40"+strings.Repeat("a", 64)+"\x00\x00\x01\x00\x01"...)
	if r := exchangeRaw(t, addr, wide); r == nil || r.Rcode != dns.RcodeFormatError {
		t.Errorf("a label of 64: %v", r)
	}
}

func TestSingleLabels(t *testing.T) {
	up := fakeUpstream(t, func(_ dns.ResponseWriter, r *dns.Msg) { t.Errorf("forwarded %s", r.Question[0].Name) })
	_, addr := start(t, Config{}, up)
	for _, name := range []string{"kitchen-pi.", "google.", "wpad.", "com.", "_dns.", "xn--kche-0ra."} {
		both(t, addr, name, dns.TypeA, want(nx, "", name))
	}
	_, addr = start(t, Config{ShortNames: true}, up)
	both(t, addr, "Kitchen-pi.", dns.TypeA, want(ok, "100.64.0.2", ""))
	both(t, addr, "nobody.", dns.TypeA, want(nx, "", "weft.internal."))
}

func TestRoutes(t *testing.T) {
	ip := func(n int) string { return fmt.Sprintf("192.0.2.%d", n) }
	up := func(n int) []Nameserver { return []Nameserver{{Address: fakeUpstream(t, static(ip(n)))}} }
	_, addr := start(t, Config{Settings: settings(Settings{Nameservers: up(1), Routes: []Route{
		{Suffix: "corp.example", Nameservers: up(2)}, {Suffix: "deep.corp.example.", Nameservers: up(3)},
		{Suffix: "lan.example"}, {Suffix: "10.in-addr.arpa", Nameservers: up(4)}, {Suffix: "internal", Nameservers: up(5)},
	}})}, fakeUpstream(t, static(ip(9))))
	for name, data := range map[string]string{
		"example.com.": ip(1), "corp.example.": ip(2), "a.CORP.example.": ip(2), "xcorp.example.": ip(1), "deep.corp.example.": ip(3),
		"a.b.deep.corp.example.": ip(3), "x.lan.example.": ip(9), "1.2.3.10.in-addr.arpa.": ip(4), "example.": "",
		"kitchen-pi.weft.internal.": "100.64.0.2", "x.internal.": ip(5),
	} {
		rc, soa := ok, ""
		if data == "" {
			rc, soa = nx, name
		}
		both(t, addr, name, dns.TypeA, want(rc, data, soa))
	}
}

func TestUpstreamInsideTheOverlay(t *testing.T) {
	up := fakeUpstream(t, static("192.0.2.1"))
	var dialled sync.Map
	_, addr := start(t, Config{
		Settings: settings(Settings{Routes: []Route{{Suffix: "corp.example", Nameservers: []Nameserver{{Address: "100.64.0.9"}}}}}),
		DialOverlay: func(ctx context.Context, network, address string) (c netConn, err error) {
			dialled.Store(network+" "+address, true)
			return dialer.DialContext(ctx, network, up)
		},
	})
	both(t, addr, "x.corp.example.", dns.TypeA, want(ok, "192.0.2.1", ""))
	if _, done := dialled.Load("udp 100.64.0.9:53"); !done {
		t.Error("not dialled through the overlay")
	}
}

func TestBootstrap(t *testing.T) {
	system := fakeUpstream(t, static("192.0.2.9"))
	other := fakeUpstream(t, func(_ dns.ResponseWriter, r *dns.Msg) { t.Errorf("asked elsewhere for %s", r.Question[0].Name) })
	// A zone and a route that contain the server's own name.
	z := *testZone
	z.Suffix = "example.org"
	s, addr := start(t, Config{
		Zone:      func() *Zone { return &z },
		Bootstrap: func() []string { return []string{"vpn.example.org", "relay.example.net"} },
		Settings: settings(Settings{
			Nameservers: []Nameserver{{Address: other}}, Routes: []Route{{Suffix: "example.net", Nameservers: []Nameserver{{Address: other}}}},
			Records: []Record{{Name: "relay.example.net", Type: "A", Value: "192.0.2.66"}}, StopRebinding: true,
		}),
	}, system)
	for _, name := range []string{"vpn.example.org.", "relay.example.net."} {
		both(t, addr, name, dns.TypeA, want(ok, "192.0.2.9", ""))
	}
	both(t, addr, "x.example.org.", dns.TypeA, want(nx, "", "example.org."))
	if a, err := s.Trace(t.Context(), "vpn.example.org", "A"); err != nil || !strings.Contains(fmt.Sprint(a.Steps), "server's own name") {
		t.Errorf("%+v %v", a, err)
	}
}

func TestExtendedErrors(t *testing.T) {
	say := func(rc int, code uint16) string {
		return fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg)
			m.SetRcode(r, rc)
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: "because"})
			w.WriteMsg(m)
		})
	}
	good := fakeUpstream(t, static("192.0.2.1"))
	for _, c := range []struct {
		up    []string
		rcode int
		ede   uint16
	}{
		{[]string{say(sf, dns.ExtendedErrorCodeDNSBogus), good}, sf, dns.ExtendedErrorCodeDNSBogus},
		{[]string{say(nx, dns.ExtendedErrorCodeBlocked), good}, nx, dns.ExtendedErrorCodeBlocked},
		{[]string{say(sf, dns.ExtendedErrorCodeNetworkError), good}, ok, 0},
		{[]string{"127.0.0.1:1"}, sf, dns.ExtendedErrorCodeNoReachableAuthority},
		{nil, sf, dns.ExtendedErrorCodeNetworkError},
	} {
		_, addr := start(t, Config{}, c.up...)
		both(t, addr, "example.com.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
			got := edeOf(r)
			if r.Rcode != c.rcode || c.ede != 0 && (len(got) != 1 || got[0] != c.ede) || c.ede == 0 && len(got) != 0 {
				t.Errorf("%v: %v", c, r)
			}
		}, edns)
		if r := ask(t, addr, "udp", "example.com.", dns.TypeA); r.IsEdns0() != nil {
			t.Error("an OPT for a client that sent none")
		}
	}
}

// A device that the client may not see has neither a name nor an address.
func TestSameAnswerForNameAndAddress(t *testing.T) {
	part := *testZone
	part.Complete = false
	hidden := netip.MustParseAddr("100.64.200.1")
	// The server says of a hidden device that it does not exist.
	_, addr := start(t, Config{Zone: func() *Zone { return &part }, Lookup: func(context.Context, string, netip.Addr) (Host, error) { return Host{}, ErrNotFound }})
	both(t, addr, "hidden.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
	name, _ := dns.ReverseAddr(hidden.String())
	both(t, addr, name, dns.TypePTR, want(nx, "", "64.100.in-addr.arpa."))
}

// Each peer gets 200 questions per second.
func TestAccessAndRateLimit(t *testing.T) {
	TestACL(t)
	s := New(Config{Zone: func() *Zone { return testZone }})
	defer s.Close()
	m := new(dns.Msg)
	m.SetQuestion("kitchen-pi.weft.internal.", dns.TypeA)
	in, _ := m.Pack()
	now := time.Now()
	say := func(from string, now time.Time) []byte {
		b, rest := s.answer(&incoming{st: s.current(), from: netip.MustParseAddr(from), now: now}, in, nil)
		if rest != nil {
			t.Fatal("the answer waits")
		}
		return b
	}
	if say("192.168.1.7", now) != nil || say("127.64.0.9", now) != nil {
		t.Error("a client outside the overlay is answered")
	}
	// 200 per second for each peer, no limit for this machine.
	answered := 0
	for range 1000 {
		if b := say("100.64.0.77", now); b[3]&0xf == ok {
			answered++
		}
		if b := say("127.0.0.1", now); b[3]&0xf != ok {
			t.Fatal("this machine is limited")
		}
	}
	if answered != ratePerSecond {
		t.Errorf("%d answers at once", answered)
	}
	if b := say("100.64.0.78", now); b[3]&0xf != ok {
		t.Error("another peer is limited")
	}
	if b := say("100.64.0.77", now.Add(time.Second)); b[3]&0xf != ok {
		t.Error("still limited a second later")
	}
	for i := range 5000 {
		s.limits.allow(netip.AddrFrom4([4]byte{100, 70, byte(i >> 8), byte(i)}), now)
	}
	if n := len(s.limits.peers); n > maxLimited {
		t.Errorf("%d peers are remembered", n)
	}
}

func TestNeverLeaks(t *testing.T) {
	TestNotKnown(t)
	up := fakeUpstream(t, func(_ dns.ResponseWriter, r *dns.Msg) { t.Errorf("leaked %v", r.Question) })
	_, addr := start(t, Config{Settings: settings(Settings{Routes: []Route{{Suffix: "weft.internal", Nameservers: []Nameserver{{Address: up}}}}})}, up)
	for _, name := range []string{"nobody.weft.internal.", "a.b.c.weft.internal.", "WEFT.internal.", "\\000.weft.internal.", "9.9.64.100.in-addr.arpa.", "a.9.9.64.100.in-addr.arpa."} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeDS, dns.TypeANY, dns.TypeHTTPS, dns.TypePTR} {
			ask(t, addr, "udp", name, typ)
		}
	}
}

// With a fleet that a laptop does not hold, a name is looked up on the server once,
// however many clients ask, and not again during its TTL. NXDOMAIN is correct.
func TestLookupsCoalesced(t *testing.T) {
	fleet := &Zone{Ready: true, Serial: 1, Suffix: "weft.internal", IPv4: testZone.IPv4, IPv6: testZone.IPv6}
	const devices = 100_000
	addrOf := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64 + byte(n>>16), byte(n >> 8), byte(n)}) }
	var asked atomic.Int32
	gate := make(chan struct{})
	s, addr := start(t, Config{Zone: func() *Zone { return fleet }, Lookup: func(_ context.Context, name string, a netip.Addr) (Host, error) {
		asked.Add(1)
		<-gate
		var n int
		if a.IsValid() {
			b := a.As4()
			n = int(b[1]-64)<<16 | int(b[2])<<8 | int(b[3])
		} else if _, err := fmt.Sscanf(name, "dev-%d", &n); err != nil {
			n = devices
		}
		if n >= devices {
			return Host{}, ErrNotFound
		}
		return Host{Name: fmt.Sprintf("dev-%d", n), IPv4: addrOf(n)}, nil
	}})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { want(ok, "100.64.0.7", "")(t, ask(t, addr, "udp", "dev-7.weft.internal.", dns.TypeA)) })
	}
	for asked.Load() == 0 || s.current() == nil {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the server was asked %d times for one name", n)
	}
	both(t, addr, "dev-7.weft.internal.", dns.TypeAAAA, want(ok, "", "weft.internal."))
	both(t, addr, "7.0.64.100.in-addr.arpa.", dns.TypePTR, want(ok, "dev-7.weft.internal.", ""))
	both(t, addr, "dev-99999.weft.internal.", dns.TypeA, want(ok, addrOf(99999).String(), ""))
	both(t, addr, "dev-100000.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
	both(t, addr, "nobody.weft.internal.", dns.TypeMX, want(nx, "", "weft.internal."))
	if n := asked.Load(); n != 5 {
		t.Errorf("asked %d times for 5 names", n)
	}
	for n := range 5000 {
		s.hosts.ask(t.Context(), s, s.current(), fmt.Sprint(n), fmt.Sprintf("dev-%d", n), netip.Addr{})
	}
	if n := len(s.hosts.entries); n > maxHosts {
		t.Errorf("%d lookups are cached", n)
	}
}

// When lookups are no longer valid, the next question looks up again, whatever the TTL.
func TestLookedUpAgain(t *testing.T) {
	var zone atomic.Pointer[Zone]
	zone.Store(&Zone{Ready: true, Serial: 1, Suffix: "weft.internal", IPv4: testZone.IPv4, IPv6: testZone.IPv6})
	var last atomic.Uint32
	last.Store(1)
	_, addr := start(t, Config{Zone: zone.Load, Lookup: func(_ context.Context, name string, _ netip.Addr) (Host, error) {
		if name == "new-pi" && last.Load() == 1 {
			return Host{}, ErrNotFound
		}
		return Host{Name: name, IPv4: netip.AddrFrom4([4]byte{100, 64, 0, byte(last.Load())})}, nil
	}})
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, want(ok, "100.64.0.1", ""))
	both(t, addr, "new-pi.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
	last.Store(2)
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, want(ok, "100.64.0.1", ""))
	z := *zone.Load()
	z.LookedUp++
	zone.Store(&z)
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, want(ok, "100.64.0.2", ""))
	both(t, addr, "new-pi.weft.internal.", dns.TypeA, want(ok, "100.64.0.2", ""))
}

// In a fleet whose names are looked up, a record of another type does not hide the
// device with the same name.
func TestBesideALookedUpDevice(t *testing.T) {
	fleet := &Zone{Ready: true, Serial: 1, Suffix: "weft.internal", IPv4: testZone.IPv4, IPv6: testZone.IPv6}
	_, addr := start(t, Config{
		Zone: func() *Zone { return fleet },
		Settings: settings(Settings{Records: []Record{
			{Name: "dev-7.weft.internal", Type: "TXT", Value: "the seventh"},
			{Name: "note.weft.internal", Type: "TXT", Value: "no device"},
		}}),
		Lookup: func(_ context.Context, name string, _ netip.Addr) (Host, error) {
			if name != "dev-7" {
				return Host{}, ErrNotFound
			}
			return Host{Name: name, IPv4: netip.MustParseAddr("100.64.0.7")}, nil
		},
	})
	both(t, addr, "dev-7.weft.internal.", dns.TypeA, want(ok, "100.64.0.7", ""))
	both(t, addr, "dev-7.weft.internal.", dns.TypeTXT, want(ok, `"the seventh"`, ""))
	both(t, addr, "note.weft.internal.", dns.TypeA, want(ok, "", "weft.internal."))
	both(t, addr, "note.weft.internal.", dns.TypeTXT, want(ok, `"no device"`, ""))
}
