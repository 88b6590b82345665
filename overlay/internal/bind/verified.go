package bind

import (
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"weft/overlay/internal/mono"
	"weft/overlay/relay/lane"
)

// MaxVerified bounds the verified paths of one Endpoint. One more replaces the one that
// was silent for longest.
const MaxVerified = 16

// inlet is a verified path: WireGuard messages that arrive on it are the peer's.
type inlet struct {
	ep       *Endpoint
	path     Path         // canonical
	received atomic.Int64 // when the last message arrived, by mono.Now; 0: never
}

// origin is the key of a direct path in the table.
type origin struct {
	sock *Socket // nil: the main socket
	addr netip.AddrPort
}

// inlets is the table of verified paths. It is immutable.
type inlets struct {
	direct map[origin]*inlet
	lanes  map[lane.ID]*inlet
}

func (t *inlets) clone() *inlets {
	return &inlets{direct: maps.Clone(t.direct), lanes: maps.Clone(t.lanes)}
}

func (t *inlets) find(w Path) *inlet {
	if w.Kind == RelayedUDP {
		if in := t.lanes[w.Lane]; in != nil && in.path == w {
			return in
		}
		return nil
	}
	return t.direct[origin{w.Socket, w.Addr}]
}

func (t *inlets) put(in *inlet) {
	if in.path.Kind == RelayedUDP {
		t.lanes[in.path.Lane] = in
	} else {
		t.direct[origin{in.path.Socket, in.path.Addr}] = in
	}
}

func (t *inlets) remove(in *inlet) {
	if in.path.Kind == RelayedUDP {
		delete(t.lanes, in.path.Lane)
	} else {
		delete(t.direct, origin{in.path.Socket, in.path.Addr})
	}
}

// each calls f for every inlet.
func (t *inlets) each(f func(*inlet)) {
	for _, in := range t.direct {
		f(in)
	}
	for _, in := range t.lanes {
		f(in)
	}
}

// Verify accepts WireGuard messages that arrive on w as those of ep's node. For Direct:
// from that address at that socket, once a probe under the peer's key has shown that the
// address is the peer's. For RelayedUDP: with that id from that address of the relay, once the
// relay has sent both over the relay connection; probes through the lane are accepted
// from then on, too. It returns false and does nothing if ep is not admitted. If two
// Endpoints claim the same path, the later one gets it.
func (b *Bind) Verify(ep *Endpoint, w Path) bool {
	r, err := newSendPath(w, MaxLimit)
	if err != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Find(ep.id) != ep {
		return false
	}
	old := b.inlets.Load()
	if in := old.find(r.path); in != nil && in.ep == ep {
		return true
	}
	next := old.clone()
	count, silent := 0, (*inlet)(nil)
	next.each(func(in *inlet) {
		if in.ep != ep {
			return
		}
		count++
		if silent == nil || in.received.Load() < silent.received.Load() {
			silent = in
		}
	})
	if count >= MaxVerified {
		next.remove(silent)
	}
	in := &inlet{ep: ep, path: r.path}
	next.put(in)
	b.inlets.Store(next)
	return true
}

// Unverify undoes Verify. It does not stop sending on w.
func (b *Bind) Unverify(w Path) {
	w = w.canonical()
	b.dropInlets(func(in *inlet) bool { return in.path == w })
}

// LastReceived returns when the last WireGuard message arrived on a verified path; the zero Time
// if none did. Only the address of the sender was checked: it proves that the path works
// only while pongs arrive, too.
func (b *Bind) LastReceived(w Path) time.Time {
	if in := b.inlets.Load().find(w.canonical()); in != nil {
		return mono.Time(in.received.Load())
	}
	return time.Time{}
}

func (b *Bind) dropInlets(which func(*inlet) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropInletsLocked(which)
}

func (b *Bind) dropInletsLocked(which func(*inlet) bool) {
	old := b.inlets.Load()
	var gone []*inlet
	old.each(func(in *inlet) {
		if which(in) {
			gone = append(gone, in)
		}
	})
	if len(gone) == 0 {
		return
	}
	next := old.clone()
	for _, in := range gone {
		next.remove(in)
	}
	b.inlets.Store(next)
}
