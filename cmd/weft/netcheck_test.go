package main

import (
	"strings"
	"testing"

	"weft/overlay/netcheck"
)

func TestPrintNetcheck(t *testing.T) {
	ms := func(v float64) *float64 { return &v }
	n := netcheck.Report{
		Links: []netcheck.LinkCheck{
			{Kind: "server", URL: "https://weft.example:8443", RTTms: ms(3.14)},
			{Kind: "relay", URL: "https://near.example:8443", RTTms: ms(1), Current: true},
			{Kind: "relay", URL: "https://far.example:8443", Error: "timeout\x1b[31m"},
		},
		STUN:        []netcheck.UDPReply{{Server: "near.example:3478", RTTms: ms(1.2), Endpoint: "198.51.100.7:41641"}},
		IPv4:        netcheck.FamilyCheck{UDP: true, Endpoint: "198.51.100.7:41641", Text: "easy NAT"},
		IPv6:        netcheck.FamilyCheck{Text: "no IPv6 address"},
		PortMapping: netcheck.PortMapCheck{Text: "PCP by 192.168.1.1"},
		Direct:      "direct paths with nearly every peer",
	}
	var b strings.Builder
	printNetcheck(&b, n)
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"server https://weft.example:8443 3.1 ms",
		"relay https://near.example:8443 1.0 ms (home)",
		"relay https://far.example:8443 no answer: timeout",
		"udp near.example:3478 1.2 ms, seen as 198.51.100.7:41641",
		"IPv4 UDP works; seen from outside this device is 198.51.100.7:41641; easy NAT",
		"IPv6 no IPv6 address",
		"port mapping PCP by 192.168.1.1",
		"direct paths with nearly every peer",
	}
	if len(got) != len(want) {
		t.Fatalf("got:\n%s", b.String())
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) || strings.Contains(got[i], "\x1b") {
			t.Errorf("line %d: %q, want %q", i, got[i], want[i])
		}
	}
	b.Reset()
	printNetcheck(&b, netcheck.Report{})
	if !strings.Contains(b.String(), "weft up TOKEN") {
		t.Errorf("unjoined: %s", b.String())
	}
}
