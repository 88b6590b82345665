package console_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"weft/coord/console"
)

func TestDNSPage(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.fake.Sample()
	list, _ := s.fake.Devices(context.Background(), "u1", console.DeviceQuery{Text: "kitchen-pi", Limit: 1})
	pi := list.Devices[0]
	s.fake.PutAlias(pi.ID, console.DNSAlias{Name: "old-pi", Until: s.Now().Add(48 * time.Hour)})
	b.get("/devices").want(t, 200, `href="/dns"`)
	b.get("/dns").want(t, 200, "weft.internal", "old-pi", "None. Each device has its own name")

	// Each form, well filled and not.
	for _, c := range []struct {
		to     string
		fields []string
		status int
		text   string // of the form that comes back, or of the page after it
	}{
		{"/dns/records", []string{"name", "www", "type", "A", "value", "192.0.2.1"}, 303, "www.weft.internal"},
		{"/dns/records", []string{"name", "a b", "type", "A", "value", "192.0.2.1"}, 422, "want labels of letters"},
		{"/dns/records", []string{"name", "x", "type", "A", "value", "192.0.2.1", "ttl", "soon"}, 422, "1 to 86,400"},
		{"/dns/records", []string{"name", "www.example.org", "type", "A", "value", "192.0.2.1"}, 422, "is not in weft.internal"},
		{"/dns/records", []string{"name", "www.example.org", "type", "A", "value", "192.0.2.9", "outside", "1"}, 303, "192.0.2.9"},
		{"/dns/records/nobody/remove", nil, 422, "That is not there any more."},
		{"/dns/routes", []string{"suffix", "corp.example", "nameservers", "10.0.0.53\r\n\r\ntls://dns.example 192.0.2.3\r\n"}, 303, "tls://dns.example 192.0.2.3"},
		{"/dns/routes", []string{"suffix", "a b"}, 422, "want a suffix"},
		{"/dns/nameservers", []string{"nameservers", "ftp://x"}, 422, "ftp://x"},
		{"/dns/nameservers", []string{"nameservers", "9.9.9.9\n"}, 303, "9.9.9.9"},
		{"/dns/search", []string{"search", "corp.example"}, 303, "corp.example"},
		{"/dns/options", []string{"ttl", "0"}, 422, "1 to 60"},
		{"/dns/options", []string{"ttl", "30", "alias-days", "3", "stop-rebinding", "on"}, 303, `value="30"`},
		{"/dns/routes/remove", []string{"suffix", "corp.example"}, 303, "Names below a suffix"},
		{"/dns/aliases/remove", []string{"name", "old-pi"}, 303, "None. After a rename"},
	} {
		before := s.fake.State()
		b.post(c.to, c.fields...).want(t, c.status, map[bool]string{true: c.text}[c.status == 422])
		if c.status == 303 {
			b.get("/dns?done=dns").want(t, 200, c.text, "Devices fetch it")
		} else if s.fake.State() != before {
			t.Errorf("%s %v: refused, and something changed", c.to, c.fields)
		}
	}

	// The preview, as a page and as a part of it.
	b.get("/dns?name=kitchen-pi&type=A").want(t, 200, "100.64.0.7", "is a device")
	b.get("/dns?name=nobody").want(t, 200, "There is no such name.")
	b.get("/dns?name=www.example.net").want(t, 200, "It is asked elsewhere.")
	b.get("/dns?name=a+b").want(t, 200, "is not a domain name")

	// The device's page.
	b.get("/devices/"+pi.ID).want(t, 200, "Former names", "old-pi")
	b.post("/devices/"+pi.ID+"/dns", "wildcard", "on", "lan-names", "off").want(t, 303)
	b.get("/dns").want(t, 200, "also answer for every name below theirs")
	b.post("/devices/"+pi.ID+"/dns", "lan-names", "nonsense").want(t, 400)
}

func TestShownAsWritten(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.fake.Put(console.EventJoined, console.Device{ID: "abc", Name: "xn--kche-0ra", FQDN: "xn--kche-0ra.weft.internal"})
	b.get("/devices").want(t, 200, "küche")
	b.get("/devices/abc").want(t, 200, "<bdi>küche</bdi>", "xn--kche-0ra.weft.internal", "weft ssh xn--kche-0ra")
	for in, want := range map[string]string{"xn--kche-0ra": "küche", "xn--": "xn--", "xn--zzzzzzz99999": "xn--zzzzzzz99999", "plain": "plain", "": ""} {
		if got := console.UnicodeName(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := console.UnicodeDomain("www.xn--kche-0ra.weft.internal"); got != "www.küche.weft.internal" {
		t.Error(got)
	}
}

// Names of the whole network are its owner's matter.
func TestDNSPageIsTheOwners(t *testing.T) {
	s := newSite(t)
	s.fake.SetOwner(false)
	b := s.browser().enter()
	if strings.Contains(b.get("/devices").want(t, 200).body, `href="/dns"`) {
		t.Error("the page is offered")
	}
	b.get("/dns").want(t, 404)
	b.get("/dns?name=x").want(t, 404)
	b.post("/dns/records", "name", "www", "type", "A", "value", "192.0.2.1").want(t, 404)
}
