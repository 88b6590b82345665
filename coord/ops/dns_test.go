package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/store"
	"weft/coord/store/storetest"
	"weft/overlay/api"
	"weft/overlay/cert"
)

func (s *site) edit(e DNSEdit) DNSInfo {
	s.t.Helper()
	i, err := s.EditDNS(context.Background(), e)
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

func (s *site) add(name, typ, value string) error {
	_, err := s.EditDNS(context.Background(), DNSEdit{AddRecord: &NewRecord{DNSRecord: api.DNSRecord{Name: name, Type: typ, Value: value}}})
	return err
}

func (s *site) config(d *device) *api.Config {
	s.t.Helper()
	c, err := d.Config(context.Background(), api.Version{})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// Extra records: what is good is in everybody's config, what is not is refused
// as a whole and says why.
func TestRecordsAreChecked(t *testing.T) {
	s := openSite(t, func(o *Options) { o.URLs = []string{"https://weft.example.com:8443"} })
	laptop := s.laptop("laptop")
	s.camera("kitchen-pi")
	for _, c := range []struct {
		r    NewRecord
		err  error
		text string // of the error
		name string // as it is stored
	}{
		{NewRecord{DNSRecord: api.DNSRecord{Name: "www", Type: "a", Value: "192.0.2.1"}}, nil, "", "www"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "www", Type: "A", Value: "192.0.2.2", TTL: 60}}, nil, "", "www"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "www", Type: "A", Value: "192.0.2.1"}}, ErrInvalid, "the same record twice", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "WWW.weft.internal.", Type: "AAAA", Value: "2001:db8::1"}}, nil, "", "www"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "www", Type: "CNAME", Value: "kitchen-pi"}}, ErrInvalid, "no other record", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "app", Type: "CNAME", Value: "kitchen-pi"}}, nil, "", "app"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "app", Type: "TXT", Value: "x"}}, ErrInvalid, "no other record", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "@", Type: "MX", Value: "10 kitchen-pi"}}, nil, "", "@"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "weft.internal", Type: "CNAME", Value: "kitchen-pi"}}, ErrInvalid, "CNAME", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "_http._tcp.kitchen-pi.weft.internal", Type: "SRV", Value: "0 5 80 kitchen-pi"}}, nil, "", "_http._tcp.kitchen-pi.weft.internal"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "küche", Type: "TXT", Value: "  spaces stay "}}, nil, "", "xn--kche-0ra"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "100.64.9.9", Type: "PTR", Value: "www"}}, nil, "", "100.64.9.9"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "*.app2.weft.internal", Type: "A", Value: "192.0.2.3"}}, nil, "", "*.app2.weft.internal"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "*.weft.internal", Type: "A", Value: "192.0.2.3"}}, ErrInvalid, "every name", ""},
		// A device wins over a record: nobody wants that by accident.
		{NewRecord{DNSRecord: api.DNSRecord{Name: "kitchen-pi", Type: "A", Value: "192.0.2.1"}}, ErrTaken, "is the name of a device", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "kitchen-pi", Type: "A", Value: "192.0.2.1"}, Shadow: true}, nil, "", "kitchen-pi"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "kitchen-pi", Type: "TXT", Value: "beside a device"}}, nil, "", "kitchen-pi"},
		// A full name by accident, and on purpose.
		{NewRecord{DNSRecord: api.DNSRecord{Name: "www.kitchen-pi", Type: "A", Value: "192.0.2.1"}}, ErrInvalid, "write www.kitchen-pi.weft.internal", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "intranet.example.org", Type: "A", Value: "192.0.2.1"}, Outside: true}, nil, "", "intranet.example.org"},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "weft.example.com", Type: "A", Value: "192.0.2.1"}, Outside: true}, ErrInvalid, "the server's own name", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "a b", Type: "A", Value: "192.0.2.1"}}, ErrInvalid, "", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "", Type: "A", Value: "192.0.2.1"}}, ErrInvalid, "", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: strings.Repeat("a", 64), Type: "A", Value: "192.0.2.1"}}, ErrInvalid, "", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "x", Type: "A", Value: "2001:db8::1"}}, ErrInvalid, "IPv4", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "x", Type: "NS", Value: "y"}}, ErrInvalid, "want one of", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "x", Type: "A", Value: "192.0.2.1", TTL: 86401}}, ErrInvalid, "ttl", ""},
		{NewRecord{DNSRecord: api.DNSRecord{Name: "x", Type: "TXT", Value: strings.Repeat("x", 5000)}}, ErrInvalid, "4096", ""},
	} {
		before := s.config(laptop)
		_, err := s.EditDNS(t.Context(), DNSEdit{AddRecord: &c.r})
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v, want %v %q", c.r, err, c.err, c.text)
			continue
		}
		after := s.config(laptop)
		if c.err != nil {
			if after.Version != before.Version || len(after.DNS.Records) != len(before.DNS.Records) {
				t.Errorf("%+v: refused, and something changed", c.r)
			}
			continue
		}
		want := api.DNSRecord{Name: c.name, Type: strings.ToUpper(c.r.Type), Value: c.r.Value, TTL: c.r.TTL}
		if after.Version == before.Version || !slices.Contains(after.DNS.Records, want) {
			t.Errorf("%+v: not in the config: %+v", c.r, after.DNS.Records)
		}
	}
	// Removing: by name and type, by value, by id.
	s.edit(DNSEdit{RemoveRecord: &RecordMatch{Name: "www", Type: "A", Value: "192.0.2.2"}})
	i := s.edit(DNSEdit{RemoveRecord: &RecordMatch{Name: "www.weft.internal", Type: "aaaa"}})
	n := len(i.Records)
	i = s.edit(DNSEdit{RemoveRecord: &RecordMatch{ID: i.Records[0].ID}})
	if len(i.Records) != n-1 {
		t.Errorf("%d records, want %d", len(i.Records), n-1)
	}
	for _, m := range []RecordMatch{{Name: "nobody"}, {ID: "x"}, {Name: "www", Type: "A", Value: "192.0.2.77"}} {
		if _, err := s.EditDNS(t.Context(), DNSEdit{RemoveRecord: &m}); !errors.Is(err, ErrNotFound) {
			t.Errorf("remove %+v: %v", m, err)
		}
	}
}

func TestRecordsAreBounded(t *testing.T) {
	s := openSite(t)
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = s.add(fmt.Sprintf("t%d", n), "TXT", strings.Repeat("x", 4000))
	}
	if !errors.Is(err, ErrInvalid) || n*4000 > maxRecordBytes+4000 || !strings.Contains(err.Error(), "bytes together") {
		t.Errorf("%d records: %v", n, err)
	}
	if err := s.add("short", "A", "192.0.2.1"); err != nil { // there is a little room
		t.Error(err)
	}
}

// Options, routes and nameservers, and what is refused about them.
func TestRoutesAndOptions(t *testing.T) {
	s := openSite(t, func(o *Options) { o.URLs = []string{"https://vpn.corp.example:8443"} })
	laptop := s.laptop("laptop")
	route := func(suffix string, servers ...string) DNSEdit {
		r := api.DNSRoute{Suffix: suffix}
		for _, a := range servers {
			r.Nameservers = append(r.Nameservers, api.Nameserver{Address: a})
		}
		return DNSEdit{AddRoute: &r}
	}
	resolvers := func(list ...api.Nameserver) DNSEdit { return DNSEdit{Nameservers: &list} }
	options := func(kv ...string) DNSEdit {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return DNSEdit{Options: m}
	}
	search := func(list ...string) DNSEdit { return DNSEdit{Search: &list} }
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		name string
		e    DNSEdit
		want string // of the error, "" for none
	}{
		{"route", route("Example.ORG.", "192.0.2.53", "tls://dns.example", "https://dns.example/dns-query"), ""},
		{"route to the machine's own", route("lan"), ""},
		{"reverse zone", route("10.in-addr.arpa", "10.0.0.1:5353"), ""},
		{"IDN", route("bücher.example", "192.0.2.53"), ""},
		{"B32: over the server's name", route("corp.example", "192.0.2.53"), "covers the server's own name vpn.corp.example"},
		{"B32: the server's name", route("vpn.corp.example", "192.0.2.53"), "covers the server's own name"},
		{"beside the server's name", route("www.corp.example", "192.0.2.53"), ""},
		{"own zone", route("x.weft.internal", "192.0.2.53"), "never leave it"},
		{"B44: itself", route("example.net", "100.100.100.100"), "ask itself"},
		{"bad upstream", route("example.net", "dns.example"), "route"},
		{"bad suffix", route("a b", "192.0.2.53"), "route"},
		{"no suffix", route("", "192.0.2.53"), "route"},
		{"remove none", DNSEdit{RemoveRoute: text("nothing.example")}, "not found"},
		{"nameservers", resolvers(api.Nameserver{Address: "https://dns.quad9.net/dns-query", Bootstrap: []string{"9.9.9.9"}}), ""},
		{"B44: itself by https", resolvers(api.Nameserver{Address: "https://100.100.100.100/dns-query"}), "ask itself"},
		{"B44: itself by bootstrap", resolvers(api.Nameserver{Address: "tls://dns.example", Bootstrap: []string{"100.100.100.100"}}), "ask itself"},
		{"bad bootstrap", resolvers(api.Nameserver{Address: "tls://dns.example", Bootstrap: []string{"x"}}), "bootstrap"},
		{"too many", resolvers(make([]api.Nameserver, 9)...), "nameservers"},
		{"search", search("Example.org", "lan", "lan."), ""},
		{"bad search", search("a b"), "search"},
		{"ttl", options("ttl", "30", "stop-rebinding", "on", "keep-browsers", "on", "serve-stale", "off", "query-log", "off", "lan-names-win", "yes"), ""},
		{"rebinding", options("rebinding-allowed", "plex.direct, example.net"), ""},
		{"portal", options("portal-url", "http://portal.example/204"), ""},
		{"bad portal", options("portal-url", "ftp://x"), "portal-url"},
		{"bad ttl", options("ttl", "61"), "1 to 60"},
		{"bad flag", options("query-log", "maybe"), "on or off"},
		{"unknown", options("nonsense", "1"), "no option"},
	} {
		before := s.Versions(laptop.id).Config
		_, err := s.EditDNS(t.Context(), c.e)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotFound)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if changed := s.Versions(laptop.id).Config != before; changed != (c.want == "") {
			t.Errorf("%s: the config's version moved: %v", c.name, changed)
		}
	}
	d := s.config(laptop).DNS
	var suffixes []string
	for _, r := range d.Routes {
		suffixes = append(suffixes, r.Suffix)
	}
	if got := strings.Join(suffixes, " "); got != "10.in-addr.arpa example.org lan www.corp.example xn--bcher-kva.example" {
		t.Errorf("routes %s", got)
	}
	if len(d.Routes[1].Nameservers) != 3 || len(d.Nameservers) != 1 || !slices.Equal(d.Nameservers[0].Bootstrap, []string{"9.9.9.9"}) ||
		!slices.Equal(d.Search, []string{"example.org", "lan"}) || d.TTL != 30 || !d.StopRebinding || !d.KeepBrowsers || !d.NoStale || d.QueryLog || !d.LANNamesWin ||
		!slices.Equal(d.RebindingAllowed, []string{"plex.direct", "example.net"}) || d.PortalURL != "http://portal.example/204" {
		t.Errorf("config has %+v", d)
	}
	s.edit(DNSEdit{RemoveRoute: text("lan")})
	i, _ := s.DNS(t.Context())
	for _, o := range DNSOptions {
		if o.Name == "serve-stale" && o.Value(i.DNS) != "off" || o.Name == "ttl" && o.Value(i.DNS) != "30" {
			t.Errorf("%s is %q", o.Name, o.Value(i.DNS))
		}
	}
}

// A zone that would hold the server's own name is refused at the start.
func TestSuffixOverTheServer(t *testing.T) {
	for _, c := range []struct {
		suffix, url string
		ok          bool
	}{
		{"example.com", "https://weft.example.com:8443", false},
		{"weft.example.com", "https://weft.example.com:8443", false},
		{"net.example.com", "https://weft.example.com:8443", true},
		{"example.com", "https://192.0.2.1:8443", true},
	} {
		o := Options{Data: t.TempDir(), Create: true, URLs: []string{c.url}, Suffix: c.suffix}
		storetest.Schema(t, o.Data)
		s, err := OpenService(t.Context(), o)
		if err == nil {
			s.Close()
		}
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "own name") {
			t.Errorf("%s with %s: %v", c.suffix, c.url, err)
		}
	}
}

// What the owner decided is there after a restart.
func TestDNSSurvivesARestart(t *testing.T) {
	data := t.TempDir()
	open := func() *site { return openSite(t, func(o *Options) { o.Data = data }) }
	s := open()
	pi := s.camera("kitchen-pi")
	on := true
	if err := s.add("www", "A", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	s.edit(DNSEdit{Options: map[string]string{"ttl": "9", "alias-days": "3"}})
	if _, err := s.SetDeviceDNS(t.Context(), pi.id, DeviceDNS{Wildcard: &on, LANNames: "on"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RenameDevice(t.Context(), pi.id, "hall"); err != nil {
		t.Fatal(err)
	}
	before := s.config(pi)
	s.Close()
	s = open()
	after, err := s.configOf(mustNode(t, s, pi.id))
	if err != nil {
		t.Fatal(err)
	}
	if after.Version != before.Version || fmt.Sprint(after.DNS) != fmt.Sprint(before.DNS) {
		t.Errorf("%v %+v\nwas %v %+v", after.Version, after.DNS, before.Version, before.DNS)
	}
	d := after.DNS
	if d.TTL != 9 || len(d.Records) != 1 || !d.LANNamesWin || !slices.Equal(d.Wildcards, []string{"hall"}) || len(d.Aliases) != 1 || d.Aliases[0].Name != "kitchen-pi" || d.Aliases[0].Target != "hall" {
		t.Errorf("%+v", d)
	}
}

func TestDeviceSwitches(t *testing.T) {
	s := openSite(t)
	laptop, other := s.laptop("laptop"), s.camera("cam")
	pi := s.camera("kitchen-pi")
	on, off := true, false
	set := func(d DeviceDNS) {
		t.Helper()
		if _, err := s.SetDeviceDNS(t.Context(), pi.id, d); err != nil {
			t.Fatal(err)
		}
	}
	// The LAN switch is the device's own matter.
	l, o, p := s.Versions(laptop.id), s.Versions(other.id), s.Versions(pi.id)
	set(DeviceDNS{LANNames: "on"})
	if s.Versions(laptop.id) != l || s.Versions(other.id) != o || s.Versions(pi.id) == p {
		t.Error("the LAN switch of one device is in other nodes' configs, or not in its own")
	}
	if !s.config(pi).DNS.LANNamesWin || s.config(laptop).DNS.LANNamesWin {
		t.Error("LAN names")
	}
	s.edit(DNSEdit{Options: map[string]string{"lan-names-win": "on"}})
	set(DeviceDNS{LANNames: "off"})
	if s.config(pi).DNS.LANNamesWin || !s.config(laptop).DNS.LANNamesWin {
		t.Error("LAN names of one device against the network's")
	}
	// A wildcard is told to those who see the device.
	set(DeviceDNS{Wildcard: &on})
	for d, want := range map[*device]int{laptop: 1, pi: 1, other: 0} {
		if got := s.config(d).DNS.Wildcards; len(got) != want {
			t.Errorf("%s is told of wildcards %v", d.name(), got)
		}
	}
	if _, err := s.RenameDevice(t.Context(), pi.id, "hall"); err != nil {
		t.Fatal(err)
	}
	if got := s.config(laptop).DNS.Wildcards; !slices.Equal(got, []string{"hall"}) {
		t.Errorf("after the rename: %v", got)
	}
	set(DeviceDNS{Wildcard: &off})
	if got := s.config(laptop).DNS.Wildcards; len(got) != 0 {
		t.Errorf("after switching it off: %v", got)
	}
	set(DeviceDNS{Wildcard: &on})
	if _, err := s.DeleteDevice(t.Context(), pi.id); err != nil {
		t.Fatal(err)
	}
	if got := s.config(laptop).DNS.Wildcards; len(got) != 0 {
		t.Errorf("after deleting it: %v", got)
	}
	if _, err := s.SetDeviceDNS(t.Context(), other.id, DeviceDNS{LANNames: "maybe"}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// A rename that is taken back at once leaves nothing: the name between is free, and leads
// nowhere. One that is taken back later keeps both names.
func TestRenameUndone(t *testing.T) {
	s := openSite(t)
	d, other := s.camera("door"), s.camera("other")
	rename := func(d *device, name string) error {
		_, err := s.RenameDevice(t.Context(), d.id, name)
		return err
	}
	former := func() (names []string) {
		for _, a := range s.aliasInfos(d.id) {
			names = append(names, a.Name)
		}
		return names
	}
	for _, name := range []string{"gate", "dor", "gate"} {
		s.clock.Add(time.Minute)
		if err := rename(d, name); err != nil {
			t.Fatal(err)
		}
	}
	if got := former(); !slices.Equal(got, []string{"door"}) {
		t.Errorf("former names %v after one was undone", got)
	}
	if _, err := s.FindDevice(t.Context(), "dor"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the name that was undone leads to something: %v", err)
	}
	if err := rename(other, "dor"); err != nil {
		t.Errorf("the name that was undone, for another device: %v", err)
	}
	s.clock.Add(undoneWithin)
	if err := rename(d, "door"); err != nil {
		t.Fatal(err)
	}
	if got := former(); !slices.Equal(got, []string{"gate"}) {
		t.Errorf("former names %v after an old one was taken back", got)
	}
}

// An old name leads to its device for a while, in the directory and by lookup,
// and nobody else gets it.
func TestFormerName(t *testing.T) {
	s := openSite(t)
	laptop, pi := s.laptop("laptop"), s.camera("kitchen-pi")
	var h held
	h.fetch(t, s, laptop)
	if _, err := s.RenameDevice(t.Context(), pi.id, "hall"); err != nil {
		t.Fatal(err)
	}
	aliasesOf := func() string {
		t.Helper()
		dir := h.fetch(t, s, laptop)
		if dir.Full || len(dir.Peers) != 1 {
			t.Fatalf("%+v", dir)
		}
		var names []string
		for _, a := range dir.Peers[0].Aliases {
			names = append(names, a.Name)
		}
		return strings.Join(names, " ")
	}
	if got := aliasesOf(); got != "kitchen-pi" {
		t.Errorf("the delta says %q", got)
	}
	for _, name := range []string{"kitchen-pi", "KITCHEN-PI.weft.internal."} {
		if p, err := laptop.Lookup(t.Context(), "name", name); err != nil || len(p.Aliases) != 1 {
			t.Errorf("lookup %s: %+v, %v", name, p, err)
		}
	}
	if info := s.View(mustNode(t, s, pi.id)); len(info.Aliases) != 1 || info.Aliases[0].Name != "kitchen-pi" {
		t.Errorf("devices show: %+v", info.Aliases)
	}
	// Not anybody else's, whichever way they ask.
	second := s.camera("kitchen-pi")
	if second.name() != "kitchen-pi-1" {
		t.Errorf("a new device got %s", second.name())
	}
	if _, err := s.RenameDevice(t.Context(), second.id, "kitchen-pi"); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "was the name of hall") {
		t.Errorf("rename to a former name: %v", err)
	}
	if err := s.add("kitchen-pi", "A", "192.0.2.1"); !errors.Is(err, ErrTaken) {
		t.Errorf("record at a former name: %v", err)
	}
	h.fetch(t, s, laptop)
	// Back again, later than a mistake is noticed: the names change places.
	s.clock.Add(undoneWithin)
	if _, err := s.RenameDevice(t.Context(), pi.id, "kitchen-pi"); err != nil {
		t.Fatal(err)
	}
	if got := aliasesOf(); got != "hall" {
		t.Errorf("after renaming back: %q", got)
	}
	// Its time ends: a delta says so, and the name is free.
	s.clock.Add(store.DefaultAliasDays*24*time.Hour + time.Second)
	if _, err := laptop.Lookup(t.Context(), "name", "hall"); err == nil {
		t.Error("an alias answers after its end")
	}
	if err := s.endAliases(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := aliasesOf(); got != "" {
		t.Errorf("after the end: %q", got)
	}
	if third := s.camera("hall"); third.name() != "hall" {
		t.Errorf("after the end a device got %s", third.name())
	}
	h.fetch(t, s, laptop)
	// Ended by hand, and never kept with alias-days 0.
	if _, err := s.RenameDevice(t.Context(), pi.id, "attic"); err != nil {
		t.Fatal(err)
	}
	h.fetch(t, s, laptop)
	name := "kitchen-pi"
	s.edit(DNSEdit{RemoveAlias: &name})
	if got := aliasesOf(); got != "" {
		t.Errorf("ended by hand: %q", got)
	}
	s.edit(DNSEdit{Options: map[string]string{"alias-days": "0"}})
	if _, err := s.RenameDevice(t.Context(), pi.id, "cellar"); err != nil {
		t.Fatal(err)
	}
	if got := aliasesOf(); got != "" {
		t.Errorf("with alias-days 0: %q", got)
	}
	// Bounded.
	s.edit(DNSEdit{Options: map[string]string{"alias-days": "1"}})
	for i := range 2 * api.MaxAliases {
		if _, err := s.RenameDevice(t.Context(), pi.id, fmt.Sprintf("name%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(s.aliasInfos(pi.id)); got != api.MaxAliases {
		t.Errorf("%d former names", got)
	}
	// They end with the device, and what has its address next has nothing of it.
	node := mustNode(t, s, pi.id)
	if _, err := s.DeleteDevice(t.Context(), pi.id); err != nil {
		t.Fatal(err)
	}
	if _, err := laptop.Lookup(t.Context(), "name", "name3"); err == nil {
		t.Error("a deleted device's former name answers")
	}
	if next := s.camera("new"); next.res.Config.Self.IPv4 == node.IPv4.String() {
		t.Error("a deleted device's address is given out at once")
	}
}

// The name is the node's: what a device calls itself later changes nothing.
func TestNameStaysWithTheNode(t *testing.T) {
	s := openSite(t)
	pi := s.camera("kitchen-pi")
	req := pi.request(t, s.token(CreateKey{}), "somebody-else")
	if _, err := pi.Renew(t.Context(), api.RenewRequest{Protocol: api.Protocol, CSR: req.CSR, OS: "other", Software: "2"}); err != nil {
		t.Fatal(err)
	}
	if n := mustNode(t, s, pi.id); n.Name != "kitchen-pi" {
		t.Errorf("renamed to %s", n.Name)
	}
}

// A device that comes back with the same key has its name again.
func TestSameKeyTakesItsNameBack(t *testing.T) {
	s := openSite(t)
	pi := s.camera("raspberrypi")
	if _, err := s.RenameDevice(t.Context(), pi.id, "kitchen-pi"); err != nil {
		t.Fatal(err)
	}
	back := func(want string) {
		t.Helper()
		if _, err := s.DeleteDevice(t.Context(), pi.id); err != nil {
			t.Fatal(err)
		}
		self, err := cert.SelfSigned(pi.key)
		if err != nil {
			t.Fatal(err)
		}
		pi.show(t, self.Certificate[0])
		if err := pi.join(t, s.token(CreateKey{Tags: []string{"device"}}), "raspberrypi"); err != nil {
			t.Fatal(err)
		}
		if pi.name() != want {
			t.Errorf("came back as %s, want %s", pi.name(), want)
		}
	}
	back("kitchen-pi")
	// Somebody else took it meanwhile: the hostname decides.
	other := s.camera("other")
	if _, err := s.DeleteDevice(t.Context(), pi.id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RenameDevice(t.Context(), other.id, "kitchen-pi"); err != nil {
		t.Fatal(err)
	}
	self, _ := cert.SelfSigned(pi.key)
	pi.show(t, self.Certificate[0])
	if err := pi.join(t, s.token(CreateKey{}), "raspberrypi"); err != nil || pi.name() != "raspberrypi" {
		t.Errorf("%s, %v", pi.name(), err)
	}
}

func TestReplace(t *testing.T) {
	s := openSite(t)
	old := s.camera("kitchen-pi")
	fresh := s.camera("kitchen-pi")
	if fresh.name() != "kitchen-pi-1" {
		t.Fatal(fresh.name())
	}
	n, err := s.ReplaceDevice(t.Context(), old.id, fresh.id)
	if err != nil || n.Name != "kitchen-pi" {
		t.Fatalf("%s, %v", n.Name, err)
	}
	if _, err := s.FindDevice(t.Context(), old.id.String()); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old one: %v", err)
	}
	// The old name is no longer the old device's, whatever comes back.
	if n, err := s.FindDevice(t.Context(), "kitchen-pi-1"); err != nil || n.ID != fresh.id {
		t.Errorf("by its former name: %v, %v", n.Name, err)
	}
	if _, err := s.ReplaceDevice(t.Context(), fresh.id, fresh.id); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// A record's name is nobody's to take.
func TestRecordKeepsItsName(t *testing.T) {
	s := openSite(t)
	if err := s.add("git", "A", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if d := s.camera("git"); d.name() != "git-1" {
		t.Errorf("a device joined as %s", d.name())
	}
	d := s.camera("cam")
	if _, err := s.RenameDevice(t.Context(), d.id, "git"); !errors.Is(err, ErrTaken) {
		t.Errorf("renamed to a record's name: %v", err)
	}
	s.edit(DNSEdit{RemoveRecord: &RecordMatch{Name: "git"}})
	if d := s.camera("git"); d.name() != "git" {
		t.Errorf("after the record is gone: %s", d.name())
	}
}

func TestIDN(t *testing.T) {
	s := openSite(t)
	laptop, pi := s.laptop("laptop"), s.camera("kitchen-pi")
	for _, c := range []struct{ in, stored, shown string }{
		{"Küche", "xn--kche-0ra", "küche"},
		{"xn--kche-0ra", "xn--kche-0ra", "küche"},
		{"厨房", "xn--ylst29d", "厨房"},
		{"plain", "plain", "plain"},
	} {
		n, err := s.RenameDevice(t.Context(), pi.id, c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		info := s.View(n)
		if c.stored != "xn--ylst29d" && n.Name != c.stored || info.Title != c.shown {
			t.Errorf("%s is stored as %s, shown as %s", c.in, n.Name, info.Title)
		}
		for _, name := range []string{c.in, n.Name, info.Title + ".weft.internal"} {
			if p, err := laptop.Lookup(t.Context(), "name", name); err != nil || p == nil {
				t.Errorf("lookup %s: %v", name, err)
			}
		}
	}
	for _, bad := range []string{"xn--", "xn--a", "xn--zzzzzzz99999", "ü b", "ü.b", "-ü", strings.Repeat("ü", 60)} {
		if n, err := s.RenameDevice(t.Context(), pi.id, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %s, %v", bad, n.Name, err)
		}
	}
}

// The preview decides as a device's resolver does, and asks nobody.
func TestPreview(t *testing.T) {
	s := openSite(t, func(o *Options) { o.URLs = []string{"https://vpn.corp.example:8443"} })
	laptop, pi, cam := s.laptop("laptop"), s.camera("kitchen-pi"), s.camera("cam")
	on := true
	if _, err := s.SetDeviceDNS(t.Context(), cam.id, DeviceDNS{Wildcard: &on}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RenameDevice(t.Context(), pi.id, "hall"); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][3]string{{"www", "A", "192.0.2.1"}, {"app", "CNAME", "hall"}, {"out", "CNAME", "www.example.org"}} {
		if err := s.add(r[0], r[1], r[2]); err != nil {
			t.Fatal(err)
		}
	}
	s.edit(DNSEdit{AddRoute: &api.DNSRoute{Suffix: "corp.test", Nameservers: []api.Nameserver{{Address: "192.0.2.53"}}}})
	hall := mustNode(t, s, pi.id).IPv4.String()
	camIP := mustNode(t, s, cam.id).IPv4.String()
	for _, c := range []struct{ from, name, typ, rcode, answer, step string }{
		{laptop.id.String(), "hall", "A", "NOERROR", hall, "is a device"},
		{"", "hall.weft.internal", "A", "NOERROR", hall, "is a device"},
		{cam.id.String(), "hall", "A", "NXDOMAIN", "", ""}, // not visible
		{laptop.id.String(), "kitchen-pi", "A", "NOERROR", hall, "former name"},
		{cam.id.String(), "kitchen-pi", "A", "NXDOMAIN", "", ""},
		{laptop.id.String(), "app", "A", "NOERROR", hall, "records"},
		{laptop.id.String(), "www", "", "NOERROR", "192.0.2.1", "records"},
		{laptop.id.String(), "x.cam.weft.internal", "A", "NOERROR", camIP, "all names below"},
		{laptop.id.String(), "x.hall.weft.internal", "A", "NXDOMAIN", "", ""},
		{laptop.id.String(), "nobody", "A", "NXDOMAIN", "", ""},
		{laptop.id.String(), hall, "", "NOERROR", "hall.weft.internal.", ""},
		{laptop.id.String(), "git.corp.test", "A", "", "", "corp.test goes to 192.0.2.53"},
		{laptop.id.String(), "www.example.org", "A", "", "", "the machine's own resolvers"},
		{laptop.id.String(), "vpn.corp.example", "A", "", "", "always asked of the machine's resolvers"},
		{laptop.id.String(), "printer.local", "A", "NXDOMAIN", "", "multicast"},
	} {
		p, err := s.PreviewName(t.Context(), PreviewQuery{From: c.from, Name: c.name, Type: c.typ})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		all := fmt.Sprint(p.Answers)
		if p.Rcode != c.rcode || (c.answer == "") != (len(p.Answers) == 0) || !strings.Contains(all, c.answer) || !strings.Contains(fmt.Sprint(p.Steps), c.step) {
			t.Errorf("%s: %+v, want %s %s %q", c.name, p, c.rcode, c.answer, c.step)
		}
	}
	for _, bad := range []PreviewQuery{{}, {Name: "x", Type: "nonsense"}, {Name: strings.Repeat("a.", 200)}, {Name: "x", From: "x"}} {
		if _, err := s.PreviewName(t.Context(), bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
