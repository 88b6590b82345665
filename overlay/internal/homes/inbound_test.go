package homes

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
)

// Only the home relay may say something about this node itself and about current
// versions. Any relay may say something about peers.
func TestWhoMaySayWhat(t *testing.T) {
	var told []string
	note := func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }
	events := Events{
		Message:    func(cert.NodeID, []byte) { note("message") },
		Session:    func(cert.NodeID, []byte) { note("session") },
		Gone:       func(w RelayConn, _ cert.NodeID, _ relay.GoneReason) { note("gone from %s", w.Relay().Name) },
		Lane:       func(w RelayConn, _ cert.NodeID, _ lane.Info) { note("lane at %s", w.Relay().Name) },
		LaneGone:   func(w RelayConn, _ cert.NodeID) { note("no lane at %s", w.Relay().Name) },
		LaneRebind: func(w RelayConn, _ cert.NodeID) { note("lane moved at %s", w.Relay().Name) },
		Time:       func(_ time.Time, server bool) { note("time, server %v", server) },
		Welcome:    func(relay.Welcome) { note("welcome") },
		Nudge:      func(_ relay.Nudge, server bool) { note("nudge, server %v", server) },
		CRL:        func(der []byte) { note("list %s", der) },
		Replaced:   func() { note("replaced") },
	}
	g, home := testGuests(t)
	b := bind.New(bind.Config{})
	of := func(w RelayConn) inbound { return inbound{events: events, guests: g, conn: w, source: b.NewSource()} }
	say := func(h relay.Handler) []string {
		told = nil
		der := []byte("signed")
		h.CRL(der)
		der[0] = 'X' // the buffer is reused
		h.Welcome(relay.Welcome{})
		h.Nudge(relay.Nudge{})
		h.Replaced()
		h.Session(cert.NodeID{1}, opening(1))
		h.Packet(cert.NodeID{1}, []byte("packet"))
		h.Drained()
		h.Gone(cert.NodeID{1}, relay.GoneSilent)
		h.Lane(cert.NodeID{1}, lane.Info{})
		h.LaneGone(cert.NodeID{1}, 0)
		h.LaneRebind(cert.NodeID{1})
		return told
	}
	own := of(home)
	own.server = true
	want := []string{
		"list signed", "time, server true", "welcome", "nudge, server true", "replaced", "session", "message",
		"gone from home", "lane at home", "no lane at home", "lane moved at home",
	}
	if got := say(&own); !slices.Equal(got, want) {
		t.Errorf("the home said %q, want %q", got, want)
	}
	far := g.must(t, "far")
	want = []string{
		"list signed", "time, server false", "session", "message", "gone from far", "lane at far", "no lane at far", "lane moved at far",
	}
	if got := say(&guestInbound{of(far), b}); !slices.Equal(got, want) {
		t.Errorf("the relay of a guest said %q, want %q", got, want)
	}
	// An answer goes over the connection on which the introduction arrived.
	if g.Of(cert.NodeID{1}, 1) != far || g.Of(cert.NodeID{2}, 1) != RelayConn(home) {
		t.Error("an answer uses another connection than its introduction")
	}
}
