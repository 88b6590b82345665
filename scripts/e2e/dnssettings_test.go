//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// A laptop's resolver answers with the owner's settings from weft-server within
// seconds, and nothing breaks after a rename.
func TestDNSSettings(t *testing.T) {
	t.Parallel()
	m := lab.NewMesh(t, bin)
	device := m.Device.Status().Self.IPv4
	admin := func(args ...string) {
		t.Helper()
		if r := m.Server.Admin(args...); r.Code != 0 {
			t.Fatalf("%v", r)
		}
	}
	// answers waits until dig returns all of want, and returns how long that took.
	answers := func(what string, query []string, want ...string) {
		t.Helper()
		took := m.Until(20*time.Second, what, func() bool {
			r := dig(m.Laptop, query...)
			for _, w := range want {
				if r.Code != 0 || !strings.Contains(r.Out, w) {
					return false
				}
			}
			return true
		})
		t.Logf("%s after %v", what, took.Round(time.Millisecond))
	}
	admin("dns", "records", "add", "www", "A", "192.0.2.80")
	answers("a record", []string{"www.weft.internal", "A"}, "status: NOERROR", "192.0.2.80\n")
	admin("dns", "records", "add", "app", "CNAME", "kitchen-pi")
	answers("a CNAME to a device", []string{"app.weft.internal", "A"}, "kitchen-pi.weft.internal.\n", device+"\n")
	admin("dns", "records", "add", "@", "MX", "10 app")
	answers("MX of the zone", []string{"weft.internal", "MX"}, "10 app.weft.internal.\n")
	admin("dns", "records", "remove", "www")
	answers("a record that is gone", []string{"www.weft.internal", "A"}, "status: NXDOMAIN")
	admin("dns", "device", "kitchen-pi", "--wildcard", "on")
	answers("a name below a device", []string{"grafana.kitchen-pi.weft.internal", "A"}, "status: NOERROR", device+"\n")
	admin("dns", "set", "ttl=30", "keep-browsers=on")
	answers("the browsers' canary", []string{"use-application-dns.net", "A"}, "status: NXDOMAIN")
	admin("dns", "routes", "add", "example.test", "192.0.2.53") // no host has that address
	answers("a route to nobody", []string{"www.example.test", "A"}, "status: SERVFAIL")
	admin("dns", "routes", "remove", "example.test")
	answers("without the route", []string{"www.example.test", "A"}, "203.0.113.1\n")

	// The old name still works, without a failed query in between.
	admin("devices", "rename", "kitchen-pi", "hall")
	answers("the new name", []string{"hall.weft.internal", "A"}, "status: NOERROR", device+"\n")
	answers("the old name", []string{"kitchen-pi.weft.internal", "A"}, "status: NOERROR", "hall.weft.internal.\n", device+"\n")
	answers("the address", []string{"-x", device}, "hall.weft.internal.\n")
	fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
	fetch(t, m.Laptop, "http://hall/", 10*time.Second)
	answers("a name below the device", []string{"grafana.hall.weft.internal", "A"}, device+"\n")
	admin("dns", "aliases", "remove", "kitchen-pi")
	answers("the old name, ended", []string{"kitchen-pi.weft.internal", "A"}, "status: NXDOMAIN")

	// Invalid settings are refused in one line, even while no server runs.
	if r := m.Server.Admin("dns", "records", "add", "hall", "A", "192.0.2.1"); r.Code != 1 || !strings.Contains(r.Err, "is the name of a device") {
		t.Errorf("%v", r)
	}
	m.Server.Stop()
	admin("dns", "records", "add", "later", "A", "192.0.2.81")
	if r := m.Server.Admin("dns", "preview", "later", "--json"); r.Code != 0 || !strings.Contains(r.Out, "192.0.2.81") {
		t.Errorf("%v", r)
	}
	m.Server.Start()
	answers("a record made while the server was away", []string{"later.weft.internal", "A"}, "192.0.2.81\n")
}
