//go:build e2e

package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// TestIdle prints what an idle, joined device costs: memory, processor,
// wake-ups and bytes on its network. WEFT_IDLE (default 60s) is how long. In a
// minute the bounds are wide; from ten minutes on a device is held to 0.5 MB a
// day, and from an hour on to memory that grows by less than 1 MB a day in the
// second half. In the first half hour the heap, which has just been given back
// to the system, takes about 1 MB: until each size of object has its pages.
func TestIdle(t *testing.T) {
	t.Parallel()
	d, err := time.ParseDuration(os.Getenv("WEFT_IDLE"))
	if err != nil {
		d = time.Minute
	}
	m := lab.NewMesh(t, bin)
	fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
	time.Sleep(10 * time.Second) // what joining stirred up settles
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

// sample is what a process had in memory after some time.
type sample struct {
	at    time.Duration
	bytes float64
}

// slope is the median of the slopes between any two samples, in bytes per
// nanosecond: one that a single garbage collection does not move.
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
