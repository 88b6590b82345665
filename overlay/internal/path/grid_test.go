package path

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/internal/overlaytest"
)

// TestGrid: for every pair of NATs the nodes reach the best possible kind of path within
// 5 s, easy ones within 300 ms, and lose no data until then.
func TestGrid(t *testing.T) {
	for _, ka := range overlaytest.Kinds {
		for _, kb := range overlaytest.Kinds {
			for _, variant := range []string{"", "/double", "/one STUN address"} {
				t.Run(fmt.Sprintf("%v/%v%s", ka, kb, variant), func(t *testing.T) {
					grid(t, ka, kb, variant == "/double", variant == "/one STUN address")
				})
			}
		}
	}
}

func grid(t *testing.T, ka, kb overlaytest.Kind, double, oneSTUN bool) {
	want, within := Direct, 600*time.Millisecond
	hard := func(k overlaytest.Kind) bool { return k == overlaytest.Symmetric }
	strict := func(k overlaytest.Kind) bool {
		return k == overlaytest.PortRestricted || k == overlaytest.SymmetricPreserving ||
			double && (k == overlaytest.FullCone || k == overlaytest.AddressRestricted)
	}
	switch {
	case ka == overlaytest.UDPBlocked || kb == overlaytest.UDPBlocked:
		want = Relay
	case hard(ka) && hard(kb):
		want, within = RelayedUDP, 5*time.Second
	case hard(ka) && strict(kb) || hard(kb) && strict(ka):
		within = 5 * time.Second
	}
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		w := newWorld(t, in)
		w.oneSTUN = oneSTUN
		behind := func(name string, k overlaytest.Kind, outside, inside string) *overlaytest.Host {
			n := in.NAT(name+"-nat", k, outside)
			inner := n.Net
			if double && k != overlaytest.NoNAT && k != overlaytest.UDPBlocked {
				// The NAT of this kind is the carrier's; the home router has the usual
				// one.
				inner = n.NAT(name+"-home", overlaytest.PortRestricted, "100.64.0.2").Net
			}
			if k == overlaytest.NoNAT {
				inside = outside + "1"
			}
			h := inner.Host(name, inside)
			h.Link.SetLatency(10 * time.Millisecond)
			return h
		}
		a := w.node("a", 0, behind("a", ka, "198.51.100.1", "192.168.1.2"), "192.168.1.0/24")
		b := w.node("b", 1, behind("b", kb, "203.0.113.1", "192.168.7.2"), "192.168.7.0/24")
		a.sending, b.sending = true, true
		begun := time.Now()
		stop := start(w, a, b)
		defer stop()
		time.Sleep(within)
		pa, pb := a.path(), b.path()
		if want == Relay {
			time.Sleep(5 * time.Second)
			pa, pb = a.path(), b.path()
		}
		if pa.Kind != want || pb.Kind != want {
			t.Fatalf("after %v: %v (%s) and %v (%s), want %v", within, pa.Kind, pa.Reason, pb.Kind, pb.Reason, want)
		}
		if want == Direct {
			t.Logf("direct after %v and %v", a.stats().directAt.Sub(begun), b.stats().directAt.Sub(begun))
		} else {
			t.Logf("%s", pa.Reason)
		}
		// Stop sending, and let packets in flight arrive.
		a.do(func() { a.sending = false })
		b.do(func() { b.sending = false })
		time.Sleep(500 * time.Millisecond)
		for _, n := range []*node{a, b} {
			st, peer := n.stats(), n.peer.stats()
			if got := st.got[Direct] + st.got[RelayedUDP] + st.got[Relay]; got != peer.sent || st.late != 0 {
				t.Errorf("%s got %d of %d (%v), %d from where nothing was admitted", n.name, got, peer.sent, st.got, st.late)
			}
		}
		// Then silence.
		count := func() int { return a.stats().probes + b.stats().probes }
		probes := count()
		time.Sleep(2 * time.Second)
		tail := count() - probes
		time.Sleep(10 * time.Minute)
		if n := count() - probes - tail; n != 0 || tail > 30 {
			t.Errorf("%d probes when sending stopped, then %d", tail, n)
		}
		if p := a.path(); p.Kind != Relay || !p.Quiet {
			t.Errorf("quiet, but on %v: %s", p.Kind, p.Reason)
		}
	})
}
