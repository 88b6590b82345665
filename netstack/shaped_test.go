package netstack

import (
	"sync"
	"testing"
	"time"
)

// shaper is a wire with a rate, a delay and a queue that drops what does not fit:
// a relay with a slow reader behind it.
type shaper struct {
	rate  float64 // bytes per second
	delay time.Duration
	queue int // bytes
	to    *Net

	mu      sync.Mutex
	free    time.Time // when the line is free
	pending chan timed
	drops   int
	sent    int
}

type timed struct {
	at  time.Time
	pkt []byte
}

func newShaper(to *Net, rate float64, delay time.Duration, queue int) *shaper {
	s := &shaper{rate: rate, delay: delay, queue: queue, to: to, pending: make(chan timed, 1<<16)}
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
			s.drops++
			continue
		}
		s.sent++
		s.free = s.free.Add(time.Duration(float64(len(p)) / s.rate * 1e9))
		s.pending <- timed{s.free.Add(s.delay), append([]byte(nil), p...)}
	}
	return nil
}

func TestShaped(t *testing.T) {
	for _, seg := range []int{1000, 8 << 10, 16 << 10, 32 << 10, 60 << 10} {
		for _, q := range []int{256 << 10, 1 << 20} {
			p := newPair(t, Config{MaxSegment: seg}, nil, nil)
			p.close()
			a, b := newNet(t, Config{MaxSegment: seg}, addrA4, addrA6), newNet(t, Config{MaxSegment: seg}, addrB4, addrB6)
			p = &pair{a: a, b: b}
			sa := newShaper(b, 100e6/8, 10*time.Millisecond, q)
			sb := newShaper(a, 100e6/8, 10*time.Millisecond, q)
			p.wg.Go(func() { carry(a, b, sa.wire) })
			p.wg.Go(func() { carry(b, a, sb.wire) })
			start := time.Now()
			oneway(t, p, 40<<20)
			d := time.Since(start)
			st := a.stack.Stats().TCP
			t.Logf("seg %d queue %d: %.1f Mbit/s; drops %d of %d; retr %d rto %d fast %d sackrec %d tlp %d", seg, q, float64(40<<20)*8/d.Seconds()/1e6, sa.drops, sa.sent,
				st.Retransmits.Value(), st.Timeouts.Value(), st.FastRetransmit.Value(), st.SACKRecovery.Value(), st.TLPRecovery.Value())
			p.close()
		}
	}
}
