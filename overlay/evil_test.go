package overlay_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
)

// evilRelay is a relay that does to frames what a test wants. Without a tamper function
// it looks honest to nodes.
type evilRelay struct {
	mute atomic.Bool // no revocation lists are pushed
	w    *world

	mu sync.Mutex
	// mu guards the following.
	clients map[cert.NodeID]*evilClient
	tamper  func(carried) []carried
	seen    func(carried) // sees every frame before it is tampered with
	closed  bool
	wg      sync.WaitGroup
}

type evilClient struct {
	out  chan []byte // frames; closed never
	done chan struct{}
	tc   *tls.Conn
}

// carried is a packet or session frame that is being forwarded.
type carried struct {
	from, to cert.NodeID
	t        relay.Type
	payload  []byte
}

// The kinds of session frames, and their offset (package intro).
const (
	introKind  = 12
	introOpen  = 1
	introReset = 4
)

func (c carried) isOpen() bool {
	return c.t == relay.TypeSession && len(c.payload) > introKind && c.payload[introKind] == introOpen
}

// reset makes a session reset out of a session frame.
func (c carried) reset() carried {
	c.payload = append(slices.Clone(c.payload[:introKind]), introReset)
	return c
}

// zeroReset makes a reset with id 0: "I have no peer for you".
func zeroReset(from, to cert.NodeID) carried {
	return carried{from, to, relay.TypeSession, append(make([]byte, introKind), introReset)}
}

func newEvilRelay(w *world) *evilRelay {
	return &evilRelay{w: w, clients: map[cert.NodeID]*evilClient{}}
}

func (e *evilRelay) set(tamper func(carried) []carried) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tamper = tamper
}

func (e *evilRelay) watch(seen func(carried)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = seen
}

// serve serves one client. Every certificate is accepted.
func (e *evilRelay) serve(ctx context.Context, tc *tls.Conn) {
	leaf := tc.ConnectionState().PeerCertificates[0]
	id := cert.NodeIDOf(e.w.auth.ID, leaf.RawSubjectPublicKeyInfo)
	c := &evilClient{out: make(chan []byte, 8192), done: make(chan struct{}), tc: tc}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.clients[id] = c
	e.wg.Add(1)
	e.mu.Unlock()
	defer e.wg.Done()
	stop := context.AfterFunc(ctx, func() { tc.NetConn().Close() })
	defer stop()
	e.say(id, relay.TypeWelcome, relay.Welcome{ServerTime: time.Now(), Versions: e.w.svc.Versions(id)})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case b := <-c.out:
				if _, err := tc.Write(b); err != nil {
					tc.NetConn().Close()
					return
				}
			case <-c.done:
				return
			}
		}
	})
	r := relay.NewReader(tc, relay.AtRelay)
	for r.Fill() == nil {
		for f := r.Next(); f != nil; f = r.Next() {
			e.frame(id, f)
		}
	}
	r.Release()
	e.mu.Lock()
	if e.clients[id] == c {
		delete(e.clients, id)
	}
	e.mu.Unlock()
	close(c.done)
	tc.NetConn().Close()
	writer.Wait()
}

func (e *evilRelay) frame(from cert.NodeID, f []byte) {
	switch t := relay.Type(f[0]); t {
	case relay.TypePing:
		e.put(from, relay.AppendFrame(nil, relay.TypePong, f[relay.HeadLen:]))
	case relay.TypePacket, relay.TypeSession:
		c := carried{from, relay.Peer(f), t, slices.Clone(f[relay.HeadLen+relay.PeerLen:])}
		e.mu.Lock()
		tamper, seen, present := e.tamper, e.seen, e.clients[c.to] != nil
		e.mu.Unlock()
		if seen != nil {
			seen(c)
		}
		switch {
		case tamper != nil:
			e.carry(tamper(c)...)
		case present:
			e.carry(c)
		default:
			e.put(from, relay.AppendPeerFrame(nil, relay.TypeGone, c.to, []byte{byte(relay.GoneAbsent)}))
		}
	}
}

// carry delivers frames.
func (e *evilRelay) carry(cs ...carried) {
	for _, c := range cs {
		e.put(c.to, relay.AppendPeerFrame(nil, c.t, c.from, c.payload))
	}
}

// put queues one frame for a node; a node that does not read loses it.
func (e *evilRelay) put(to cert.NodeID, frame []byte) {
	e.mu.Lock()
	c := e.clients[to]
	e.mu.Unlock()
	if c == nil {
		return
	}
	select {
	case c.out <- frame:
	default:
	}
}

// say sends a frame with a JSON body.
func (e *evilRelay) say(to cert.NodeID, t relay.Type, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	e.put(to, relay.AppendFrame(nil, t, b))
}

func (e *evilRelay) ids() []cert.NodeID {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := make([]cert.NodeID, 0, len(e.clients))
	for id := range e.clients {
		ids = append(ids, id)
	}
	return ids
}

// Notify, Kick and PushCRL implement coord.Relay, honestly.
func (e *evilRelay) Notify(_ cert.NetworkID, node *cert.NodeID) {
	for _, id := range e.ids() {
		if node == nil || *node == id {
			e.say(id, relay.TypeNudge, relay.Nudge{Versions: e.w.svc.Versions(id)})
		}
	}
}

func (e *evilRelay) Kick(_ cert.NetworkID, node cert.NodeID) {
	e.mu.Lock()
	c := e.clients[node]
	e.mu.Unlock()
	if c != nil {
		c.tc.NetConn().Close()
	}
}

func (e *evilRelay) PushCRL(_ cert.NetworkID, der []byte, _ []cert.NodeID) {
	if e.mute.Load() {
		return
	}
	for _, id := range e.ids() {
		e.put(id, relay.AppendFrame(nil, relay.TypeCRL, der))
	}
}

func (e *evilRelay) Look(context.Context, cert.NetworkID, []cert.NodeID) {}
func (e *evilRelay) Traffic(cert.NetworkID, cert.NodeID) (sent, received uint64, ok bool) {
	return 0, 0, false
}

func (e *evilRelay) Heard(cert.NetworkID, cert.NodeID) (time.Time, bool) { return time.Time{}, false }

func (e *evilRelay) Ping(context.Context, cert.NetworkID, cert.NodeID) (time.Duration, error) {
	return 0, errors.New("it is evil")
}

func (e *evilRelay) close() {
	e.mu.Lock()
	e.closed = true
	for _, c := range e.clients {
		if c.tc != nil {
			c.tc.NetConn().Close()
		}
	}
	e.mu.Unlock()
	e.wg.Wait()
}

var _ interface {
	Notify(cert.NetworkID, *cert.NodeID)
} = (*evilRelay)(nil)

// bogus returns versions that do not exist.
func bogus(n uint64) api.Versions {
	return api.Versions{Config: api.Version{Epoch: 7, N: n}, Directory: api.Version{Epoch: 9, N: n}, CRL: 1<<62 + n}
}
