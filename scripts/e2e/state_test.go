//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// A damaged state directory is reported and never silently becomes a new identity; two
// daemons cannot share one.
func TestState(t *testing.T) {
	t.Parallel()
	m := lab.NewMesh(t, bin)
	dev := m.Device
	id := dev.Status().Self.ID

	t.Run("two daemons", func(t *testing.T) {
		second := *dev
		second.Sock = filepath.Join(filepath.Dir(dev.Sock), "second.sock")
		second.RunNoWait("--proxy", "off", "--dns", "off")
		if code := second.Wait(5 * time.Second); code == 0 || !strings.Contains(second.Err(), dev.State) {
			t.Errorf("a second daemon on one state directory: exit %d: %s", code, second.Err())
		}
		third := *dev
		third.State = filepath.Join(filepath.Dir(dev.Sock), "third")
		before, _ := os.Stat(dev.Sock)
		third.Proc = third.Host.Start(third.As, "weft", "run", "--state", third.State, "--socket", dev.Sock, "--proxy", "off", "--dns", "off")
		if code := third.Wait(5 * time.Second); code == 0 {
			t.Errorf("a second daemon on one socket: exit 0: %s", third.Err())
		}
		after, err := os.Stat(dev.Sock)
		if err != nil || !os.SameFile(before, after) {
			t.Errorf("the socket of the first was taken away: %v", err)
		}
		fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	})

	t.Run("taken port", func(t *testing.T) {
		// For a default port it is a warning, for a flag an error.
		n := m.Node(m.DeviceHome.Namespace, "second")
		n.Join(m.Server.NewKey().Token)
		if st := n.Status(); len(st.Health) == 0 {
			t.Errorf("default ports are taken, and status does not say so")
		} else {
			t.Logf("health: %+v", st.Health)
		}
		n.Stop()
		n.RunNoWait("--proxy", lab.Proxy)
		if code := n.Wait(5 * time.Second); code == 0 || !strings.Contains(n.Err(), "1055") {
			t.Errorf("an explicit port that is taken: exit %d: %s", code, n.Err())
		}
	})

	// Save the good state, and try what a bad disk may leave.
	dev.Stop()
	whole, err := os.ReadFile(dev.State + "/node.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":     "",
		"truncated": string(whole[:len(whole)/2]),
		"zeroes":    strings.Repeat("\x00", len(whole)),
		"flipped":   strings.Replace(string(whole), `"certificate":"M`, `"certificate":"N`, 1),
		"not ours":  `{"schema":"node/99"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if content == string(whole) {
				t.Fatal("this damages nothing")
			}
			os.WriteFile(dev.State+"/node.json", []byte(content), 0o600)
			for _, flags := range [][]string{nil, {"--token-file", m.WriteFile("another", m.Server.NewKey().Token)}} {
				dev.RunNoWait(flags...)
				if code := dev.Wait(5 * time.Second); code == 0 || !strings.Contains(dev.Err(), "node.json") {
					t.Errorf("%v: exit %d: %s", flags, code, dev.Err())
				}
				if got, _ := os.ReadFile(dev.State + "/node.json"); string(got) != content {
					t.Errorf("%v: the damaged file was replaced", flags)
				}
			}
		})
	}
	os.WriteFile(dev.State+"/node.json", whole, 0o600)
	// The other files are caches: damaged ones are fetched again.
	files, _ := os.ReadDir(dev.State)
	for _, f := range files {
		if f.Name() != "node.json" && f.Name() != "lock" {
			os.WriteFile(filepath.Join(dev.State, f.Name()), []byte("{\"x"), 0o600)
		}
	}
	dev.Run()
	dev.Must("wait", "--timeout", "10s")
	if st := dev.Status(); st.Self.ID != id || st.Self.Name != "kitchen-pi" {
		t.Errorf("after the caches were damaged: %+v", st.Self)
	}
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)

	t.Run("second server on one directory", func(t *testing.T) {
		p := m.Server.Host.Start(lab.Nobody, "weft-server", "serve", "--data", m.Server.Dir, "--listen", ":9443", "--console", "127.0.0.1:9080", "--url", m.Server.URL, "--stun", ":9478")
		if code := p.Wait(5 * time.Second); code == 0 {
			t.Errorf("exit 0: %s", p.Err())
		}
	})
	t.Run("admin without a server", func(t *testing.T) {
		before := len(m.Server.Devices())
		m.Server.Stop()
		if got := len(m.Server.Devices()); got != before {
			t.Errorf("%d devices, want %d", got, before)
		}
		key := m.Server.NewKey()
		m.Server.Start()
		n := m.Node(m.LaptopHome.Namespace, "later")
		n.Join(key.Token, "--proxy", "off", "--dns", "off")
	})
}

// The device decides what peers reach on it.
func TestInbound(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	m.DeviceHome.Serve("127.0.0.1:8000", lab.Page)
	m.DeviceHome.Serve("[::1]:8001", lab.Page)
	m.DeviceHome.Serve("[::1]:8002", lab.Page)
	m.Device.Join(m.Server.Token, "--inbound", "81=127.0.0.1:8000,8001,8002=[::1]:8002")
	m.Laptop.Up(m.Server.NewKey().Token)
	fetch(t, m.Laptop, "http://kitchen-pi:81/", 5*time.Second)
	fetch(t, m.Laptop, "http://kitchen-pi:8002/", 5*time.Second) // as requested
	// On ::1 a peer would look like a local user: the owner has to allow it.
	if r := m.Laptop.Weft("nc", "kitchen-pi", "8001"); r.Code != 5 && r.Code != 6 {
		t.Errorf("a program on ::1 only: %v", r)
	}
	for _, verb := range []string{"status", "doctor"} {
		if r := m.Device.Weft(verb); !strings.Contains(r.Out+r.Err, "8001=[::1]:8001") {
			t.Errorf("%s does not say how to open port 8001: %v", verb, r)
		}
	}
	for _, port := range []string{"80", "8000"} {
		if r := m.Laptop.Weft("nc", "kitchen-pi", port); r.Code != 5 && r.Code != 6 {
			t.Errorf("port %s is not in --inbound: %v", port, r)
		}
	}
	m.Device.Stop()
	m.Device.Run("--inbound", "none")
	m.Device.Must("wait", "--timeout", "10s")
	m.Laptop.Must("wait", "kitchen-pi", "--timeout", "10s")
	if r := m.Laptop.Weft("nc", "kitchen-pi", "80"); r.Code != 5 && r.Code != 6 {
		t.Errorf("--inbound none: %v", r)
	}
}
