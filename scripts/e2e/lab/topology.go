//go:build e2e

package lab

import (
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// InternetAddr is the bridge's own address, used as a host on the internet.
const InternetAddr = "203.0.113.1"

func (l *Lab) makeInternet() {
	l.Helper()
	l.Internet = l.namespace("net")
	l.Internet.Addr = InternetAddr
	l.Internet.IP(
		"link add br0 type bridge forward_delay 0",
		"addr add "+InternetAddr+"/24 dev br0",
		"link set br0 up")
}

// plug connects n to the bridge as dev.
func (l *Lab) plug(n *Namespace, dev, port, addr string) {
	l.Helper()
	n.IP("link add "+dev+" type veth peer name "+port+" netns "+l.Internet.Name,
		"addr add "+addr+"/24 dev "+dev,
		"link set "+dev+" up")
	n.Sysctl("ipv6/conf/"+dev+"/disable_ipv6", "1") // its solicitations would count as traffic
	l.Internet.IP("link set "+port+" master br0", "link set "+port+" up")
}

// Host adds a machine to the internet, at .10, .11, … in order.
func (l *Lab) Host(name string) *Namespace {
	l.Helper()
	l.hosts++
	n := l.namespace(name)
	n.Addr = fmt.Sprintf("203.0.113.%d", 9+l.hosts)
	l.plug(n, "eth0", fmt.Sprintf("h%d", l.hosts), n.Addr)
	n.IP("route add default via " + InternetAddr)
	// This lets an unprivileged server use 443, and a device 22 and 80.
	n.Sysctl("ipv4/ip_unprivileged_port_start", "0")
	return n
}

// Home is a household: a NAT router and one machine behind it.
type Home struct {
	*Namespace            // the machine
	Router     *Namespace // eth0 is the internet, lan the house
}

// Home adds a household.
func (l *Lab) Home(name string) *Home {
	l.Helper()
	l.homes++
	h := &Home{Namespace: l.namespace(name), Router: l.namespace(name + "-nat")}
	h.Addr = "192.168.1.2"
	h.Router.Addr = fmt.Sprintf("203.0.113.%d", 100+l.homes)
	l.plug(h.Router, "eth0", fmt.Sprintf("r%d", l.homes), h.Router.Addr)
	h.IP("link add eth0 type veth peer name lan netns "+h.Router.Name,
		"addr add 192.168.1.2/24 dev eth0", "link set eth0 up")
	h.Router.IP("addr add 192.168.1.1/24 dev lan", "link set lan up", "route add default via "+InternetAddr)
	h.IP("route add default via 192.168.1.1")
	h.Sysctl("ipv4/ip_unprivileged_port_start", "0")
	h.Sysctl("ipv6/conf/eth0/disable_ipv6", "1")
	h.Router.Sysctl("ipv6/conf/lan/disable_ipv6", "1")
	h.Router.Sysctl("ipv4/ip_forward", "1")
	h.Router.NFT(`table ip home {
	chain nat {
		type nat hook postrouting priority srcnat
		oifname "eth0" masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		meta l4proto udp drop
		iifname "lan" accept
		ct state established,related accept
	}
}
`)
	h.Router.nameServer("192.168.1.1:53")
	h.Resolver("192.168.1.1")
	return h
}

// Carrier is an internet provider with one address for many households.
type Carrier struct {
	*Namespace // eth0 is the internet, lan the households
	homes      int
}

// Carrier adds a provider. Like most, it gives its households addresses of
// 100.64.0.0/10, the range of the overlay.
func (l *Lab) Carrier(name string) *Carrier {
	l.Helper()
	l.homes++
	c := &Carrier{Namespace: l.namespace(name)}
	c.Addr = fmt.Sprintf("203.0.113.%d", 100+l.homes)
	l.plug(c.Namespace, "eth0", fmt.Sprintf("r%d", l.homes), c.Addr)
	c.IP("link add lan type bridge forward_delay 0", "addr add 100.64.7.1/24 dev lan", "link set lan up", "route add default via "+InternetAddr)
	c.Sysctl("ipv4/ip_forward", "1")
	c.NFT(`table ip carrier {
	chain nat {
		type nat hook postrouting priority srcnat
		oifname "eth0" masquerade
	}
	chain input {
		type filter hook input priority filter; policy accept
		iifname "eth0" ct state new drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		iifname "lan" oifname "eth0" accept
		ct state established,related accept
	}
}
`)
	return c
}

// Connect moves a household from the internet to the provider.
func (c *Carrier) Connect(h *Home) {
	h.lab.Helper()
	c.homes++
	port := fmt.Sprintf("c%d", c.homes)
	h.Router.IP("link del eth0", "link add eth0 type veth peer name "+port+" netns "+c.Name,
		fmt.Sprintf("addr add 100.64.7.%d/24 dev eth0", 1+c.homes), "link set eth0 up", "route add default via 100.64.7.1")
	c.IP("link set "+port+" master lan", "link set "+port+" up")
}

// IPv6 adds IPv6 to the internet, with an address for each host.
func (l *Lab) IPv6(hosts ...*Namespace) {
	l.Helper()
	l.Internet.Sysctl("ipv6/conf/all/forwarding", "1")
	l.Internet.IP("addr add 2001:db8::1/64 dev br0 nodad")
	for i, n := range hosts {
		n.Sysctl("ipv6/conf/eth0/disable_ipv6", "0")
		n.Addr6 = fmt.Sprintf("2001:db8::%d", 10+i)
		n.IP("addr add "+n.Addr6+"/64 dev eth0 nodad", "route add default via 2001:db8::1")
	}
}

// IPv6 gives the household a /64, 2001:db8:N::/64, behind a firewall that admits only
// answers. IPv6 has no NAT.
func (h *Home) IPv6(n int) {
	h.lab.Helper()
	net := fmt.Sprintf("2001:db8:%d::", n)
	for ns, dev := range map[*Namespace]string{h.Namespace: "eth0", h.Router: "lan"} {
		ns.Sysctl("ipv6/conf/"+dev+"/disable_ipv6", "0")
	}
	h.Router.Sysctl("ipv6/conf/eth0/disable_ipv6", "0")
	h.Router.Sysctl("ipv6/conf/all/forwarding", "1")
	h.Router.IP(fmt.Sprintf("addr add 2001:db8::a%d/64 dev eth0 nodad", n), "route add default via 2001:db8::1", "addr add "+net+"1/64 dev lan nodad")
	h.lab.Internet.IP(fmt.Sprintf("route add %s/64 via 2001:db8::a%d", net, n))
	h.Addr6 = net + "2"
	h.IP("addr add "+h.Addr6+"/64 dev eth0 nodad", "route add default via "+net+"1")
	h.Router.NFT(`table ip6 home {
	chain forward {
		type filter hook forward priority filter; policy drop
		iifname "lan" accept
		ct state established,related accept
	}
}
`)
}

// Cut silently drops every packet between the house and the internet, until Mend.
func (h *Home) Cut() {
	h.lab.Helper()
	h.Router.NFT(`table ip cut {
	chain forward {
		type filter hook forward priority filter - 1
		drop
	}
}
`)
}

// Mend ends Cut.
func (h *Home) Mend() { h.lab.Helper(); h.Router.NFT("delete table ip cut\n") }

// OnlyTCP blocks everything into n except TCP to the given port.
func (n *Namespace) OnlyTCP(port int) {
	n.lab.Helper()
	n.NFT(fmt.Sprintf(`table inet only {
	chain input {
		type filter hook input priority filter; policy drop
		iifname "lo" accept
		tcp dport %d accept
		ct state established,related accept
	}
}
`, port))
}

// nameServer answers on addr like a household's router: www.example.test is
// InternetAddr, other names do not exist.
func (n *Namespace) nameServer(addr string) {
	n.lab.Helper()
	h := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		m.RecursionAvailable = true
		q := req.Question[0]
		soa := &dns.SOA{Hdr: dns.RR_Header{Name: "test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 30}, Ns: "ns.test.", Mbox: "host.test.", Minttl: 30}
		switch name := strings.ToLower(q.Name); {
		case name != "www.example.test.":
			m.Rcode = dns.RcodeNameError
			m.Ns = append(m.Ns, soa)
		case q.Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30}, A: net.ParseIP(InternetAddr)})
		default:
			m.Ns = append(m.Ns, soa)
		}
		w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: n.ListenPacket(addr), Handler: h}, {Listener: n.Listen(addr), Handler: h}} {
		go s.ActivateAndServe()
	}
}
