package paths

import (
	"errors"
	"maps"
	"sync"
	"syscall"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/probe"
)

// Datagrams besides WireGuard's. These functions run on the goroutines that read the
// sockets: they authenticate, pass on to the owner, and never block.

// How many probes of one peer are passed on, in a second and at once. It is more than any
// agent sends, and bounds the cost of a flood of replays.
const (
	probesPerSec = 400
	probesBurst  = 800
)

type proberMap map[probe.Tag]*prober

// prober opens a peer's probes.
type prober struct {
	id cert.NodeID

	mu sync.Mutex
	// mu guards the following.
	key  *probe.Key
	room float64
	at   time.Time
}

func newProber(id cert.NodeID, secret [32]byte) *prober {
	return &prober{id: id, key: probe.NewKey(secret), room: probesBurst, at: time.Now()}
}

// open authenticates a datagram, unless the peer has sent too many.
func (r *prober) open(pkt []byte) (m probe.Message, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, ok = r.key.Open(pkt); !ok {
		return m, false
	}
	now := time.Now()
	r.room = min(probesBurst, r.room+probesPerSec*now.Sub(r.at).Seconds())
	r.at = now
	if r.room < 1 {
		return m, false
	}
	r.room--
	return m, true
}

// keys makes pr a peer's newest prober. The one before stays, because the peer may still
// use it. nil removes both.
func (ps *Paths) keys(o *peer, pr *prober) {
	next := maps.Clone(ps.tags)
	if old := o.probers[1]; old != nil {
		delete(next, old.key.Tag())
	}
	if pr == nil {
		if old := o.probers[0]; old != nil {
			delete(next, old.key.Tag())
		}
		o.probers = [2]*prober{}
	} else {
		o.probers = [2]*prober{pr, o.probers[0]}
		next[pr.key.Tag()] = pr
	}
	ps.tags = next
	m := proberMap(next)
	ps.byTag.Store(&m)
}

// Probed takes a datagram that looks like a probe.
func (ps *Paths) Probed(pkt []byte, from bind.Path) {
	tag, ok := probe.Peek(pkt)
	if !ok {
		return
	}
	pr := (*ps.byTag.Load())[tag]
	if pr == nil {
		return
	}
	m, ok := pr.open(pkt)
	if !ok {
		return
	}
	ps.cfg.Hint(func() { ps.probe(pr.id, from, m) })
}

// probe passes an authentic probe to its agent.
func (ps *Paths) probe(id cert.NodeID, from bind.Path, m probe.Message) {
	o := ps.peers[id]
	if o == nil {
		return
	}
	ap, ok := o.pathOf(from)
	if !ok {
		return
	}
	now := time.Now()
	if m.Kind == probe.Ping {
		o.agent.Ping(now, ap, m.Tx, m.Size)
	} else if o.agent.Pong(now, ap, m.Tx) && from.Kind == bind.Direct && from.Socket == nil {
		ps.gatherer.Observed(from.Addr, m.Observed)
	}
	ps.act(o, now)
}

// STUN takes a datagram that looks like STUN.
func (ps *Paths) STUN(pkt []byte, from bind.Path) {
	if from.Socket == nil && ps.gatherer != nil {
		ps.gatherer.STUN(pkt, from.Addr)
	}
}

// SendFailed is called with the error of sending on the path that a peer's agent has
// selected.
func (ps *Paths) SendFailed(ep *bind.Endpoint, w bind.Path, err error) {
	id, tooLong := ep.ID(), errors.Is(err, syscall.EMSGSIZE)
	ps.cfg.Hint(func() {
		o := ps.peers[id]
		if o == nil || o.endpoint != ep || o.outward(o.shown.Path) != w {
			return
		}
		ps.cfg.Log.Debug("cannot send on a path", "peer", id, "path", w, "err", err)
		o.agent.SendFailed(time.Now(), o.shown.Path, tooLong)
		ps.act(o, time.Now())
	})
}
