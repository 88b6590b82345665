//go:build e2e

package e2e

import (
	"slices"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// beforeSuperseded is the last commit whose nodes take each of their own certificates in
// the revocation list for their deletion; those of beforeRenewal do not look for it.
const beforeSuperseded = "b90d4de"

// Old nodes get other tags from a new server, while they are connected and while they are
// off: they fetch the new certificate, the other node lets them in with it, and nobody is
// left with the belief that the device was deleted, until it is.
func TestCompatAssign(t *testing.T) {
	for _, c := range []struct {
		name, commit   string
		device, laptop bool // of the old version
	}{
		{"device without a look at the list", beforeRenewal, true, false},
		{"laptop without a look at the list", beforeRenewal, false, true},
		{"device that knows no mark in the list", beforeSuperseded, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			then := oldPrograms(t, c.commit)
			if then == "" {
				return
			}
			l := lab.New(t, bin)
			host := l.Host("server")
			s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
			m := lab.MeshOf(l, s)
			for n, old := range map[*lab.Node]bool{m.Device: c.device, m.Laptop: c.laptop} {
				if old {
					n.Env = []string{"PATH=" + then + ":/usr/sbin:/usr/bin:/sbin:/bin"}
				}
			}
			m.Device.Join(s.Token)
			m.Laptop.Up(s.NewKey().Token)
			fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
			w := certs{t: t, server: s, device: m.Device}
			tag := func(tag string) {
				t.Helper()
				if r := s.Admin("devices", "edit", "kitchen-pi", "--tag", tag); r.Code != 0 {
					t.Fatal(r)
				}
			}
			revoked := func() bool {
				for _, h := range m.Device.Status().Health {
					if h.Code == "revoked" {
						return true
					}
				}
				return false
			}
			has := func(tag string) {
				t.Helper()
				m.Until(20*time.Second, "the device has the tag "+tag+" in its certificate", func() bool { return slices.Equal(w.held().Tags, []string{tag}) })
				fetch(t, m.Laptop, "http://kitchen-pi/", 20*time.Second)
				m.Until(20*time.Second, "the device knows that it was not deleted", func() bool { return !revoked() })
			}
			tag("camera")
			has("camera")
			m.Device.Stop()
			tag("door")
			m.Device.Run()
			m.Until(20*time.Second, "the device is connected", func() bool { return m.Device.Weft("wait", "--timeout", "1s").Code == 0 })
			has("door")
			if r := s.Admin("devices", "delete", "kitchen-pi"); r.Code != 0 {
				t.Fatal(r)
			}
			m.Until(20*time.Second, "the laptop does not reach the deleted device", func() bool {
				return m.Laptop.Weft("ping", "-c", "1", "kitchen-pi").Code != 0
			})
		})
	}
}
