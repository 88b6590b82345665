//go:build unix

package intro

import (
	"syscall"
	"testing"
)

// BenchmarkIntroduction measures the CPU time of both ends for a whole introduction, from
// hello to accept and bye, and the bytes in each direction.
//
// The second case has nodes of earlier versions, which do not prove their WireGuard keys.
func BenchmarkIntroduction(b *testing.B) {
	b.Run("proven", func(b *testing.B) { benchmarkIntroduction(b, true) })
	b.Run("unproven", func(b *testing.B) { benchmarkIntroduction(b, false) })
}

func benchmarkIntroduction(b *testing.B, prove bool) {
	w := newNetwork(b)
	lo, hi := w.pair()
	if !prove {
		lo.cfg.PairKey, hi.cfg.PairKey = nil, nil
	}
	bytes := direct(lo, hi)
	b.ReportAllocs()
	before := processorTime()
	for b.Loop() {
		hi.Switch.mu.Lock()
		if p := hi.peers[lo.id]; p != nil {
			p.opens = openBurst
		}
		hi.Switch.mu.Unlock()
		s, err := lo.Dial(b.Context(), hi.id, nil)
		if err != nil {
			b.Fatal(err)
		}
		s.Bye()
	}
	b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(bytes[lo.id])/float64(b.N), "B-out/op")
	b.ReportMetric(float64(bytes[hi.id])/float64(b.N), "B-back/op")
}

// processorTime returns the CPU time of the process in nanoseconds, which other programs
// do not affect.
func processorTime() int64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}
