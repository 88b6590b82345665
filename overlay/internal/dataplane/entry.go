package dataplane

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/mono"
)

// Entry is one peer in the forwarding table. The plane that carries what is for
// the peer makes it and changes it; everything that is counted is counted here.
// Its methods may be called from any goroutine, SetAddrs, Hold and Remove from
// one at a time.
type Entry struct {
	// Constant.
	f       *Forwarder
	id      cert.NodeID
	ep      *bind.Endpoint
	framing Framing
	carrier Carrier // nil: the plane that reads

	filter atomic.Pointer[filter.Peer]
	gate   atomic.Pointer[Gate] // what is sent waits at this; changes under hold.mu

	backlog backlog
	sending atomic.Int32 // calls of Bind.Send that run

	rxBytes, txBytes     atomic.Uint64
	rxPackets, txPackets atomic.Uint64
	refused              atomic.Uint64 // packets that the filter dropped
	lastRx, lastTx       atomic.Int64  // by mono.Now; 0: never
	lastIn, stirred      atomic.Int64
	keyed                atomic.Int64 // wall clock, unix nanoseconds: for people
	tooLongAt            atomic.Int64 // when a packet was last answered for being too long

	ips []netip.Addr // sorted; guarded by Forwarder.mu
}

// Gate is where packets to a peer wait, in the hold queue, until the plane can
// take them. It is known by its address.
type Gate struct{ _ byte }

// Carrier is a plane to which packets are handed, as it does not read them.
type Carrier interface {
	// Carry takes packets to one peer, bufs[i][offset:offset+sizes[i]], but for
	// those of size 0. The buffers are the caller's again when it returns; until
	// then it may write to all of them. It is called by the goroutine that reads,
	// on the packet path: it does not wait and makes no garbage. Each packet
	// leaves by Entry.Send.
	Carry(e *Entry, bufs [][]byte, sizes []int, offset int)
}

// NewEntry makes the entry of a peer, which has no addresses yet. carrier is nil
// for the plane that calls Read.
func (f *Forwarder) NewEntry(ep *bind.Endpoint, judge *filter.Peer, framing Framing, carrier Carrier) *Entry {
	e := &Entry{f: f, id: ep.ID(), ep: ep, framing: framing, carrier: carrier}
	e.backlog.init()
	e.filter.Store(judge)
	return e
}

// ID returns the peer's NodeID.
func (e *Entry) ID() cert.NodeID { return e.id }

// Endpoint returns where what is sent to the peer goes.
func (e *Entry) Endpoint() *bind.Endpoint { return e.ep }

// SetFilter replaces the filter that judges what the peer sends.
func (e *Entry) SetFilter(judge *filter.Peer) { e.filter.Store(judge) }

// Addrs returns the peer's addresses, sorted.
func (e *Entry) Addrs() []netip.Addr {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	return slices.Clone(e.ips)
}

// SetAddrs gives a peer its addresses, sorted, in place of those that it has. An
// earlier entry of the same peer loses them. What is held for them is released,
// unless the entry is gated. The addresses must not be another peer's (see Free).
func (e *Entry) SetAddrs(ips []netip.Addr) {
	f := e.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers[e.id] == e && slices.Equal(e.ips, ips) {
		return
	}
	f.peers[e.id] = e
	e.leaveLocked()
	for _, ip := range ips {
		f.byIP[ip] = e
	}
	e.ips = ips
	f.table.Store(newTable(f.byIP))
	if !e.gated() {
		f.hold.release(e, nil)
	}
}

// Remove takes a peer out of the table. Packets to its addresses miss from then
// on; what is held for them stays.
func (e *Entry) Remove() {
	f := e.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers[e.id] == e {
		delete(f.peers, e.id)
	}
	e.leaveLocked()
	f.table.Store(newTable(f.byIP))
}

func (e *Entry) leaveLocked() {
	for _, ip := range e.ips {
		if e.f.byIP[ip] == e {
			delete(e.f.byIP, ip)
		}
	}
}

// Hold makes what is sent to the peer wait at a gate.
func (e *Entry) Hold(g *Gate) { e.f.hold.gate(e, g) }

// Release lets what is sent to the peer go.
func (e *Entry) Release() { e.f.hold.release(e, nil) }

// ReleaseAt is Release if what is sent waits at g. It takes no lock if it does
// not.
func (e *Entry) ReleaseAt(g *Gate) {
	if e.gate.Load() == g {
		e.f.hold.release(e, g)
	}
}

// Gated reports whether what is sent to the peer waits.
func (e *Entry) Gated() bool { return e.gated() }

func (e *Entry) gated() bool { return e.gate.Load() != nil }

// DropHeld forgets what is held for the peer if it is gated.
func (e *Entry) DropHeld() {
	if !e.gated() {
		return
	}
	for _, ip := range e.Addrs() {
		e.f.hold.drop(ip)
	}
}

// ResetBacklog forgets what is in the plane's queues: they end.
func (e *Entry) ResetBacklog() { e.backlog.reset() }

// Backlog returns what is between Read and Send, in bytes, with some more for each
// packet.
func (e *Entry) Backlog() int64 { return e.backlog.cost.Load() }

// Keyed says that the first message goes out under new session keys.
func (e *Entry) Keyed() { e.keyed.Store(time.Now().UnixNano()) }

// LastRx is when data last came in, by mono.Now; 0 is never.
func (e *Entry) LastRx() int64 { return e.lastRx.Load() }

// Stats are the counters of one peer. Bytes and packets are inner ones.
type Stats struct {
	ID                   cert.NodeID
	IPs                  []netip.Addr
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
	Refused              uint64 // packets of the peer that the filter dropped

	// Zero if it never happened; see mono.Time. LastHandshake is when the first message
	// went out under new session keys, by the wall clock of then. LastIn is LastRx with what the filter
	// dropped. Stirred is when data began to go out that have not paused since, or
	// not for long and without an answer.
	LastHandshake, LastRx, LastTx, LastIn, Stirred time.Time
}

// statsLocked needs Forwarder.mu.
func (e *Entry) statsLocked() Stats {
	var handshake time.Time
	if ns := e.keyed.Load(); ns != 0 {
		handshake = time.Unix(0, ns)
	}
	// lastTx is read before stirred, so that no burst looks older than it is.
	return Stats{
		ID: e.id, IPs: slices.Clone(e.ips),
		RxBytes: e.rxBytes.Load(), TxBytes: e.txBytes.Load(),
		RxPackets: e.rxPackets.Load(), TxPackets: e.txPackets.Load(),
		Refused:       e.refused.Load(),
		LastHandshake: handshake, LastRx: mono.Time(e.lastRx.Load()), LastTx: mono.Time(e.lastTx.Load()),
		LastIn: mono.Time(e.lastIn.Load()), Stirred: mono.Time(e.stirred.Load()),
	}
}
