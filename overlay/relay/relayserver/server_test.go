package relayserver

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
)

var (
	netA = cert.NetworkID{0xa}
	netB = cert.NetworkID{0xb}
)

// stage is a relay with clients over in-memory connections, in a synctest
// bubble. Certificates are stand-ins whose Raw is network, id and a tag.
type stage struct {
	t        *testing.T
	s        *Server
	ctx      context.Context
	mu       sync.Mutex
	events   []Event
	alerts   int
	versions api.Versions
	refuse   error
	slow     time.Duration // of Verify
}

// onStage runs f in a bubble with a relay. It fails if goroutines are left.
func onStage(t *testing.T, f func(st *stage)) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{t: t}
		st.s = New(Config{
			Verify: st.verify,
			Versions: func(cert.NetworkID, cert.NodeID) api.Versions {
				st.mu.Lock()
				defer st.mu.Unlock()
				return st.versions
			},
			Presence: func(e Event) { st.mu.Lock(); st.events = append(st.events, e); st.mu.Unlock() },
			Alert:    func(cert.NetworkID, cert.NodeID) { st.mu.Lock(); st.alerts++; st.mu.Unlock() },
		})
		ctx, cancel := context.WithCancel(context.Background())
		st.ctx = ctx
		f(st)
		cancel()
		st.s.Shutdown(context.Background())
		synctest.Wait()
	})
}

func (st *stage) verify(leaf *x509.Certificate) (cert.NetworkID, cert.NodeID, bool, error) {
	st.mu.Lock()
	refuse, slow := st.refuse, st.slow
	st.mu.Unlock()
	time.Sleep(slow)
	return cert.NetworkID(leaf.Raw[:16]), cert.NodeID(leaf.Raw[16:32]), leaf.Raw[32] == 1, refuse
}

func id(n int) cert.NodeID { return cert.NodeID{0xff, byte(n >> 8), byte(n)} }

// peer is a client that records every frame it receives.
type peer struct {
	st   *stage
	id   cert.NodeID
	c    net.Conn
	over chan struct{} // closed when the relay closes the connection

	mu     sync.Mutex
	frames [][]byte
	mute   bool // does not answer pings
}

// join connects a node. A deaf one (joinAs) never reads.
func (st *stage) join(n int) *peer { return st.joinAs(netA, id(n), false, false) }

func (st *stage) joinAs(network cert.NetworkID, id cert.NodeID, tagged, deaf bool) *peer {
	near, far := net.Pipe()
	raw := append(append(slices.Clone(network[:]), id[:]...), 0)
	if tagged {
		raw[32] = 1
	}
	p := &peer{st: st, id: id, c: near, over: make(chan struct{})}
	go func() {
		st.s.serve(st.ctx, far, &x509.Certificate{Raw: raw})
		far.Close()
	}()
	if !deaf {
		go p.read()
	}
	st.t.Cleanup(func() { near.Close() })
	synctest.Wait()
	return p
}

func (p *peer) read() {
	defer close(p.over)
	r := relay.NewReader(p.c, relay.AtNode)
	for r.Fill() == nil {
		for f := r.Next(); f != nil; f = r.Next() {
			p.mu.Lock()
			p.frames = append(p.frames, bytes.Clone(f))
			mute := p.mute
			p.mu.Unlock()
			if relay.Type(f[0]) == relay.TypePing && !mute {
				go p.c.Write(relay.AppendFrame(nil, relay.TypePong, f[relay.HeadLen:]))
			}
		}
	}
}

func (p *peer) send(f []byte) error {
	p.c.SetWriteDeadline(time.Now().Add(time.Second))
	_, err := p.c.Write(f)
	p.c.SetWriteDeadline(time.Time{})
	synctest.Wait()
	return err
}

func (p *peer) packet(to cert.NodeID, payload string) {
	p.send(relay.AppendPeerFrame(nil, relay.TypePacket, to, []byte(payload)))
}

func (p *peer) session(to cert.NodeID, payload string) {
	p.send(relay.AppendPeerFrame(nil, relay.TypeSession, to, []byte(payload)))
}

func (p *peer) versions(v api.Versions) { p.holds(relay.Holds{Versions: v}) }

func (p *peer) holds(h relay.Holds) {
	b, _ := json.Marshal(h)
	p.send(relay.AppendFrame(nil, relay.TypeVersions, b))
}

// take removes and returns the recorded frames of a type.
func (p *peer) take(t relay.Type) (out [][]byte) {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frames = slices.DeleteFunc(p.frames, func(f []byte) bool {
		if relay.Type(f[0]) == t {
			out = append(out, f)
			return true
		}
		return false
	})
	return out
}

func (p *peer) closed() bool {
	synctest.Wait()
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

func (p *peer) wantOne(t relay.Type, peer cert.NodeID, rest string) {
	p.st.t.Helper()
	got := p.take(t)
	if len(got) != 1 || relay.Peer(got[0]) != peer || string(got[0][relay.HeadLen+relay.PeerLen:]) != rest {
		p.st.t.Fatalf("type %d: got %q, want one from %v with %q", t, got, peer, rest)
	}
}

// A packet carries the id of the node that sent it, and is forwarded within its network
// only.
func TestForward(t *testing.T) {
	onStage(t, func(st *stage) {
		a, b := st.join(1), st.join(2)
		if first := b.frames[0]; relay.Type(first[0]) != relay.TypeWelcome {
			t.Fatalf("first frame %q, want welcome", first)
		}
		a.packet(b.id, "hello")
		b.wantOne(relay.TypePacket, a.id, "hello") // the sender is the connection's
		b.session(a.id, "intro")
		a.wantOne(relay.TypeSession, b.id, "intro")
		// The same id in another network is another node.
		other := st.joinAs(netB, b.id, false, false)
		a.packet(b.id, "again")
		b.wantOne(relay.TypePacket, a.id, "again")
		if got := other.take(relay.TypePacket); len(got) > 0 {
			t.Fatal("a packet crossed networks")
		}
		other.packet(a.id, "x")
		other.wantOne(relay.TypeGone, a.id, "\x01")
		if got := a.take(relay.TypePacket); len(got) > 0 {
			t.Fatal("a packet crossed networks")
		}
		a.send(relay.AppendFrame(nil, relay.TypePing, []byte("12345678")))
		if got := a.take(relay.TypePong); len(got) != 1 || string(got[0][4:]) != "12345678" {
			t.Fatalf("pong %q", got)
		}
	})
}

func TestRefused(t *testing.T) {
	onStage(t, func(st *stage) {
		st.refuse = errors.New("unknown, or the database is down")
		p := st.join(1)
		if got := p.take(relay.TypeRefused); len(got) != 1 || got[0][4] != byte(relay.RefusedUnknown) {
			t.Fatalf("got %q", got)
		}
		if got := p.take(relay.TypeWelcome); len(got) > 0 || st.s.Stats().Clients != 0 {
			t.Fatal("welcome all the same")
		}
		time.Sleep(2 * lastWords)
		if !p.closed() {
			t.Fatal("still open")
		}
	})
}

func TestKick(t *testing.T) {
	onStage(t, func(st *stage) {
		a, b := st.join(1), st.join(2)
		a.packet(b.id, "1")
		st.s.Kick(netA, a.id)
		if got := a.take(relay.TypeRefused); len(got) != 1 {
			t.Fatal("not told")
		}
		a.packet(b.id, "2") // nothing is forwarded in its last second
		if got := b.take(relay.TypePacket); len(got) != 1 {
			t.Fatalf("%d packets, want 1", len(got))
		}
		b.packet(a.id, "x")
		b.wantOne(relay.TypeGone, a.id, "\x01")
		time.Sleep(2 * lastWords)
		if !a.closed() {
			t.Fatal("still open")
		}
		// A node kicked while it is being verified is refused.
		st.slow = time.Second
		go func() { time.Sleep(time.Second / 2); st.s.Kick(netA, id(3)) }()
		c := st.join(3)
		time.Sleep(2 * time.Second)
		if got := c.take(relay.TypeRefused); len(got) != 1 || st.s.Stats().Clients != 1 {
			t.Fatal("kicked during its check, and in")
		}
		// Afterwards it may connect again if Verify allows it.
		d := st.join(3)
		time.Sleep(2 * time.Second)
		if got := d.take(relay.TypeWelcome); len(got) != 1 {
			t.Fatal("kicked for ever")
		}
	})
}

func TestJunkCloses(t *testing.T) {
	onStage(t, func(st *stage) {
		a, b := st.join(1), st.join(2)
		zero := cert.NodeID{}
		for i, junk := range [][]byte{
			{1, 0, 0, 0}, {1, 0, 0, 16}, {1, 1, 0, 16}, {1, 255, 255, 255}, {255, 255, 255, 255}, {0, 0, 0, 0}, {99, 0, 0, 1, 0},
			relay.AppendPeerFrame(nil, relay.TypePacket, zero, []byte("x")),
			relay.AppendPeerFrame(nil, relay.TypeSession, zero, []byte("x")),
			relay.AppendPeerFrame(nil, relay.TypeGone, a.id, []byte{1}),
			relay.AppendFrame(nil, relay.TypeVersions, []byte("{]")),
			relay.AppendFrame(nil, relay.TypePing, []byte("short")),
			relay.AppendFrame(nil, relay.TypeCRL, []byte("x")),
			[]byte("GET / HTTP/1.1\r\n\r\n"),
		} {
			p := st.join(100 + i)
			p.send(junk)
			time.Sleep(2 * lastWords)
			if !p.closed() {
				t.Errorf("%q: still open", junk)
			}
			a.packet(b.id, fmt.Sprint(i))
			b.wantOne(relay.TypePacket, a.id, fmt.Sprint(i))
		}
		cut := st.join(200) // half a frame, then closed
		cut.send([]byte{1, 0, 0, 20, 1, 2})
		cut.c.Close()
		synctest.Wait()
		if n := st.s.Stats().Clients; n != 2 {
			t.Errorf("%d clients left, want 2", n)
		}
	})
}

func TestNewestWins(t *testing.T) {
	onStage(t, func(st *stage) {
		a := st.join(9)
		old := st.join(1)
		old.versions(api.Versions{})
		var last *peer
		for range 3 {
			last = st.join(1)
			last.versions(api.Versions{})
			time.Sleep(20 * time.Second)
		}
		if got := old.take(relay.TypeReplaced); len(got) != 1 || !old.closed() {
			t.Fatal("the old connection was not told, or is open")
		}
		a.packet(last.id, "x")
		last.wantOne(relay.TypePacket, a.id, "x")
		if st.alerts != 1 {
			t.Errorf("%d alerts for three flips in a minute, want 1", st.alerts)
		}
		// Whatever the order of events, the one with the highest number is right.
		var newest Event
		for _, e := range st.events {
			if e.Conn >= newest.Conn {
				newest = e
			}
		}
		if !newest.Online || len(st.events) != 7 {
			t.Errorf("newest event %+v of %d", newest, len(st.events))
		}
		n := len(st.events)
		last.c.Close()
		synctest.Wait()
		if len(st.events) != n+1 || st.events[n].Online || st.events[n].Conn != newest.Conn {
			t.Errorf("after close: %+v", st.events[n:])
		}
	})
}

func TestSlowFlipsAreNoAlert(t *testing.T) {
	onStage(t, func(st *stage) {
		for range 6 {
			st.join(1)
			time.Sleep(50 * time.Second)
		}
		if st.alerts != 0 {
			t.Errorf("%d alerts", st.alerts)
		}
	})
}

// A guest connection, which sends no versions, does not affect presence.
func TestGuestHasNoPresence(t *testing.T) {
	onStage(t, func(st *stage) {
		p := st.join(1)
		p.c.Close()
		synctest.Wait()
		if len(st.events) != 0 {
			t.Errorf("events %+v", st.events)
		}
	})
}

// A client that does not answer a ping is disconnected after 141 s at the latest.
func TestSilence(t *testing.T) {
	onStage(t, func(st *stage) {
		alive, dead := st.join(1), st.join(2)
		dead.mute = true
		time.Sleep(pingAfter - time.Second)
		if len(alive.take(relay.TypePing))+len(dead.take(relay.TypePing)) > 0 {
			t.Fatal("ping too early")
		}
		time.Sleep(2 * time.Second)
		if len(alive.take(relay.TypePing)) != 1 || len(dead.take(relay.TypePing)) != 1 {
			t.Fatal("no ping after 120 s")
		}
		time.Sleep(pingAnswer - 2*time.Second)
		if dead.closed() {
			t.Fatal("dropped too early")
		}
		time.Sleep(2 * time.Second)
		if !dead.closed() || alive.closed() {
			t.Fatalf("after 141 s: dead closed %v, alive closed %v", dead.closed(), alive.closed())
		}
		time.Sleep(time.Hour)
		if n := len(alive.take(relay.TypePing)); n != 29 && n != 30 || alive.closed() {
			t.Errorf("%d pings in the hour, closed %v", n, alive.closed())
		}
	})
}

func TestProbe(t *testing.T) {
	onStage(t, func(st *stage) {
		a, b := st.join(1), st.join(2)
		time.Sleep(5 * time.Second)
		a.session(b.id, "early")
		if len(b.take(relay.TypePing)) != 0 {
			t.Fatal("pinged a client heard from 5 s ago")
		}
		time.Sleep(probeAsk + time.Millisecond)
		if len(b.take(relay.TypePing)) != 1 {
			t.Fatal("not asked, though it had nothing to say to the frame")
		}
		b.mu.Lock()
		b.mute = true // it dies a moment after its last frame
		b.mu.Unlock()
		time.Sleep(time.Second)
		a.session(b.id, "anybody there?")
		time.Sleep(probeAnswer + time.Millisecond)
		a.wantOne(relay.TypeGone, b.id, "\x02")
		a.session(b.id, "still not?")
		a.wantOne(relay.TypeGone, b.id, "\x02") // at once, this time
		b.mu.Lock()
		b.mute = false
		b.mu.Unlock()
		time.Sleep(probeAnswer)
		a.take(relay.TypeGone)
		b.take(relay.TypePing)
		time.Sleep(5 * time.Second)
		b.session(a.id, "back")
		a.take(relay.TypeSession)
		a.take(relay.TypePing)
		time.Sleep(20 * time.Second)
		a.session(b.id, "x")
		if len(b.take(relay.TypePing)) != 1 {
			t.Fatal("no ping")
		}
		time.Sleep(3 * time.Second)
		if len(a.take(relay.TypeGone)) != 0 {
			t.Fatal("gone, though it answered")
		}
		time.Sleep(20 * time.Second)
		b.mute = true
		a.session(b.id, "y")
		a.session(b.id, "z")
		time.Sleep(probeAnswer - time.Millisecond)
		if len(a.take(relay.TypeGone)) != 0 {
			t.Fatal("gone too early")
		}
		time.Sleep(2 * time.Millisecond)
		a.wantOne(relay.TypeGone, b.id, "\x02")
		time.Sleep(pingAnswer)
		if !b.closed() {
			t.Error("a client that does not answer stays")
		}
	})
}

func TestGoneIsLimited(t *testing.T) {
	onStage(t, func(st *stage) {
		a := st.join(1)
		for range 50 {
			a.packet(id(77), "x")
		}
		if n := len(a.take(relay.TypeGone)); n != 1 {
			t.Errorf("%d times gone in a moment", n)
		}
		time.Sleep(hintEvery)
		a.packet(id(77), "x")
		b := st.join(77)
		a.packet(b.id, "now")
		b.wantOne(relay.TypePacket, a.id, "now")
	})
}

func TestNewDestinations(t *testing.T) {
	onStage(t, func(st *stage) {
		for _, c := range []struct {
			tagged         bool
			burst, perMins int
		}{{false, 100, 20}, {true, 20, 5}} {
			p := st.joinAs(netA, id(5000), c.tagged, false)
			reached := func(from, n int) (got int) {
				for i := range n {
					p.session(id(from+i), "scan")
				}
				return len(p.take(relay.TypeGone))
			}
			if got := reached(1000, c.burst+50); got != c.burst {
				t.Errorf("tagged %v: %d at once, want %d", c.tagged, got, c.burst)
			}
			if n := len(p.take(relay.TypeBusy)); n != 1 {
				t.Errorf("%d busy hints in a moment", n)
			}
			time.Sleep(time.Minute)
			if got := reached(2000, 50); got != c.perMins {
				t.Errorf("tagged %v: %d after a minute, want %d", c.tagged, got, c.perMins)
			}
			// Contacts do not count, nor do answers.
			time.Sleep(2 * time.Second)
			if got := reached(1000, 10); got != 10 {
				t.Errorf("tagged %v: %d known ones, want 10", c.tagged, got)
			}
			caller := st.join(6000)
			caller.session(p.id, "hi")
			p.session(caller.id, "answer")
			caller.wantOne(relay.TypeSession, p.id, "answer")
			p.c.Close()
			caller.c.Close()
			synctest.Wait()
		}
	})
}

func TestNudge(t *testing.T) {
	onStage(t, func(st *stage) {
		v1 := api.Versions{Config: api.Version{Epoch: 7, N: 1}, CRL: 5}
		v2 := api.Versions{Config: api.Version{Epoch: 7, N: 2}, CRL: 5}
		st.versions = v1
		p, q, quiet := st.join(1), st.join(2), st.join(3)
		p.versions(v1)
		q.versions(v1)
		time.Sleep(time.Minute)
		if len(p.take(relay.TypeNudge)) != 0 {
			t.Fatal("nudged while in step")
		}
		st.mu.Lock()
		st.versions = v2
		st.mu.Unlock()
		st.s.Notify(netA, nil)
		got := p.take(relay.TypeNudge)
		var n relay.Nudge
		if len(got) != 1 || json.Unmarshal(got[0][4:], &n) != nil || n.Versions != v2 || n.SpreadMS != 0 {
			t.Fatalf("nudge %q", got)
		}
		q.take(relay.TypeNudge)
		p.versions(v2) // fetched
		time.Sleep(100 * time.Second)
		if n := len(q.take(relay.TypeNudge)); n != 3 {
			t.Errorf("%d more nudges in 100 s, want 3", n)
		}
		if len(p.take(relay.TypeNudge))+len(quiet.take(relay.TypeNudge)) != 0 {
			t.Error("nudged one that is in step, or never said")
		}
		q.versions(v2)
		time.Sleep(100 * time.Second)
		if len(q.take(relay.TypeNudge)) != 0 || len(st.s.behind) != 0 || st.s.nudgeTimer != nil && len(st.s.behind) > 0 {
			t.Error("nudged on")
		}
		// Any difference counts, because a restored server has lower versions.
		st.mu.Lock()
		st.versions = v1
		st.mu.Unlock()
		one := q.id
		st.s.Notify(netA, &one)
		if len(q.take(relay.TypeNudge)) != 1 || len(p.take(relay.TypeNudge)) != 0 {
			t.Error("Notify of one node")
		}
		// Names count only for a node that remembers some.
		p.versions(v1)
		renamed, held := v1, v1
		held.Names, renamed.Names = api.Version{Epoch: 7, N: 1}, api.Version{Epoch: 7, N: 2}
		q.versions(held)
		if len(q.take(relay.TypeNudge))+len(p.take(relay.TypeNudge)) != 0 {
			t.Error("nudged for names that the relay does not know")
		}
		st.mu.Lock()
		st.versions = renamed
		st.mu.Unlock()
		st.s.Notify(netA, nil)
		if len(q.take(relay.TypeNudge)) != 1 || len(p.take(relay.TypeNudge)) != 0 {
			t.Error("a change of names")
		}
	})
}

func TestPushCRL(t *testing.T) {
	onStage(t, func(st *stage) {
		const n = 200
		ps := make([]*peer, n)
		for i := range ps {
			ps[i] = st.join(i + 1)
		}
		bad := st.join(4000)
		bad.packet(ps[150].id, "x") // 150 received from it
		ps[20].packet(bad.id, "x")  // 20 sent to it
		st.s.Kick(netA, bad.id)
		st.s.PushCRL(netA, []byte("crl"), []cert.NodeID{bad.id})
		has := func() (out int) {
			for _, p := range ps {
				out += len(p.take(relay.TypeCRL))
			}
			return out
		}
		if len(ps[150].take(relay.TypeCRL)) != 1 || len(ps[20].take(relay.TypeCRL)) != 1 {
			t.Fatal("who exchanged frames with the revoked node does not have it at once")
		}
		if got := has(); got > n/2 {
			t.Errorf("%d others at once", got)
		}
		time.Sleep(time.Second)
		st.s.PushCRL(netA, bytes.Repeat([]byte{1}, relay.MaxCRL+1), nil) // left to nudges
		if got := has(); got == 0 {
			t.Error("the others do not get it")
		}
		for i, p := range ps {
			if p.closed() {
				t.Fatalf("client %d closed", i)
			}
		}
	})
}

func TestCRLForStragglers(t *testing.T) {
	onStage(t, func(st *stage) {
		st.s.cfg.CRL = func(cert.NetworkID) []byte { return []byte("the crl") }
		st.versions.CRL = 10
		p := st.join(1)
		p.versions(api.Versions{CRL: 9})
		if got := p.take(relay.TypeCRL); len(got) != 1 || string(got[0][4:]) != "the crl" {
			t.Errorf("got %q", got)
		}
		q := st.join(2)
		q.versions(api.Versions{CRL: 10})
		if len(q.take(relay.TypeCRL)) != 0 {
			t.Error("sent a CRL that it holds")
		}
	})
}

// A receiver that does not read loses its own packets and has a bounded queue; others are
// not affected.
func TestSlowReader(t *testing.T) {
	onStage(t, func(st *stage) {
		a, b := st.join(1), st.join(2)
		deaf := st.joinAs(netA, id(3), false, true)
		big := string(make([]byte, 60000))
		for i := range 50 {
			a.packet(deaf.id, big)
			start := time.Now()
			a.packet(b.id, fmt.Sprint(i))
			b.wantOne(relay.TypePacket, a.id, fmt.Sprint(i))
			if d := time.Since(start); d > 20*time.Millisecond {
				t.Fatalf("the other flow waited %v", d)
			}
		}
		st.s.mu.RLock()
		c := st.s.networks[netA].clients[deaf.id]
		st.s.mu.RUnlock()
		c.mu.Lock()
		queued := c.packets.bytes + c.sessions.bytes + len(c.control)
		c.mu.Unlock()
		if queued > 256<<10 {
			t.Errorf("%d bytes queued", queued)
		}
		if st.s.Stats().Dropped < 40*60000 {
			t.Errorf("only %d bytes dropped", st.s.Stats().Dropped)
		}
		if n := len(a.take(relay.TypeBusy)); n < 1 {
			t.Error("no busy hint")
		}
		// Session frames are sent before queued packets.
		time.Sleep(time.Second)
		b.session(deaf.id, "first")
		go deaf.read()
		time.Sleep(time.Second)
		deaf.mu.Lock()
		defer deaf.mu.Unlock()
		at := slices.IndexFunc(deaf.frames, func(f []byte) bool { return relay.Type(f[0]) == relay.TypeSession })
		packets := 0
		for _, f := range deaf.frames[:max(at, 0)] {
			if relay.Type(f[0]) == relay.TypePacket {
				packets++
			}
		}
		if at < 0 || packets > 2 { // those that were being written
			t.Errorf("session frame at %d after %d packets", at, packets)
		}
	})
}

// A receiver that takes data slows its sender down instead of losing packets.
func TestBackpressure(t *testing.T) {
	onStage(t, func(st *stage) {
		a := st.join(1)
		b := st.joinAs(netA, id(2), false, true)
		const n = 200
		go func() {
			for i := range n {
				a.c.Write(relay.AppendPeerFrame(nil, relay.TypePacket, b.id, bytes.Repeat([]byte{byte(i)}, 16000)))
			}
		}()
		r := relay.NewReader(b.c, relay.AtNode)
		got := 0
		for got < n && r.Fill() == nil {
			for f := r.Next(); f != nil; f = r.Next() {
				if relay.Type(f[0]) == relay.TypePacket {
					if f[len(f)-1] != byte(got) {
						t.Fatalf("packet %d is out of order", got)
					}
					got++
				}
			}
			time.Sleep(time.Millisecond / 4)
		}
		if got != n || st.s.Stats().Dropped != 0 {
			t.Errorf("%d of %d packets, %d bytes dropped", got, n, st.s.Stats().Dropped)
		}
	})
}

func TestDraining(t *testing.T) {
	onStage(t, func(st *stage) {
		a := st.join(1)
		done := make(chan struct{})
		go func() { st.s.Shutdown(context.Background()); close(done) }()
		<-done
		if got := a.take(relay.TypeDraining); len(got) != 1 || !a.closed() {
			t.Errorf("draining %q, closed %v", got, a.closed())
		}
		late := st.join(2)
		if !late.closed() {
			t.Error("a client came in after Shutdown")
		}
	})
}

func TestFull(t *testing.T) {
	onStage(t, func(st *stage) {
		st.s.cfg.Limits.Clients = 1
		st.join(1)
		p := st.join(2)
		if got := p.take(relay.TypeRefused); len(got) != 1 || got[0][4] != byte(relay.RefusedFull) {
			t.Errorf("got %q", got)
		}
	})
}
