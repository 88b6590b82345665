//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/scripts/e2e/lab"
)

// The file system of the server's data directory is full. Joins and verbs that change
// something are refused with a line that says why, existing data can be read, and
// everything works again once there is space, without a restart.
func TestServerDiskFull(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	dir := l.Mkdir("small")
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	l.Mkdir("small") // its root belongs to the server's user, too
	host := l.Host("server")
	server := l.Serve(host, ":8443", "https://"+host.Addr+":8443", "--data", dir)
	server.Dir = dir
	m := lab.NewMeshOn(l, server)
	get := func() {
		t.Helper()
		m.Until(20*time.Second, "the page by name", func() bool {
			body, err := m.Laptop.Get("http://kitchen-pi/", 3*time.Second)
			return err == nil && strings.HasPrefix(body, "kitchen")
		})
	}
	get()
	keys := map[string]bool{}
	var unused lab.Key
	for range 3 {
		unused = m.Server.NewKey()
		keys[unused.ID] = true
	}

	backups := l.Mkdir("backups")
	backup := func(name string) lab.Result {
		return m.Server.Admin("backup", "--key-file", filepath.Join(backups, "key"), "--output", filepath.Join(backups, name))
	}
	if r := backup("first"); r.Code != 0 {
		t.Fatal(r)
	}

	// Fill it to the last byte, and again after the log has released space.
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	var refused lab.Result
	m.Until(30*time.Second, "a key is refused", func() bool {
		refused = m.Server.Admin("keys", "create", "--json")
		if refused.Code == 0 {
			var k lab.Key
			if err := json.Unmarshal([]byte(refused.Out), &k); err != nil {
				t.Fatal(err)
			}
			keys[k.ID] = true // acknowledged
			fill(t, ballast)
		}
		return refused.Code != 0
	})
	oneLine := func(r lab.Result, words ...string) {
		t.Helper()
		if r.Code != 1 || strings.Count(strings.TrimSpace(r.Err), "\n") != 0 {
			t.Errorf("want one line and exit code 1: %v", r)
		}
		for _, w := range words {
			if !strings.Contains(r.Err, w) {
				t.Errorf("%q is not in %v", w, r)
			}
		}
	}
	oneLine(refused, "the disk is full", "make room")
	oneLine(m.Server.Admin("devices", "delete", "kitchen-pi"), "the disk is full")
	oneLine(backup("second"), "the disk is full")
	third := m.Node(m.LaptopHome.Namespace, "third")
	third.RunNoWait("--proxy", "off", "--dns", "off")
	m.Until(20*time.Second, "the daemon runs", func() bool { return third.Weft("status").Code == 0 })
	oneLine(third.WeftInput(unused.Token+"\n", "up", "-"), "server's disk is full")

	// Devices keep working, even those that restart and fetch their configuration, and
	// one that is contacted for the first time.
	get()
	m.Device.Kill()
	m.Device.Run()
	m.Laptop.Kill()
	m.Laptop.Run()
	get()
	if d := m.Server.Devices(); len(d) != 2 {
		t.Errorf("devices while it is full: %v", d)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if r := third.WeftInput(unused.Token+"\n", "up", "-"); r.Code != 0 {
		t.Errorf("joining with room again: %v", r)
	}
	if r := m.Server.Admin("devices", "rename", "kitchen-pi", "hall"); r.Code != 0 {
		t.Errorf("renaming with room again: %v", r)
	}
	list := m.Server.Admin("keys", "list", "--json").Out
	for id := range keys {
		if !strings.Contains(list, id) {
			t.Errorf("key %s was acknowledged and is lost", id)
		}
	}
	m.Until(20*time.Second, "the new device reaches the renamed one", func() bool {
		return third.Weft("ping", "-c", "1", "hall").Code == 0
	})
}

// fill appends to a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 16
		}
	}
}

// The card of a joined device is mounted read-only, which is intended in some devices
// and happens when the card wears out in others. The daemon starts, works with the
// saved state, reports the problem, and does not join.
func TestReadOnlyDevice(t *testing.T) {
	t.Parallel()
	m := lab.NewMesh(t, bin)
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	m.Device.Stop()
	state, card := m.Device.State, m.Mkdir("card")
	readOnly := func(from string) {
		t.Helper()
		for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
			if err := unix.Mount(from, card, "", flags, ""); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { unix.Unmount(card, unix.MNT_DETACH) })
	}
	readOnly(state)
	m.Device.State = card
	m.Device.Run()
	m.Device.Must("wait", "--timeout", "20s")
	fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
	if out := m.Device.Must("status"); !strings.Contains(out, "read-only") {
		t.Errorf("no word of it: %s", out)
	}
	// Changes of the network still take effect.
	if r := m.Server.Admin("devices", "rename", "kitchen-pi", "attic-pi"); r.Code != 0 {
		t.Fatal(r)
	}
	fetch(t, m.Laptop, "http://attic-pi/", 20*time.Second)
	m.Until(20*time.Second, "the device knows its new name", func() bool { return m.Device.Status().Self.Name == "attic-pi" })
	// A second daemon is still refused.
	r := m.DeviceHome.Run(m.Device.As, "weft", "run", "--state", card, "--socket", m.Device.Sock+"2", "--proxy", "off", "--dns", "off")
	if r.Code != 1 || !strings.Contains(r.Err, "another weft runs on it") {
		t.Errorf("a second daemon: %v", r)
	}
	m.Device.Stop()
	// A device that has not joined does not waste its token.
	empty := m.Mkdir("empty")
	readOnly(empty)
	key := m.Server.NewKey()
	m.Device.RunNoWait("--token-file", m.WriteFile("token", key.Token))
	m.Until(20*time.Second, "the daemon says why it does not join", func() bool {
		return strings.Contains(m.Device.Err(), "read-only file system")
	})
	m.Node(m.Home("other").Namespace, "other").Join(key.Token)
}
