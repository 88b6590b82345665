//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// beforeSuites is the last commit whose nodes know only WireGuard.
const beforeSuites = "7594e22"

// A node that offers AES and one that knows only WireGuard use WireGuard, whichever calls.
// A node that demands AES refuses the other, and the other refuses it.
func TestCompatSuites(t *testing.T) {
	then := oldPrograms(t, beforeSuites)
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
			today, earlier := m.Device, m.Laptop
			if c.device {
				today, earlier = m.Laptop, m.Device
			}
			earlier.Env = []string{"PATH=" + then + ":/usr/sbin:/usr/bin:/sbin:/bin"}
			m.Device.Up(s.NewKey().Token)
			m.Laptop.Up(s.NewKey().Token)
			names := map[*lab.Node]string{m.Device: "kitchen-pi", m.Laptop: "laptop"}
			for range 2 { // the second time after a restart
				fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
				m.Device.Must("ping", "-c", "1", "laptop")
				if out := today.Must("status", "--json", names[earlier]); !strings.Contains(out, `"suite": "wireguard"`) {
					t.Errorf("%s", out)
				}
				today.Stop()
				today.Run()
				m.Laptop.Must("wait", "--timeout", "20s")
				m.Device.Must("wait", "--timeout", "20s")
			}
			today.Stop()
			today.Run("--suite", "aes")
			today.Must("wait", "--timeout", "20s")
			if r := today.Weft("ping", "-c", "1", names[earlier]); r.Code != 6 || !strings.Contains(r.Err, "demands AES") {
				t.Errorf("who demands AES: %v", r)
			}
			if r := earlier.Weft("ping", "-c", "1", names[today]); r.Code == 0 {
				t.Errorf("who knows only WireGuard: %v", r)
			}
		})
	}
}
