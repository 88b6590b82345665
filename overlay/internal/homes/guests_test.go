package homes

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/relay"
)

// deaf is a home that accepts everything sent.
type deaf struct {
	mu   sync.Mutex
	sent int
}

func (d *deaf) Sender() bind.Sender           { return nil }
func (d *deaf) Relay() api.Relay              { return api.Relay{ID: "home", Name: "home"} }
func (d *deaf) RequestLane(cert.NodeID) error { return relay.ErrNoLanes }
func (d *deaf) SendSession(cert.NodeID, []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent++
	return nil
}

// testGuests returns Guests whose relays are pipes.
func testGuests(t *testing.T) (*Guests, *deaf) {
	home := &deaf{}
	dial := func(ctx context.Context, _, url string) (net.Conn, error) {
		if url == "dead" {
			return nil, errors.New("connection refused")
		}
		near, far := net.Pipe()
		go func() {
			r := relay.NewReader(far, relay.AtRelay)
			for r.Fill() == nil {
				for f := r.Next(); f != nil; f = r.Next() {
					if relay.Type(f[0]) == relay.TypePing {
						far.Write(relay.AppendFrame(nil, relay.TypePong, f[relay.HeadLen:]))
					}
				}
			}
			r.Release()
			far.Close()
		}()
		return near, nil
	}
	g := newGuests(home, dial, time.Minute, slog.New(slog.DiscardHandler))
	g.handler = func(*Guest) relay.Handler {
		return &guestInbound{inbound: inbound{source: bind.New(bind.Config{}).NewSource()}}
	}
	g.guestEnded = func(*Guest) {}
	t.Cleanup(g.Close)
	return g, home
}

func relayAt(id string) api.Relay { return api.Relay{ID: id, Name: id, URLs: []string{id}} }

func (g *Guests) must(t *testing.T, id string) RelayConn {
	t.Helper()
	w, err := g.Connect(t.Context(), relayAt(id))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// However many relays there are, there are at most 64 guests, and those with tunnels
// stay.
func TestGuestsAreBounded(t *testing.T) {
	g, home := testGuests(t)
	used := g.must(t, "used")
	g.SetTunnel(cert.NodeID{1}, used)
	for i := range 3 * maxGuests {
		g.must(t, fmt.Sprint("relay-", i))
	}
	g.mu.Lock()
	n, kept := len(g.open), g.open["used"] == used
	g.mu.Unlock()
	if n != maxGuests || !kept {
		t.Errorf("%d guests, the one that is used kept: %v", n, kept)
	}
	if w := g.must(t, "home"); w != RelayConn(home) {
		t.Error("a guest connection to our own home")
	}
	if _, err := g.Connect(t.Context(), relayAt("dead")); err == nil || !g.FailedLately("dead") || g.FailedLately("used") {
		t.Errorf("dead relay: %v", err)
	}
	g.homeMoves(relayAt("used"))
	if w := g.must(t, "used"); w != RelayConn(home) {
		t.Error("a guest connection to where the home is about to be")
	}
}

func opening(id uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, id)
	return append(b, 0, 0, 0, 0, 1)
}

// A peer that opens endless introductions does not make the node forget those of another
// peer, nor the connections of its own calls.
func TestPeerPushesOutOnlyItsOwnNotes(t *testing.T) {
	g, home := testGuests(t)
	there := g.must(t, "there")
	peer, called := cert.NodeID{1}, cert.NodeID{3}
	g.called(there, peer, opening(7))
	defer g.Calling(called, home)()
	g.SendSession(called, opening(8))
	for i := range uint64(10 * notedSessions) {
		g.called(there, cert.NodeID{2}, opening(i+1))
		g.called(home, cert.NodeID{2}, opening(i+1))
	}
	if g.Of(peer, 7) != there {
		t.Error("an introduction was forgotten for those of another peer")
	}
	g.SetTunnel(called, there) // an earlier tunnel
	before := home.sent
	if g.SendSession(called, opening(9)[:12]); home.sent != before+1 {
		t.Error("what is of the call went elsewhere")
	}
	g.SetTunnel(called, nil)
}

// A relay that invents introductions does not misdirect those at another relay or of a
// tunnel, and costs a bounded amount of memory.
func TestGuestsNotesAreBounded(t *testing.T) {
	g, home := testGuests(t)
	good, evil := g.must(t, "good"), g.must(t, "evil")
	peer := cert.NodeID{1}
	g.called(good, peer, opening(7))
	for i := range uint64(100_000) {
		g.called(evil, cert.NodeID{2, byte(i), byte(i >> 8), byte(i >> 16)}, opening(i+1))
		g.called(evil, peer, []byte{1})
	}
	if g.Of(peer, 7) != good {
		t.Error("an introduction was forgotten for those of another relay")
	}
	g.mu.Lock()
	n := len(g.sessions)
	g.mu.Unlock()
	if n > 3*notedSessions {
		t.Errorf("%d introductions noted", n)
	}
	// An introduction that is not recorded uses the tunnel's connection, or the home
	// connection.
	g.SetTunnel(peer, good)
	g.SendSession(cert.NodeID{9}, opening(1)[:13])
	if home.sent != 1 {
		t.Errorf("%d frames went home", home.sent)
	}
	if !g.SetTunnel(peer, nil) && g.Of(peer, 8) != RelayConn(home) {
		t.Error("an unknown introduction does not go home")
	}
}
