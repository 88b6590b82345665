package relayserver

import (
	"math/rand/v2"
	"testing"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

func frames(n, size int) (run []byte) {
	for range n {
		run = relay.AppendPeerFrame(run, relay.TypePacket, cert.NodeID{1}, make([]byte, size))
	}
	return run
}

// A sender of long frames and a sender of short ones get the same share, counted in
// bytes.
func TestSchedFair(t *testing.T) {
	s := sched{limit: 1 << 20}
	a, b := cert.NodeID{1}, cert.NodeID{2}
	s.put(a, frames(8, 60000))
	s.put(b, frames(300, 1000))
	counts := map[int]int{}
	out := make([]byte, 0, batch)
	for range 3 {
		out = s.take(out[:0])
		for rest := out; len(rest) > 0; {
			n := relay.FrameLen(rest)
			counts[n] += n
			rest = rest[n:]
		}
	}
	big, small := counts[60020], counts[1020]
	if big == 0 || small == 0 || big > 2*small || small > 2*big {
		t.Errorf("big frames %d bytes, small ones %d", big, small)
	}
}

// When the queue is full, the sender that fills it loses frames.
func TestSchedFull(t *testing.T) {
	s := sched{limit: 100_000}
	a, b := cert.NodeID{1}, cert.NodeID{2}
	s.put(a, frames(200, 1000))
	if s.bytes > s.limit {
		t.Fatalf("%d bytes", s.bytes)
	}
	if d := s.put(b, frames(10, 1000)); d != 0 {
		t.Errorf("the second sender lost %d bytes", d)
	}
	if d := s.put(a, frames(10, 1000)); d != 10*1020 {
		t.Errorf("the first sender lost %d bytes, want all", d)
	}
	if s.bytes > s.limit {
		t.Fatalf("%d bytes", s.bytes)
	}
}

// After random puts and takes the count of bytes is right, and the frames of each sender
// are whole and in order.
func TestSchedModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := sched{limit: packetRoom}
	next, seen := map[byte]uint32{}, map[byte]uint32{}
	out := make([]byte, 0, batch)
	for range 20_000 {
		if rng.IntN(3) > 0 {
			from := byte(1 + rng.IntN(5))
			var run []byte
			for range 1 + rng.IntN(4) {
				next[from]++
				p := make([]byte, 8+rng.IntN(1<<rng.IntN(16)))
				p[0], p[1], p[2], p[3] = byte(next[from]>>24), byte(next[from]>>16), byte(next[from]>>8), byte(next[from])
				run = relay.AppendPeerFrame(run, relay.TypePacket, cert.NodeID{from}, p)
			}
			s.put(cert.NodeID{from}, run)
		} else {
			out = s.take(out[:0])
			for rest := out; len(rest) > 0; {
				n := relay.FrameLen(rest)
				from, p := rest[relay.HeadLen], rest[relay.HeadLen+relay.PeerLen:]
				seq := uint32(p[0])<<24 | uint32(p[1])<<16 | uint32(p[2])<<8 | uint32(p[3])
				if seq <= seen[from] {
					t.Fatalf("sender %d: %d after %d", from, seq, seen[from])
				}
				seen[from] = seq
				rest = rest[n:]
			}
			if len(out) == 0 && s.bytes > 0 {
				t.Fatal("nothing taken from a queue with frames")
			}
		}
		sum := 0
		for _, f := range s.flows {
			sum += f.len()
		}
		if sum != s.bytes || s.bytes > s.limit {
			t.Fatalf("%d bytes counted, %d there", s.bytes, sum)
		}
	}
}
