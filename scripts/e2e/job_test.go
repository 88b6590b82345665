//go:build e2e

package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// TestMainJob is everything that a user does with a server at a bare address, a device
// and a laptop, each step with real programs.
func TestMainJob(t *testing.T) {
	m := lab.NewMeshNoNodes(t, bin)
	dev, lap := m.Device, m.Laptop
	m.LaptopHome.Serve("127.0.0.1:80", lab.Page)
	m.DeviceHome.EchoUDP("127.0.0.1:7")
	m.DeviceHome.EchoTCP("127.0.0.1:7")

	t.Run("first start", func(t *testing.T) {
		if !regexp.MustCompile(`^weft1[0-9A-Za-z]+$`).MatchString(m.Server.Token) {
			t.Errorf("token %q: want one word", m.Server.Token)
		}
		if !strings.HasPrefix(m.Server.ConsoleURL, "http") {
			t.Errorf("console URL %q", m.Server.ConsoleURL)
		}
	})
	t.Run("before joining", func(t *testing.T) { testNoDaemon(t, lap) })

	start := time.Now()
	dev.Join(m.Server.Token)
	t.Logf("device: start, join and connect: %v", time.Since(start).Round(time.Millisecond))
	lap.Run()
	t.Run("unjoined", func(t *testing.T) {
		if st := lap.Status(); st.State != "unjoined" {
			t.Errorf("state %q", st.State)
		}
		if r := lap.Weft("wait", "--timeout", "300ms"); r.Code != 7 {
			t.Errorf("wait: %v", r)
		}
		r := lap.Weft("ip")
		if r.Code != 4 {
			t.Errorf("ip: %v", r)
		}
		oneLine(t, r)
	})
	start = time.Now()
	if r := lap.Weft("up", m.Server.NewKey().Token); r.Code != 0 {
		t.Fatal(r)
	}
	t.Logf("laptop: weft-server keys create and weft up: %v", time.Since(start).Round(time.Millisecond))
	t.Logf("laptop: first page: %v", fetch(t, lap, "http://kitchen-pi/", 5*time.Second).Round(time.Millisecond))
	lap.Must("wait")
	lap.Must("wait", "kitchen-pi", "--timeout", "5s")

	t.Run("unprivileged", func(t *testing.T) {
		for _, n := range []*lab.Node{dev, lap} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"} {
				if !strings.Contains(string(b), want) {
					t.Errorf("%s: no %q in /proc/PID/status", n.Name, want)
				}
			}
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID()))
			if strings.Contains(string(cmdline), "weft1") {
				t.Errorf("%s: the token is in the process list", n.Name)
			}
		}
	})
	t.Run("curl", func(t *testing.T) { testCurl(t, m) })
	t.Run("python", func(t *testing.T) { testPython(t, m) })
	t.Run("verbs", func(t *testing.T) { testVerbs(t, m) })
	t.Run("status json", func(t *testing.T) { testStatusJSON(t, lap) })
	t.Run("admin", func(t *testing.T) { testAdmin(t, m) })
	t.Run("dns", func(t *testing.T) { testDNS(t, m) })
	t.Run("sockets", func(t *testing.T) { testSockets(t, m) })
	t.Run("socket file", func(t *testing.T) { testSocketFile(t, lap) })
	t.Run("proxy refuses", func(t *testing.T) { testProxyRefuses(t, m) })
	t.Run("tagged device initiates nothing", func(t *testing.T) {
		r := dev.Weft("nc", "laptop", "80")
		if r.Code != 5 && r.Code != 6 {
			t.Errorf("want exit code 5 or 6: %v", r)
		}
		oneLine(t, r)
		if ip := lap.Status().Self.IPv4; ip != "" {
			if r := dev.Weft("nc", ip, "80"); r.Code != 5 && r.Code != 6 {
				t.Errorf("by address: want exit code 5 or 6: %v", r)
			}
		}
	})
	t.Run("nc", func(t *testing.T) {
		r := lap.WeftInput("hello\n", "nc", "kitchen-pi", "7")
		if r.Code != 0 || r.Out != "hello\n" {
			t.Errorf("half-close: %v", r)
		}
		r = lap.Weft("nc", "kitchen-pi", "9999")
		if r.Code != 5 || !strings.Contains(r.Err, "refused") {
			t.Errorf("closed port: want exit code 5 and why: %v", r)
		}
		oneLine(t, r)
		r = lap.Weft("nc", "nobody-here", "80")
		if r.Code != 5 {
			t.Errorf("unknown peer: want exit code 5: %v", r)
		}
		oneLine(t, r)
	})
	t.Run("forward", func(t *testing.T) { testForward(t, m) })
	t.Run("ssh", func(t *testing.T) { testSSH(t, m) })
	t.Run("down and up", func(t *testing.T) {
		lap.Must("down")
		if st := lap.Status(); st.State != "down" {
			t.Errorf("state %q after down", st.State)
		}
		if _, err := lap.Get("http://kitchen-pi/", 2*time.Second); err == nil {
			t.Error("traffic goes on after down")
		}
		id := lap.Status().Self.ID
		lap.Must("up")
		lap.Must("wait", "--timeout", "5s")
		if st := lap.Status(); st.Self.ID != id || st.State != "running" {
			t.Errorf("after up: id %q, state %q, want id %q", st.Self.ID, st.State, id)
		}
		fetch(t, lap, "http://kitchen-pi/", 5*time.Second)
	})
	t.Run("new device is reachable", func(t *testing.T) {
		home := m.Home("den")
		home.Serve("127.0.0.1:80", lab.Page)
		n := m.Node(home.Namespace, "den-pi")
		n.Join(m.Server.NewKey("--tag", "device").Token)
		t.Logf("a device that has just joined, by name: %v", fetch(t, lap, "http://den-pi/", time.Second).Round(time.Millisecond))
	})
	t.Run("logout", func(t *testing.T) {
		lap.Must("logout")
		if st := lap.Status(); st.State != "unjoined" {
			t.Errorf("state %q after logout", st.State)
		}
		if d, ok := m.Server.Device("laptop"); ok {
			t.Errorf("the server still has %+v", d)
		}
	})
	t.Run("SIGTERM", func(t *testing.T) {
		if code := dev.Stop(); code != 0 {
			t.Errorf("weft run: exit code %d", code)
		}
		if code := m.Server.Stop(); code != 0 {
			t.Errorf("weft-server serve: exit code %d", code)
		}
		if _, err := os.Stat(dev.Sock); err == nil {
			t.Error("the socket is still there")
		}
	})
}

func testNoDaemon(t *testing.T, n *lab.Node) {
	for _, args := range [][]string{{"status"}, {"ip"}, {"ping", "x"}, {"nc", "x", "1"}, {"wait"}, {"down"}, {"up"}} {
		r := n.Weft(args...)
		if r.Code != 3 || !strings.Contains(r.Err, "weft run") {
			t.Errorf("want exit code 3 and how to start one: %v", r)
		}
		if r.Took > time.Second && args[0] != "wait" {
			t.Errorf("this takes too long: %v", r)
		}
		oneLine(t, r)
	}
	for _, args := range [][]string{{"--no-such-flag"}, {"nosuchverb"}, {"ping"}, {"nc", "x"}, {"nc", "x", "70000"}, {"forward", "x"}} {
		if r := n.Host.Run(n.As, append([]string{"weft"}, args...)...); r.Code != 2 {
			t.Errorf("want exit code 2: %v", r)
		}
	}
	r := n.Host.Run(n.As, "weft", "version")
	if r.Code != 0 || !strings.Contains(r.Out, "weft") {
		t.Errorf("version: %v", r)
	}
}

// curl runs curl on the node's machine.
func curl(n *lab.Node, args ...string) lab.Result {
	return n.Host.Run(lab.Nobody, append([]string{"curl", "-sS", "--max-time", "10"}, args...)...)
}

func testCurl(t *testing.T, m *lab.Mesh) {
	lap := m.Laptop
	st := m.Device.Status().Self
	http := "http://" + lab.Proxy
	for _, c := range []struct {
		name string
		args []string
	}{
		{"socks5h", []string{"--proxy", lab.SOCKSURL, "http://kitchen-pi/a"}},
		{"socks5h full name", []string{"--proxy", lab.SOCKSURL, "http://kitchen-pi.weft.internal/a"}},
		{"socks5h upper case, final dot", []string{"--proxy", lab.SOCKSURL, "http://Kitchen-Pi.Weft.Internal./a"}},
		{"socks5h IPv4", []string{"--proxy", lab.SOCKSURL, "http://" + st.IPv4 + "/a"}},
		{"socks5h IPv6", []string{"--proxy", lab.SOCKSURL, "http://[" + st.IPv6 + "]/a"}},
		{"socks5 IPv4", []string{"--proxy", "socks5://" + lab.Proxy, "http://" + st.IPv4 + "/a"}},
		{"CONNECT", []string{"--proxy", http, "--proxytunnel", "http://kitchen-pi/a"}},
		{"CONNECT IPv6", []string{"--proxy", http, "--proxytunnel", "http://[" + st.IPv6 + "]/a"}},
		{"absolute form", []string{"--proxy", http, "http://kitchen-pi/a"}},
		{"absolute form with a body", []string{"--proxy", http, "--data", "x=1", "http://kitchen-pi/a"}},
	} {
		r := curl(lap, c.args...)
		if r.Code != 0 || !strings.HasPrefix(r.Out, "kitchen ") || !strings.Contains(r.Out, " /a from ") {
			t.Errorf("%s: %v", c.name, r)
			continue
		}
		// The device can distinguish peers from each other and from localhost.
		from := strings.TrimSpace(r.Out[strings.LastIndex(r.Out, " "):])
		src, err := netip.ParseAddrPort(from)
		if err != nil || !netip.MustParsePrefix("127.64.0.0/10").Contains(src.Addr()) {
			t.Errorf("%s: the page saw %s, want a source in 127.64.0.0/10", c.name, from)
		}
	}
	// Other destinations are dialled directly.
	m.Internet.Serve(lab.InternetAddr+":80", lab.Page)
	for _, p := range []string{lab.SOCKSURL, http} {
		if r := curl(lap, "--proxy", p, "http://www.example.test/b"); r.Code != 0 || !strings.Contains(r.Out, "from "+m.LaptopHome.Router.Addr) {
			t.Errorf("an address outside by %s: %v", p, r)
		}
	}
	r := curl(lap, "--proxy", lab.SOCKSURL, "http://no-such-device.weft.internal/")
	if r.Code == 0 || r.Took > 3*time.Second {
		t.Errorf("unknown device: %v", r)
	}
}

// testPython fetches 20 MB from Python's web server.
func testPython(t *testing.T, m *lab.Mesh) {
	dir := m.Mkdir("www")
	data := make([]byte, 20<<20)
	rand.Read(data)
	if err := os.WriteFile(filepath.Join(dir, "blob"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	m.DeviceHome.Start(lab.Nobody, "python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, "8000")
	out := m.Mkdir("dl") + "/blob"
	var r lab.Result
	m.Until(10*time.Second, "Python's server answers", func() bool {
		r = curl(m.Laptop, "--proxy", lab.SOCKSURL, "-o", out, "http://kitchen-pi:8000/blob")
		return r.Code == 0
	})
	got, _ := os.ReadFile(out)
	if sha256.Sum256(got) != sha256.Sum256(data) {
		t.Errorf("20 MB came as %d bytes: %v", len(got), r)
	}
	t.Logf("20 MB from Python's web server: %v", r.Took.Round(time.Millisecond))
}

func testVerbs(t *testing.T, m *lab.Mesh) {
	lap, dev := m.Laptop, m.Device
	r := lap.Weft("ping", "kitchen-pi", "-c", "2")
	if r.Code != 0 || strings.Count(r.Out, "kitchen-pi") != 2 || !strings.Contains(r.Out, "relay") || !strings.Contains(r.Out, "ms") {
		t.Errorf("ping shows path and round trip: %v", r)
	}
	st := dev.Status().Self
	if out := lap.Must("ip", "kitchen-pi"); out != st.IPv4+"\n"+st.IPv6+"\n" {
		t.Errorf("ip kitchen-pi: %q, want %s and %s", out, st.IPv4, st.IPv6)
	}
	self := lap.Status().Self
	if out := lap.Must("ip"); out != self.IPv4+"\n"+self.IPv6+"\n" {
		t.Errorf("ip: %q", out)
	}
	if a, err := netip.ParseAddr(self.IPv4); err != nil || !netip.MustParsePrefix("100.64.0.0/10").Contains(a) {
		t.Errorf("IPv4 %q", self.IPv4)
	}
	if a, err := netip.ParseAddr(self.IPv6); err != nil || !netip.MustParsePrefix("fd00::/8").Contains(a) {
		t.Errorf("IPv6 %q", self.IPv6)
	}
	if out := lap.Must("status"); !regexp.MustCompile(`(?m)^kitchen-pi .* now$`).MatchString(out) || !strings.Contains(out, self.IPv4) {
		t.Errorf("status:\n%s", out)
	}
	if out := lap.Must("status", "kitchen-pi"); !regexp.MustCompile(`(?m)^why +\w+`).MatchString(out) || !regexp.MustCompile(`(?m)^handshake +.* ago$`).MatchString(out) {
		t.Errorf("status kitchen-pi:\n%s", out)
	}
	if r := lap.Weft("dns", "query", "kitchen-pi"); r.Code != 0 || !strings.Contains(r.Out, st.IPv4) {
		t.Errorf("dns query: %v", r)
	}
	if r := lap.Weft("netcheck"); r.Code != 0 || !strings.Contains(r.Out, m.Server.URL) {
		t.Errorf("netcheck: %v", r)
	}
	for _, args := range [][]string{{"ip"}, {"ip", "kitchen-pi"}, {"netcheck"}, {"version"}, {"dns", "query", "kitchen-pi"}, {"ping", "kitchen-pi", "-c", "1"}} {
		r := lap.Weft(append(args, "--json")...)
		var v map[string]any
		if err := json.Unmarshal([]byte(r.Out), &v); err != nil || r.Code != 0 {
			t.Errorf("--json: %v: %v", err, r)
		}
	}
}

// shape maps a field of the contract to its JSON types.
type shape map[string]string

var (
	statusShape = shape{"schema": "string", "state": "string", "network": "string", "version": "string", "server": "object", "self": "object", "peers": "array", "health": "array", "fips": "object"}
	serverShape = shape{"url": "string", "online": "bool"}
	selfShape   = shape{"id": "string", "name": "string", "fqdn": "string", "ipv4": "string", "ipv6": "string", "online": "bool", "relay": "string"}
	peerShape   = shape{
		"id": "string", "name": "string", "fqdn": "string", "ipv4": "string", "ipv6": "string", "online": "bool", "path": "string", "path_reason": "string",
		"relay": "string", "endpoint": "string", "rtt_ms": "number|null", "rx_bytes": "number", "tx_bytes": "number",
		"last_handshake": "time|null", "last_seen": "time|null", "key_exchange": "string", "presence_at": "time|null", "path_note": "string",
	}
	healthShape = shape{"code": "string", "message": "string"}
)

// check requires every field with its type. Further fields are allowed.
func (s shape) check(t *testing.T, where string, v any) {
	t.Helper()
	obj, ok := v.(map[string]any)
	if !ok {
		t.Errorf("%s: got %T, want an object", where, v)
		return
	}
	for name, want := range s {
		f, there := obj[name]
		if !there {
			t.Errorf("%s.%s is missing", where, name)
			continue
		}
		kind := "null"
		switch f := f.(type) {
		case string:
			kind = "string"
			if strings.Contains(want, "time") {
				kind = "no time: " + f
				if _, err := time.Parse(time.RFC3339, f); err == nil {
					kind = "time"
				}
			}
		case bool:
			kind = "bool"
		case float64:
			kind = "number"
		case map[string]any:
			kind = "object"
		case []any:
			kind = "array"
		}
		if !slices.Contains(strings.Split(want, "|"), kind) {
			t.Errorf("%s.%s is %s, want %s", where, name, kind, want)
		}
	}
}

func testStatusJSON(t *testing.T, n *lab.Node) {
	n.Must("ping", "kitchen-pi", "-c", "1")
	out := n.Must("status", "--json")
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	statusShape.check(t, "status", v)
	serverShape.check(t, "server", v["server"])
	selfShape.check(t, "self", v["self"])
	if v["schema"] != "status/1" || v["state"] != "running" {
		t.Errorf("schema %v, state %v", v["schema"], v["state"])
	}
	self, _ := v["self"].(map[string]any)
	if self["name"] != "laptop" || self["fqdn"] != "laptop.weft.internal" || self["online"] != true || self["relay"] == "" {
		t.Errorf("self: %v", self)
	}
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(fmt.Sprint(self["id"])) || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(fmt.Sprint(v["network"])) {
		t.Errorf("ids: self %v, network %v", self["id"], v["network"])
	}
	server, _ := v["server"].(map[string]any)
	if server["online"] != true {
		t.Errorf("server: %v", server)
	}
	exchange := "X25519MLKEM768"
	if f, _ := v["fips"].(map[string]any); f["mode"] != "off" {
		exchange = "SecP256r1MLKEM768"
	}
	peers, _ := v["peers"].([]any)
	found := false
	for _, p := range peers {
		peerShape.check(t, "peer", p)
		peer, _ := p.(map[string]any)
		if peer["name"] != "kitchen-pi" {
			continue
		}
		found = true
		if peer["online"] != true || peer["path"] != "relay" || peer["path_reason"] == "" || peer["key_exchange"] != exchange || peer["last_handshake"] == nil {
			t.Errorf("a peer with a live tunnel: %v", peer)
		}
		if peer["rtt_ms"] == nil {
			t.Errorf("rtt_ms is null right after a ping")
		}
		if rx, _ := peer["rx_bytes"].(float64); rx == 0 {
			t.Errorf("rx_bytes is 0 with a tunnel in use")
		}
	}
	if !found {
		t.Errorf("kitchen-pi is not among the peers: %v", peers)
	}
	health, _ := v["health"].([]any)
	for _, h := range health {
		healthShape.check(t, "health", h)
	}
}

func testAdmin(t *testing.T, m *lab.Mesh) {
	r := m.Server.Admin("devices", "list", "--json")
	var list []any
	if err := json.Unmarshal([]byte(r.Out), &list); err != nil || len(list) != 2 {
		t.Fatalf("devices list: %v: %v", err, r)
	}
	for _, d := range list {
		shape{"id": "string", "name": "string", "fqdn": "string", "ipv4": "string", "ipv6": "string", "user": "string", "tags": "array",
			"online": "bool", "last_seen": "time|null", "os": "string", "version": "string"}.check(t, "device", d)
	}
	d, ok := m.Server.Device("kitchen-pi")
	if !ok || !d.Online || !slices.Equal(d.Tags, []string{"device"}) && !slices.Equal(d.Tags, []string{"tag:device"}) {
		t.Errorf("kitchen-pi, joined with the first token: %+v", d)
	}
	r = m.Server.Admin("keys", "create", "--json", "--reusable", "--tag", "sensor", "--expires", "1h")
	var key map[string]any
	if err := json.Unmarshal([]byte(r.Out), &key); err != nil {
		t.Fatalf("keys create: %v: %v", err, r)
	}
	shape{"id": "string", "token": "string", "expires": "time"}.check(t, "key", key)
	r = m.Server.Admin("keys", "list", "--json")
	if r.Code != 0 || !strings.Contains(r.Out, key["id"].(string)) || strings.Contains(r.Out, key["token"].(string)) {
		t.Errorf("keys list shows the key and not the token: %v", r)
	}
	if r := m.Server.Admin("keys", "revoke", key["id"].(string)); r.Code != 0 {
		t.Errorf("keys revoke: %v", r)
	}
	if r := m.Server.Admin("devices", "show", "kitchen-pi", "--json"); r.Code != 0 || !strings.Contains(r.Out, d.ID) {
		t.Errorf("devices show: %v", r)
	}
	// Running programs see a new name within a second.
	if r := m.Server.Admin("devices", "rename", "kitchen-pi", "bath-pi"); r.Code != 0 {
		t.Fatalf("devices rename: %v", r)
	}
	fetch(t, m.Laptop, "http://bath-pi/", 5*time.Second)
	if r := m.Server.Admin("devices", "rename", "bath-pi", "kitchen-pi"); r.Code != 0 {
		t.Fatalf("devices rename back: %v", r)
	}
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	if r := m.Server.Admin("devices", "rename", "kitchen-pi", "../x"); r.Code == 0 {
		t.Errorf("a name that is no label: %v", r)
	}
	if r := m.Server.Admin("login-link"); r.Code != 0 || !strings.Contains(r.Out, "http") {
		t.Errorf("login-link: %v", r)
	}
}

// testSockets checks every socket of weft: on the household's network nothing listens,
// and nothing uses UDP except the one socket for direct paths (TestPathSilent checks
// that it stays silent).
func testSockets(t *testing.T, m *lab.Mesh) {
	for _, n := range []*lab.Node{m.Device, m.Laptop} {
		for _, c := range []struct {
			what string
			args []string
		}{
			{"listening TCP", []string{"ss", "-H", "-lntp"}},
			{"UDP", []string{"ss", "-H", "-anup"}},
		} {
			r := n.Host.Run(lab.Root, c.args...)
			if r.Code != 0 {
				t.Fatal(r)
			}
			seen, paths := 0, 0
			for line := range strings.Lines(r.Out) {
				f := strings.Fields(line)
				if !strings.Contains(line, fmt.Sprintf("pid=%d,", n.PID())) {
					continue
				}
				seen++
				host, _, err := net.SplitHostPort(f[3])
				if host == "*" && c.what == "UDP" {
					paths++
					continue
				}
				ip, _ := netip.ParseAddr(host)
				if err != nil || !ip.IsLoopback() {
					t.Errorf("%s: %s socket beyond loopback: %s", n.Name, c.what, line)
				}
			}
			if paths > 1 {
				t.Errorf("%s: %d UDP sockets beyond loopback:\n%s", n.Name, paths, r.Out)
			}
			if seen == 0 {
				t.Errorf("%s: no %s socket of weft found at all: the check sees nothing\n%s", n.Name, c.what, r.Out)
			}
		}
	}
}

func testSocketFile(t *testing.T, n *lab.Node) {
	fi, err := os.Stat(n.Sock)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v", fi.Mode())
	}
	if fi, err := os.Stat(n.State); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v %v", fi.Mode(), err)
	}
	files, _ := os.ReadDir(n.State)
	for _, f := range files {
		if fi, err := f.Info(); err == nil && fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), fi.Mode())
		}
	}
	// Even if the file's mode lets a user connect, the daemon refuses.
	os.Chmod(n.Sock, 0o666)
	os.Chmod(filepath.Dir(n.Sock), 0o755)
	defer os.Chmod(n.Sock, 0o600)
	defer os.Chmod(filepath.Dir(n.Sock), 0o700)
	for _, args := range [][]string{{"down"}, {"status"}, {"logout"}} {
		r := n.Host.Run(lab.User(65533), append([]string{"weft", args[0], "--socket", n.Sock}, args[1:]...)...)
		if r.Code == 0 {
			t.Errorf("another user may: %v", r)
		}
	}
	if r := n.Host.Run(lab.Root, "weft", "status", "--socket", n.Sock); r.Code != 0 {
		t.Errorf("root may not: %v", r)
	}
	if st := n.Status(); st.State != "running" {
		t.Errorf("state %q", st.State)
	}
}

func testProxyRefuses(t *testing.T, m *lab.Mesh) {
	lap := m.Laptop
	http := "http://" + lab.Proxy
	for _, target := range []string{"127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0", "[::ffff:127.0.0.1]", "127.64.0.1"} {
		for _, p := range []string{lab.SOCKSURL, http} {
			r := curl(lap, "--proxy", p, "--noproxy", "", "-o", "/dev/null", "-w", "%{http_code}", "http://"+target+"/")
			if r.Code == 0 && !strings.HasPrefix(r.Out, "4") && !strings.HasPrefix(r.Out, "5") {
				t.Errorf("%s by %s was not refused: %v", target, p, r)
			}
		}
	}
	// Origin form: a web page in a browser could send it.
	r := curl(lap, "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: kitchen-pi", http+"/a")
	if !strings.HasPrefix(r.Out, "4") {
		t.Errorf("origin form: %v", r)
	}
	// weft's own listeners on the device are not targets.
	r = lap.Weft("nc", "kitchen-pi", "1055")
	if r.Code == 0 {
		t.Errorf("the device's proxy can be reached from afar: %v", r)
	}
}

func testForward(t *testing.T, m *lab.Mesh) {
	lap := m.Laptop
	forward := func(args ...string) {
		lap.Host.Start(lap.As, append([]string{"weft", "forward", "--socket", lap.Sock}, args...)...)
	}
	forward("8080:kitchen-pi:80")
	m.Until(5*time.Second, "a page through the forward", func() bool {
		r := curl(lap, "http://127.0.0.1:8080/f")
		return r.Code == 0 && strings.HasPrefix(r.Out, "kitchen GET /f")
	})
	forward("--udp", "7007:kitchen-pi:7")
	c, err := lap.Host.Dial(t.Context(), "udp", "127.0.0.1:7007")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 2000)
	for _, size := range []int{1, 512, 1200, 1400} {
		m.Until(5*time.Second, fmt.Sprintf("%d bytes by UDP come back", size), func() bool {
			msg := strings.Repeat("x", size)
			c.Write([]byte(msg))
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := c.Read(buf)
			return err == nil && string(buf[:n]) == msg
		})
	}
	m.DeviceHome.Start(lab.Nobody, "iperf3", "-s", "-B", "127.0.0.1")
	forward("5201:kitchen-pi:5201")
	for _, dir := range []string{"", "-R"} {
		var r lab.Result
		m.Until(15*time.Second, "iperf3 runs", func() bool {
			args := []string{"iperf3", "-c", "127.0.0.1", "-t", "2", "-J"}
			if dir != "" {
				args = append(args, dir)
			}
			r = lap.Host.Run(lab.Nobody, args...)
			return r.Code == 0 && !strings.Contains(r.Out, `"error":`)
		})
		got := received(t, r.Out)
		t.Logf("iperf3 %s through weft forward: %.0f Mbit/s", dir, got/1e6)
		if got < 20e6 {
			t.Errorf("iperf3 %s: %.1f Mbit/s: something is badly wrong", dir, got/1e6)
		}
	}
}

// received is the rate at the receiver in bits per second.
func received(t *testing.T, iperf string) float64 {
	t.Helper()
	var v struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(iperf), &v); err != nil || v.Error != "" {
		t.Fatalf("iperf3: %v %s", err, v.Error)
	}
	return v.End.Received.Rate
}
