//go:build e2e

package e2e

import (
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// withoutProofs is the last commit whose nodes do not prove in introductions that the
// WireGuard key they name is their own.
const withoutProofs = "edd3c3e"

// A node that proves its WireGuard key and one that does not introduce themselves to
// each other, each of them once as the caller, with traffic both ways; then both
// restart with new keys.
func TestCompatKeys(t *testing.T) {
	then := oldPrograms(t, withoutProofs)
	if then == "" {
		return
	}
	for _, c := range []struct {
		name           string
		device, laptop bool // of the old version
	}{
		{"old device, new laptop", true, false},
		{"new device, old laptop", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t, bin)
			host := l.Host("server")
			s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
			m := lab.MeshOf(l, s)
			for n, old := range map[*lab.Node]bool{m.Device: c.device, m.Laptop: c.laptop} {
				if old {
					n.Env = []string{"PATH=" + then + ":/usr/sbin:/usr/bin:/sbin:/bin"}
				}
			}
			// The nodes belong to one user, so each may reach the other.
			m.LaptopHome.Serve("127.0.0.1:80", lab.Page)
			m.Device.Up(s.NewKey().Token)
			m.Laptop.Up(s.NewKey().Token)
			page := func(from, to *lab.Node, name string) {
				t.Helper()
				from.Must("wait", "--timeout", "20s")
				to.Must("wait", "--timeout", "20s")
				t.Logf("page of %s: %v", name, fetch(t, from, "http://"+name+"/", 10*time.Second).Round(time.Millisecond))
				from.Must("ping", "-c", "1", name)
			}
			for range 2 { // the second time with new keys
				page(m.Laptop, m.Device, "kitchen-pi")
				m.Laptop.Stop()
				m.Device.Stop()
				m.Device.Run()
				m.Laptop.Run()
				page(m.Device, m.Laptop, "laptop")
				m.Device.Stop()
				m.Device.Run() // the laptop has to renew the earlier tunnel
			}
		})
	}
}
