package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/dns"
	"weft/overlay/status"
)

// The desired DNS of a configuration; invalid names from a server are left out.
func TestWantedDNS(t *testing.T) {
	names := &status.Names{Ready: true, Suffix: "weft.internal", IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd12:3456:789a::/48")}
	c := wantedDNS(names, &dns.Settings{})
	if c.Nameserver != dns.ServiceAddr || !slices.Equal(c.Search, []string{"weft.internal"}) || c.Default || c.SearchLast {
		t.Errorf("%+v", c)
	}
	if c.Match[0] != "weft.internal" || len(c.Match) != 1+64+1 || c.Match[65] != "a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa" {
		t.Errorf("match %q", c.Match)
	}
	c = wantedDNS(names, &dns.Settings{
		Search: []string{"corp.example", "../../etc", "a\nnameserver 6.6.6.6"}, LANNamesWin: true,
		Nameservers: []dns.Nameserver{{Address: "9.9.9.9"}},
		Routes:      []dns.Route{{Suffix: "corp.example"}, {Suffix: ".."}, {Suffix: "10.in-addr.arpa"}},
		Records:     []dns.Record{{Name: "printer"}, {Name: "www.kitchen-pi.weft.internal"}, {Name: "shop.example."}, {Name: "shop.example"}, {Name: "x/y.example"}},
	})
	if !slices.Equal(c.Search, []string{"weft.internal", "corp.example"}) || !c.Default || !c.SearchLast {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(c.Match[:4], []string{"weft.internal", "10.in-addr.arpa", "corp.example", "shop.example"}) {
		t.Errorf("match %q", c.Match[:6])
	}
	for _, suffix := range []string{"", "..", "../../etc", "a\nb"} {
		n := *names
		n.Suffix = suffix
		if c := wantedDNS(&n, nil); !c.IsZero() {
			t.Errorf("the suffix %q gives %+v", suffix, c)
		}
	}
	if !wantedDNS(nil, nil).IsZero() || !wantedDNS(&status.Names{}, nil).IsZero() {
		t.Error("settings are wanted before there is a configuration")
	}
	// The most that a server can send is accepted.
	many := dns.Settings{}
	for i := range 1000 {
		many.Records = append(many.Records, dns.Record{Name: strings.Repeat("a", i%50+1) + "." + strings.Repeat("b", i/50+1)})
	}
	if c := wantedDNS(names, &many); len(c.Match) > 512 {
		t.Errorf("%d domains", len(c.Match))
	}
}

// In user space the system's DNS is not set, and the status says so.
func TestNoOSDNS(t *testing.T) {
	d, _ := newOSDNS(&runOptions{}, nil, nil)
	d.serve(nil, nil, dns.Config{})
	d.kick()
	if _, known := d.base(); known || d.status() != nil {
		t.Error("it sets something")
	}
	d.close()
}
