//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"weft/overlay/status"
	"weft/scripts/e2e/lab"
)

// The kinds of routers, as nftables rules.
const (
	easy    = "masquerade"
	cone    = "masquerade; dnat of every port"
	hard    = "masquerade random,fully-random"
	blocked = "UDP dropped"
)

// nat configures the router of a house. Like a real one it drops unsolicited packets.
func nat(h *lab.Home, kind string) {
	rules := `flush ruleset
table ip home {
	chain nat {
		type nat hook postrouting priority srcnat
		oifname "eth0" MASQUERADE
	}
	chain ports {
		type nat hook prerouting priority dstnat
		DNAT
	}
	chain input {
		type filter hook input priority filter; policy accept
		iifname "eth0" ct state new drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		UDP
		iifname "lan" accept
		ct state established,related accept
		ct status dnat accept
	}
}
`
	masquerade, dnat, udp := "masquerade", "", ""
	switch kind {
	case hard:
		masquerade = "masquerade random,fully-random"
	case cone:
		dnat = `iifname "eth0" meta l4proto udp dnat to 192.168.1.2`
	case blocked:
		udp = "meta l4proto udp drop"
	}
	h.Router.NFT(strings.NewReplacer("MASQUERADE", masquerade, "DNAT", dnat, "UDP", udp).Replace(rules))
}

// pathStatus is a peer in status --json.
type pathStatus struct {
	Name     string   `json:"name"`
	Path     string   `json:"path"`
	Reason   string   `json:"path_reason"`
	Endpoint string   `json:"endpoint"`
	RTTms    *float64 `json:"rtt_ms"`
}

func pathTo(t *testing.T, n *lab.Node, peer string) pathStatus {
	t.Helper()
	var st struct{ Peers []pathStatus }
	if err := json.Unmarshal([]byte(n.Must("status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Peers {
		if p.Name == peer {
			return p
		}
	}
	return pathStatus{}
}

// wantPath waits for a kind of path from the laptop to the device.
func wantPath(t *testing.T, m *lab.Mesh, kind string, limit time.Duration) pathStatus {
	t.Helper()
	var p pathStatus
	begun := time.Now()
	for {
		if p = pathTo(t, m.Laptop, "kitchen-pi"); p.Path == kind {
			break
		}
		if time.Since(begun) > limit {
			t.Fatalf("no %s path in %v: %+v, from the other side %+v", kind, limit, p, pathTo(t, m.Device, "laptop"))
		}
		time.Sleep(20 * time.Millisecond)
	}
	rtt := 0.0
	if p.RTTms != nil {
		rtt = *p.RTTms
	}
	t.Logf("%s after %v, %s, %.2f ms: %s", kind, time.Since(begun).Round(time.Millisecond), p.Endpoint, rtt, p.Reason)
	return p
}

// behind is a mesh with routers of these kinds and a flow from the laptop to the
// device.
func behind(t *testing.T, device, laptop string) (*lab.Mesh, *flow) {
	t.Helper()
	m := lab.NewMeshNoNodes(t, bin)
	nat(m.DeviceHome, device)
	nat(m.LaptopHome, laptop)
	return m, joinBoth(t, m)
}

func joinBoth(t *testing.T, m *lab.Mesh) *flow {
	t.Helper()
	m.Device.Join(m.Server.Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	m.Device.Host.Serve("127.0.0.1:8000", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 64<<10)
		for range 160 {
			w.Write(b)
		}
	}))
	serveEcho(m.Device.Host)
	return newFlow(t, m.Laptop, "kitchen-pi:7")
}

// serveEcho serves TCP echo on a device's loopback.
func serveEcho(n *lab.Namespace) {
	ln := n.Listen("127.0.0.1:7")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
}

// tenMB fetches 10 MB through the tunnel.
func tenMB(t *testing.T, m *lab.Mesh) {
	t.Helper()
	c := m.Laptop.Host.HTTP(lab.SOCKSURL)
	c.Timeout = time.Minute
	begun := time.Now()
	res, err := c.Get("http://kitchen-pi:8000/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != 10<<20 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	t.Logf("10 MB in %v", time.Since(begun).Round(time.Millisecond))
}

// The path between two kinds of routers.
func TestPathKinds(t *testing.T) {
	for _, c := range []struct{ device, laptop, want string }{
		{easy, easy, "direct"},
		{cone, hard, "direct"},
		{easy, hard, "direct"},
		{hard, easy, "direct"},
		{hard, hard, "lane"},
		{blocked, easy, "relay"},
	} {
		t.Run(c.device+" - "+c.laptop, func(t *testing.T) {
			t.Parallel()
			m, f := behind(t, c.device, c.laptop)
			p := wantPath(t, m, c.want, 20*time.Second)
			if c.want == "relay" {
				m.Until(20*time.Second, "a reason", func() bool {
					p = pathTo(t, m.Laptop, "kitchen-pi")
					return strings.Contains(p.Reason, "UDP")
				})
			}
			if p.Reason == "" || (p.Endpoint != "") != (c.want == "direct") {
				t.Errorf("status: %+v", p)
			}
			tenMB(t, m)
			if p := pathTo(t, m.Laptop, "kitchen-pi"); p.Path != c.want {
				t.Errorf("after 10 MB: %+v", p)
			}
			if r := m.Laptop.Weft("ping", "-c", "1", "kitchen-pi"); r.Code != 0 || !strings.Contains(r.Out, "by "+status.PathKind(c.want).Words()) {
				t.Errorf("ping: %v", r)
			}
			r := m.Laptop.Weft("ping", "--until-direct", "-c", "2", "kitchen-pi")
			if want := map[bool]int{true: 0, false: 7}[c.want == "direct"]; r.Code != want {
				t.Errorf("ping --until-direct: exit code %d, want %d: %v", r.Code, want, r)
			}
			f.echoes(5, 10*time.Second)
			gap, err := f.end()
			t.Logf("longest gap %v, %v", gap, err)
		})
	}
}

// During a flow the direct path is cut, then the relay, and then the laptop changes its
// address.
func TestPathCut(t *testing.T) {
	t.Parallel()
	m, f := behind(t, easy, easy)
	wantPath(t, m, "direct", 20*time.Second)
	for range 3 {
		time.Sleep(2 * time.Second)
		f.mu.Lock()
		f.gap = 0
		f.mu.Unlock()
		m.DeviceHome.Router.NFT(`table ip cut {
	chain forward {
		type filter hook forward priority filter - 1
		meta l4proto udp drop
	}
}
`)
		time.Sleep(3 * time.Second)
		f.mu.Lock()
		t.Logf("outage %v", f.gap)
		f.mu.Unlock()
		if p := pathTo(t, m.Laptop, "kitchen-pi"); p.Path == "direct" || p.Reason == "" {
			t.Errorf("cut, and yet %+v", p)
		}
		f.echoes(20, 10*time.Second)
		m.DeviceHome.Mend()
		wantPath(t, m, "direct", time.Minute)
	}

	m.Server.Kill()
	f.echoes(100, 20*time.Second)
	if p := pathTo(t, m.Laptop, "kitchen-pi"); p.Path != "direct" {
		t.Errorf("without the relay: %+v", p)
	}
	m.Server.Start()
	m.Laptop.Must("wait", "--timeout", "40s")
	m.Device.Must("wait", "--timeout", "40s")

	m.LaptopHome.IP("addr flush dev eth0", "addr add 192.168.1.77/24 dev eth0", "route add default via 192.168.1.1")
	f.echoes(20, 30*time.Second)
	wantPath(t, m, "direct", time.Minute)
	f.echoes(20, 10*time.Second)
	if _, err := f.end(); err != nil {
		t.Errorf("the connection did not live through it: %v", err)
	}
}

// Two machines in one house, whose router does no hairpinning, and then drops all UDP.
func TestPathLAN(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	nat(m.LaptopHome, blocked)
	r := m.LaptopHome.Router
	pi := m.Host("neighbour")
	pi.IP("link del eth0", "link add eth0 type veth peer name lan2 netns "+r.Name, "addr add 192.168.1.3/24 dev eth0", "link set eth0 up", "route add default via 192.168.1.1")
	r.IP("link add house type bridge forward_delay 0", "addr del 192.168.1.1/24 dev lan", "link set lan master house", "link set lan2 master house up", "addr add 192.168.1.1/24 dev house", "link set house up")
	// The same where the kernel filters bridged packets.
	r.NFT(`insert rule ip home forward iifname "house" oifname "house" accept
add rule ip home forward iifname "house" accept
`)
	pi.Serve("127.0.0.1:80", lab.Page)
	m.Device = m.Node(pi, "kitchen-pi")
	f := joinBoth(t, m)
	if p := wantPath(t, m, "direct", 20*time.Second); !strings.HasPrefix(p.Endpoint, "192.168.1.3:") {
		t.Errorf("neighbours by %+v", p)
	}
	tenMB(t, m)
	f.echoes(5, 10*time.Second)
}

// A link in the middle has a small MTU and sends no ICMP: 1,280 bytes, and 576, where
// only relayed packets arrive.
func TestPathSmallMTU(t *testing.T) {
	for mtu, want := range map[int]string{1280: "direct", 576: "relay"} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			t.Parallel()
			m := lab.NewMeshNoNodes(t, bin)
			nat(m.DeviceHome, easy)
			nat(m.LaptopHome, easy)
			r := m.DeviceHome.Router
			r.IP(fmt.Sprintf("link set eth0 mtu %d", mtu))
			r.NFT(fmt.Sprintf(`table ip small {
	chain output {
		type filter hook output priority filter
		icmp type destination-unreachable drop
	}
	chain forward {
		type filter hook forward priority filter
		tcp flags syn tcp option maxseg size set %d
	}
}
`, mtu-80))
			f := joinBoth(t, m)
			if want == "direct" {
				wantPath(t, m, "direct", 20*time.Second)
			}
			tenMB(t, m)
			wantPath(t, m, want, 20*time.Second) // a new path is in use while its size is measured
			f.echoes(5, 10*time.Second)
		})
	}
}

// The UDP socket answers only authenticated packets.
func TestPathSilent(t *testing.T) {
	t.Parallel()
	m, _ := behind(t, easy, easy)
	wantPath(t, m, "direct", 20*time.Second)
	out := m.Device.Host.Run(lab.Root, "ss", "-H", "-anup").Out
	port := ""
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if strings.Contains(line, fmt.Sprintf("pid=%d,", m.Device.PID())) && strings.HasPrefix(f[3], "*:") {
			port = strings.TrimPrefix(f[3], "*:")
		}
	}
	if port == "" {
		t.Fatalf("no UDP socket of weft:\n%s", out)
	}
	c, err := m.DeviceHome.Router.Dial(t.Context(), "udp4", "192.168.1.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	initiation := append([]byte{1, 0, 0, 0}, make([]byte, 144)...)
	stun := append([]byte{0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42}, make([]byte, 20)...)
	probe := append([]byte{0xF5, 1, 0, 54}, make([]byte, 50)...)
	lane := append([]byte{0xF6, 1, 0, 0}, make([]byte, 56)...)
	for _, b := range [][]byte{initiation, stun, probe, lane, []byte("hello"), make([]byte, 1400)} {
		c.Write(b)
	}
	c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if n, err := c.Read(make([]byte, 2000)); err == nil {
		t.Errorf("%d bytes of answer", n)
	}
}

// The device is killed and returns on another port; then nothing is sent for longer
// than the routers keep their state.
func TestPathRestart(t *testing.T) {
	t.Parallel()
	m, f := behind(t, easy, easy)
	for _, h := range []*lab.Home{m.DeviceHome, m.LaptopHome} {
		h.Router.Sysctl("netfilter/nf_conntrack_udp_timeout", "10")
		h.Router.Sysctl("netfilter/nf_conntrack_udp_timeout_stream", "10")
	}
	wantPath(t, m, "direct", 20*time.Second)
	f.echoes(50, 20*time.Second)
	m.Device.Kill()
	m.Device.Run()
	begun := time.Now()
	m.Until(30*time.Second, "an answer after the restart", func() bool {
		return m.Laptop.Weft("ping", "-c", "1", "--timeout", "2s", "kitchen-pi").Code == 0
	})
	t.Logf("answer %v after the restart", time.Since(begun).Round(time.Millisecond))
	f = newFlow(t, m.Laptop, "kitchen-pi:7")
	wantPath(t, m, "direct", 20*time.Second)
	f.end()

	// 25 s without traffic; the tunnel itself may still send packets in between.
	m.Until(90*time.Second, "the path that is not used is given up", func() bool {
		return pathTo(t, m.Laptop, "kitchen-pi").Path != "direct"
	})
	begun = time.Now()
	f = newFlow(t, m.Laptop, "kitchen-pi:7")
	f.echoes(1, 10*time.Second)
	t.Logf("first echo after a pause %v", time.Since(begun).Round(time.Millisecond))
	wantPath(t, m, "direct", 20*time.Second)
}
