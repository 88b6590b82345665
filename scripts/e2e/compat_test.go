//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// compatible is the oldest commit that must work with today's programs: the first one
// of protocol 1 that could install itself. Replace it by a release once there are two.
const compatible = "691bab8d"

// Old nodes join a new server, and new nodes an old server; nodes of both versions talk
// to each other through relays of both versions. Then the server and a device are
// upgraded.
func TestCompat(t *testing.T) {
	then := oldPrograms(t, compatible)
	if then == "" {
		return
	}
	path := func(n *lab.Node) { n.Env = []string{"PATH=" + then + ":/usr/sbin:/usr/bin:/sbin:/bin"} }
	both := func(m *lab.Mesh) {
		t.Helper()
		t.Logf("first page: %v", fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second).Round(time.Millisecond))
		m.Laptop.Must("ping", "-c", "1", "kitchen-pi")
	}
	for _, c := range []struct {
		name           string
		server         string
		device, laptop bool // of the old version
	}{
		{"old device, new laptop, new server", bin, true, false},
		{"new device, old laptop, new server", bin, false, true},
		{"both old, new server", bin, true, true},
		{"both new, old server", then, false, false},
		{"old device, new laptop, old server", then, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t, bin)
			host := l.Host("server")
			l.Bin = c.server
			s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
			m := lab.MeshOf(l, s)
			l.Bin = bin
			if c.device {
				path(m.Device)
			}
			if c.laptop {
				path(m.Laptop)
			}
			m.Device.Join(s.Token)
			m.Laptop.Up(s.NewKey().Token)
			both(m)
			if c.server != then {
				return
			}
			// The new programs use the same data directory and state directory.
			s.Stop()
			s.Start()
			m.Until(30*time.Second, "the device is back at the new server", func() bool { d, _ := s.Device("kitchen-pi"); return d.Online })
			both(m)
			m.Device.Stop()
			m.Device.Env = nil
			m.Device.Run()
			m.Device.Must("wait", "--timeout", "20s")
			both(m)
		})
	}
}

// oldPrograms builds weft and weft-server of a commit. A clone without history does not
// have that commit; then only the recorded fixtures of the packages are tested.
func oldPrograms(t *testing.T, commit string) string {
	t.Helper()
	if exec.Command("git", "cat-file", "-e", commit+"^{commit}").Run() != nil {
		t.Logf("this clone has no commit %s (git fetch --unshallow): only what was recorded is tested, by `scripts/test unit`", commit)
		return ""
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755) // they are not run
	}
	src, programs := filepath.Join(dir, "src"), filepath.Join(dir, "bin")
	build := exec.Command("sh", "-ec", `mkdir "$1" "$2"; git -C "$(git rev-parse --show-toplevel)" archive `+commit+` | tar -x -C "$1"; cd "$1"; CGO_ENABLED=0 go build -o "$2/" ./cmd/weft ./cmd/weft-server; rm -r "$1"`, "sh", src, programs)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", commit, err, out)
	}
	return programs
}
