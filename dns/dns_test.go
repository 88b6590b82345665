package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// testZone has a host with both addresses and one with IPv4 only.
var testZone = &Zone{
	Ready: true, Serial: 42, Suffix: "weft.internal", Complete: true,
	IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd00:77::/48"),
	Hosts: []Host{
		{Name: "kitchen-pi", IPv4: netip.MustParseAddr("100.64.0.2"), IPv6: netip.MustParseAddr("fd00:77::2")},
		{Name: "v4only", IPv4: netip.MustParseAddr("100.101.2.3")},
		{Name: "cam.site1", IPv4: netip.MustParseAddr("100.64.0.9")},
		{Name: "google", IPv4: netip.MustParseAddr("100.64.0.10")},
		{Name: "bad name", IPv4: netip.MustParseAddr("100.64.0.11")},
		{Name: "evil", IPv4: netip.MustParseAddr("100.64.0.2")}, // kitchen-pi's address
	},
}

// start serves cfg on a free port; upstreams are its nameservers.
func start(t testing.TB, cfg Config, upstreams ...string) (*Server, string) {
	t.Helper()
	if cfg.Zone == nil {
		cfg.Zone = func() *Zone { return testZone }
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
		var b strings.Builder
		for _, u := range upstreams {
			fmt.Fprintf(&b, "nameserver %s\n", u)
		}
		if err := os.WriteFile(cfg.ResolvConf, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := New(cfg)
	pc, l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(pc, l)
	t.Cleanup(func() { s.Close() })
	return s, l.Addr().String()
}

// ask sends one query; net is udp or tcp.
func ask(t testing.TB, addr, network, name string, typ uint16, change ...func(*dns.Msg)) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	for _, c := range change {
		c(m)
	}
	c := dns.Client{Net: network, Timeout: 8 * time.Second}
	r, _, err := c.Exchange(m, addr)
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[typ], err)
	}
	return r
}

// answers returns the records' data, sorted.
func answers(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func soaOf(m *dns.Msg) string {
	if len(m.Ns) == 1 {
		if soa, ok := m.Ns[0].(*dns.SOA); ok {
			return fmt.Sprintf("%s ttl=%d min=%d", soa.Hdr.Name, soa.Hdr.Ttl, soa.Minttl)
		}
	}
	return ""
}

// Answers of the overlay's own zones, and names that they pass on.
func TestOwnZones(t *testing.T) {
	_, addr := start(t, Config{})
	const nx, ok = dns.RcodeNameError, dns.RcodeSuccess
	const soa = "weft.internal. ttl=5 min=5"
	for _, c := range []struct {
		name    string
		typ     uint16
		rcode   int
		answers string
		soa     string
	}{
		{"kitchen-pi.weft.internal.", dns.TypeA, ok, "100.64.0.2", ""},
		{"kitchen-pi.weft.internal.", dns.TypeAAAA, ok, "fd00:77::2", ""},
		{"KITCHEN-pi.Weft.INTERNAL.", dns.TypeA, ok, "100.64.0.2", ""},
		{"v4only.weft.internal.", dns.TypeAAAA, ok, "", soa},
		{"v4only.weft.internal.", dns.TypeMX, ok, "", soa},
		{"v4only.weft.internal.", dns.TypeTXT, ok, "", soa},
		{"v4only.weft.internal.", dns.TypeHTTPS, ok, "", soa},
		{"v4only.weft.internal.", 9824, ok, "", soa},
		{"v4only.weft.internal.", dns.TypeANY, ok, `"RFC8482" ""`, ""},
		{"nobody.weft.internal.", dns.TypeA, nx, "", soa},
		{"nobody.weft.internal.", dns.TypeMX, nx, "", soa},
		{"x.kitchen-pi.weft.internal.", dns.TypeA, nx, "", soa},
		{"bad\\032name.weft.internal.", dns.TypeA, nx, "", soa},
		{"cam.site1.weft.internal.", dns.TypeA, ok, "100.64.0.9", ""},
		{"site1.weft.internal.", dns.TypeA, ok, "", soa}, // empty non-terminal
		{"weft.internal.", dns.TypeSOA, ok, "_dns.weft.internal. nobody.invalid. 42 3600 600 86400 5", ""},
		{"weft.internal.", dns.TypeNS, ok, "_dns.weft.internal.", ""},
		{"weft.internal.", dns.TypeA, ok, "", soa},
		{"weft.internal.", dns.TypeDS, ok, "", soa},
		{"_dns.weft.internal.", dns.TypeA, ok, "100.100.100.100", ""},

		{"2.0.64.100.in-addr.arpa.", dns.TypePTR, ok, "kitchen-pi.weft.internal.", ""},
		{"3.2.101.100.in-addr.arpa.", dns.TypePTR, ok, "v4only.weft.internal.", ""},
		{"100.100.100.100.in-addr.arpa.", dns.TypePTR, ok, "_dns.weft.internal.", ""},
		{"77.0.64.100.in-addr.arpa.", dns.TypePTR, nx, "", "64.100.in-addr.arpa. ttl=5 min=5"},
		{"77.0.127.100.in-addr.arpa.", dns.TypePTR, nx, "", "127.100.in-addr.arpa. ttl=5 min=5"},
		{"64.100.in-addr.arpa.", dns.TypeSOA, ok, "_dns.weft.internal. nobody.invalid. 42 3600 600 86400 5", ""},
		{"0.64.100.in-addr.arpa.", dns.TypePTR, ok, "", "64.100.in-addr.arpa. ttl=5 min=5"},
		{"2.0.64.100.in-addr.arpa.", dns.TypeA, ok, "", "64.100.in-addr.arpa. ttl=5 min=5"},
		{"1.2.0.64.100.in-addr.arpa.", dns.TypePTR, nx, "", "64.100.in-addr.arpa. ttl=5 min=5"},
		{"256.0.64.100.in-addr.arpa.", dns.TypePTR, nx, "", "64.100.in-addr.arpa. ttl=5 min=5"},
		{"02.0.64.100.in-addr.arpa.", dns.TypePTR, nx, "", "64.100.in-addr.arpa. ttl=5 min=5"},
		{"x.0.64.100.in-addr.arpa.", dns.TypePTR, nx, "", "64.100.in-addr.arpa. ttl=5 min=5"},
		{reverse6("fd00:77::2"), dns.TypePTR, ok, "kitchen-pi.weft.internal.", ""},
		{strings.ToUpper(reverse6("fd00:77::2")), dns.TypePTR, ok, "kitchen-pi.weft.internal.", ""},
		{reverse6("fd00:77::abcd"), dns.TypePTR, nx, "", reverseApex6 + " ttl=5 min=5"},
		{"zz." + reverseApex6, dns.TypePTR, nx, "", reverseApex6 + " ttl=5 min=5"},

		{"localhost.", dns.TypeA, ok, "127.0.0.1", ""},
		{"x.localhost.", dns.TypeAAAA, ok, "::1", ""},
		{"google.", dns.TypeA, nx, "", "google. ttl=5 min=5"}, // never the device named google
		{"kitchen-pi.", dns.TypeA, nx, "", "kitchen-pi. ttl=5 min=5"},
		{"printer.local.", dns.TypeA, nx, "", "local. ttl=5 min=5"},
		{"x.onion.", dns.TypeA, nx, "", "onion. ttl=5 min=5"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			r := ask(t, addr, network, c.name, c.typ)
			if r.Rcode != c.rcode || answers(r) != c.answers || soaOf(r) != c.soa {
				t.Errorf("%s %s %s: %s %q %q; want %s %q %q", network, c.name, dns.TypeToString[c.typ],
					dns.RcodeToString[r.Rcode], answers(r), soaOf(r), dns.RcodeToString[c.rcode], c.answers, c.soa)
			}
			for _, rr := range r.Answer {
				if rr.Header().Name != c.name {
					t.Errorf("%s: answered as %s", c.name, rr.Header().Name)
				}
				if rr.Header().Ttl != 5 {
					t.Errorf("%s: TTL %d", c.name, rr.Header().Ttl)
				}
			}
			own := !strings.HasSuffix(c.name, "localhost.") && c.soa == "" || strings.Contains(c.soa, "weft") || strings.Contains(c.soa, "arpa")
			if r.Authoritative != own || !r.RecursionAvailable || !r.RecursionDesired || r.Zero || r.AuthenticatedData {
				t.Errorf("%s: flags %+v", c.name, r.MsgHdr)
			}
		}
	}
}

// reverseApex6 is fd00:0077:0000 as nibbles.
const reverseApex6 = "0.0.0.0.7.7.0.0.0.0.d.f.ip6.arpa."

func reverse6(ip string) string {
	s, _ := dns.ReverseAddr(ip)
	return s
}

// Classes, operations and names that are refused, and with which rcode.
func TestRefusals(t *testing.T) {
	_, addr := start(t, Config{})
	class := func(c uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.Question[0].Qclass = c } }
	for name, c := range map[string]struct {
		typ    uint16
		change func(*dns.Msg)
		rcode  int
	}{
		"chaos":     {dns.TypeTXT, class(dns.ClassCHAOS), dns.RcodeRefused},
		"any class": {dns.TypeA, class(dns.ClassANY), dns.RcodeRefused},
		"axfr":      {dns.TypeAXFR, nil, dns.RcodeRefused},
		"ixfr":      {dns.TypeIXFR, nil, dns.RcodeRefused},
		"notify":    {dns.TypeSOA, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
		"update":    {dns.TypeSOA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"status":    {dns.TypeSOA, func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, dns.RcodeNotImplemented},
		"two":       {dns.TypeA, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		"none":      {dns.TypeA, func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		"badvers":   {dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
		"two OPT": {dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			m.SetEdns0(1232, false)
			m.Extra = append(m.Extra, m.Extra[0])
		}, dns.RcodeFormatError},
	} {
		m := new(dns.Msg)
		m.SetQuestion("kitchen-pi.weft.internal.", c.typ)
		if c.change != nil {
			c.change(m)
		}
		out, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		r := exchangeRaw(t, addr, out)
		if r == nil || r.Rcode != c.rcode || len(r.Answer) != 0 {
			t.Errorf("%s: %v", name, r)
		}
	}
	// Responses and invalid messages get no answer.
	m := new(dns.Msg)
	m.SetQuestion("kitchen-pi.weft.internal.", dns.TypeA)
	m.Response = true
	out, _ := m.Pack()
	for name, b := range map[string][]byte{"a response": out, "short": {1, 2, 3}, "empty": {}, "zeros": {0, 0}} {
		if r := exchangeRaw(t, addr, b); r != nil {
			t.Errorf("%s was answered: %v", name, r)
		}
	}
	// A pointer loop, a label beyond 63 or a truncated name: FORMERR.
	head := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for name, q := range map[string][]byte{
		"loop": {0xc0, 12, 0, 1, 0, 1}, "reserved label": append([]byte{0x80}, make([]byte, 70)...), "cut": {10, 'a'},
		"long name": append(bytes.Repeat([]byte("\x3f"+strings.Repeat("a", 63)), 5), 0, 0, 1, 0, 1),
	} {
		if r := exchangeRaw(t, addr, append(slices.Clone(head), q...)); r == nil || r.Rcode != dns.RcodeFormatError {
			t.Errorf("%s: %v", name, r)
		}
	}
}

// exchangeRaw sends bytes over UDP; nil if nothing comes back.
func exchangeRaw(t *testing.T, addr string, out []byte) *dns.Msg {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(out)
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		return nil
	}
	r := new(dns.Msg)
	if err := r.Unpack(buf[:n]); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestEDNS: versions, sizes and options.
func TestEDNS(t *testing.T) {
	_, addr := start(t, Config{})
	if r := ask(t, addr, "udp", "kitchen-pi.weft.internal.", dns.TypeA); r.IsEdns0() != nil {
		t.Error("an OPT for a client that sent none")
	}
	r := ask(t, addr, "udp", "kitchen-pi.weft.internal.", dns.TypeA, func(m *dns.Msg) {
		m.SetEdns0(4096, true)
		o := m.IsEdns0()
		o.Option = append(o.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")})
		// The OPT is not the last record.
		m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "x.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(1, 2, 3, 4)})
	})
	o := r.IsEdns0()
	if o == nil || o.UDPSize() != 1232 || !o.Do() || o.Version() != 0 || len(o.Option) != 0 {
		t.Errorf("OPT: %v", o)
	}
	if answers(r) != "100.64.0.2" {
		t.Errorf("answer: %v", r)
	}
}

// An unknown answer is SERVFAIL with the reason, never NXDOMAIN.
func TestNotKnown(t *testing.T) {
	up := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) { t.Errorf("leaked upstream: %v", r.Question) })
	edns := func(m *dns.Msg) { m.SetEdns0(1232, false) }
	ede := func(m *dns.Msg) uint16 {
		if o := m.IsEdns0(); o != nil {
			for _, x := range o.Option {
				if e, ok := x.(*dns.EDNS0_EDE); ok {
					return e.InfoCode
				}
			}
		}
		return 0
	}
	// Before there is any configuration.
	for _, z := range []*Zone{nil, {}, {Ready: true, Suffix: "../../etc"}, {Ready: true, Suffix: "a\nb"}} {
		_, addr := start(t, Config{Zone: func() *Zone { return z }}, up)
		r := ask(t, addr, "udp", "kitchen-pi.weft.internal.", dns.TypeA, edns)
		if r.Rcode != dns.RcodeServerFailure || ede(r) != dns.ExtendedErrorCodeNotReady {
			t.Errorf("zone %v: %v", z, r)
		}
	}
	// An incomplete directory: the name is looked up.
	part := *testZone
	part.Complete = false
	var asked atomic.Int32
	_, addr := start(t, Config{Zone: func() *Zone { return &part }, Lookup: func(_ context.Context, name string, a netip.Addr) (Host, error) {
		asked.Add(1)
		switch {
		case name == "far" || a == netip.MustParseAddr("100.64.3.3"):
			return Host{Name: "far", IPv4: netip.MustParseAddr("100.64.3.3")}, nil
		case name == "nobody" || a == netip.MustParseAddr("100.64.4.4"):
			return Host{}, ErrNotFound
		case name == "liar":
			return Host{Name: "google", IPv4: netip.MustParseAddr("100.64.3.3")}, nil
		}
		return Host{}, errors.New("server away")
	}}, up)
	for _, c := range []struct {
		name    string
		typ     uint16
		rcode   int
		answers string
	}{
		{"far.weft.internal.", dns.TypeA, dns.RcodeSuccess, "100.64.3.3"},
		{"far.weft.internal.", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{"3.3.64.100.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, "far.weft.internal."},
		{"nobody.weft.internal.", dns.TypeA, dns.RcodeNameError, ""},
		{"4.4.64.100.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, ""},
		{"liar.weft.internal.", dns.TypeA, dns.RcodeNameError, ""},
		{"away.weft.internal.", dns.TypeA, dns.RcodeServerFailure, ""},
		{"5.5.64.100.in-addr.arpa.", dns.TypePTR, dns.RcodeServerFailure, ""},
		{"kitchen-pi.weft.internal.", dns.TypeA, dns.RcodeSuccess, "100.64.0.2"},
	} {
		r := ask(t, addr, "udp", c.name, c.typ, edns)
		if r.Rcode != c.rcode || answers(r) != c.answers {
			t.Errorf("%s: %v", c.name, r)
		}
		if c.rcode == dns.RcodeServerFailure && ede(r) != dns.ExtendedErrorCodeNoReachableAuthority {
			t.Errorf("%s: extended error %d", c.name, ede(r))
		}
	}
	before := asked.Load()
	for _, name := range []string{"_x.weft.internal.", "a.b.weft.internal.", "a\\.b.weft.internal.", "weft.internal."} {
		ask(t, addr, "udp", name, dns.TypeA)
	}
	if asked.Load() != before {
		t.Error("names that no device can have were looked up")
	}
}

// fakeUpstream is a resolver on loopback; it returns HOST:PORT.
func fakeUpstream(t testing.TB, h dns.HandlerFunc) string {
	t.Helper()
	pc, l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := h
	h = func(w dns.ResponseWriter, r *dns.Msg) {
		if q := r.Question[0]; q.Qtype == dns.TypeHINFO && len(q.Name) == 34 {
			rcode(dns.RcodeNameError)(w, r) // the loop probe
			return
		}
		answer(w, r)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return l.Addr().String()
}

// static answers each A with ip.
func static(ip string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(ip)}}
		w.WriteMsg(m)
	}
}

func rcode(code int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(r, code)
		w.WriteMsg(m)
	}
}

func TestForward(t *testing.T) {
	var got atomic.Pointer[dns.Msg]
	up := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		got.Store(r.Copy())
		static("192.0.2.1")(w, r)
	})
	_, addr := start(t, Config{}, up)
	r := ask(t, addr, "udp", "Example.COM.", dns.TypeA, func(m *dns.Msg) {
		m.Id = 4711
		m.CheckingDisabled = true
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(1, 2, 3, 0)})
	})
	if answers(r) != "192.0.2.1" || r.Authoritative || !r.RecursionAvailable || r.IsEdns0() == nil {
		t.Errorf("answer: %v", r)
	}
	q := got.Load()
	if o := q.IsEdns0(); o == nil || !o.Do() || o.UDPSize() != 1232 || len(o.Option) != 0 || !q.CheckingDisabled || !q.RecursionDesired {
		t.Errorf("asked upstream: %v", q)
	}
	if q.Question[0].Name != "Example.COM." {
		t.Errorf("the case was changed to %s", q.Question[0].Name)
	}
	if q.Id == 4711 {
		t.Error("the client's id went upstream") // 1 in 65,536 by chance
	}
	if r := ask(t, addr, "udp", "example.com.", dns.TypeA, func(m *dns.Msg) { m.RecursionDesired = false }); r.Rcode != dns.RcodeRefused {
		t.Errorf("without RD: %v", r)
	}
	// Other reverse zones, CGNAT included, are forwarded.
	for _, name := range []string{"1.0.63.100.in-addr.arpa.", "1.0.128.100.in-addr.arpa.", "1.1.168.192.in-addr.arpa.", "100.in-addr.arpa."} {
		ask(t, addr, "udp", name, dns.TypePTR)
		if n := got.Load().Question[0].Name; n != name {
			t.Errorf("%s was not forwarded (last: %s)", name, n)
		}
	}
}

// The next resolver answers if one is dead, silent, broken or refuses. NXDOMAIN is
// final. If all are dead, SERVFAIL comes in time.
func TestFailover(t *testing.T) {
	dead := "127.0.0.1:1"
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good := fakeUpstream(t, static("192.0.2.1"))
	servfail := fakeUpstream(t, rcode(dns.RcodeServerFailure))
	refused := fakeUpstream(t, rcode(dns.RcodeRefused))
	nx := fakeUpstream(t, rcode(dns.RcodeNameError))
	blocked := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(r, dns.RcodeServerFailure)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked})
		w.WriteMsg(m)
	})
	for name, c := range map[string]struct {
		up    []string
		rcode int
		in    time.Duration
	}{
		"dead":       {[]string{dead, good}, dns.RcodeSuccess, time.Second},
		"silent":     {[]string{silent.LocalAddr().String(), good}, dns.RcodeSuccess, time.Second},
		"servfail":   {[]string{servfail, refused, good}, dns.RcodeSuccess, time.Second},
		"nxdomain":   {[]string{nx, good}, dns.RcodeNameError, time.Second},
		"blocked":    {[]string{blocked, good}, dns.RcodeServerFailure, time.Second},
		"only bad":   {[]string{servfail}, dns.RcodeServerFailure, time.Second},
		"only dead":  {[]string{dead}, dns.RcodeServerFailure, 5 * time.Second},
		"only still": {[]string{silent.LocalAddr().String()}, dns.RcodeServerFailure, 5 * time.Second},
		"none":       {nil, dns.RcodeServerFailure, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addr := start(t, Config{}, c.up...)
			begin := time.Now()
			r := ask(t, addr, "udp", "example.com.", dns.TypeA)
			if r.Rcode != c.rcode {
				t.Errorf("%v", r)
			}
			// Generous, since other tests share the machine.
			if d := time.Since(begin); d > c.in+time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// Asking ourselves would loop.
func TestOwnAddressesRefused(t *testing.T) {
	pc, l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	os.WriteFile(conf, []byte(fmt.Sprintf("nameserver %s\nnameserver 100.100.100.100\nnameserver 100.64.0.2\nnameserver fd00:77::2\n", l.Addr())), 0o600)
	s := New(Config{Zone: func() *Zone { return testZone }, ResolvConf: conf})
	s.Serve(pc, l)
	defer s.Close()
	begin := time.Now()
	r := ask(t, l.Addr().String(), "udp", "example.com.", dns.TypeA)
	if r.Rcode != dns.RcodeServerFailure || time.Since(begin) > 2*time.Second {
		t.Errorf("%v after %v", r, time.Since(begin))
	}
	// The file changes and is read again.
	up := fakeUpstream(t, static("192.0.2.1"))
	os.WriteFile(conf, []byte("# new\nnameserver "+up+" # the LAN's\n"), 0o600)
	end := time.Now().Add(10 * time.Second)
	for ask(t, l.Addr().String(), "udp", "example.com.", dns.TypeA).Rcode != dns.RcodeSuccess {
		if time.Now().After(end) {
			t.Fatal("the new resolv.conf was not read")
		}
	}
}

// Answers that do not match the question are ignored.
func TestSpoofedAnswers(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	ports := make(chan int, 100)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			r := new(dns.Msg)
			if r.Unpack(buf[:n]) != nil || r.Question[0].Qtype != dns.TypeA {
				continue
			}
			ports <- from.(*net.UDPAddr).Port
			send := func(change func(*dns.Msg), ip string) {
				m := new(dns.Msg)
				m.SetReply(r)
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(ip)}}
				if change != nil {
					change(m)
				}
				b, _ := m.Pack()
				pc.WriteTo(b, from)
			}
			send(func(m *dns.Msg) { m.Id++ }, "6.6.6.6")
			send(func(m *dns.Msg) { m.Question[0].Name = "other.com." }, "6.6.6.6")
			send(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }, "6.6.6.6")
			send(func(m *dns.Msg) { m.Question = nil }, "6.6.6.6")
			send(func(m *dns.Msg) { m.Response = false }, "6.6.6.6")
			pc.WriteTo([]byte("junk"), from)
			// From another socket: a connected one does not receive it.
			other, _ := net.ListenPacket("udp", "127.0.0.1:0")
			m := new(dns.Msg)
			m.SetReply(r)
			b, _ := m.Pack()
			other.WriteTo(b, from)
			other.Close()
			send(nil, "192.0.2.1")
		}
	}()
	_, addr := start(t, Config{}, pc.LocalAddr().String())
	seen := map[int]bool{}
	for i := range 5 {
		if r := ask(t, addr, "udp", fmt.Sprintf("%d.example.com.", i), dns.TypeA); answers(r) != "192.0.2.1" {
			t.Fatalf("%v", r)
		}
		seen[<-ports] = true
	}
	if len(seen) < 4 {
		t.Errorf("only %d source ports in 5 queries", len(seen))
	}
}

// An answer too long for UDP is requested again over TCP.
func TestTruncation(t *testing.T) {
	var tcpAsked atomic.Int32
	up := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		for i := range 40 {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{strings.Repeat("x", 60) + fmt.Sprint(i)}})
		}
		if w.RemoteAddr().Network() == "udp" {
			m.Truncate(512)
		} else {
			tcpAsked.Add(1)
		}
		w.WriteMsg(m)
	})
	_, addr := start(t, Config{}, up)
	r := ask(t, addr, "tcp", "big.example.com.", dns.TypeTXT)
	if r.Truncated || len(r.Answer) != 40 || tcpAsked.Load() != 1 {
		t.Errorf("over TCP: TC %v, %d records, upstream asked %d times over TCP", r.Truncated, len(r.Answer), tcpAsked.Load())
	}
	for size, limit := range map[uint16]int{0: 512, 100: 512, 600: 600, 1232: 1232, 4096: 1232} {
		m := new(dns.Msg)
		m.SetQuestion("big.example.com.", dns.TypeTXT)
		if size > 0 {
			m.SetEdns0(size, false)
		}
		out, _ := m.Pack()
		c, _ := net.Dial("udp", addr)
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write(out)
		buf := make([]byte, 64<<10)
		n, err := c.Read(buf)
		c.Close()
		r := new(dns.Msg)
		if err != nil || r.Unpack(buf[:n]) != nil || n > limit || !r.Truncated {
			t.Errorf("size %d: %d bytes, TC %v, %v", size, n, r.Truncated, err)
		}
	}
}

// Own names are answered quickly, and waiting queries are answered, not dropped,
// however many there are.
func TestLocalAnswersWhileUpstreamHangs(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s, addr := start(t, Config{}, silent.LocalAddr().String())
	var wg sync.WaitGroup
	var quick, slow atomic.Int32
	for i := range maxBusy + 50 {
		wg.Go(func() {
			req := new(dns.Msg)
			req.SetQuestion(fmt.Sprintf("%d.example.com.", i), dns.TypeA)
			ctx, cancel := context.WithTimeout(s.ctx, 700*time.Millisecond)
			defer cancel()
			begin := time.Now()
			a := s.answerNow(ctx, &query{req: req, st: s.current()})
			if a.msg.Rcode != dns.RcodeServerFailure {
				t.Errorf("%v", a.msg)
			}
			if time.Since(begin) < 300*time.Millisecond {
				quick.Add(1)
			} else {
				slow.Add(1)
			}
		})
	}
	for len(s.busy) < maxBusy/2 && slow.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		if r := ask(t, addr, "udp", "kitchen-pi.weft.internal.", dns.TypeA); answers(r) != "100.64.0.2" {
			t.Errorf("%v", r)
		}
	}
	wg.Wait()
	if len(s.busy) != 0 {
		t.Errorf("%d slots are still in use", len(s.busy))
	}
}

// Who is answered and who gets no answer.
func TestACL(t *testing.T) {
	s, _ := start(t, Config{})
	for a, want := range map[string]bool{
		"127.0.0.1:5": true, "[::1]:5": true, "100.64.0.7:5": true, "[fd00:77::9]:5": true, "[::ffff:127.0.0.1]:5": true,
		"192.168.1.2:5": false, "203.0.113.1:5": false, "100.128.0.1:5": false, "[2001:db8::1]:5": false, "127.64.0.2:5": false, "0.0.0.0:5": false,
	} {
		if got := s.current().mayAsk(netip.MustParseAddrPort(a).Addr().Unmap()); got != want {
			t.Errorf("%s: %v, want %v", a, got, want)
		}
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "53"} {
		if pc, l, err := Listen(addr); err == nil {
			pc.Close()
			l.Close()
			t.Errorf("%s: listens", addr)
		}
	}
}

func TestTCPPipeliningAndSplitLength(t *testing.T) {
	_, addr := start(t, Config{})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	var all []byte
	for i := range 10 {
		m := new(dns.Msg)
		m.SetQuestion("kitchen-pi.weft.internal.", dns.TypeA)
		m.Id = uint16(i)
		b, _ := m.Pack()
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(b))), b...)
	}
	for _, b := range [][]byte{all[:1], all[1:3], all[3:50], all[50:]} {
		c.Write(b)
		time.Sleep(time.Millisecond) // so that each is a segment of its own
	}
	seen := map[uint16]bool{}
	conn := dns.Conn{Conn: c}
	for range 10 {
		r, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		seen[r.Id] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d of 10 answers", len(seen))
	}
}

func TestQuery(t *testing.T) {
	s, _ := start(t, Config{})
	for _, c := range []struct{ name, typ, rcode, answers string }{
		{"kitchen-pi", "", "NOERROR", "kitchen-pi.weft.internal.\t5\tIN\tA\t100.64.0.2 kitchen-pi.weft.internal.\t5\tIN\tAAAA\tfd00:77::2"},
		{"v4only", "", "NOERROR", "v4only.weft.internal.\t5\tIN\tA\t100.101.2.3"},
		{"v4only.weft.internal", "aaaa", "NOERROR", ""},
		{"v4only", "TYPE65", "NOERROR", ""},
		{"100.64.0.2", "", "NOERROR", "2.0.64.100.in-addr.arpa.\t5\tIN\tPTR\tkitchen-pi.weft.internal."},
		{"nobody", "", "NXDOMAIN", ""},
		{"example.com", "A", "SERVFAIL", ""},
	} {
		a, err := s.Query(t.Context(), c.name, c.typ)
		if err != nil || a.Rcode != c.rcode || strings.Join(a.Answers, " ") != c.answers {
			t.Errorf("%s %s: %+v, %v", c.name, c.typ, a, err)
		}
	}
	for _, bad := range [][2]string{{"kitchen-pi", "NOSUCH"}, {"kitchen-pi", "TYPE65536"}, {"kitchen-pi", "TYPE1A"}, {strings.Repeat("a", 64), "A"}, {strings.Repeat("a.", 200), "A"}} {
		if _, err := s.Query(t.Context(), bad[0], bad[1]); err == nil {
			t.Errorf("%v was asked", bad)
		}
	}
}

// Close does not wait for upstreams and answers waiting queries.
func TestCloseEndsQueries(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s, addr := start(t, Config{}, silent.LocalAddr().String())
	c, _ := net.Dial("udp", addr)
	defer c.Close()
	m := new(dns.Msg)
	m.SetQuestion("example.com.", dns.TypeA)
	out, _ := m.Pack()
	c.Write(out)
	silent.ReadFrom(make([]byte, 512)) // it has been asked
	begin := time.Now()
	s.Close()
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("Close took %v", d)
	}
}

func TestResolvConf(t *testing.T) {
	const file = `# comment
; another
nameserver 192.0.2.1
nameserver	192.0.2.2   # behind
nameserver 192.0.2.3#glued
nameserver 192.0.2.1
nameserver fe80::1%eth0
nameserver [2001:db8::1]:5353
nameserver 192.0.2.4:5353
 nameserver 192.0.2.5 trailing words
nameserver 0.0.0.0
nameserver ::
nameserver nonsense
nameserver
options ndots:2
search example.com
nameservers 192.0.2.9
`
	var got []string
	for _, a := range parseResolvConf(strings.NewReader(file), nil) {
		got = append(got, a.String())
	}
	want := "192.0.2.1:53 192.0.2.2:53 192.0.2.3:53 [fe80::1%eth0]:53 [2001:db8::1]:5353 192.0.2.4:5353 192.0.2.5:53 127.0.0.1:53"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if n := len(parseResolvConf(strings.NewReader(strings.Repeat("nameserver 1.2.3.4\n", 10000)), nil)); n != 1 {
		t.Errorf("%d copies of the same resolver", n)
	}
}

// TestDig asks with dig, as people do.
func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Fatal("this test needs dig: apt-get install bind9-dnsutils")
	}
	up := fakeUpstream(t, static("192.0.2.1"))
	_, addr := start(t, Config{}, up)
	host, port, _ := net.SplitHostPort(addr)
	for args, want := range map[string][]string{
		"kitchen-pi.weft.internal +short":                       {"100.64.0.2\n"},
		"AAAA kitchen-pi.weft.internal +short +tcp":             {"fd00:77::2\n"},
		"-x 100.64.0.2 +short":                                  {"kitchen-pi.weft.internal.\n"},
		"-x fd00:77::2 +short":                                  {"kitchen-pi.weft.internal.\n"},
		"AAAA v4only.weft.internal +noall +comments +authority": {"status: NOERROR", "ANSWER: 0", "SOA"},
		"nobody.weft.internal +noall +comments +authority":      {"status: NXDOMAIN", "flags: qr aa rd ra", "SOA"},
		"example.com +short":                                    {"192.0.2.1\n"},
		"CH TXT version.bind":                                   {"status: REFUSED"},
		"kitchen-pi.weft.internal +ednsopt=65001:00 +nocookie":  {"status: NOERROR", "100.64.0.2", "udp: 1232"},
		"kitchen-pi.weft.internal +edns=1 +noednsnegotiation":   {"status: BADVERS"},
		"AXFR weft.internal":                                    {"Transfer failed"},
		"SOA 64.100.in-addr.arpa +short":                        {"_dns.weft.internal. nobody.invalid. 42"},
	} {
		out, _ := exec.Command(dig, append([]string{"@" + host, "-p", port, "+time=3", "+tries=1"}, strings.Fields(args)...)...).CombinedOutput()
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("dig %s: no %q in\n%s", args, w, out)
			}
		}
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1 # x\nnameserver [::1]:53\n")
	f.Add("nameserver fe80::1%eth0;")
	f.Fuzz(func(t *testing.T, s string) {
		got := parseResolvConf(strings.NewReader(s), nil)
		if len(got) > maxUpstreams {
			t.Fatalf("%d resolvers", len(got))
		}
		for _, a := range got {
			if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() {
				t.Fatalf("%v", a)
			}
		}
	})
}

func FuzzReverse(f *testing.F) {
	f.Add("2.0.64.100.in-addr.arpa.")
	f.Add(reverse6("fd00:77::2"))
	f.Add("64.100.in-addr.arpa.")
	f.Add("..in-addr.arpa.")
	f.Add("ip6.arpa.")
	f.Fuzz(func(t *testing.T, name string) {
		for _, p := range []netip.Prefix{testZone.IPv4, testZone.IPv6, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.1.2.3/32")} {
			zone := reverseZone(name, p)
			if zone != "" && !within(name, zone) {
				t.Fatalf("%q is not within %q", name, zone)
			}
		}
	})
}

// FuzzHandler feeds messages to the pipeline. Each one is answered within the size that
// the client accepts.
func FuzzHandler(f *testing.F) {
	for _, name := range []string{"kitchen-pi.weft.internal.", "2.0.64.100.in-addr.arpa.", "localhost.", ".", "x.local.", "weft.internal."} {
		for _, typ := range []uint16{dns.TypeA, dns.TypePTR, dns.TypeANY, dns.TypeSOA} {
			m := new(dns.Msg)
			m.SetQuestion(name, typ)
			m.SetEdns0(600, true)
			b, _ := m.Pack()
			f.Add(b)
		}
	}
	s := New(Config{Zone: func() *Zone { return testZone }, ResolvConf: "/nonexistent"})
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(dns.Msg)
		if req.Unpack(b) != nil || len(req.Question) != 1 {
			return
		}
		q := &query{req: req, st: s.current()}
		m := s.finish(q, s.answerNow(t.Context(), q))
		out, err := s.pack(m, q, nil)
		if err != nil {
			t.Fatalf("%v: %v", err, m)
		}
		if len(out) > maxUDP {
			t.Fatalf("%d bytes", len(out))
		}
		if m.Id != req.Id || !m.Response {
			t.Fatal("not an answer to the question")
		}
	})
}

// FuzzDatagram feeds bytes to the resolver as they come from the network. The same
// bytes get the same answer twice.
func FuzzDatagram(f *testing.F) {
	for _, name := range []string{"kitchen-pi.weft.internal.", "nobody.weft.internal.", "www.example.", "localhost."} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		b, _ := m.Pack()
		f.Add(b)
		m.SetEdns0(600, true)
		b, _ = m.Pack()
		f.Add(b)
		f.Add(b[:len(b)-5])
	}
	s := New(Config{Zone: func() *Zone { return testZone }, ResolvConf: "/nonexistent", Settings: settings(Settings{
		Records: []Record{{Name: "www.example", Type: "CNAME", Value: "kitchen-pi"}}, Wildcards: []string{"kitchen-pi"},
	})})
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, tcp := range []bool{false, true} {
			i := incoming{st: s.current(), from: netip.MustParseAddr("127.0.0.1"), tcp: tcp, now: time.Now()}
			answer := func() []byte {
				b, rest := s.answer(&i, in, make([]byte, 0, maxUDP))
				if rest != nil {
					b = rest(nil)
				}
				return b
			}
			first, second := answer(), answer()
			if !bytes.Equal(first, second) {
				t.Fatalf("%x\nthen %x", first, second)
			}
			if first == nil {
				continue
			}
			m := new(dns.Msg)
			if err := m.Unpack(first); err != nil || !m.Response || m.Id != uint16(in[0])<<8|uint16(in[1]) || !tcp && len(first) > maxUDP {
				t.Fatalf("%v: %d bytes, %v", err, len(first), m)
			}
		}
	})
}

// FuzzUpstream feeds answers of a hostile upstream.
func FuzzUpstream(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("example.com.", dns.TypeA)
	q.Id = 7
	r := new(dns.Msg)
	r.SetReply(q)
	r.Truncated = true
	b, _ := r.Pack()
	f.Add(b)
	f.Add(b[:20])
	s := New(Config{Zone: func() *Zone { return testZone }, ResolvConf: "/nonexistent"})
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if !matches(b, 7, q.Question[0], m) {
			return
		}
		settles(m, nil)
		qq := &query{req: q, q: q.Question[0], name: "example.com.", st: s.current()}
		if b, err := m.Pack(); err == nil {
			e := &entry{msg: b}
			lifetime(m)
			s.pack(s.finish(qq, s.take(qq, systemRoute, e, outForwarded)), qq, nil)
		}
	})
}

// Programs send names as typed: letters beyond ASCII come as UTF-8 in the question, and
// the answer repeats the spelling.
func TestRawLetters(t *testing.T) {
	zone := *testZone
	zone.Hosts = append(slices.Clone(zone.Hosts), Host{Name: "xn--kche-0ra", IPv4: netip.MustParseAddr("100.64.0.12")})
	_, addr := start(t, Config{Zone: func() *Zone { return &zone }, Dial: nobodyDials(t)}, "127.0.0.1:1")
	for _, name := range []string{`K\195\188che.weft.internal.`, `K\195\156CHE.WEFT.internal.`, `ku\204\136che.weft.internal.`} {
		m := ask(t, addr, "udp", name, dns.TypeA)
		if answers(m) != "100.64.0.12" || len(m.Answer) != 1 || m.Answer[0].Header().Name != name {
			t.Errorf("%s: %v", name, m)
		}
	}
	for _, name := range []string{`K\195che.weft.internal.`, `k\195\188che\.weft.internal.`, `b\195\188ro.weft.internal.`, `k\195\188 che.weft.internal.`} {
		if m := ask(t, addr, "udp", name, dns.TypeA); m.Rcode != dns.RcodeNameError || len(m.Answer) > 0 {
			t.Errorf("%s: %v", name, m)
		}
	}
}
