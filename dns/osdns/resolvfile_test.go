package osdns

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func ports(s ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range s {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

// Comments, also after a nameserver, and invalid lines.
func TestParseResolvFile(t *testing.T) {
	f := parseResolvFile(fixture(t, "hand-resolv.conf"))
	if want := ports("192.168.1.1:53", "[fe80::1%eth0]:5353", "127.0.0.1:53"); !slices.Equal(f.Servers, want) {
		t.Errorf("servers %v, want %v", f.Servers, want)
	}
	if want := []string{"fritz.box", "example.net"}; !slices.Equal(f.Search, want) {
		t.Errorf("search %v, want %v", f.Search, want)
	}
	if want := []string{"ndots:2", "timeout:1", "rotate"}; !slices.Equal(f.Options, want) {
		t.Errorf("options %v, want %v", f.Options, want)
	}
	if f := parseResolvFile(nil); f.Servers != nil || f.Search != nil || f.Options != nil {
		t.Errorf("an empty file has %v", f)
	}
}

func TestHeader(t *testing.T) {
	for file, want := range map[string]string{
		"stub-resolv.conf": "systemd-resolved", "uplink-resolv.conf": "systemd-resolved",
		"resolvconf-resolv.conf": "resolvconf", "resolvconf-stub-resolv.conf": "resolvconf", "openresolv-resolv.conf": "resolvconf",
		"nm-resolv.conf": "NetworkManager", "docker-resolv.conf": "", "hand-resolv.conf": "",
	} {
		if got := header(fixture(t, file)); got != want {
			t.Errorf("%s is %q's, want %q", file, got, want)
		}
	}
	if got := header([]byte("nameserver 1.1.1.1\n# resolvconf\n")); got != "" {
		t.Errorf("a comment after the header makes %q the author", got)
	}
}

var testConfig = Config{
	Nameserver: netip.MustParseAddr("100.100.100.100"),
	Search:     []string{"weft.internal"},
	Match:      []string{"weft.internal", "corp.example", "64.100.in-addr.arpa", "65.100.in-addr.arpa"},
}

// Our domains first or last, the machine's own kept, no duplicates.
func TestOwnFile(t *testing.T) {
	was := parseResolvFile(fixture(t, "hand-resolv.conf"))
	got := ownFile("weft0", testConfig, was)
	want := `# Made by weft for the interface weft0. Put back when the daemon ends, or by: weft dns restore
# was: nameserver 192.168.1.1
# was: nameserver fe80::1%eth0
# was: nameserver 127.0.0.1
# was: search fritz.box example.net
# was: options ndots:2 timeout:1 rotate
nameserver 100.100.100.100
search weft.internal fritz.box example.net
options ndots:2 timeout:1 rotate
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if owner, ours := ownedBy(got); owner != "weft0" || !ours || header(got) != "weft" {
		t.Errorf("owned by %q, %v", owner, ours)
	}
	if b := parseResolvFile(before(got)); !slices.Equal(b.Search, was.Search) || len(b.Servers) != 3 {
		t.Errorf("the original settings are %v", b)
	}
	// A file that another program made from ours is not ours.
	for _, s := range []string{"# Made by weft for the interface a b. Put", "# Made by weft for the interface ../x. Put", "x" + string(got), ""} {
		if _, ours := ownedBy([]byte(s)); ours {
			t.Errorf("%q counts as ours", s)
		}
	}
	last := testConfig
	last.SearchLast, last.Search = true, []string{"weft.internal", "example.net"}
	if got := ownFile("weft0", last, was); !bytes.Contains(got, []byte("\nsearch fritz.box example.net weft.internal\n")) {
		t.Errorf("our domains are not last:\n%s", got)
	}
}

func TestCheckDomain(t *testing.T) {
	for _, d := range []string{"weft.internal", "WEFT.internal.", "a", "_tcp.example", "xn--bcher-kva.example", "64.100.in-addr.arpa", strings.Repeat("a", 63) + ".b"} {
		if err := CheckDomain(d); err != nil {
			t.Errorf("%q: %v", d, err)
		}
	}
	// No path, no second line, nothing with a meaning in a shell.
	for _, d := range []string{"", ".", "..", "../../etc", "a/../b", "/etc/passwd", "a..b", ".a", "a\nnameserver 6.6.6.6", "a b", "a\x00b", `a\b`, "-d", "a.-b",
		"$(x)", "a;b", "a#b", "~.", "bücher.example", "a\tb", "\n", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "abc"} {
		if err := CheckDomain(d); err == nil {
			t.Errorf("%q is accepted", d)
		}
		for _, c := range []Config{{Nameserver: testConfig.Nameserver, Search: []string{d}}, {Nameserver: testConfig.Nameserver, Match: []string{"ok.example", d}}} {
			if c.check() == nil {
				t.Errorf("a configuration with %q is accepted", d)
			}
		}
	}
	for _, a := range []string{"0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0"} {
		if (Config{Nameserver: netip.MustParseAddr(a)}).check() == nil {
			t.Errorf("the nameserver %s is accepted", a)
		}
	}
	if (Config{Nameserver: testConfig.Nameserver, Match: make([]string, maxDomains+1)}).check() == nil {
		t.Error("any number of domains is accepted")
	}
	for _, i := range []string{"", "..", "a/b", "a b", "-x", "a\nb", strings.Repeat("a", 64)} {
		if validInterface(i) {
			t.Errorf("the interface %q is accepted", i)
		}
	}
}

// Only the zones of the prefix.
func TestReverseZones(t *testing.T) {
	z := ReverseZones(netip.MustParsePrefix("100.64.0.0/10"))
	if len(z) != 64 || z[0] != "64.100.in-addr.arpa" || z[63] != "127.100.in-addr.arpa" {
		t.Errorf("%d zones, %v", len(z), z)
	}
	for p, want := range map[string]string{
		"fd12:3456:789a::/48": "a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa",
		"fd12::/15":           "2.1.d.f.ip6.arpa 3.1.d.f.ip6.arpa",
		"10.0.0.0/8":          "10.in-addr.arpa",
		"10.1.2.0/24":         "2.1.10.in-addr.arpa",
		"10.1.2.3/32":         "3.2.1.10.in-addr.arpa",
		"10.1.2.2/31":         "2.2.1.10.in-addr.arpa 3.2.1.10.in-addr.arpa",
		"0.0.0.0/0":           "",
	} {
		if got := strings.Join(ReverseZones(netip.MustParsePrefix(p)), " "); got != want {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
	if ReverseZones(netip.Prefix{}) != nil {
		t.Error("the zero prefix has zones")
	}
	for _, p := range []string{"128.0.0.0/1", "8000::/1"} {
		for _, d := range ReverseZones(netip.MustParsePrefix(p)) {
			if err := CheckDomain(d); err != nil {
				t.Error(err)
			}
		}
	}
}

// Whatever the input, the output is our file, names no other resolver, and is stable.
func FuzzResolvFile(f *testing.F) {
	for _, name := range []string{"hand-resolv.conf", "stub-resolv.conf", "docker-resolv.conf", "nm-resolv.conf"} {
		f.Add(fixture(f, name))
	}
	f.Add([]byte("nameserver 1.1.1.1%\x00\noptions a\x00b\rnameserver 6.6.6.6\nsearch a\vb"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := parseResolvFile(b)
		out := ownFile("weft0", testConfig, file)
		again := parseResolvFile(out)
		if len(again.Servers) != 1 || again.Servers[0].Addr() != testConfig.Nameserver {
			t.Fatalf("names %v:\n%q", again.Servers, out)
		}
		if owner, ours := ownedBy(out); !ours || owner != "weft0" {
			t.Fatalf("not ours:\n%q", out)
		}
		if again.Search[0] != "weft.internal" {
			t.Fatalf("search %v", again.Search)
		}
		b2 := parseResolvFile(before(out))
		if !slices.Equal(b2.Search, file.Search) || !slices.Equal(b2.Options, file.Options) {
			t.Fatalf("%v is saved as %v", file, b2)
		}
	})
}
