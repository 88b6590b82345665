package dns

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestSettingsProblems(t *testing.T) {
	for _, c := range []struct {
		s    Settings
		want string // parts, in order
	}{
		{Settings{}, ""},
		{Settings{TTL: 61}, "ttl"},
		{Settings{TTL: -1}, "ttl"},
		{Settings{Search: []string{"ok.example", "..", "a\nb", "../../etc"}}, "search[1] search[2] search[3]"},
		{Settings{Records: []Record{
			{Name: "a", Type: "A", Value: "192.0.2.1"},
			{Name: "a", Type: "A", Value: "192.0.2.1"},
			{Name: "a", Type: "A", Value: "2001:db8::1"},
			{Name: "a", Type: "CNAME", Value: "b"},
			{Name: "c", Type: "cname", Value: "b"},
			{Name: "c", Type: "A", Value: "192.0.2.1"},
			{Name: "@", Type: "CNAME", Value: "b"},
			{Name: "*", Type: "A", Value: "192.0.2.1"},
			{Name: "d", Type: "NS", Value: "b"},
			{Name: "d", Type: "MX", Value: "mail"},
			{Name: "d", Type: "SRV", Value: "1 2 70000 x"},
			{Name: "d", Type: "TXT", Value: ""},
			{Name: "d e", Type: "TXT", Value: "x"},
			{Name: strings.Repeat("a", 64), Type: "TXT", Value: "x"},
			{Name: "f", Type: "TXT", Value: "x", TTL: -1},
		}}, "records[1] records[2] records[3] records[5] records[6] records[7] records[8] records[9] records[10] records[11] records[12] records[13] records[14]"},
		{Settings{Aliases: []Alias{{Name: "a", Target: "b"}, {Name: "a", Target: "a"}, {Name: "a.example", Target: "b"}, {Name: "@", Target: "b"}}}, "aliases[1] aliases[2] aliases[3]"},
		{Settings{Wildcards: []string{"a", "@", "b.example"}}, "wildcards[1] wildcards[2]"},
		{Settings{Routes: []Route{
			{Suffix: "corp.example", Nameservers: []Nameserver{{Address: "192.0.2.1"}}},
			{Suffix: "corp.EXAMPLE."},
			{Suffix: "x.weft.internal"},
			{Suffix: "weft.internal."},
			{Suffix: "b.example", Nameservers: []Nameserver{{Address: "ftp://x"}}},
		}}, "routes[1] routes[2] routes[3] routes[b.example].nameservers[0]"},
		{Settings{Nameservers: []Nameserver{
			{Address: "192.0.2.1"}, {Address: "[2001:db8::1]:53"}, {Address: "tls://dns.example"}, {Address: "https://dns.example/q{?dns}"},
			{Address: "tls://dns.example/x"}, {Address: "dns.example"}, {Address: "https://u:p@dns.example/"}, {Address: "tls://dns.example", Bootstrap: []string{"x"}},
		}}, "nameservers[4] nameservers[5] nameservers[6] nameservers[7]"},
		{Settings{Nameservers: slices.Repeat([]Nameserver{{Address: "192.0.2.1"}}, 9)}, "nameservers[8]"},
	} {
		var got []string
		for _, p := range Problems(&c.s, "weft.internal") {
			got = append(got, p.Part)
			if strings.ContainsAny(p.Text, "\n") || p.Text == "" {
				t.Errorf("%s: %q", p.Part, p.Text)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v:\n got %v\nwant %s", c.s, got, c.want)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("www", "TXT", "x", "tls://dns.example", "corp.example")
	f.Add("*.a", "SRV", "0 5 443 .", "https://[::1]:8443/q", "1.168.192.in-addr.arpa")
	f.Add("küche", "CNAME", "@", "192.0.2.1:53", "@")
	f.Fuzz(func(t *testing.T, name, typ, value, server, suffix string) {
		s := Settings{
			Records:   []Record{{Name: name, Type: typ, Value: value}},
			Aliases:   []Alias{{Name: name, Target: value}},
			Wildcards: []string{name},
			Routes:    []Route{{Suffix: suffix, Nameservers: []Nameserver{{Address: server, Bootstrap: []string{value}}}}},
		}
		Problems(&s, "weft.internal")
		for _, set := range compile(&s, "weft.internal.").records {
			for _, rr := range set.rrs {
				if _, err := dns.PackRR(rr, make([]byte, 8192), 0, nil, false); err != nil {
					t.Fatalf("%v: %v", rr, err)
				}
			}
		}
	})
}
