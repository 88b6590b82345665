package paths

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/internal/path"
	"weft/overlay/internal/probe"
)

// Two nodes that have sent each other their candidates find a direct path. The paths of a
// tunnel end with it, and the peer notices.
func TestDirect(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		a, b := newSide(t, in, 1), newSide(t, in, 2)
		begin(a, b)
		time.Sleep(5 * time.Second) // they gather
		if a.to(b) != "relay" || b.to(a) != "relay" {
			t.Fatalf("they have told each other nothing: %s, %s", a.to(b), b.to(a))
		}
		a.tells(b)
		b.tells(a)
		a.want(b, "direct")
		b.want(a, "direct")

		b.in(func() { b.End(a.id) })
		a.want(b, "relay")
		b.in(func() {
			if p, rtt := b.Shown(a.id); p.Kind != path.Relay || rtt != nil {
				t.Errorf("path of a tunnel that has ended: %+v", p)
			}
			if len(b.claims) != 0 || len(b.tags) != 0 || len(*b.byTag.Load()) != 0 {
				t.Errorf("left behind: %d paths, %d probers", len(b.claims), len(b.tags))
			}
		})

		begin(a, b) // anew
		a.tells(b)
		b.tells(a)
		a.want(b, "direct")
		b.want(a, "direct")
	})
}

// Candidates that a peer sent before its restart are dropped.
func TestCandidatesOfAnotherBoot(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		var probes atomic.Int64
		a, b := newSide(t, in, 1), newSide(t, in, 2)
		in.OnPacket(func(p overlaytest.Packet) {
			if p.Dst.Addr() == netip.AddrFrom4([4]byte{192, 0, 2, b.id[0]}) {
				probes.Add(1)
			}
		})
		begin(a, b)
		time.Sleep(5 * time.Second)
		m := b.message(true)
		former := a.session(b, [32]byte{}, [32]byte{})
		former.Remote.Boot++
		a.Message(former, m)
		time.Sleep(2 * time.Second)
		if n := probes.Load(); n > 0 {
			t.Errorf("%d probes to where another boot said that it is", n)
		}
		a.Message(a.session(b, [32]byte{}, [32]byte{}), m)
		time.Sleep(2 * time.Second)
		if probes.Load() == 0 {
			t.Error("no probes to where the peer says that it is")
		}
	})
}

// A path belongs to one peer: the one that has proven it, or else the first.
func TestPathsTakenFromAnotherPeer(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		a, b, c := newSide(t, in, 1), newSide(t, in, 2), newSide(t, in, 3)
		begin(a, b)
		begin(a, c)
		at := path.Path{Addr: netip.MustParseAddrPort("192.0.2.9:1")}
		bp := bind.Path{Kind: bind.Direct, Addr: at.Addr}
		holder := func() (id cert.NodeID) {
			a.in(func() { id = a.claims[bp] })
			return id
		}
		admit := func(peer *side, proven bool) {
			a.in(func() { a.admit(a.peers[peer.id], path.Admission{Path: at, Proven: proven}) })
		}
		admit(b, false)
		if holder() != b.id {
			t.Fatal("a path of no peer is not taken")
		}
		admit(c, false)
		if holder() != b.id {
			t.Error("a mere ping, which may be a replay, took a path from another peer")
		}
		admit(c, true)
		if holder() != c.id {
			t.Error("a peer that has proven the path does not have it")
		}
		a.in(func() { a.forget(a.peers[b.id], at) })
		if holder() != c.id {
			t.Error("the former owner of a path took it from the present one")
		}
	})
}

// A flood of replays of one probe costs the owner a bounded amount each second.
func TestProberRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pr := newProber(cert.NodeID{1}, [32]byte{1})
		ping := probe.NewKey([32]byte{1}).AppendPing(nil, probe.Tx{1}, probe.Len)
		count := func(n int) (opened int) {
			for range n {
				if _, ok := pr.open(ping); ok {
					opened++
				}
			}
			return opened
		}
		if n := count(5000); n != probesBurst {
			t.Errorf("%d at once, want %d", n, probesBurst)
		}
		time.Sleep(time.Second)
		if n := count(5000); n != probesPerSec {
			t.Errorf("%d a second later, want %d", n, probesPerSec)
		}
		forged := probe.NewKey([32]byte{2}).AppendPing(nil, probe.Tx{1}, probe.Len)
		time.Sleep(time.Hour)
		for range 5000 {
			if _, ok := pr.open(forged); ok {
				t.Fatal("a probe under another key is taken")
			}
		}
		if n := count(5000); n != probesBurst {
			t.Errorf("after forged ones there is room for %d, want %d", n, probesBurst)
		}
	})
}

// The keys of the previous session stay valid, and earlier ones do not.
func TestKeysOfTwoSessions(t *testing.T) {
	bubble(t, func(t *testing.T, in *overlaytest.Internet) {
		a, b := newSide(t, in, 1), newSide(t, in, 2)
		begin(a, b)
		tag := func(n byte) probe.Tag { return probe.NewKey([32]byte{9, n}).Tag() }
		for n := range byte(3) {
			a.in(func() {
				o := a.peers[b.id]
				a.Begin(o.endpoint, a.session(b, [32]byte{8, n}, [32]byte{9, n}), false)
				if a.peers[b.id] != o {
					t.Error("a tunnel that goes on has another agent")
				}
			})
		}
		for n, want := range []bool{false, true, true} {
			if got := (*a.byTag.Load())[tag(byte(n))] != nil; got != want {
				t.Errorf("probes under the keys of session %d are taken: %v, want %v", n, got, want)
			}
		}
	})
}
