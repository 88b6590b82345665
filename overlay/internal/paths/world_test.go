package paths

import (
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/network"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/relay/lane"
	"weft/overlay/status"
	"weft/overlay/stun"
)

// side is the Paths of a node with an owner, on an internet in memory, in simulated time.
// Data always flow.
type side struct {
	*Paths
	t     *testing.T
	id    cert.NodeID
	bind  *bind.Bind
	calls chan func()
	conn  homes.RelayConn // of all peers; the owner's
	host  *overlaytest.Host
}

// bubble runs f with an internet in simulated time.
func bubble(t *testing.T, f func(t *testing.T, in *overlaytest.Internet)) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		f(t, in)
	})
}

// newSide makes a side at an address. Its owner runs until the test ends.
func newSide(t *testing.T, in *overlaytest.Internet, last byte) *side {
	addr := netip.AddrFrom4([4]byte{192, 0, 2, last})
	s := &side{t: t, id: cert.NodeID{last}, calls: make(chan func(), 256), host: in.Host(addr.String(), addr.String())}
	s.bind = bind.New(bind.Config{
		Listen:      s.host.ListenPacket,
		STUN:        func(pkt []byte, from bind.Path) { s.STUN(pkt, from) },
		Probe:       func(pkt []byte, from bind.Path) { s.Probed(pkt, from) },
		LaneControl: func(pkt []byte, from bind.Path) { s.LaneControl(pkt, from) },
	})
	fns, _, err := s.bind.Open(0)
	if err != nil || s.bind.ListenError() != nil {
		t.Fatalf("open: %v, %v", err, s.bind.ListenError())
	}
	local := []Interface{{Name: "eth0", Net: netip.PrefixFrom(addr, 24), MTU: 1500}}
	s.Paths = New(Config{
		UDP:  UDP{NoPortMap: true, Interfaces: func() ([]Interface, error) { return local, nil }},
		Bind: s.bind, Held: new(network.Holder), Health: new(status.Warnings), Log: slog.New(slog.DiscardHandler),
		Stats:     func(cert.NodeID) (dataplane.Stats, bool) { return dataplane.Stats{LastTx: time.Now()}, true },
		Session:   func(cert.NodeID) *intro.Session { return nil },
		RelayConn: func(cert.NodeID) homes.RelayConn { return s.conn },
		Changed:   func() {}, Name: cert.NodeID.String,
		Do: s.do, Hint: s.do, Go: func(func()) { t.Error("something is sent in a session, and there is none") },
	})
	s.Start()
	var wg sync.WaitGroup
	for _, fn := range fns {
		wg.Go(func() { receive(fn) })
	}
	done := make(chan struct{})
	wg.Go(func() { s.own(done) })
	t.Cleanup(func() {
		close(done)
		s.Close()
		s.bind.Close()
		wg.Wait()
	})
	return s
}

// receive reads the main socket, as WireGuard does.
func receive(fn conn.ReceiveFunc) {
	bufs, sizes, eps := make([][]byte, bind.BatchSize), make([]int, bind.BatchSize), make([]conn.Endpoint, bind.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	for {
		if _, err := fn(bufs, sizes, eps); err != nil {
			return
		}
	}
}

func (s *side) do(f func()) { s.calls <- f }

// own is the owner.
func (s *side) own(done <-chan struct{}) {
	for {
		var due <-chan time.Time
		if next := s.Next(); !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-done:
			return
		case f := <-s.calls:
			f()
		case <-due:
			s.Check(time.Now())
		}
	}
}

// in makes the owner call f, and waits for it.
func (s *side) in(f func()) {
	done := make(chan struct{})
	s.do(func() { f(); close(done) })
	<-done
}

// begin introduces two sides to each other.
func begin(a, b *side) {
	ab, ba := [32]byte{1, byte(a.id[0]), b.id[0]}, [32]byte{2, byte(a.id[0]), b.id[0]}
	for _, x := range []struct {
		s, peer    *side
		send, recv [32]byte
	}{{a, b, ab, ba}, {b, a, ba, ab}} {
		ep := bind.NewEndpoint(x.peer.id, netip.AddrFrom4([4]byte{100, 64, 0, x.peer.id[0]}))
		x.s.bind.Admit(ep)
		x.s.in(func() { x.s.Begin(ep, x.s.session(x.peer, x.send, x.recv), true) })
	}
}

// session makes a session that has only what Begin needs.
func (s *side) session(peer *side, send, recv [32]byte) *intro.Session {
	return &intro.Session{
		Peer: &cert.Node{ID: peer.id}, Remote: intro.Hello{Boot: uint64(peer.id[0])}, ProbeSend: send, ProbeRecv: recv, Initiator: s.id[0] < peer.id[0],
	}
}

// tells delivers the candidates of s to a peer.
func (s *side) tells(peer *side) {
	var m intro.Message
	s.in(func() { m = s.message(true) })
	peer.Message(peer.session(s, [32]byte{}, [32]byte{}), m)
}

// to returns the kind of the path to a peer.
func (s *side) to(peer *side) (k string) {
	s.in(func() {
		p, _ := s.Shown(peer.id)
		k = p.Kind.String()
	})
	return k
}

// want waits until the path to a peer is of a kind.
func (s *side) want(peer *side, kind string) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); s.to(peer) != kind; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("node %d: the path to %d is %s, want %s", s.id[0], peer.id[0], s.to(peer), kind)
		}
	}
}

// laneRelay is a relay that answers STUN and forwards lanes.
type laneRelay struct {
	at   netip.AddrPort
	conn *overlaytest.PacketConn

	mu sync.Mutex
	// mu guards the following.
	sides  map[lane.ID]*laneSide // of the one lane, if there is one
	a, b   *laneSide             // its two sides
	asked  int                   // how many lanes were requested
	none   bool                  // it offers no lanes
	silent bool                  // it does not answer binds
}

// laneSide is one end of a lane at the relay.
type laneSide struct {
	info  lane.Info
	bound netip.AddrPort
	peer  *laneSide
}

func newLaneRelay(t *testing.T, in *overlaytest.Internet) *laneRelay {
	c, err := in.Host("relay", "192.0.2.250").ListenPacket("udp", ":3478")
	if err != nil {
		t.Fatal(err)
	}
	r := &laneRelay{at: netip.MustParseAddrPort("192.0.2.250:3478"), conn: c.(*overlaytest.PacketConn), sides: map[lane.ID]*laneSide{}}
	var wg sync.WaitGroup
	wg.Go(r.run)
	t.Cleanup(func() { c.Close(); wg.Wait() })
	return r
}

func (r *laneRelay) run() {
	b := make([]byte, 2048)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		pkt := b[:n]
		if tx, err := stun.ParseRequest(pkt); err == nil {
			r.conn.WriteToUDPAddrPort(stun.AppendResponse(nil, tx, from), from)
		} else if kind, id, ok := lane.Parse(pkt); ok {
			r.lane(kind, id, pkt, from)
		}
	}
}

func (r *laneRelay) lane(kind lane.Kind, id lane.ID, pkt []byte, from netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sides[id]
	switch {
	case s == nil || r.silent:
	case kind == lane.Data:
		if from == s.bound && s.peer.bound.IsValid() {
			r.conn.WriteToUDPAddrPort(pkt, s.peer.bound)
		}
	case kind == lane.Bind:
		_, cookie, err := lane.OpenControl(pkt, id, s.info.Key)
		if err != nil {
			return
		}
		answer, good := lane.Challenge, lane.Cookie{1}
		if cookie == good {
			answer, s.bound = lane.Bound, from
		}
		r.conn.WriteToUDPAddrPort(lane.AppendControl(nil, answer, id, good, s.info.Key), from)
	}
}

// laneConn is the connection of two nodes to the relay. A request for a lane reports it
// to both.
type laneConn struct {
	homes.RelayConn // nil: nothing else is called
	r               *laneRelay
	a, b            *side
}

func (w *laneConn) Relay() api.Relay { return api.Relay{STUN: []string{w.r.at.String()}} }

// RequestLane reports the lane to both sides, the same one while it exists.
func (w *laneConn) RequestLane(cert.NodeID) error {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.r.asked++
	if w.r.none {
		return nil
	}
	if len(w.r.sides) == 0 {
		one, two := lane.NewID(), lane.NewID()
		w.r.a = &laneSide{info: lane.Info{Send: one, Recv: two, Key: lane.NewKey(), Idle: time.Minute}}
		w.r.b = &laneSide{info: lane.Info{Send: two, Recv: one, Key: lane.NewKey(), Idle: time.Minute}, peer: w.r.a}
		w.r.a.peer = w.r.b
		w.r.sides[one], w.r.sides[two] = w.r.a, w.r.b
	}
	go w.a.LaneOpened(w, w.b.id, w.r.a.info) // not the owner, who has called
	go w.b.LaneOpened(w, w.a.id, w.r.b.info)
	return nil
}
