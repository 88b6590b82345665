//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// smallMemory is the memory of the device in TestLittleMemory, in bytes.
const smallMemory = 64 << 20

// A device with 64 MB serves 20 downloads and 20 uploads at a time, beside 95 connections
// on which nothing happens: these leave the buffers of the others too little to grow. All
// data arrives, the device survives, and it reports that it is short of memory. The test is
// not parallel: it needs all processors.
func TestLittleMemory(t *testing.T) {
	const transfers, size, quiet = 20, 16 << 20, 95
	group := newMemoryGroup(t) // it is removed after the lab
	m := lab.NewMeshNoNodes(t, bin)
	dev := m.Device
	dev.Wrap = group.wrap(m.Lab)
	dev.Join(m.Server.Token)
	m.Laptop.Up(m.Server.NewKey().Token)
	pid := dev.PID()
	group.contains(t, pid)
	fetch(t, m.Laptop, "http://kitchen-pi/", 20*time.Second)

	// The programs on the device are outside the group.
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	want := sha256.Sum256(data)
	m.DeviceHome.Serve("127.0.0.1:81", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			w.Write(data)
			return
		}
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err == nil && [32]byte(sum.Sum(nil)) != want {
			err = fmt.Errorf("not what was sent, but %d bytes", n)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	client := m.LaptopHome.HTTP(lab.SOCKSURL)
	client.Timeout = 5 * time.Minute
	download := func() error {
		res, err := client.Get("http://kitchen-pi:81/")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		sum := sha256.New()
		n, err := io.Copy(sum, res.Body)
		if err == nil && [32]byte(sum.Sum(nil)) != want {
			err = fmt.Errorf("not what was sent, but %d bytes", n)
		}
		return err
	}
	upload := func() error {
		res, err := client.Post("http://kitchen-pi:81/", "application/octet-stream", bytes.NewReader(data))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		why, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = errors.New(string(why))
		}
		return err
	}
	six := netip.AddrPortFrom(netip.MustParseAddr(dev.Status().Self.IPv6), 81).String()
	for i := range quiet {
		// One address of a peer may have 75 connections to this device.
		to := six
		if i >= 70 {
			to = "kitchen-pi:81"
		}
		c, err := m.LaptopHome.SOCKS(t.Context(), lab.Proxy, to)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
	}
	start := time.Now()
	var wg sync.WaitGroup
	for range transfers {
		wg.Go(func() {
			if err := download(); err != nil {
				t.Errorf("download: %v", err)
			}
		})
		wg.Go(func() {
			if err := upload(); err != nil {
				t.Errorf("upload: %v", err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d times %d MB each way: %v", transfers, size>>20, time.Since(start).Round(time.Millisecond))

	select {
	case <-dev.Done():
		t.Fatalf("the device ended")
	default:
	}
	fetch(t, m.Laptop, "http://kitchen-pi/", 20*time.Second)
	peak := highWater(t, pid)
	t.Logf("the device's memory: at most %.1f MB resident; %s", float64(peak)/(1<<20), group.usage())
	if peak > smallMemory {
		t.Errorf("the device had %d bytes resident", peak)
	}
	warned := ""
	for _, h := range dev.Status().Health {
		if h.Code == "memory" {
			warned = h.Message
		}
	}
	if !strings.Contains(warned, "memory is short") || !strings.Contains(warned, "may use 64 MB") {
		t.Errorf("the warning in status: %q", warned)
	}
	if !strings.Contains(dev.Err(), "memory is short") {
		t.Errorf("nothing is in the log of it")
	}
	if r := dev.Weft("doctor"); !strings.Contains(r.Out, "memory is short") {
		t.Errorf("doctor: %v", r)
	}
}

// memoryGroup is a control group that kills processes that use more than smallMemory.
// If the machine has no memory controller, the device only reads a small /proc/meminfo,
// and nothing kills it.
type memoryGroup struct {
	dir     string // "" for none
	inside  string // the same below the mount point of a second mount of the hierarchy
	version int
}

// newMemoryGroup makes one; it is removed at the end of the test.
func newMemoryGroup(t *testing.T) (g memoryGroup) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		m, kind := strings.Fields(before), strings.Fields(after)
		var files [][2]string
		switch {
		case len(m) < 5 || len(kind) < 3:
			continue
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory"):
			g.version, files = 1, [][2]string{{"memory.limit_in_bytes", strconv.Itoa(smallMemory)}}
		case kind[0] == "cgroup2":
			// This fails if the group of the root is not the root of all groups.
			os.WriteFile(filepath.Join(m[4], "cgroup.subtree_control"), []byte("+memory"), 0)
			g.version, files = 2, [][2]string{{"memory.max", strconv.Itoa(smallMemory)}, {"memory.swap.max", "0"}}
		default:
			continue
		}
		const name = "weft-e2e-memory-"
		left, _ := filepath.Glob(filepath.Join(m[4], name+"*")) // left by a killed run
		for _, dir := range left {
			os.Remove(dir) // fails if it is in use
		}
		dir := filepath.Join(m[4], name+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Logf("no control group: %v", err)
			continue
		}
		t.Cleanup(func() {
			// The kernel may still be removing the processes of the group.
			var err error
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if err = os.Remove(dir); err == nil {
					return
				}
			}
			t.Errorf("remove the control group: %v", err)
		})
		if err := os.WriteFile(filepath.Join(dir, files[0][0]), []byte(files[0][1]), 0); err != nil {
			t.Logf("no limit: %v", err)
			continue
		}
		for _, f := range files[1:] {
			os.WriteFile(filepath.Join(dir, f[0]), []byte(f[1]), 0) // there may be no swap
		}
		t.Logf("the device runs in %s", dir)
		g.dir, g.inside = dir, filepath.Join(m[3], filepath.Base(dir))
		return g
	}
	t.Log("NO MEMORY CONTROLLER here: the device reads of a small machine in /proc/meminfo, and nothing would kill it")
	return memoryGroup{}
}

// wrap is for lab.Node.Wrap. ip netns exec hides the control groups; the device has to
// see them, as it would on a real machine.
func (g memoryGroup) wrap(l *lab.Lab) []string {
	script, at := "", "/sys/fs/cgroup"
	switch {
	case g.dir == "":
		info := l.WriteFile("meminfo", fmt.Sprintf("MemTotal:       %d kB\n", smallMemory>>10))
		script = "mount --bind '" + info + "' /proc/meminfo"
	case g.version == 1:
		script = "mount -t tmpfs none " + at + " && mkdir " + at + "/memory && mount -t cgroup -o memory none " + at + "/memory"
		at += "/memory"
	default:
		script = "mount -t cgroup2 none " + at
	}
	if g.dir != "" {
		script += " && echo $$ >'" + filepath.Join(at, g.inside, "cgroup.procs") + "'"
	}
	return []string{"sh", "-c", script + ` && exec "$@"`, "sh"}
}

// contains fails unless a process is in the group.
func (g memoryGroup) contains(t *testing.T, pid int) {
	t.Helper()
	if g.dir == "" {
		return
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(b), filepath.Base(g.dir)) {
		t.Fatalf("the device is in the groups %q, %v", b, err)
	}
}

// usage returns the memory that the group has used.
func (g memoryGroup) usage() string {
	for _, name := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if b, err := os.ReadFile(filepath.Join(g.dir, name)); err == nil && g.dir != "" {
			return "its control group's " + name + ": " + strings.TrimSpace(string(b))
		}
	}
	return "no figure of a control group"
}

// highWater is the peak resident memory of a process, in bytes.
func highWater(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nVmHWM:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}
