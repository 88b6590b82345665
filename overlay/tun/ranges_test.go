package tun

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"weft/overlay/status"
)

func TestDecide(t *testing.T) {
	p := netip.MustParsePrefix
	v4, v6 := p("100.64.0.0/10"), p("fd00:1:2::/48")
	for _, c := range []struct {
		name            string
		want            netip.Prefix
		routes          []route
		set             bool
		covered, within int
	}{
		{"no other routes", v4, nil, true, 0, 0},
		{"no range", netip.Prefix{}, []route{{v4, "eth0", true}}, false, 0, 0},
		{"an ordinary LAN", v4, []route{{p("192.168.1.0/24"), "eth0", true}, {p("0.0.0.0/0"), "eth0", true}}, true, 0, 0},
		{"a VPN's two halves of the Internet", v4, []route{{p("0.0.0.0/1"), "vpn", true}, {p("128.0.0.0/1"), "vpn", true}}, true, 0, 0},
		{"the same range", v4, []route{{v4, "eth0", true}}, false, 1, 0},
		{"the same range, unreachable", v4, []route{{v4, "", true}}, false, 1, 0},
		{"a LAN around it", v4, []route{{p("100.0.0.0/8"), "eth0", true}}, false, 1, 0},
		{"a carrier's NAT", v4, []route{{p("100.72.3.0/24"), "wan", true}}, true, 0, 1},
		{"one host (TunnelVision)", v4, []route{{p("100.64.3.7/32"), "eth0", true}}, true, 0, 1},
		{"around it in another table", v4, []route{{p("100.0.0.0/8"), "eth0", false}}, true, 0, 0},
		{"one host in another table", v4, []route{{p("100.64.3.7/32"), "ts0", false}}, true, 0, 1},
		{"both", v4, []route{{v4, "eth0", true}, {p("100.64.3.7/32"), "eth0", true}}, false, 1, 1},
		{"the other family", v6, []route{{v4, "eth0", true}}, true, 0, 0},
		{"all of ULA", v6, []route{{p("fc00::/7"), "eth0", true}, {p("::/0"), "eth0", true}}, true, 0, 0},
		{"another ULA", v6, []route{{p("fd00:1:3::/48"), "eth0", true}}, true, 0, 0},
		{"our ULA", v6, []route{{p("fd00:1:2::/48"), "eth0", true}}, false, 1, 0},
		{"a part of our ULA", v6, []route{{p("fd00:1:2:3::/64"), "eth0", true}}, true, 0, 1},
		{"an invalid one", v4, []route{{}}, true, 0, 0},
	} {
		d := decide(c.want, c.routes)
		if d.set != c.set || len(d.covered) != c.covered || len(d.within) != c.within {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

func TestCheckRange(t *testing.T) {
	for s, ok := range map[string]bool{
		"100.64.0.0/10": true, "100.100.0.0/16": true, "10.9.0.0/16": true, "192.168.4.0/24": true, "172.16.0.0/12": true,
		"0.0.0.0/0": false, "0.0.0.0/1": false, "100.64.0.0/9": false, "8.8.8.0/24": false, "127.0.0.0/8": false, "169.254.0.0/16": false, "224.0.0.0/4": false,
		"fd00::/48": true, "fd00:1::/32": true, "fd00::/8": false, "fc00::/7": false, "::/0": false, "2001:db8::/32": false, "fe80::/64": false, "ff00::/8": false,
	} {
		p := netip.MustParsePrefix(s)
		if err := checkRange(p, p.Addr().Is4()); (err == nil) != ok {
			t.Errorf("%s: %v", s, err)
		}
		if err := checkRange(p, !p.Addr().Is4()); err == nil {
			t.Errorf("%s is taken for the other family", s)
		}
	}
	if err := checkRange(netip.Prefix{}, true); err != nil {
		t.Error(err)
	}
}

// Each warning is sent once, changes, and is cleared; an invalid range changes nothing.
func TestWarnings(t *testing.T) {
	var mu sync.Mutex
	now := map[status.Code]string{}
	sent := 0
	n, _, l := newTestNet(t, Config{
		Warn:  func(code status.Code, msg string) { mu.Lock(); now[code] = msg; sent++; mu.Unlock() },
		Clear: func(code status.Code) { mu.Lock(); delete(now, code); mu.Unlock() },
	})
	expect := func(codes ...status.Code) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(now)); !slices.Equal(got, codes) {
			t.Errorf("warnings %v, want %v", now, codes)
		}
	}
	expect()
	lan := []route{{netip.MustParsePrefix("100.64.0.0/10"), "eth0", true}}
	l.report = report{range4: decision{covered: lan}, range6: decision{within: lan}, noIPv6: errors.New("off")}
	n.restore()
	expect("route-overlap:4", "route-overlap:6", "tun-no-ipv6")
	for _, msg := range now {
		if strings.Contains(msg, "\n") || len(msg) > 400 {
			t.Errorf("%q", msg)
		}
	}
	before := sent
	n.restore()
	if sent != before {
		t.Error("the same warning was sent again")
	}
	l.report = report{down: true}
	n.restore()
	expect("tun-down")
	l.report = report{}
	n.restore()
	expect()

	if err := n.SetRanges(netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fd00:1:2::/48")); err != nil {
		t.Fatal(err)
	}
	want := l.want
	if err := n.SetRanges(netip.MustParsePrefix("0.0.0.0/0"), netip.Prefix{}); err == nil || l.want != want {
		t.Errorf("all of the Internet: %v, %v", err, l.want)
	}
}

// Gone is called once when the interface is removed.
func TestGone(t *testing.T) {
	gone := make(chan error, 2)
	n, d, l := newTestNet(t, Config{Gone: func(err error) { gone <- err }})
	l.err = errGone
	n.restore()
	n.restore()
	d.err = errGone
	n.Write([][]byte{udp(peer4, self4, 1, 2, nil)}, 0)
	if err := <-gone; !errors.Is(err, errGone) || len(gone) != 0 {
		t.Errorf("%v, %d more", err, len(gone))
	}
}
