package status

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/internal/directory"
)

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"kitchen-pi": "kitchen-pi", "Kitchen-Pi.weft.internal.": "Kitchen-Pi.weft.internal.", "100.64.0.2": "100.64.0.2",
		"Küche": "xn--kche-0ra", "KÜCHE.weft.internal": "xn--kche-0ra.weft.internal", " Küche ": "xn--kche-0ra", "xn--kche-0ra": "xn--kche-0ra",
		"fd00::1": "fd00::1", "[fd00::1]": "fd00::1", "fe80::1%eth0": "fe80::1%eth0",
		"": "", " ": "", "-x": "", "a b": "", "a;b": "", "ü;b": "", "[kitchen-pi]": "", "[fd00::1": "", "fd00::1]": "", "\xff": "", "a\nb": "", "[-oProxyCommand=x:]": "",
		strings.Repeat("a", 256): "", strings.Repeat("ü", 300): "",
	} {
		got, err := CleanName(in)
		if got != want || (err == nil) != (want != "") || err != nil && (KindOf(err) != KindUsage || (strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "\xff"))) {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestNamesOf(t *testing.T) {
	self, cam, pi, guest := fakeNode(1, "laptop"), fakeNode(2, "cam"), fakeNode(3, "pi"), fakeNode(4, "guest")
	until := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	former := func(names ...string) (list []api.Alias) {
		for _, n := range names {
			list = append(list, api.Alias{Name: n, Until: until})
		}
		return list
	}
	four, six := netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fd00::/48")
	for _, c := range []struct {
		name string
		f    NameFacts
		want Names
	}{
		{"in no network", NameFacts{Serial: 3, NoIPv4: true, Suffix: "x", Complete: true}, Names{Serial: 3, NoIPv4: true}},
		{"alone", NameFacts{Serial: 1, Self: self, Suffix: "weft.internal", IPv4: four, IPv6: six}, Names{
			Ready: true, Serial: 1, Suffix: "weft.internal", IPv4: four, IPv6: six, Peers: []Peer{PeerOf(self, true, true)},
		}},
		{"in order, without itself twice, with former names of who is listed", NameFacts{Self: self, Complete: true, LookedUp: 7, Known: []*directory.Entry{
			{Node: pi, Listed: true, Aliases: former("kitchen-pi", "attic-pi")}, {Node: self, Listed: true}, {Node: guest, Aliases: former("old-guest")}, {Node: cam, Listed: true, Online: true},
		}}, Names{
			Ready: true, Complete: true, LookedUp: 7,
			Peers: []Peer{
				PeerOf(cam, true, false),
				{ID: guest.ID.String(), Name: "guest", FQDN: "guest.weft.internal", IPv4: guest.IPv4, IPv6: guest.IPv6, LookedUp: true},
				PeerOf(self, true, true), PeerOf(pi, false, false),
			},
			Aliases: []Alias{{"attic-pi", "pi", until}, {"kitchen-pi", "pi", until}},
		}},
	} {
		if got := NamesOf(c.f); !reflect.DeepEqual(*got, c.want) {
			g, _ := json.Marshal(got)
			w, _ := json.Marshal(c.want)
			t.Errorf("%s:\n got %s\nwant %s", c.name, g, w)
		}
	}
}
