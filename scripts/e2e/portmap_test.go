//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/overlay/portmap"
	"weft/scripts/e2e/lab"
)

// outside is the address that miniupnpd takes for its router's. It maps no ports on an
// address that is not public, and 203.0.113.0/24 is not.
const outside = "5.5.5.5"

// gatewayHome is a household whose router maps ports, with Debian's miniupnpd.
func gatewayHome(t *testing.T, l *lab.Lab, name string, options ...string) *lab.Home {
	t.Helper()
	if _, err := exec.LookPath("miniupnpd"); err != nil {
		t.Fatalf("%v (scripts/test installs miniupnpd-nftables)", err)
	}
	h := l.Home(name)
	h.Router.IP("addr add " + outside + "/32 dev eth0")
	h.Router.NFT(`flush chain ip home forward
table ip home {
	chain forward {
		iifname "lan" accept
		ct state established,related accept
		ct status dnat accept
	}
}
table inet upnp {
	chain forward { type filter hook forward priority 10; policy accept; jump miniupnpd; }
	chain miniupnpd { }
	chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
	chain postrouting { type nat hook postrouting priority 90; policy accept; jump postrouting_miniupnpd; }
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
}
`)
	conf := l.WriteFile(name+"-miniupnpd.conf", strings.Join(append([]string{
		"ext_ifname=eth0",
		"ext_ip=" + outside,
		"listening_ip=lan",
		"http_port=5000",
		"ipv6_disable=yes",
		"system_uptime=yes",
		"secure_mode=yes",
		"upnp_table_name=upnp",
		"upnp_nat_table_name=upnp",
		"upnp_forward_chain=miniupnpd",
		"upnp_nat_chain=prerouting_miniupnpd",
		"upnp_nat_postrouting_chain=postrouting_miniupnpd",
		"uuid=6e1d6c1c-5ad8-4a3e-9d0c-2d6f4f5b0e11",
	}, options...), "\n")+"\nallow 1024-65535 192.168.1.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n")
	h.Router.Start(lab.Root, "miniupnpd", "-d", "-f", conf, "-P", l.Dir+"/"+name+"-miniupnpd.pid")
	l.Until(10*time.Second, "miniupnpd to listen", func() bool {
		out := h.Router.Run(lab.Root, "ss", "-Hlun", "sport = :5351 or sport = :1900").Out
		return strings.Contains(out, ":")
	})
	return h
}

// mapper runs a port mapper on the machine of a house.
func mapper(t *testing.T, h *lab.Home) *portmap.Mapper {
	m := portmap.New(portmap.Config{
		Gateway: func() (gw, self netip.Addr, err error) {
			h.Do(func() { gw, self, err = portmap.DefaultGateway() })
			return gw, self, err
		},
		Listen: func(self netip.Addr) (c net.PacketConn, err error) {
			h.Do(func() { c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(self, 0))) })
			return c, err
		},
		Dial: func(ctx context.Context, a netip.AddrPort) (net.Conn, error) { return h.Dial(ctx, "tcp4", a.String()) },
	})
	m.Start()
	t.Cleanup(func() { m.Close() })
	return m
}

// mappings are the router's DNAT rules.
func mappings(h *lab.Home) string {
	return strings.TrimSpace(h.Router.Run(lab.Root, "sh", "-c", "nft list chain inet upnp prerouting_miniupnpd | grep dnat").Out)
}

// reaches sends from the internet to the router and waits for the echo.
func reaches(l *lab.Lab, h *lab.Home, port uint16, limit time.Duration) bool {
	l.Helper()
	c, err := l.Internet.Dial(context.Background(), "udp4", fmt.Sprintf("%s:%d", h.Router.Addr, port))
	if err != nil {
		l.Fatalf("%v", err)
	}
	defer c.Close()
	buf := make([]byte, 100)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		c.Write([]byte("hello"))
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := c.Read(buf); err == nil && string(buf[:n]) == "hello" {
			return true
		}
	}
	return false
}

func TestPortMapping(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options []string
		want    portmap.Kind
	}{
		"pcp":  {[]string{"enable_natpmp=yes", "enable_upnp=no", "min_lifetime=10", "max_lifetime=12"}, portmap.KindPCP},
		"upnp": {[]string{"enable_natpmp=no", "enable_upnp=yes"}, portmap.KindUPnP},
		"both": {[]string{"enable_natpmp=yes", "enable_upnp=yes"}, portmap.KindPCP},
	} {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t, bin)
			h := gatewayHome(t, l, name, tt.options...)
			h.EchoUDP("192.168.1.2:41641")
			m := mapper(t, h)
			m.Want(41641)
			l.Until(20*time.Second, "the gateway to be asked", func() bool { return m.Status().Settled() })
			s := m.Status()
			if s.Kind != tt.want || s.External.Addr().String() != outside || s.Useless || s.Gateway.String() != "192.168.1.1" {
				t.Fatalf("%+v", s)
			}
			if rules := mappings(h); strings.Count(rules, "dnat") != 1 || !strings.Contains(rules, "192.168.1.2:41641") {
				t.Errorf("rules: %s", rules)
			}
			if !reaches(l, h, s.External.Port(), 10*time.Second) {
				t.Errorf("%s does not get through", s.External)
			}
			if name == "pcp" { // it grants 12 s: renewed every 6 s
				first := s.Expires
				l.Until(30*time.Second, "two renewals", func() bool { return m.Status().Expires.After(first.Add(11 * time.Second)) })
				if rules := mappings(h); strings.Count(rules, "dnat") != 1 {
					t.Errorf("rules after renewal: %s", rules)
				}
				if !reaches(l, h, m.Status().External.Port(), 10*time.Second) {
					t.Errorf("%s does not get through after renewal", s.External)
				}
			}
			start := time.Now()
			m.Close()
			t.Logf("%s %s, removed in %v", s.Kind, s.External, time.Since(start).Round(time.Millisecond))
			if rules := mappings(h); rules != "" {
				t.Errorf("left behind: %s", rules)
			}
			if reaches(l, h, s.External.Port(), time.Second) {
				t.Error("gets through after removal")
			}
		})
	}
}

// Two hard NATs, one of which maps ports: a direct path, without a port scan.
func TestPortMappingMakesDirect(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host := l.Host("server")
	server := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	pi, lap := gatewayHome(t, l, "pi", "enable_natpmp=yes", "enable_upnp=yes"), l.Home("lap")
	const hard = `table ip home {
	chain nat {
		oifname "eth0" masquerade random,fully-random
	}
`
	pi.Router.NFT("flush chain ip home nat\n" + hard + "}\n")
	lap.Router.NFT("flush chain ip home nat\nflush chain ip home forward\n" + hard + `
	chain forward {
		iifname "lan" accept
		ct state established,related accept
	}
}
`)
	lap.Router.IP("route add " + outside + "/32 via " + pi.Router.Addr)
	device, laptop := l.Node(pi.Namespace, "kitchen-pi"), l.Node(lap.Namespace, "laptop")
	device.Join(server.Token)
	laptop.Up(server.NewKey().Token)
	if rules := mappings(pi); rules != "" {
		t.Errorf("mapped before anybody talked: %s", rules)
	}
	if r := laptop.Weft("ping", "kitchen-pi", "--until-direct", "-c", "40"); r.Code != 0 {
		t.Errorf("%v", r)
	}
	if rules := mappings(pi); strings.Count(rules, "dnat") != 1 {
		t.Errorf("rules: %s", rules)
	}
	for _, peer := range laptop.Status().Peers {
		if peer.Name == "kitchen-pi" && peer.Path != "direct" {
			t.Errorf("status: %+v", peer)
		}
	}
	// The report of netcheck.
	if out := device.Must("netcheck"); !strings.Contains(out, "PCP by 192.168.1.1; seen from outside this device is "+outside) || !strings.Contains(out, "nearly every peer: the router lets them in") {
		t.Errorf("netcheck at the device:\n%s", out)
	}
	var n struct {
		UDP         struct{ Works bool }
		IPv4        struct{ Mapping, Endpoint string }
		IPv6        struct{ Mapping string }
		PortMapping struct {
			Asked              bool
			Protocol, External string
		} `json:"port_mapping"`
		Candidates []struct{ Addr, Type string }
		Direct     string
	}
	if out := device.Must("netcheck", "--json"); json.Unmarshal([]byte(out), &n) != nil || !n.UDP.Works || n.PortMapping.Protocol != "pcp" || len(n.Candidates) == 0 || n.Candidates[0].Type != "mapped" {
		t.Errorf("netcheck at the device: %s", out)
	}
	t.Logf("netcheck at the laptop:\n%s", laptop.Must("netcheck"))
	// The mapping ends with the daemon.
	device.Stop()
	if rules := mappings(pi); rules != "" {
		t.Errorf("left behind: %s", rules)
	}
	// With --portmap off none is requested.
	device.Run("--portmap", "off")
	device.Must("wait", "--timeout", "20s")
	if r := laptop.Weft("ping", "kitchen-pi", "-c", "10"); r.Code != 0 {
		t.Errorf("%v", r)
	}
	if out := device.Must("netcheck"); mappings(pi) != "" || !strings.Contains(out, "not asked for") {
		t.Errorf("switched off: %s\n%s", mappings(pi), out)
	}
}
