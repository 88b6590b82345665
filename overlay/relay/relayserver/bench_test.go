package relayserver

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
)

// counter counts the packets that arrive.
type counter struct {
	bytes, frames atomic.Int64
}

func (c *counter) Packet(_ cert.NodeID, p []byte)     { c.bytes.Add(int64(len(p))); c.frames.Add(1) }
func (c *counter) Drained()                           {}
func (c *counter) Session(cert.NodeID, []byte)        {}
func (c *counter) Gone(cert.NodeID, relay.GoneReason) {}
func (c *counter) Busy(cert.NodeID)                   {}
func (c *counter) Welcome(relay.Welcome)              {}
func (c *counter) Nudge(relay.Nudge)                  {}
func (c *counter) CRL([]byte)                         {}
func (c *counter) Replaced()                          {}
func (c *counter) Draining(relay.Draining)            {}

func (c *counter) Lane(cert.NodeID, lane.Info)            {}
func (c *counter) LaneGone(cert.NodeID, relay.LaneReason) {}
func (c *counter) LaneRebind(cert.NodeID)                 {}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkThroughput sends from one node to another through the relay over loopback TCP.
// Relay and both nodes run in this process.
func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{1380, 16 << 10, 60 << 10} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			w := newWorld(b, Config{})
			from, to := w.node("a"), w.node("b")
			var got counter
			to.run(&got)
			c := from.run(&counter{})
			buf := make([]byte, size)
			bufs := [][]byte{buf}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			start := cpu()
			b.ResetTimer()
			for range b.N {
				if err := c.SendPackets(to.id, bufs); err != nil {
					b.Fatal(err)
				}
			}
			for last := int64(-1); got.frames.Load() < int64(b.N) && got.frames.Load() != last; {
				last = got.frames.Load()
				time.Sleep(20 * time.Millisecond)
			}
			b.StopTimer()
			gb := float64(got.bytes.Load()) / 1e9
			b.ReportMetric((cpu()-start).Seconds()/gb, "cpu-s/GB")
			b.ReportMetric(100*(1-float64(got.frames.Load())/float64(b.N)), "%lost")
		})
	}
}

// BenchmarkIdleClients measures how much the resident memory of a process
// with a relay grows per idle client. The clients live in a process of their
// own, which is this test binary again.
func BenchmarkIdleClients(b *testing.B) {
	const n = 2000
	for range b.N {
		w := newWorld(b, Config{})
		ca, err := w.netCA.MarshalPEM()
		if err != nil {
			b.Fatal(err)
		}
		roots := w.serverCA.Cert.Raw
		before := resident()
		cmd := exec.Command(os.Args[0], "-test.run=^TestBenchClients$")
		cmd.Env = append(os.Environ(), "WEFT_BENCH_URL="+w.url, "WEFT_BENCH_N="+strconv.Itoa(n),
			"WEFT_BENCH_CA="+string(ca), "WEFT_BENCH_ROOT="+base64.StdEncoding.EncodeToString(roots))
		stdin, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); w.relay.Stats().Clients < n; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				b.Fatalf("%d of %d clients", w.relay.Stats().Clients, n)
			}
		}
		debug.FreeOSMemory()
		b.ReportMetric(float64(resident()-before)/n/1024, "KB/client")
		stdin.Close()
		cmd.Wait()
	}
}

// TestBenchClients is the other process of BenchmarkIdleClients: it connects clients,
// which send their versions as real ones do, and keeps them connected until its standard
// input ends. In other runs it does nothing.
func TestBenchClients(t *testing.T) {
	url := os.Getenv("WEFT_BENCH_URL")
	if url == "" {
		return
	}
	n, _ := strconv.Atoi(os.Getenv("WEFT_BENCH_N"))
	ca, err := cert.ParseCA([]byte(os.Getenv("WEFT_BENCH_CA")))
	if err != nil {
		t.Fatal(err)
	}
	der, _ := base64.StdEncoding.DecodeString(os.Getenv("WEFT_BENCH_ROOT"))
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := cert.NewServerRoots([]cert.Pin{cert.PinOf(root)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, netCA: ca, network: cert.PinOf(ca.Cert).NetworkID(), roots: roots, url: url}
	keep := make([]*tls.Conn, n)
	for i := range keep {
		keep[i] = w.node(fmt.Sprintf("n%d", i)).dial()
		keep[i].Write(relay.AppendFrame(nil, relay.TypeVersions, []byte("{}")))
	}
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(keep)
}

// resident returns the resident memory of this process in bytes.
func resident() int64 {
	debug.FreeOSMemory()
	b, _ := os.ReadFile("/proc/self/status")
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "VmRSS:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}
