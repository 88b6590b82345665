package dataplane

import (
	"runtime"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPacketPath measures what this package costs for each packet, in batches for
// one peer: outwards to the plane that reads, and inwards from it to the host.
// CPU-ns/packet is the thread's own time, so other load does not matter.
func BenchmarkPacketPath(b *testing.B) {
	w := world{}
	x, y := w.node(b, 1), w.node(b, 2)
	xy, _ := x.connect(y, reads)
	y.net.Sink = func([][]byte, int) {}
	pkt := x.udp(y, 1)
	const batch = 32
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = append(make([]byte, 16), pkt...)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu := func() time.Duration {
		var u syscall.Rusage
		syscall.Getrusage(1 /* RUSAGE_THREAD */, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ReportAllocs()
	begun := cpu()
	for b.Loop() {
		for i := range sizes {
			sizes[i] = len(pkt)
		}
		x.fwd.outbound(bufs, sizes, 16)
		xy.ResetBacklog()
		y.fwd.Write(bufs, 16)
	}
	b.ReportMetric(float64(cpu()-begun)/float64(b.N*batch), "CPU-ns/packet")
}
