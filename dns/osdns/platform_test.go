package osdns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Settings for macOS, according to its manual.
func TestMacFiles(t *testing.T) {
	const head = "# Made by weft for the interface utun7. Taken away when the daemon ends, or by: weft dns restore\n"
	want := map[string]string{
		"weft.internal":       head + "nameserver 100.100.100.100\n",
		"corp.example":        head + "nameserver 100.100.100.100\n",
		"64.100.in-addr.arpa": head + "nameserver 100.100.100.100\n",
		"65.100.in-addr.arpa": head + "nameserver 100.100.100.100\n",
		"search.weft":         head + "search weft.internal\n",
	}
	got := map[string]string{}
	for name, b := range macFiles("utun7", testConfig) {
		got[name] = string(b)
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	all := testConfig
	all.Default = true
	if got, want := macScript(all), `d.init
d.add ServerAddresses * 100.100.100.100
d.add SearchDomains * weft.internal
d.add SupplementalMatchDomains * ""
d.add SupplementalMatchDomainsNoSearch # 1
set State:/Network/Service/weft/DNS
quit
`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := macScript(testConfig); got != "remove State:/Network/Service/weft/DNS\nquit\n" {
		t.Errorf("got %q", got)
	}
}

// Files of other programs stay; our files that are no longer needed are removed.
func TestMacApply(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	dir := filepath.Join(root, macDir)
	var calls []string
	run := func(_ context.Context, stdin, name string, args ...string) (string, error) {
		calls = append(calls, strings.Join(append([]string{name}, args...), " "))
		if name == "killall" {
			return "", errors.New("no such process")
		}
		return "", nil
	}
	m := &macos{root: root, iface: "utun7", run: run}
	if _, err := m.set(ctx, testConfig); err != nil {
		t.Fatal(err)
	}
	if !stands(m) || !slices.Equal(calls, []string{"scutil", "dscacheutil -flushcache", "killall -HUP mDNSResponder"}) {
		t.Errorf("calls %q", calls)
	}
	less := testConfig
	less.Match = []string{"weft.internal"}
	if _, err := m.set(ctx, less); err != nil {
		t.Fatal(err)
	}
	names := func() (out []string) {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			out = append(out, e.Name())
		}
		return out
	}
	if got := names(); !slices.Equal(got, []string{"search.weft", "weft.internal"}) {
		t.Errorf("files %q", got)
	}
	os.WriteFile(filepath.Join(dir, "corp.example"), []byte("nameserver 10.0.0.1\n"), 0o644)
	other := &macos{root: root, iface: "utun8", run: run}
	if _, err := other.set(ctx, Config{Nameserver: testConfig.Nameserver, Match: []string{"other.internal"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.set(ctx, testConfig); err == nil || !strings.Contains(err.Error(), "corp.example") {
		t.Errorf("another program's file: %v", err)
	}
	if err := m.unset(ctx); err != nil {
		t.Fatal(err)
	}
	if got := names(); !slices.Equal(got, []string{"corp.example", "other.internal"}) {
		t.Errorf("files %q", got)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "corp.example")); string(b) != "nameserver 10.0.0.1\n" {
		t.Errorf("another program's file is %q", b)
	}
}

// The format of scutil --dns, written by hand.
const scutilDNS = `DNS configuration

resolver #1
  search domain[0] : fritz.box
  nameserver[0] : 192.168.178.1
  nameserver[1] : fd00::1
  if_index : 14 (en0)
  flags    : Request A records, Request AAAA records
  reach    : 0x00020002 (Reachable,Directly Reachable Address)

resolver #2
  domain   : local
  options  : mdns
  timeout  : 5
  flags    : Request A records, Request AAAA records
  reach    : 0x00000000 (Not Reachable)
  order    : 300000

resolver #3
  domain   : corp.example
  nameserver[0] : 10.0.0.53
  flags    : Request A records, Request AAAA records

DNS configuration (for scoped queries)

resolver #1
  search domain[0] : fritz.box
  nameserver[0] : 192.168.178.99
  if_index : 14 (en0)
`

func TestMacServers(t *testing.T) {
	ours := testConfig.Nameserver
	if got, want := macServers(scutilDNS, ours), ports("192.168.178.1:53", "[fd00::1]:53"); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	first := strings.Replace(scutilDNS, "resolver #1\n", "resolver #1\n  nameserver[0] : 100.100.100.100\n\nresolver #9\n", 1)
	if got, want := macServers(first, ours), ports("192.168.178.1:53", "[fd00::1]:53"); !slices.Equal(got, want) {
		t.Errorf("after our own: %v, want %v", got, want)
	}
	for _, s := range []string{"", "No DNS configuration available\n", "nameserver[0] : x\n"} {
		if got := macServers(s, ours); got != nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// Settings for Windows, according to its manual.
func TestNRPT(t *testing.T) {
	key := `SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DnsPolicyConfig\` + nrptKey("weft0", 0)
	want := []regValue{
		{key, "Version", uint32(2)},
		{key, "Comment", "weft: weft0"},
		{key, "Name", []string{".weft.internal", ".corp.example", ".64.100.in-addr.arpa", ".65.100.in-addr.arpa"}},
		{key, "GenericDNSServers", "100.100.100.100"},
		{key, "ConfigOptions", uint32(8)},
	}
	if got := nrptRules(nrptBase(0), "weft0", testConfig); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if k := nrptKey("weft0", 0); len(k) != 38 || k == nrptKey("weft1", 0) || k == nrptKey("weft0", 1) || k != nrptKey("weft0", 0) {
		t.Errorf("key %s", k)
	}
	// At most 50 domains per rule; beside the rules of a group policy, if there are
	// any.
	many := Config{Nameserver: testConfig.Nameserver, Match: ReverseZones(netip.MustParsePrefix("100.64.0.0/10")), Default: true}
	rules := map[string]int{}
	for _, v := range nrptRules(nrptBase(1), "weft0", many) {
		if l, ok := v.Data.([]string); ok {
			rules[v.Key] = len(l)
		}
		if !strings.HasPrefix(v.Key, nrptPolicy+`\{`) {
			t.Errorf("the rule is below %s", v.Key)
		}
	}
	if rules[nrptPolicy+`\`+nrptKey("weft0", 0)] != 50 || rules[nrptPolicy+`\`+nrptKey("weft0", 1)] != 15 || len(rules) != 2 {
		t.Errorf("rules %v", rules)
	}
	for comment, want := range map[string]bool{"weft: weft0": true, "weft0": false, "weft: a b": false, "": false, "Made by x": false} {
		if _, ours := nrptOwned(comment); ours != want {
			t.Errorf("%q is ours: %v", comment, ours)
		}
	}
	iface := ifaceValues("{G}", many)
	if iface[0] != (regValue{tcpip4 + "{G}", "NameServer", "100.100.100.100"}) || iface[5] != (regValue{tcpip6 + "{G}", "NameServer", ""}) {
		t.Errorf("interface %v", iface)
	}
}

func TestAdapterServers(t *testing.T) {
	addr := netip.MustParseAddr
	got := adapterServers([]adapter{
		{"weft0", "{1}", []netip.Addr{addr("100.100.100.100"), addr("9.9.9.9")}},
		{"Ethernet", "{2}", []netip.Addr{addr("192.168.1.1"), addr("::ffff:192.168.1.1"), addr("fec0:0:0:ffff::1%1"), {}}},
		{"Wi-Fi", "{3}", []netip.Addr{addr("fe80::1%12"), addr("100.100.100.100")}},
	}, "weft0", testConfig.Nameserver)
	if want := ports("192.168.1.1:53", "[fe80::1%12]:53"); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// stands reports whether the settings of b are in place.
func stands(b backend) bool {
	ok, _ := b.intact(context.Background())
	return ok
}
