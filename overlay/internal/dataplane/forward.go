package dataplane

import (
	"time"

	"weft/overlay/internal/bind"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/mono"
)

// ResumeAfter is how long nothing must be sent to a peer before Config.Resumed is called for it
// again.
const ResumeAfter = time.Second

// Read is tun.Device.Read for the plane that reads, from one goroutine. It returns
// packets of the host, and released ones. A packet of another plane, or one that cannot
// be sent now, gets the size 0.
func (f *Forwarder) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		n := 0
		var err error
		if f.hold.ready.Load() > 0 {
			n = f.hold.take(bufs, sizes, offset)
		} else {
			n, err = f.net.Read(bufs, sizes, offset)
		}
		if f.outbound(bufs[:n], sizes[:n], offset) || err != nil {
			return n, err
		}
	}
}

// outbound processes outgoing packets and reports whether any is left for the plane that
// reads.
func (f *Forwarder) outbound(bufs [][]byte, sizes []int, offset int) (any bool) {
	table := f.table.Load()
	now := f.Now()
	var r run
	all := 0
	for i, size := range sizes {
		sizes[i] = 0
		all += size
		if size > MaxPacket {
			continue
		}
		pkt := bufs[i][offset : offset+size]
		e, ok := table.byDestination(pkt)
		switch {
		case !ok:
			continue
		case e == nil, e.gated():
			if !f.hold.put(pkt) {
				continue
			}
			// A peer was added meanwhile.
			if e, _ = f.table.Load().byDestination(pkt); e == nil {
				continue
			}
		}
		if e != r.entry {
			any = r.end(bufs[:i], sizes[:i], offset) || any
			r.begin(f, e, i)
		}
		if e.carrier == nil && !r.admit(f, size) {
			continue
		}
		if size > r.limit {
			f.tooLong(e, pkt, r.limit)
		}
		if r.filter.NoteOut(pkt, now) {
			f.opened.keep(pkt)
		}
		r.bytes += size
		r.packets++
		sizes[i] = size
	}
	any = r.end(bufs, sizes, offset) || any
	f.lull.count(all)
	return any
}

// run is a run of packets to one peer, for which lookups and counting are done once.
type run struct {
	entry  *Entry
	first  int // index of its first packet
	filter *filter.Peer
	limit  int   // longest packet that the UDP path carries; a relay connection carries all
	max    int64 // bound of the backlog
	cost   int64 // cost not yet added to the backlog

	patience time.Duration // how long to wait while the backlog is full

	bytes, packets int
}

func (r *run) begin(f *Forwarder, e *Entry, first int) {
	*r = run{entry: e, first: first, filter: e.filter.Load(), limit: MaxPacket, max: f.maxBacklog, patience: backpressure}
	if w, longest := e.ep.Path(); w.Kind != bind.Relay {
		r.limit, r.max, r.patience = e.framing.limit(longest), f.maxBacklogUDP, backpressureUDP
	}
	moment := mono.Now()
	stirs := moment-e.lastTx.Load() > int64(ResumeAfter)
	if stirs { // before lastTx: see statsLocked
		// Retransmissions pause for longer each time.
		if s := e.resumed.Load(); e.lastIn.Load() >= s || moment-s > int64(5*ResumeAfter) {
			e.resumed.Store(moment)
		}
	}
	e.lastTx.Store(moment)
	if stirs {
		f.resumedFunc()
	}
}

// end counts the run, whose packets are the last in bufs, and passes it to its plane. It
// reports whether there are packets left for the plane that reads.
func (r *run) end(bufs [][]byte, sizes []int, offset int) (left bool) {
	e := r.entry
	if e == nil {
		return false
	}
	e.backlog.cost.Add(r.cost)
	e.txBytes.Add(uint64(r.bytes))
	e.txPackets.Add(uint64(r.packets))
	if e.carrier == nil || r.packets == 0 {
		return r.packets > 0
	}
	e.carrier.Carry(e, bufs[r.first:], sizes[r.first:], offset)
	clear(sizes[r.first:])
	return false
}

// limit tells the Net how long a TCP packet may be, in bytes; 0: any length. It runs on
// the packet path.
func (f *Forwarder) limit(pkt []byte) int {
	e, _ := f.table.Load().byDestination(pkt)
	if e == nil {
		return 0
	}
	w, longest := e.ep.Path()
	if w.Kind == bind.Relay {
		return 0
	}
	return e.framing.limit(longest)
}

// Write takes decrypted packets of the peer from its plane, from one goroutine for each
// peer. It drops packets that the filter refuses, including those with a source address
// that is not the peer's, and closes the gaps in bufs, which it may change during the
// call. The rest goes to the host as one batch.
func (e *Entry) Write(bufs [][]byte, offset int) (int, error) {
	now, judge := e.f.Now(), e.filter.Load()
	bytes, all := 0, 0
	keep := bufs[:0]
	for _, b := range bufs {
		pkt := b[offset:]
		all += len(pkt)
		if v := judge.CheckIn(pkt, now); !v.OK() {
			e.f.verdicts[v].Add(1)
			e.refused.Add(1)
			continue
		}
		bytes += len(pkt)
		keep = append(keep, b)
	}
	e.countIn(len(bufs), all, len(keep), bytes)
	return e.f.inbound(len(bufs), keep, offset)
}

// Write is Entry.Write for a plane that does not say from which peer the packets are, but
// has checked that their source is an address of that peer, as wireguard-go does.
func (f *Forwarder) Write(bufs [][]byte, offset int) (int, error) {
	table := f.table.Load()
	now := f.Now()
	var e *Entry
	var judge *filter.Peer
	bytes, all := 0, 0
	keep := bufs[:0]
	for _, b := range bufs {
		pkt := b[offset:]
		all += len(pkt)
		// wireguard-go has checked the source against the key, but the length may be
		// wrong: it adds 40 to the payload length of IPv6 in 16 bits.
		from := table.bySource(pkt)
		if from == nil {
			f.verdicts[filter.Malformed].Add(1)
			continue
		}
		if from != e {
			e, judge = from, from.filter.Load()
		}
		v := judge.CheckIn(pkt, now)
		if !v.OK() {
			f.verdicts[v].Add(1)
			e.refused.Add(1)
			continue
		}
		bytes += len(pkt)
		keep = append(keep, b)
	}
	if e != nil {
		e.countIn(len(bufs), all, len(keep), bytes)
	}
	return f.inbound(len(bufs), keep, offset)
}

// countIn counts a batch of messages with all bytes of packets, of which this number of
// packets with this many bytes passed the filter.
func (e *Entry) countIn(messages, all, packets, bytes int) {
	moment := mono.Now()
	e.ep.Done(messages, all, moment)
	e.lastIn.Store(moment)
	if packets > 0 {
		e.rxBytes.Add(uint64(bytes))
		e.rxPackets.Add(uint64(packets))
		e.lastRx.Store(moment)
		e.f.lull.count(bytes)
	}
}

// inbound passes the host the rest of a batch of so many packets.
func (f *Forwarder) inbound(packets int, keep [][]byte, offset int) (int, error) {
	if len(keep) > 0 {
		if _, err := f.net.Write(keep, offset); err != nil {
			return 0, err
		}
	}
	return packets, nil
}
