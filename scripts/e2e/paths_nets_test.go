//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// A home router behind a carrier's: on one side, on both, and both behind the same
// carrier, which does not route back into its own network.
func TestPathCarrier(t *testing.T) {
	for _, c := range []struct {
		name         string
		both, same   bool
		laptop, want string
	}{
		{"one side", false, false, easy, "direct"},
		{"both sides", true, false, easy, "direct"},
		{"one side, the other hard", false, false, hard, "direct"},
		{"the same carrier", true, true, easy, "lane"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := lab.NewMeshNoNodes(t, bin)
			nat(m.DeviceHome, easy)
			nat(m.LaptopHome, c.laptop)
			one := m.Carrier("one")
			one.Connect(m.DeviceHome)
			switch {
			case c.same:
				one.Connect(m.LaptopHome)
			case c.both:
				m.Carrier("two").Connect(m.LaptopHome)
			}
			f := joinBoth(t, m)
			p := wantPath(t, m, c.want, 20*time.Second)
			if c.want == "direct" && !strings.HasPrefix(p.Endpoint, one.Addr+":") {
				t.Errorf("not by the carrier's address %s: %+v", one.Addr, p)
			}
			tenMB(t, m)
			f.echoes(5, 10*time.Second)
			if _, err := f.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Two LANs of one house, whose router forwards between them but does no hairpinning:
// the peers connect by their local addresses.
func TestPathHairpin(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	nat(m.LaptopHome, easy)
	r := m.LaptopHome.Router
	pi := m.Host("upstairs")
	pi.IP("link del eth0", "link add eth0 type veth peer name lan2 netns "+r.Name, "addr add 192.168.2.3/24 dev eth0", "link set eth0 up", "route add default via 192.168.2.1")
	r.IP("addr add 192.168.2.1/24 dev lan2", "link set lan2 up")
	r.NFT("add rule ip home forward iifname \"lan2\" accept\n")
	pi.Serve("127.0.0.1:80", lab.Page)
	m.Device = m.Node(pi, "kitchen-pi")
	f := joinBoth(t, m)
	if p := wantPath(t, m, "direct", 20*time.Second); !strings.HasPrefix(p.Endpoint, "192.168.2.3:") {
		t.Errorf("by %+v", p)
	}
	tenMB(t, m)
	f.echoes(5, 10*time.Second)
}

// Both sides have IPv6 behind firewalls without NAT, while both IPv4 NATs are hard.
func TestPathIPv6(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	nat(m.DeviceHome, hard)
	nat(m.LaptopHome, hard)
	m.IPv6()
	m.DeviceHome.IPv6(1)
	m.LaptopHome.IPv6(2)
	f := joinBoth(t, m)
	if p := wantPath(t, m, "direct", 20*time.Second); !strings.HasPrefix(p.Endpoint, "["+m.DeviceHome.Addr6+"]:") {
		t.Errorf("by %+v", p)
	}
	tenMB(t, m)
	f.echoes(5, 10*time.Second)
}

// There is no IPv4; the server is reached by its IPv6 address.
func TestPathIPv6Only(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host := l.Host("server")
	l.IPv6(host)
	m := &lab.Mesh{Lab: l, DeviceHome: l.Home("pi"), LaptopHome: l.Home("lap")}
	for i, h := range []*lab.Home{m.DeviceHome, m.LaptopHome} {
		h.IPv6(1 + i)
		h.IP("addr del 192.168.1.2/24 dev eth0")
	}
	host.IP("addr del " + host.Addr + "/24 dev eth0")
	m.Server = l.Serve(host, ":8443", "https://["+host.Addr6+"]:8443")
	m.Device, m.Laptop = m.Node(m.DeviceHome.Namespace, "kitchen-pi"), m.Node(m.LaptopHome.Namespace, "laptop")
	f := joinBoth(t, m)
	if p := wantPath(t, m, "direct", 20*time.Second); !strings.HasPrefix(p.Endpoint, "["+m.DeviceHome.Addr6+"]:") {
		t.Errorf("by %+v", p)
	}
	if out := m.Laptop.Must("netcheck"); !strings.Contains(out, "IPv6") {
		t.Errorf("netcheck: %s", out)
	}
	tenMB(t, m)
	f.echoes(5, 10*time.Second)
}

// Device and laptop have different home relays and no direct path: they use relayed
// UDP.
func TestPathTwoRelays(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	nat(m.DeviceHome, hard)
	nat(m.LaptopHome, hard)
	m.Laptop.Up(m.Server.NewKey().Token)
	m.Laptop.Stop()
	startRelay(m.Lab, m.Server, m.Host("relay"))
	m.Device.Join(m.Server.Token)
	if home := m.Device.Status().Self.Relay; home == "server" {
		m.Server.Kill()
		m.Until(30*time.Second, "the device moves to the other relay", func() bool {
			home = m.Device.Status().Self.Relay
			return home != "" && home != "server"
		})
		m.Server.Start()
	}
	m.Laptop.Run()
	m.Laptop.Must("wait", "--timeout", "20s")
	serveEcho(m.Device.Host)
	f := newFlow(t, m.Laptop, "kitchen-pi:7")
	p := wantPath(t, m, "lane", 20*time.Second)
	f.echoes(20, 10*time.Second)
	device, laptop := m.Device.Status().Self.Relay, m.Laptop.Status().Self.Relay
	t.Logf("device at %s, laptop at %s: %+v", device, laptop, p)
	if device == laptop {
		t.Errorf("both at %s", device)
	}
	if _, err := f.end(); err != nil {
		t.Error(err)
	}
}
