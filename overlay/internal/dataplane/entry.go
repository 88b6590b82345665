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

// Entry is one peer in the forwarding table, with its counters. The plane of the peer
// makes and changes it. Its methods may be called from any goroutine; SetAddrs, Hold and
// Remove from one at a time.
type Entry struct {
	// Constant.
	f       *Forwarder
	id      cert.NodeID
	ep      *bind.Endpoint
	framing Framing
	carrier Carrier // nil: the plane that reads

	filter atomic.Pointer[filter.Peer]
	gate   atomic.Pointer[Gate] // where packets to the peer wait; changes with hold.mu held

	backlog backlog
	sending atomic.Int32 // how many calls of Bind.Send are running

	rxBytes, txBytes     atomic.Uint64
	rxPackets, txPackets atomic.Uint64
	refused              atomic.Uint64 // packets that the filter dropped
	lastRx, lastTx       atomic.Int64  // by mono.Now; 0: never
	lastIn, resumed      atomic.Int64
	keyed                atomic.Int64 // when Keyed was last called: wall clock in Unix nanoseconds, for users
	tooLongAt            atomic.Int64 // when a packet was last answered with "too big"

	ips []netip.Addr // sorted; guarded by Forwarder.mu
}

// Gate is where packets to a peer wait, in the hold queue, until the plane can take them.
// Gates are compared by address.
type Gate struct{ _ byte }

// Carrier is a plane that does not call Read: packets are passed to it.
type Carrier interface {
	// Carry takes packets to one peer, bufs[i][offset:offset+sizes[i]], except those of
	// size 0, and at most bind.BatchSize of them. Before offset, and after each packet,
	// there are at least 16 and 44 bytes more. It may overwrite the buffers until it
	// returns, but not keep them. The goroutine of Read calls it on the packet path: it
	// must not allocate, or wait for anything but a socket. It sends at once, so the
	// packets are in no backlog.
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

// Endpoint returns the peer's endpoint, to which packets are sent.
func (e *Entry) Endpoint() *bind.Endpoint { return e.ep }

// SetFilter replaces the filter that judges what the peer sends.
func (e *Entry) SetFilter(judge *filter.Peer) { e.filter.Store(judge) }

// Addrs returns the peer's addresses, sorted.
func (e *Entry) Addrs() []netip.Addr {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	return slices.Clone(e.ips)
}

// SetAddrs replaces the peer's addresses; ips must be sorted. An earlier entry of the
// same peer loses them. Packets held for them are released, unless the entry is gated.
// The addresses must not belong to another peer (see Free).
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

// Remove removes a peer from the table. Later packets to its addresses are misses;
// packets held for them stay.
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

// Hold makes packets to the peer wait at a gate.
func (e *Entry) Hold(g *Gate) { e.f.hold.gate(e, g) }

// Release ends the waiting of packets to the peer.
func (e *Entry) Release() { e.f.hold.release(e, nil) }

// ReleaseAt is Release if packets to the peer wait at g. Otherwise it takes no lock.
func (e *Entry) ReleaseAt(g *Gate) {
	if e.gate.Load() == g {
		e.f.hold.release(e, g)
	}
}

// Gated reports whether packets to the peer wait at a gate.
func (e *Entry) Gated() bool { return e.gated() }

func (e *Entry) gated() bool { return e.gate.Load() != nil }

// DropHeld drops the packets held for the peer if it is gated.
func (e *Entry) DropHeld() {
	if !e.gated() {
		return
	}
	for _, ip := range e.Addrs() {
		if other := e.f.entryOf(ip); other == nil || other == e { // its peer may have another plane by now
			e.f.hold.drop(ip)
		}
	}
}

// ResetBacklog clears the backlog, when the plane's queues end.
func (e *Entry) ResetBacklog() { e.backlog.reset() }

// Backlog returns the cost of the packets between Read and Send: their bytes, and some
// more for each packet.
func (e *Entry) Backlog() int64 { return e.backlog.cost.Load() }

// Keyed says that the first message under new session keys is sent.
func (e *Entry) Keyed() { e.keyed.Store(time.Now().UnixNano()) }

// LastRx and LastTx return when data were last received and sent, by mono.Now; 0: never.
func (e *Entry) LastRx() int64 { return e.lastRx.Load() }
func (e *Entry) LastTx() int64 { return e.lastTx.Load() }

// Stats are the counters of one peer. Bytes and packets are inner ones.
type Stats struct {
	ID                   cert.NodeID
	IPs                  []netip.Addr
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
	Refused              uint64 // packets of the peer that the filter dropped

	// These are zero if they never happened; see mono.Time. LastHandshake is when the
	// first message under new session keys was sent, by the wall clock at that time.
	// LastIn is LastRx, including what the filter dropped. Resumed is when the present
	// flow of sent data began: it has not paused since, or not for long and without an
	// answer.
	LastHandshake, LastRx, LastTx, LastIn, Resumed time.Time
}

// statsLocked needs Forwarder.mu.
func (e *Entry) statsLocked() Stats {
	var handshake time.Time
	if ns := e.keyed.Load(); ns != 0 {
		handshake = time.Unix(0, ns)
	}
	// Read lastTx before resumed, so that no burst looks older than it is.
	return Stats{
		ID: e.id, IPs: slices.Clone(e.ips),
		RxBytes: e.rxBytes.Load(), TxBytes: e.txBytes.Load(),
		RxPackets: e.rxPackets.Load(), TxPackets: e.txPackets.Load(),
		Refused:       e.refused.Load(),
		LastHandshake: handshake, LastRx: mono.Time(e.lastRx.Load()), LastTx: mono.Time(e.lastTx.Load()),
		LastIn: mono.Time(e.lastIn.Load()), Resumed: mono.Time(e.resumed.Load()),
	}
}
