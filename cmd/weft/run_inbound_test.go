package main

import (
	"net/netip"
	"strings"
	"testing"
)

func TestInboundPolicy(t *testing.T) {
	peer := netip.MustParseAddrPort("100.64.0.9:40000")
	own := map[uint16]bool{1055: true}
	const closed = "closed"
	for flag, want := range map[string]map[uint16]string{
		"all":                {80: "", 8001: "", 1055: closed},
		"none":               {80: closed},
		"80,81=8000":         {80: "", 81: "localhost:8000", 82: closed},
		"all,8001=[::1]:80":  {80: "", 8001: "[::1]:80", 1055: closed},
		"8001=[::1]:80, all": {80: "", 8001: "[::1]:80", 1055: closed},
		"80=[::1]:1055":      {80: closed},
	} {
		rules, err := parseInbound(flag)
		if err != nil {
			t.Fatal(err)
		}
		for port, want := range want {
			target, ok := rules.policy(own).TCP(peer, netip.AddrPortFrom(netip.MustParseAddr("100.64.0.1"), port))
			if !ok {
				target = closed
			}
			if target != want {
				t.Errorf("%s: port %d leads to %q, want %q", flag, port, target, want)
			}
		}
	}
	for _, flag := range []string{"all,none", "80=[::1]", "all,80,80", "x"} {
		if _, err := parseInbound(flag); !isUsage(err) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// The warning about an unreachable program says how to open it, and what that means.
func TestInboundLoopback6Says(t *testing.T) {
	for flag, want := range map[string]string{"all": "--inbound all,81=[::1]:8001;", "81=8001": "81=[::1]:8001 in --inbound;"} {
		rules, err := parseInbound(flag)
		if err != nil {
			t.Fatal(err)
		}
		if got := rules.only6(81, 8001); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q in it", flag, got, want)
		}
	}
}
