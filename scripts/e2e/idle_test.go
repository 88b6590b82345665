//go:build e2e

package e2e

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/scripts/e2e/lab"
)

// TestIdle prints the cost of an idle, joined device: memory, processor, wake-ups and
// bytes on its network. WEFT_IDLE (default 60s) is the duration. For a minute the
// bounds are wide; from ten minutes on a device may use 0.5 MB a day, and from an hour
// on its memory may grow by less than 1 MB a day in the second half. In the first half
// hour the heap, which was just returned to the system, grows by about 1 MB until each
// size of object has its pages.
func TestIdle(t *testing.T) {
	t.Parallel()
	d, err := time.ParseDuration(os.Getenv("WEFT_IDLE"))
	if err != nil {
		d = time.Minute
	}
	m := lab.NewMesh(t, bin)
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	time.Sleep(10 * time.Second) // wait until the traffic of the join has ended
	nodes := map[string]*lab.Node{"device (had a tunnel)": m.Device, "laptop": m.Laptop}
	home := m.Home("idle")
	fresh := m.Node(home.Namespace, "fresh")
	fresh.Join(m.Server.NewKey("--tag", "device").Token)
	time.Sleep(5 * time.Second)
	nodes["device (never used)"] = fresh

	type at struct {
		u      lab.Usage
		rx, tx uint64
	}
	read := func(n *lab.Node) at {
		rx, tx := n.Host.Bytes("eth0")
		return at{n.Usage(), rx, tx}
	}
	before := map[string]at{}
	for name, n := range nodes {
		before[name] = read(n)
	}
	server := m.Server.Usage()
	start, rss := time.Now(), map[string][]sample{}
	for i := range samples {
		time.Sleep(time.Until(start.Add(d * time.Duration(i+1) / samples)))
		for name, n := range nodes {
			rss[name] = append(rss[name], sample{time.Since(start), float64(n.Usage().RSS)})
		}
	}
	for name, n := range nodes {
		a, b := before[name], read(n)
		minutes := d.Minutes()
		cpu := float64((b.u.CPU - a.u.CPU).Milliseconds()) / minutes
		wake := float64(b.u.Switches-a.u.Switches) / minutes
		bytes := float64(b.rx-a.rx+b.tx-a.tx) * float64(24*time.Hour) / float64(d)
		grows := slope(rss[name][samples/2:]) * float64(24*time.Hour)
		t.Logf("%s over %v: RSS %.1f MB, growing by %.2f MB a day, %d threads, %.0f ms of CPU and %.0f wake-ups a minute, %.2f MB a day",
			name, d, float64(b.u.RSS)/1e6, grows/1e6, b.u.Threads, cpu, wake, bytes/1e6)
		if device := strings.HasPrefix(name, "device"); device && d >= 10*time.Minute && bytes > 0.5e6 || device && d >= time.Hour && grows >= 1e6 {
			t.Errorf("%s: more than 0.5 MB a day, or memory that grows by 1 MB a day", name)
		}
		if b.u.RSS > 40e6 || cpu > 100 || wake > 400 || bytes > 10e6 {
			t.Errorf("%s: an idle device must not cost this much", name)
		}
	}
	now := m.Server.Usage()
	t.Logf("server over %v: RSS %.1f MB, %.0f ms of CPU and %.0f wake-ups a minute", d, float64(now.RSS)/1e6,
		float64((now.CPU-server.CPU).Milliseconds())/d.Minutes(), float64(now.Switches-server.Switches)/d.Minutes())
}

const samples = 60

// sample is the memory of a process after some time.
type sample struct {
	at    time.Duration
	bytes float64
}

// slope is the median of the slopes between any two samples, in bytes per nanosecond; a
// single garbage collection does not change it.
func slope(list []sample) float64 {
	var all []float64
	for i, a := range list {
		for _, b := range list[:i] {
			all = append(all, (a.bytes-b.bytes)/float64(a.at-b.at))
		}
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// A router that advertises every second announces nothing new; an idle device does not
// react.
func TestIdleRouterAdvertisements(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	home := m.DeviceHome
	home.Sysctl("ipv6/conf/eth0/disable_ipv6", "0")
	home.Router.Sysctl("ipv6/conf/lan/disable_ipv6", "0")
	home.Router.Sysctl("ipv6/conf/all/forwarding", "1")
	home.Router.IP("addr add fe80::1/64 dev lan nodad")
	m.Device.Join(m.Server.NewKey("--tag", "device").Token)
	var fd int
	to := &unix.SockaddrInet6{Addr: [16]byte(net.ParseIP("ff02::1"))}
	home.Router.Do(func() {
		var err error
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6); err != nil {
			t.Fatal(err)
		}
		lan, err := net.InterfaceByName("lan")
		if err != nil {
			t.Fatal(err)
		}
		to.ZoneId = uint32(lan.Index)
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	})
	defer unix.Close(fd)
	// RFC 4861 section 4.2: hop limit 64, a router for 1,800 s; a prefix for
	// 600 s (section 4.6.2).
	advertise := func() {
		ra := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0,
			3, 4, 64, 0xc0, 0, 0, 2, 88, 0, 0, 1, 44, 0, 0, 0, 0}
		ra = append(ra, net.ParseIP("2001:db8:77::")...)
		if err := unix.Sendto(fd, ra, 0, to); err != nil {
			t.Error(err)
		}
	}
	m.Until(10*time.Second, "an address by advertisement", func() bool {
		advertise()
		return strings.Contains(ip(t, home.Namespace, "-6 addr show dev eth0"), "2001:db8:77:")
	})
	for range 10 { // wait until the traffic of that has ended
		advertise()
		time.Sleep(time.Second)
	}
	_, before := home.Bytes("eth0")
	for range 15 {
		advertise()
		time.Sleep(time.Second)
	}
	_, after := home.Bytes("eth0")
	if sent := after - before; sent > 1500 {
		t.Errorf("the device sent %d bytes in 15 s", sent)
	}
}
