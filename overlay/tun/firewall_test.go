package tun

import (
	"net/netip"
	"testing"
)

// The rules of Tailscale, as nft prints them.
const tailscaled = `table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		counter packets 10 bytes 840 jump ts-input
	}

	chain ts-input {
		iifname "lo" ip saddr 100.101.102.103 counter packets 0 bytes 0 accept
		iifname != "tailscale0" ip saddr 100.115.92.0/23 counter packets 0 bytes 0 return
		iifname != "tailscale0" ip saddr 100.64.0.0/10 counter packets 3 bytes 180 drop
	}
}
`

func TestFindBlocker(t *testing.T) {
	for _, c := range []struct {
		name, ruleset, net, chain string
	}{
		{"Tailscale's", tailscaled, "100.64.0.0/10", "ts-input"},
		{"another range of ours", tailscaled, "10.7.0.0/16", ""},
		{"a part of it", tailscaled, "100.80.0.0/12", "ts-input"},
		{"a chain without a jump to it", `table ip filter {
	chain ts-input {
		ip saddr 100.64.0.0/10 drop
	}
}`, "100.64.0.0/10", ""},
		{"for another interface", `table inet f {
	chain in {
		type filter hook input priority filter; policy accept;
		iifname "eth0" ip saddr 100.64.0.0/10 drop
		iifname != "weft0" ip saddr 100.64.0.0/10 drop
	}
}`, "100.64.0.0/10", ""},
		{"for our interface", `table inet f {
	chain in {
		type filter hook prerouting priority raw; policy accept;
		iifname "weft0" ip saddr 100.0.0.0/8 reject with icmp host-unreachable
	}
}`, "100.64.0.0/10", "in"},
		{"for all sources", `table inet f {
	chain in {
		type filter hook input priority filter; policy accept;
		goto more
	}
	chain more {
		ip saddr 100.64.0.0/10 drop
	}
}`, "100.64.0.0/10", "more"},
		{"after an accept", `table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		jump ts-input
	}
	chain ts-input {
		iifname "weft0" counter packets 1 bytes 2 accept
		iifname != "tailscale0" ip saddr 100.64.0.0/10 drop
	}
}`, "100.64.0.0/10", ""},
		{"for one device", `table inet f {
	chain in {
		type filter hook input priority filter; policy accept;
		ip saddr 100.64.0.7 drop
		ip saddr 100.64.0.0/24 drop
	}
}`, "100.64.0.0/10", ""},
		{"outgoing packets", `table inet f {
	chain out {
		type filter hook output priority filter; policy accept;
		ip saddr 100.64.0.0/10 drop
	}
}`, "100.64.0.0/10", ""},
		{"junk", "table {\nchain x {\nip saddr 1/99 drop\n}}}", "100.64.0.0/10", ""},
		{"no network", tailscaled, "", ""},
	} {
		net4, _ := netip.ParsePrefix(c.net)
		b, ok := findBlocker(c.ruleset, "weft0", net4)
		if ok != (c.chain != "") || b.chain != c.chain {
			t.Errorf("%s: %+v %v, want chain %q", c.name, b, ok, c.chain)
		}
	}
	b, _ := findBlocker(tailscaled, "weft0", netip.MustParsePrefix("100.64.0.0/10"))
	if want := "nft insert rule ip filter ts-input iifname weft0 accept"; b.cure("weft0") != want {
		t.Errorf("cure %q, want %q", b.cure("weft0"), want)
	}
}

func FuzzFindBlocker(f *testing.F) {
	f.Add(tailscaled, "weft0")
	f.Fuzz(func(t *testing.T, ruleset, name string) {
		findBlocker(ruleset, name, netip.MustParsePrefix("100.64.0.0/10"))
	})
}
