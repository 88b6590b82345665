package relayserver

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

// counter counts what arrives.
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

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkThroughput is one sender and one receiver through the relay over
// loopback TCP, all in this process: both nodes' halves and the relay.
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
			st := w.relay.Stats()
			_ = st
		})
	}
}

// BenchmarkIdleClients measures the resident memory of the relay per idle
// client. The clients' own halves are in this process too, so it runs the
// clients as bare links whose memory is measured apart.
func BenchmarkIdleClients(b *testing.B) {
	const n = 2000
	for range b.N {
		w := newWorld(b, Config{})
		nd := make([]*node, n)
		for i := range nd {
			nd[i] = w.node(fmt.Sprintf("n%d", i))
		}
		runtime.GC()
		before := heap()
		for i := range nd {
			nd[i].dial()
		}
		for w.relay.Stats().Clients < n {
			time.Sleep(time.Millisecond)
		}
		runtime.GC()
		runtime.GC()
		b.ReportMetric(float64(heap()-before)/n/1024, "KB/client+server")
	}
}

func heap() int64 {
	runtime.GC()
	b, _ := os.ReadFile("/proc/self/status")
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, "VmRSS:") {
			f := strings.Fields(l)
			kb, _ := strconv.Atoi(f[1])
			return int64(kb) << 10
		}
	}
	return 0
}
