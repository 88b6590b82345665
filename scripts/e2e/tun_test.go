//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// The device has a kernel interface, the laptop has none.
func TestTUNAndUserSpace(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	dev, lap := m.Device, m.Laptop
	dev.As = lab.Root
	// Peers reach 22, 80 and 443 through the interface's own listeners, since the
	// programs listen on loopback only; the kernel serves 8000 and 7.
	m.DeviceHome.Resolver("127.0.0.1")
	dev.Join(m.Server.NewKey().Token, "--tun", "weft0", "--dns", "127.0.0.1:53", "--os-dns", "off", "--inbound", "22=localhost:22,80=localhost:80,9=127.0.0.1:9,8000,7")
	lap.Up(m.Server.NewKey().Token)
	d, l := dev.Status().Self, lap.Status().Self
	m.DeviceHome.Serve(":8000", lab.Page)
	m.DeviceHome.Serve(":8001", lab.Page)
	m.DeviceHome.EchoUDP(":7")
	m.DeviceHome.EchoUDP("127.0.0.1:9")
	m.LaptopHome.Serve("127.0.0.1:80", lab.Page)
	m.LaptopHome.EchoUDP("127.0.0.1:7")

	t.Run("user space to TUN", func(t *testing.T) {
		fetch(t, lap, "http://kitchen-pi:8000/", 10*time.Second)
		fetch(t, lap, "http://["+d.IPv6+"]:8000/", 10*time.Second)
		fetch(t, lap, "http://kitchen-pi/", 10*time.Second) // mapped
		fetch(t, lap, "http://["+d.IPv6+"]/", 10*time.Second)
		if _, err := lap.Get("http://kitchen-pi:8001/", 10*time.Second); err == nil || strings.Contains(err.Error(), "deadline") {
			t.Errorf("a closed port: want a refusal, got %v", err)
		}
		if r := lap.Weft("nc", "kitchen-pi", "8001"); r.Code != 5 && r.Code != 1 || r.Took > 5*time.Second {
			t.Errorf("a closed port: %v", r)
		}
		lap.Must("ping", "-c", "1", "kitchen-pi")
		lap.Must("ping", "-c", "1", d.IPv6)
		for i, port := range []string{"7", "9"} {
			at := fmt.Sprintf("127.0.0.1:%d", 7000+i)
			lap.Host.Start(lap.As, "weft", "forward", "--socket", lap.Sock, "--udp", fmt.Sprintf("%d:kitchen-pi:%s", 7000+i, port))
			m.Until(10*time.Second, "UDP through the forward to "+port, func() bool { return echo(m.LaptopHome.Namespace, at) == nil })
		}
	})
	t.Run("not from the LAN", func(t *testing.T) {
		// A neighbour sends to the overlay address through the LAN.
		m.DeviceHome.Router.IP("route add "+d.IPv4+"/32 via 192.168.1.2", "route add 100.100.100.100/32 via 192.168.1.2", "addr add "+l.IPv4+"/32 dev lo")
		reaches := func(to string) bool {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			conn, err := m.DeviceHome.Router.Dial(ctx, "tcp", to)
			if err == nil {
				conn.Close()
			}
			return err == nil
		}
		for _, to := range []string{d.IPv4 + ":8000", d.IPv4 + ":80", "100.100.100.100:53"} {
			if reaches(to) {
				t.Errorf("%s is reached from the LAN", to)
			}
		}
		if !reaches("192.168.1.2:8000") {
			t.Error("the device's own address is not reached from the LAN")
		}
		// Flush the rules as a reload of Debian's nftables.service does, and by hand.
		for _, command := range []string{"flush ruleset", "flush chain inet weft-weft0 guard"} {
			m.DeviceHome.NFT(command + "\n")
			m.Until(10*time.Second, "the guard is back after nft "+command, func() bool { return !reaches(d.IPv4 + ":8000") })
			m.Until(5*time.Second, "a warning", func() bool {
				return slices.ContainsFunc(dev.Status().Health, func(h struct{ Code, Message string }) bool { return h.Code == "tun-guard-removed" })
			})
		}
		if r := m.DeviceHome.Run(lab.Nobody, "curl", "-sS", "--max-time", "5", "http://"+d.IPv4+":8000/"); r.Code != 0 {
			t.Errorf("the device itself: %v", r)
		}
	})
	t.Run("ssh", func(t *testing.T) {
		opts := sshServer(t, m)
		r := lap.Weft(slices.Concat([]string{"ssh", "root@kitchen-pi"}, opts, []string{"echo over; exit 7"})...)
		if r.Code != 7 || r.Out != "over\n" {
			t.Error(r)
		}
	})
	t.Run("TUN to user space", func(t *testing.T) {
		for _, url := range []string{"http://" + l.IPv4 + "/", "http://[" + l.IPv6 + "]/", "http://laptop.weft.internal/"} {
			if r := dev.Host.Run(lab.Nobody, "curl", "-sS", "--max-time", "10", url); r.Code != 0 || !strings.HasPrefix(r.Out, "kitchen GET ") {
				t.Errorf("%v", r)
			}
		}
		if err := echo(m.DeviceHome.Namespace, l.IPv4+":7"); err != nil {
			t.Errorf("UDP: %v", err)
		}
		if err := echo(m.DeviceHome.Namespace, "["+l.IPv6+"]:7"); err != nil {
			t.Errorf("UDP: %v", err)
		}
		if err := kernelPing(m.DeviceHome.Namespace, d.IPv4, l.IPv4); err != nil {
			t.Errorf("ping: %v", err)
		}
		dev.Must("ping", "-c", "1", "laptop")
		dev.Must("ping", "-c", "1", l.IPv6)
		fetch(t, dev, "http://laptop/", 10*time.Second) // its proxy runs, too
		// No device has this address: programs get an error.
		if r := dev.Host.Run(lab.Nobody, "curl", "-sS", "--max-time", "20", "http://100.127.255.1/"); r.Code != 7 {
			t.Errorf("an address that nobody has: %v", r)
		}
	})
}

// Two kernels, and what the filter admits between them.
func TestTUNBoth(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	dev, lap := m.Device, m.Laptop
	dev.As, lap.As = lab.Root, lab.Root
	dev.Join(m.Server.Token, "--tun", "weft0", "--os-dns", "off") // tagged: it may not reach any device
	lap.Up(m.Server.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	d, l := dev.Status().Self, lap.Status().Self
	m.DeviceHome.Serve(":8000", blob)
	m.LaptopHome.Serve(":8000", blob)
	m.DeviceHome.EchoUDP(":7")
	seen := listenAll(m, ":9")

	for _, host := range []string{d.IPv4, "[" + d.IPv6 + "]"} {
		if err := pull(m.LaptopHome.Namespace, "http://"+host+":8000/"); err != nil {
			t.Errorf("pull: %v", err)
		}
		if err := push(m.LaptopHome.Namespace, "http://"+host+":8000/"); err != nil {
			t.Errorf("push: %v", err)
		}
		if err := echo(m.LaptopHome.Namespace, host+":7"); err != nil {
			t.Errorf("UDP: %v", err)
		}
	}
	// A datagram of many fragments.
	if err := echoSize(m.LaptopHome.Namespace, d.IPv4+":7", 20000); err != nil {
		t.Errorf("a large datagram: %v", err)
	}
	// The device's answers arrived; it may not open connections itself, with or without
	// a tunnel.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if c, err := m.DeviceHome.Dial(ctx, "tcp", l.IPv4+":8000"); err == nil {
		c.Close()
		t.Error("a device that may reach nobody reached the laptop")
	}
	if err := send(m.DeviceHome.Namespace, l.IPv4+":9", "denied"); err != nil {
		t.Error(err)
	}

	// A packet with a foreign source is dropped and counted.
	for _, from := range []string{"192.168.1.2", d.IPv4[:strings.LastIndex(d.IPv4, ".")] + ".250", "127.0.0.1", "8.8.8.8"} {
		if err := rawUDP(m.LaptopHome.Namespace, from, d.IPv4, 9, "spoofed"); err != nil {
			t.Fatal(err)
		}
	}
	if err := rawUDP(m.LaptopHome.Namespace, l.IPv4, d.IPv4, 9, "mine"); err != nil {
		t.Fatal(err)
	}
	m.Until(10*time.Second, "the datagram that is not spoofed", func() bool { return strings.Contains(seen(), "mine") })
	if s := seen(); strings.Contains(s, "spoofed") || strings.Contains(s, "denied") {
		t.Errorf("came through: %s", s)
	}
	lap.Stop()
	if !strings.Contains(lap.Err(), "foreign_source=4") {
		t.Errorf("spoofed packets were not counted:\n%s", lap.Err())
	}
}

// A kernel connection opened by this machine survives the end of the daemon, orderly or
// not, and the start of another one.
func TestTUNRestart(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	dev, lap := m.Device, m.Laptop
	dev.As, lap.As = lab.Root, lab.Root
	dev.Join(m.Server.Token, "--tun", "weft0", "--os-dns", "off")
	lap.Up(m.Server.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	d := dev.Status().Self
	m.DeviceHome.EchoTCP(":7")
	var conns []net.Conn
	for _, host := range []string{d.IPv4, "[" + d.IPv6 + "]"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		c, err := m.LaptopHome.Dial(ctx, "tcp", host+":7")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	say := func(when string) {
		t.Helper()
		for _, c := range conns {
			c.SetDeadline(time.Now().Add(60 * time.Second))
			b := make([]byte, len(when))
			if _, err := io.WriteString(c, when); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			if _, err := io.ReadFull(c, b); err != nil || string(b) != when {
				t.Fatalf("%s: %q, %v", when, b, err)
			}
		}
	}
	say("at first")
	lap.Stop()
	lap.Run("--tun", "weft0", "--os-dns", "off")
	lap.Must("wait", "--timeout", "20s")
	say("after a stop")
	lap.Kill()
	lap.Run("--tun", "weft0", "--os-dns", "off")
	lap.Must("wait", "--timeout", "20s")
	say("after a kill")
}

// After weft down programs fail at once, and their packets do not leave unencrypted on
// another route. weft up starts it again; weft logout leaves a bare interface.
func TestTUNDown(t *testing.T) {
	t.Parallel()
	m := lab.NewMesh(t, bin)
	lap := m.Node(m.Host("desk"), "desk")
	lap.As = lab.Root
	lap.Up(m.Server.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	d, l := m.Device.Status().Self, lap.Status().Self
	curl := func(ip string) lab.Result {
		return lap.Host.Run(lab.Nobody, "curl", "-sS", "-o", "/dev/null", "--max-time", "10", "http://"+ip+"/")
	}
	works := func(when string) {
		t.Helper()
		for _, ip := range []string{d.IPv4, "[" + d.IPv6 + "]"} {
			if r := curl(ip); r.Code != 0 {
				t.Errorf("%s: %v", when, r)
			}
		}
	}
	works("up")
	lap.Must("down")
	for _, ip := range []string{d.IPv4, "[" + d.IPv6 + "]", "100.127.255.1"} {
		begun := time.Now()
		if r, took := curl(ip), time.Since(begun); r.Code != 7 || took > 2*time.Second {
			t.Errorf("down, and to %s: %v after %v", ip, r, took)
		}
	}
	if s := ip(t, lap.Host, "route get "+d.IPv4); !strings.Contains(s, "dev weft0") {
		t.Errorf("down, and what is for the overlay goes by %s", s)
	}
	if r := lap.Weft("ping", "-c", "1", "kitchen-pi"); r.Code == 0 || !strings.Contains(r.Err, "weft up") {
		t.Errorf("ping while down: %v", r)
	}
	lap.Must("up")
	lap.Must("wait", "--timeout", "20s")
	works("up again")
	lap.Must("logout")
	if s := ip(t, lap.Host, "addr show dev weft0") + ip(t, lap.Host, "route") + ip(t, lap.Host, "-6 route"); strings.Contains(s, l.IPv4) || strings.Contains(s, l.IPv6) || strings.Contains(s, "100.64.0.0/10") {
		t.Errorf("logout left:\n%s", s)
	}
	lap.Must("up", m.Server.NewKey().Token)
	lap.Must("wait", "--timeout", "20s")
	works("as another device")
}

// Traffic moves from the relay to a direct path, and the kernel's large TCP packets
// become ones that fit into a datagram.
func TestTUNDirect(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	host := l.Host("server")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	a, b := l.Node(l.Host("a"), "a"), l.Node(l.Host("b"), "b")
	a.As, b.As = lab.Root, lab.Root
	a.Join(s.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	b.Join(s.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	a.Host.Serve(":8000", blob)
	self := a.Status().Self
	for _, when := range []string{"from the first packet on", "direct"} {
		for _, to := range []string{self.IPv4, "[" + self.IPv6 + "]"} {
			if err := pull(b.Host, "http://"+to+":8000/"); err != nil {
				t.Errorf("%s: pull from %s: %v", when, to, err)
			}
			if err := push(b.Host, "http://"+to+":8000/"); err != nil {
				t.Errorf("%s: push to %s: %v", when, to, err)
			}
		}
		l.Until(20*time.Second, "a direct path", func() bool {
			for _, p := range b.Status().Peers {
				if p.Name == "a" && p.Path == "direct" {
					return true
				}
			}
			b.Weft("ping", "-c", "1", "a")
			return false
		})
	}
}

// withDevice is a command line that runs args on a machine whose /dev/net is made by a
// command, since it differs between machines.
func withDevice(command string, args ...string) []string {
	return append([]string{"unshare", "-m", "sh", "-c", "mkdir -p /dev/net && mount -t tmpfs tmpfs /dev/net && " + command + ` && exec "$@"`, "sh"}, args...)
}

// The life of interface and routes.
func TestTUNInterface(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	dev, lap := m.Device, m.Laptop
	m.DeviceHome.Serve(":8000", lab.Page)

	// Without the permission, on three kinds of machines.
	for _, kind := range []struct{ machine, want string }{
		{"mknod -m 666 /dev/net/tun c 10 200", "CAP_NET_ADMIN (setcap"},
		{"mknod -m 600 /dev/net/tun c 10 200", "chmod 666 /dev/net/tun"},
		{"true", "modprobe tun"},
	} {
		r := dev.Host.Run(lab.Root, withDevice(kind.machine, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
			"weft", "run", "--state", dev.State, "--socket", dev.Sock, "--tun", "weft0", "--os-dns", "off")...)
		oneLine(t, r)
		if r.Code != 1 || !strings.Contains(r.Err, kind.want) || !strings.Contains(r.Err, "omit --tun") {
			t.Errorf("without the right to, %s: %v", kind.machine, r)
		}
	}
	dev.As = lab.Root
	run := func(flags ...string) lab.Result {
		return dev.Host.Run(lab.Root, append([]string{"weft", "run", "--state", dev.State, "--socket", dev.Sock}, flags...)...)
	}
	m.DeviceHome.IP("link add lan9 type veth peer name lan8", "tuntap add dev tap9 mode tun", "tuntap add dev weft9 mode tun", "link set dev weft9 alias weft", "addr add 100.64.99.9/32 dev weft9")
	for _, name := range []string{"eth0", "lan9", "tap9", "much-too-long-a-name"} {
		r := run("--tun", name)
		oneLine(t, r)
		want := 1
		if name == "much-too-long-a-name" {
			want = 2 // no interface can have it
		}
		if r.Code != want || !strings.Contains(r.Err, name) {
			t.Errorf("--tun %s: %v", name, r)
		}
	}
	for _, flags := range [][]string{{"--inbound", "80=localhost:1055"}} {
		if r := run(append(flags, "--tun", "weft0")...); r.Code != 2 {
			t.Errorf("%v: %v", flags, r)
		}
	}

	dev.Join(m.Server.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	lap.Up(m.Server.NewKey().Token)
	self := dev.Status().Self
	works := func() {
		t.Helper()
		fetch(t, lap, "http://kitchen-pi:8000/", 10*time.Second)
	}
	works()
	if r := run("--socket", dev.Sock+"2", "--state", dev.State+"2", "--tun", "weft0", "--os-dns", "off"); r.Code != 1 {
		t.Errorf("a second one on the same interface: %v", r)
	}
	have := func() string {
		return ip(t, m.DeviceHome.Namespace, "addr show dev weft0") + ip(t, m.DeviceHome.Namespace, "route show dev weft0") + ip(t, m.DeviceHome.Namespace, "-6 route show dev weft0")
	}
	complete := func() bool {
		s := have()
		return strings.Contains(s, self.IPv4+"/32") && strings.Contains(s, self.IPv6+"/128") && strings.Contains(s, "100.64.0.0/10") && strings.Contains(s, "/48")
	}
	if !complete() {
		t.Fatalf("the interface:\n%s", have())
	}
	if s := ip(t, m.DeviceHome.Namespace, "link show dev weft0"); !strings.Contains(s, "mtu 1420") {
		t.Error(s)
	}
	health := func() (codes []string) {
		for _, h := range dev.Status().Health {
			codes = append(codes, h.Code)
		}
		return codes
	}
	if h := health(); len(h) != 0 {
		t.Errorf("health: %v", h)
	}

	// Other programs change the interface.
	m.DeviceHome.IP("link set weft0 down")
	m.Until(10*time.Second, "a warning that the interface is down", func() bool { return slices.Contains(health(), "tun-down") })
	m.DeviceHome.IP("link set weft0 up")
	m.Until(10*time.Second, "addresses and routes are back", func() bool { return complete() && len(health()) == 0 })
	m.DeviceHome.IP("addr flush dev weft0")
	m.Until(10*time.Second, "addresses and routes are back", complete)
	works()

	// A LAN route inside the overlay's range stays, with a warning; one that covers the
	// range keeps all of it.
	m.DeviceHome.IP("route add 100.64.200.0/24 dev eth0")
	m.Until(10*time.Second, "a warning of the overlap", func() bool { return slices.Contains(health(), "route-overlap") })
	if s := ip(t, m.DeviceHome.Namespace, "route get 100.64.200.9"); !strings.Contains(s, "eth0") {
		t.Errorf("the LAN's route was taken over: %s", s)
	}
	m.DeviceHome.IP("route del 100.64.200.0/24 dev eth0")
	m.Until(10*time.Second, "the warning goes", func() bool { return len(health()) == 0 })
	m.DeviceHome.IP("route add 100.64.0.0/10 dev eth0")
	m.Until(10*time.Second, "the overlay's route gives way", func() bool {
		return slices.Contains(health(), "route-overlap") && !strings.Contains(have(), "100.64.0.0/10")
	})
	dev.Must("ping", "-c", "1", "laptop") // weft itself does not depend on the routes
	m.DeviceHome.IP("route del 100.64.0.0/10 dev eth0")
	m.Until(10*time.Second, "the overlay's route is back", func() bool { return complete() && len(health()) == 0 })
	works()

	// The interface ends with the process, however that ends. Only the rules that keep
	// the LAN away stay; the next start replaces them.
	tables := func() string { return m.DeviceHome.Run(lab.Root, "nft", "list", "ruleset").Out }
	gone := func(how string) {
		t.Helper()
		if out := ip(t, m.DeviceHome.Namespace, "link"); strings.Contains(out, "weft0") {
			t.Errorf("%s left: %s", how, out)
		}
		if out := ip(t, m.DeviceHome.Namespace, "route") + ip(t, m.DeviceHome.Namespace, "-6 route") + ip(t, m.DeviceHome.Namespace, "rule"); strings.Contains(out, "100.64.0.0/10") || strings.Contains(out, "weft0") {
			t.Errorf("%s left: %s", how, out)
		}
		if out := tables(); how == "SIGTERM" && strings.Contains(out, "weft0") {
			t.Errorf("%s left: %s", how, out)
		}
	}
	if code := dev.Stop(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	gone("SIGTERM")
	dev.Run("--tun", "weft0", "--os-dns", "off")
	dev.Must("wait", "--timeout", "20s")
	works()
	dev.Kill()
	gone("SIGKILL")
	dev.Run("--tun", "weft0", "--os-dns", "off")
	dev.Must("wait", "--timeout", "20s")
	works()

	// Another program removes it: the daemon says so and ends.
	m.DeviceHome.IP("link del weft0")
	if code := dev.Wait(10 * time.Second); code != 1 || !strings.Contains(dev.Err(), "weft0: the interface was removed") {
		t.Errorf("exit %d:\n%s", code, dev.Err())
	}

	// CAP_NET_ADMIN is enough.
	caps := m.DeviceHome.Start(lab.Root, withDevice("mknod -m 666 /dev/net/tun c 10 200", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin", "--bounding-set=-all,+net_admin",
		"--", "weft", "run", "--state", m.Mkdir("caps"), "--socket", m.Dir+"/caps/sock", "--token-file", m.WriteFile("caps/token", m.Server.NewKey().Token), "--tun", "weft0", "--os-dns", "off")...)
	m.Until(20*time.Second, "a daemon with CAP_NET_ADMIN alone", func() bool {
		out, _ := exec.Command("ip", "-n", m.DeviceHome.Name, "addr").CombinedOutput()
		return strings.Contains(string(out), "scope global weft0")
	})
	m.Until(10*time.Second, "its rules", func() bool { return strings.Contains(tables(), "weft-weft0") })
	if code := caps.Stop(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	if s := tables(); strings.Contains(s, "weft-weft0") {
		t.Errorf("left: %s", s)
	}

	// A persistent interface with our mark is taken over, cleaned and left clean; on a
	// host without IPv6.
	m.DeviceHome.Sysctl("ipv6/conf/weft9/disable_ipv6", "1")
	dev.Env = []string{"WEFT_TUN=weft9", "WEFT_OS_DNS=off"}
	dev.Run()
	dev.Must("wait", "--timeout", "20s")
	works()
	if h := health(); !slices.Contains(h, "tun-no-ipv6") {
		t.Errorf("health without IPv6: %v", h)
	}
	if s := ip(t, m.DeviceHome.Namespace, "addr show dev weft9"); strings.Contains(s, "100.64.99.9") || !strings.Contains(s, self.IPv4) {
		t.Errorf("addresses: %s", s)
	}
	dev.Stop()
	if s := ip(t, m.DeviceHome.Namespace, "addr show dev weft9") + ip(t, m.DeviceHome.Namespace, "route"); strings.Contains(s, "100.64") {
		t.Errorf("left behind: %s", s)
	}
}

// ip runs an ip command that only prints.
func ip(t *testing.T, n *lab.Namespace, line string) string {
	t.Helper()
	out, err := exec.Command("ip", append([]string{"-n", n.Name}, strings.Fields(line)...)...).CombinedOutput()
	if err != nil {
		t.Errorf("ip %s: %v: %s", line, err, out)
	}
	return string(out)
}

// blob serves 8 MB, and answers with the checksum of received data.
var blob = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	if r.Method == "POST" {
		io.Copy(h, r.Body)
	} else {
		data := make([]byte, 8<<20)
		rand.Read(data)
		h.Write(data)
		w.Write(data)
	}
	w.Write(h.Sum(nil))
})

func pull(n *lab.Namespace, url string) error {
	res, err := n.HTTP("").Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || len(b) < 8<<20 {
		return fmt.Errorf("%d bytes: %w", len(b), err)
	}
	if sum := sha256.Sum256(b[:8<<20]); !bytes.Equal(sum[:], b[8<<20:]) {
		return fmt.Errorf("other bytes came")
	}
	return nil
}

func push(n *lab.Namespace, url string) error {
	data := make([]byte, 8<<20)
	rand.Read(data)
	res, err := n.HTTP("").Post(url, "", bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if sum := sha256.Sum256(data); err != nil || !bytes.Equal(sum[:], b) {
		return fmt.Errorf("other bytes came: %w", err)
	}
	return nil
}

// echo sends datagrams for ten seconds until one comes back.
func echo(n *lab.Namespace, addr string) error { return echoSize(n, addr, 100) }

func echoSize(n *lab.Namespace, addr string, size int) error {
	c, err := n.Dial(context.Background(), "udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	want, got := make([]byte, size), make([]byte, 64<<10)
	rand.Read(want)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if _, err = c.Write(want); err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		var k int
		if k, err = c.Read(got); err == nil && bytes.Equal(got[:k], want) {
			return nil
		}
	}
	return fmt.Errorf("no echo from %s: %w", addr, err)
}

func send(n *lab.Namespace, addr, text string) error {
	c, err := n.Dial(context.Background(), "udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(text))
	return err
}

// listenAll collects the datagrams to a UDP port of either machine.
func listenAll(m *lab.Mesh, addr string) func() string {
	got := make(chan string, 100)
	for _, h := range []*lab.Home{m.DeviceHome, m.LaptopHome} {
		pc := h.ListenPacket(addr)
		go func() {
			buf := make([]byte, 2048)
			for {
				k, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				got <- fmt.Sprintf("%s from %v; ", buf[:k], from)
			}
		}()
	}
	all := ""
	return func() string {
		for len(got) > 0 {
			all += <-got
		}
		return all
	}
}

// rawUDP sends a datagram with an IP header made by the test.
func rawUDP(n *lab.Namespace, from, to string, port uint16, text string) (err error) {
	pkt := make([]byte, 28+len(text))
	pkt[0], pkt[8], pkt[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	src, dst := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	copy(pkt[12:], src[:])
	copy(pkt[16:], dst[:])
	binary.BigEndian.PutUint16(pkt[20:], 4444)
	binary.BigEndian.PutUint16(pkt[22:], port)
	binary.BigEndian.PutUint16(pkt[24:], uint16(8+len(text)))
	copy(pkt[28:], text)
	n.Do(func() {
		var fd int
		if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW); err != nil {
			return
		}
		defer syscall.Close(fd)
		err = syscall.Sendto(fd, pkt, 0, &syscall.SockaddrInet4{Addr: dst})
	})
	return err
}

// kernelPing sends an echo request as the kernel's ping does.
func kernelPing(n *lab.Namespace, from, to string) (err error) {
	var c *net.IPConn
	n.Do(func() {
		c, err = net.DialIP("ip4:icmp", &net.IPAddr{IP: net.ParseIP(from)}, &net.IPAddr{IP: net.ParseIP(to)})
	})
	if err != nil {
		return err
	}
	defer c.Close()
	msg := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}
	binary.BigEndian.PutUint16(msg[2:], ^uint16(0x0800+0x1234+1))
	buf := make([]byte, 200)
	for range 10 {
		if _, err = c.Write(msg); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		var k int
		if k, _, err = c.ReadFrom(buf); err == nil && k >= 8 && buf[0] == 0 && buf[4] == 0x12 && buf[5] == 0x34 {
			return nil
		}
	}
	return fmt.Errorf("no reply: %w", err)
}

// Tailscale's rules drop all IPv4 of the range that does not arrive on its interface.
// weft finds and names the rule, answers names with IPv6 addresses, and returns to IPv4
// when the rule is gone.
func TestTUNBesideTailscale(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	m.DeviceHome.NFT(`table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		counter jump ts-input
	}
	chain ts-input {
		iifname != "tailscale0" ip saddr 100.115.92.0/23 counter return
		iifname != "tailscale0" ip saddr 100.64.0.0/10 counter drop
	}
}
`)
	m.DeviceHome.Resolver("127.0.0.1")
	m.Device.As = lab.Root
	m.Device.Join(m.Server.NewKey().Token, "--tun", "weft0", "--dns", "127.0.0.1:53", "--os-dns", "off")
	m.Laptop.Up(m.Server.NewKey().Token)
	m.LaptopHome.Serve("127.0.0.1:80", lab.Page)
	blocked := func() (message string) {
		for _, h := range m.Device.Status().Health {
			if h.Code == "ipv4-blocked" {
				message = h.Message
			}
		}
		return message
	}
	m.Until(10*time.Second, "the rule is found", func() bool { return blocked() != "" })
	_, cure, ok := strings.Cut(blocked(), "run: ")
	if !ok || !strings.Contains(blocked(), "100.64.0.0/10") || !strings.Contains(blocked(), "ts-input") {
		t.Errorf("the warning: %s", blocked())
	}
	get := func(name string) lab.Result {
		return m.DeviceHome.Run(lab.Nobody, "curl", "-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{remote_ip}", "http://"+name+"/")
	}
	m.Until(10*time.Second, "the page, over IPv6", func() bool {
		r := get("laptop.weft.internal")
		return r.Code == 0 && strings.HasPrefix(r.Out, "fd")
	})
	fetch(t, m.Device, "http://laptop/", 10*time.Second) // its proxy
	if r := m.Device.Weft("doctor"); !strings.Contains(r.Out, "ipv4-blocked") {
		t.Errorf("doctor: %s", r.Out)
	}
	m.DeviceHome.NFT(strings.TrimPrefix(strings.TrimSpace(cure), "nft ") + "\n")
	m.Until(20*time.Second, "the rule lets us in", func() bool {
		return blocked() == "" && get(m.Laptop.Status().Self.IPv4).Code == 0
	})
}
