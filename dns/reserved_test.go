package dns

import (
	"context"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// Names under which programs would trust a device are not answered from a device, even
// in a network that let a device have one or caches it. They are answered from a record
// that an owner made.
func TestReservedNames(t *testing.T) {
	zone := *testZone
	zone.Hosts = append([]Host{
		{Name: "WPAD", IPv4: netip.MustParseAddr("100.64.0.21")},
		{Name: "salt", IPv4: netip.MustParseAddr("100.64.0.22")},
		{Name: "metadata", IPv4: netip.MustParseAddr("100.64.0.23")},
	}, zone.Hosts...)
	settings := &Settings{
		Aliases: []Alias{{Name: "isatap", Target: "kitchen-pi"}, {Name: "hall", Target: "kitchen-pi"}},
		Records: []Record{
			{Name: "puppet", Type: "A", Value: "100.64.0.2"}, {Name: "salt", Type: "A", Value: "100.64.0.2"},
			{Name: "autoconfig", Type: "TXT", Value: "none here"},
		},
	}
	for _, complete := range []bool{true, false} {
		zone := zone // a copy per iteration: each server reads its own
		zone.Complete = complete
		asked := make(chan string, 100)
		_, addr := start(t, Config{
			ShortNames: true,
			Zone:       func() *Zone { return &zone },
			Settings:   func() *Settings { return settings },
			Lookup: func(_ context.Context, name string, _ netip.Addr) (Host, error) {
				asked <- name
				return Host{Name: name, IPv4: netip.MustParseAddr("100.64.0.30")}, nil
			},
		})
		for _, c := range []struct {
			name    string
			typ     uint16
			rcode   int
			answers string
		}{
			{"wpad.weft.internal.", dns.TypeA, dns.RcodeNameError, ""},
			{"WPad.weft.internal.", dns.TypeA, dns.RcodeNameError, ""},
			{"wpad.", dns.TypeA, dns.RcodeNameError, ""},
			{"isatap.weft.internal.", dns.TypeA, dns.RcodeNameError, ""},
			{"autodiscover.weft.internal.", dns.TypeA, dns.RcodeNameError, ""},
			{"metadata.weft.internal.", dns.TypeANY, dns.RcodeNameError, ""},
			{"autoconfig.weft.internal.", dns.TypeA, dns.RcodeSuccess, ""},
			{"autoconfig.weft.internal.", dns.TypeTXT, dns.RcodeSuccess, `"none here"`},
			{"puppet.weft.internal.", dns.TypeA, dns.RcodeSuccess, "100.64.0.2"},
			{"salt.weft.internal.", dns.TypeA, dns.RcodeSuccess, "100.64.0.2"}, // the record, not the device
			{"hall.weft.internal.", dns.TypeA, dns.RcodeSuccess, "100.64.0.2 kitchen-pi.weft.internal."},
			{"kitchen-pi.", dns.TypeA, dns.RcodeSuccess, "100.64.0.2"},
		} {
			r := ask(t, addr, "udp", c.name, c.typ)
			if r.Rcode != c.rcode || answers(r) != c.answers {
				t.Errorf("complete %v, %s %s: %v", complete, c.name, dns.TypeToString[c.typ], r)
			}
		}
		if len(asked) > 0 {
			t.Errorf("complete %v: the server was asked for %s", complete, <-asked)
		}
	}
}

func TestReserved(t *testing.T) {
	for name, want := range map[string]bool{"wpad": true, "LocalHost": true, "ip6-loopback": true, "kitchen-pi": false, "wpad-1": false, "www": false, "gateway": false, "": false} {
		if Reserved(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
