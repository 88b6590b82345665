package gcm

import (
	"encoding/binary"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/hosttest"
)

// Two devices in memory: the cost of everything except the network stacks and the relay.
// CPU-s/GB counts both ends.
func benchmarkDevices(b *testing.B, size int) {
	w := newWire()
	x, y := newNode(b, w, 1), newNode(b, w, 2)
	x.introduce(y, 1)
	x.net.Out <- x.udp(y, 1)
	y.recv()

	var got, sent atomic.Int64
	y.net.Sink = func(bufs [][]byte, offset int) { got.Add(int64(len(bufs))) }
	pkt := hosttest.IP(x.v4, y.v4, 17, make([]byte, size-20))
	binary.BigEndian.PutUint16(pkt[24:], uint16(size-20))
	window := int64(min(64, dataplane.MaxBacklog/2/size)) // like a transport protocol's, so that nothing is dropped
	left := int64(b.N)
	var cpu0, cpu1 syscall.Rusage
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	syscall.Getrusage(syscall.RUSAGE_SELF, &cpu0)
	x.net.Feed = func(buf []byte) int {
		if sent.Load() >= left || sent.Load()-got.Load() >= window {
			return 0
		}
		sent.Add(1)
		return copy(buf, pkt)
	}
	x.net.WakeRead()
	for last, since := int64(0), time.Now(); got.Load() < left; time.Sleep(50 * time.Microsecond) {
		if g := got.Load(); g != last {
			last, since = g, time.Now()
		} else if time.Since(since) > 2*time.Second {
			b.Fatalf("%d of %d packets arrived", g, left)
		}
	}
	b.StopTimer()
	syscall.Getrusage(syscall.RUSAGE_SELF, &cpu1)
	cpu := time.Duration(cpu1.Utime.Nano() + cpu1.Stime.Nano() - cpu0.Utime.Nano() - cpu0.Stime.Nano())
	b.ReportMetric(cpu.Seconds()/(float64(b.N)*float64(size)/1e9), "CPU-s/GB")
}

func BenchmarkDeviceSegment(b *testing.B) { benchmarkDevices(b, 60<<10) }
func BenchmarkDevice1280(b *testing.B)    { benchmarkDevices(b, 1280) }
