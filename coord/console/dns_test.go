package console_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"weft/coord/ops"
	"weft/dns"
)

func TestDNSPage(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	pi := s.net.Add("old-pi", "linux/arm64", "device")
	pi.Rename("kitchen-pi")
	at := "/devices/" + pi.ID.String()
	b.get("/network").want(t, 200, `href="/network/dns"`)
	b.get("/network/dns").want(t, 200, "weft.internal", "old-pi", "No records.", "Each device has its own name")

	b.get(at).want(t, 200, "Former names", "old-pi")

	// Each form, well filled and not.
	for _, c := range []struct {
		to     string
		fields []string
		status int
		text   string // of the form that comes back, or of the page after it
	}{
		{"/network/dns/records", []string{"name", "www", "type", "A", "value", "192.0.2.1"}, 303, "www.weft.internal"},
		{"/network/dns/records", []string{"name", "a b", "type", "A", "value", "192.0.2.1"}, 422, "want labels of letters"},
		{"/network/dns/records", []string{"name", "x", "type", "A", "value", "192.0.2.1", "ttl", "soon"}, 422, "1 to 86,400"},
		{"/network/dns/records", []string{"name", "www.example.org", "type", "A", "value", "192.0.2.1"}, 422, "is not in weft.internal"},
		{"/network/dns/records", []string{"name", "www.example.org", "type", "A", "value", "192.0.2.9", "outside", "1"}, 303, "192.0.2.9"},
		{"/network/dns/records/nobody/remove", nil, 422, "That is not there any more."},
		{"/network/dns/routes", []string{"suffix", "corp.example", "nameservers", "10.0.0.53\r\n\r\ntls://dns.example 192.0.2.3\r\n"}, 303, "tls://dns.example 192.0.2.3"},
		{"/network/dns/routes", []string{"suffix", "a b"}, 422, "Route a b: name &#34;a b&#34;: want labels of letters"},
		{"/network/dns/nameservers", []string{"nameservers", "ftp://x"}, 422, "ftp://x"},
		{"/network/dns/nameservers", []string{"nameservers", "9.9.9.9\n"}, 303, "9.9.9.9"},
		{"/network/dns/search", []string{"search", "corp.example"}, 303, "corp.example"},
		{"/network/dns/options", []string{"ttl", "0"}, 422, "1 to 60"},
		{"/network/dns/options", []string{"ttl", "30", "alias-days", "3", "stop-rebinding", "on"}, 303, `value="30"`},
		{"/network/dns/routes/remove", []string{"suffix", "corp.example"}, 303, "Names below a suffix"},
		{"/network/dns/aliases/remove", []string{"name", "old-pi"}, 303, "None. After a rename"},
	} {
		before := s.net.State()
		a := b.post(c.to, c.fields...).want(t, c.status, map[bool]string{true: c.text}[c.status == 422])
		if c.status == 303 {
			b.get(a.Header.Get("Location")).want(t, 200, c.text, "Devices fetch it")
		} else if s.net.State() != before {
			t.Errorf("%s %v: refused, and something changed", c.to, c.fields)
		}
	}

	// The preview, as a page and as a part of it.
	b.get("/network/dns/try?name=kitchen-pi&type=A").want(t, 200, pi.Show().IPv4.String(), "is a device")
	b.get("/network/dns/try?name=nobody").want(t, 200, "There is no such name.")
	b.get("/network/dns/try?name=www.example.net").want(t, 200, "It is asked elsewhere.")
	b.get("/network/dns/try?name=a+b").want(t, 200, "There is no such name.")
	b.get("/network/dns/try?name=a..b").want(t, 200, `<p class="problem">`, "is not a domain name")

	// The device's page.
	if page := b.get(at).want(t, 200); strings.Contains(page.body, "Former names") {
		t.Error("the device's page has a former name that was ended")
	}
	b.post(at+"/dns", "wildcard", "on", "lan-names", "off").want(t, 303)
	b.get("/network/dns").want(t, 200, "also answer for every name below theirs")
	b.post(at+"/dns", "lan-names", "nonsense").want(t, 400)
}

// One device more than may answer for names below theirs is told so.
func TestTooManyWildcards(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	var names []string
	for i := range dns.MaxWildcards + 1 {
		names = append(names, fmt.Sprint("d", i))
	}
	one := s.net.AddMany(names, "linux/arm64", "device")[0]
	s.net.Change(func(db *sql.DB) {
		if _, err := db.Exec(`UPDATE nodes SET wildcard=1 WHERE node_id <> $1`, one.ID[:]); err != nil {
			t.Fatal(err)
		}
	})
	b.post("/devices/"+one.ID.String()+"/dns", "wildcard", "on", "lan-names", "default").want(t, 422, "devices answer for names below theirs, at most")
}

func TestShownAsWritten(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	d := s.net.Add("pi", "linux/arm64", "device")
	d.Rename("Küche")
	b.get("/devices").want(t, 200, "küche")
	b.get("/devices/"+d.ID.String()).want(t, 200, "<bdi>küche</bdi>", "xn--kche-0ra.weft.internal", "weft ssh xn--kche-0ra")
}

// Names of the whole network are its owner's matter.
func TestDNSPageIsTheOwners(t *testing.T) {
	s := newSite(t)
	s.net.Member("bob")
	b := s.browser().enterAs("bob")
	if strings.Contains(b.get("/devices").want(t, 200).body, `href="/network/dns"`) {
		t.Error("the page is offered")
	}
	before := s.net.State()
	b.get("/network/dns").want(t, 404)
	b.get("/network/dns/routes").want(t, 404)
	b.get("/network/dns/try?name=x").want(t, 404)
	b.get("/network/dns/preview?name=x").want(t, 404)
	b.post("/network/dns/records", "name", "www", "type", "A", "value", "192.0.2.1").want(t, 403)
	b.post("/network/dns/options", "ttl", "7").want(t, 403)
	if s.net.State() != before {
		t.Error("something changed")
	}
}

// A member has pages of its own devices and keys; those of others do not exist.
func TestMembersPages(t *testing.T) {
	s := newSite(t)
	bob := s.net.Member("bob")
	others := s.net.Add("nas", "linux/amd64", "device")
	made, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateKey{UserID: bob.ID, Reusable: true, Note: "of bob"})
	if err != nil {
		t.Fatal(err)
	}
	mine, err := s.net.Join(made.Token, "mine", "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	b, owner := s.browser().enterAs("bob"), s.browser().enter()
	list := b.get("/devices").want(t, 200, "mine", "online of 1")
	if strings.Contains(list.body, "nas") {
		t.Error("bob's list has another's device")
	}
	owner.get("/devices").want(t, 200, "mine", "nas", "online of 2")
	keys := b.get("/network/keys").want(t, 200, made.ID)
	theirs := others.Show().KeyID
	if strings.Contains(keys.body, theirs) {
		t.Error("bob's list has another's key")
	}
	owner.get("/network/keys").want(t, 200, made.ID, theirs)
	before := s.net.State()
	at, mines := "/devices/"+others.ID.String(), "/devices/"+mine.ID.String()
	b.get(at).want(t, 404)
	b.get(mines).want(t, 200)
	b.post(at+"/rename", "name", "x").want(t, 404)
	b.post(at+"/delete", "name", "nas").want(t, 404)
	b.post(at+"/test").want(t, 404)
	b.post(at+"/dns", "lan-names", "on").want(t, 404)
	b.get(mines+"/replace?old=nas").want(t, 422, "No device has this name.")
	b.post(mines+"/replace", "old", others.ID.String()).want(t, 404)
	b.post(at+"/replace", "old", mine.ID.String()).want(t, 404)
	b.get("/network/keys/"+theirs+"/join").want(t, 404)
	b.post("/network/keys/"+theirs+"/revoke").want(t, 404)
	if s.net.State() != before {
		t.Error("something changed")
	}
}
