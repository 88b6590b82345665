package netstack

import (
	"testing"
	"time"
)

// shaper is a wire with a rate, a delay and a queue that drops what does not fit, like
// a relay with a slow reader behind it.
type shaper struct {
	rate  float64 // bytes per second
	delay time.Duration
	queue int // bytes

	free    time.Time // when the line is free again
	pending chan timed
	dropped int
}

type timed struct {
	at  time.Time
	pkt []byte
}

// newShaper starts the line; it ends when the channel is closed.
func newShaper(to *Net, rate float64, delay time.Duration, queue int) *shaper {
	s := &shaper{rate: rate, delay: delay, queue: queue, pending: make(chan timed, 1<<14)}
	go func() {
		for p := range s.pending {
			time.Sleep(time.Until(p.at))
			to.Write([][]byte{p.pkt}, 0)
		}
	}()
	return s
}

func (s *shaper) wire(_ *Net, pkts [][]byte) [][]byte {
	for _, p := range pkts {
		now := time.Now()
		if s.free.Before(now) {
			s.free = now
		}
		if waiting := s.free.Sub(now).Seconds() * s.rate; int(waiting)+len(p) > s.queue {
			s.dropped++
			continue
		}
		s.free = s.free.Add(time.Duration(float64(len(p)) / s.rate * 1e9))
		s.pending <- timed{s.free.Add(s.delay), p}
	}
	return nil
}

// Large segments work over a line whose queue holds only a few of them; most losses are
// recovered without a timeout.
func TestNarrowLink(t *testing.T) {
	p := &pair{a: newNet(t, Config{}, addrA4, addrA6), b: newNet(t, Config{}, addrB4, addrB6)}
	ab := newShaper(p.b, 100e6/8, 5*time.Millisecond, 256<<10)
	ba := newShaper(p.a, 100e6/8, 5*time.Millisecond, 256<<10)
	p.wg.Go(func() { carry(p.a, p.b, ab.wire); close(ab.pending) })
	p.wg.Go(func() { carry(p.b, p.a, ba.wire); close(ba.pending) })
	defer p.close()
	const size = 10 << 20
	start := time.Now()
	oneway(t, p, size)
	tcp := p.a.stack.Stats().TCP
	t.Logf("%.0f of 100 Mbit/s, %d packets dropped, %d retransmitted, %d timeouts",
		size*8/time.Since(start).Seconds()/1e6, ab.dropped, tcp.Retransmits.Value(), tcp.Timeouts.Value())
	if tcp.Timeouts.Value() > 10 {
		t.Errorf("%d timeouts", tcp.Timeouts.Value())
	}
}
