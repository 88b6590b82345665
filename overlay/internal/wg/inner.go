package wg

import (
	"os"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/mono"
)

// inner is the tun.Device that wireguard-go sees: Config.Net with the hold
// queue and the filter in between.
type inner struct{ d *Device }

// Read is called by one goroutine of wireguard-go. A packet that is not to be
// sent now gets the size 0, which wireguard-go skips.
func (t inner) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	d := t.d
	for {
		n := 0
		var err error
		if d.hold.ready.Load() > 0 {
			n = d.hold.take(bufs, sizes, offset)
		} else {
			n, err = d.net.Read(bufs, sizes, offset)
		}
		if d.outbound(bufs[:n], sizes[:n], offset) || err != nil {
			return n, err
		}
	}
}

// outbound decides about packets on their way out and reports whether any is
// left to send.
func (d *Device) outbound(bufs [][]byte, sizes []int, offset int) (any bool) {
	table := d.table.Load()
	now := d.now()
	var r outRun
	for i, size := range sizes {
		sizes[i] = 0
		if size > dataplane.MaxPacket {
			continue
		}
		pkt := bufs[i][offset : offset+size]
		p, ok := table.byDestination(pkt)
		switch {
		case !ok:
			continue
		case p == nil, p.gated():
			if !d.hold.put(pkt) {
				continue
			}
			// A peer has come up in the meantime.
			if p, _ = d.table.Load().byDestination(pkt); p == nil {
				continue
			}
		}
		if p != r.peer {
			r.end(d)
			r.begin(d, p)
		}
		if !r.admit(d, size) {
			continue
		}
		if size > r.limit {
			d.tooLong(p, pkt, r.limit)
		}
		r.filter.NoteOut(pkt, now)
		r.bytes += size
		r.packets++
		sizes[i] = size
		any = true
	}
	r.end(d)
	return any
}

// outRun is a run of packets to one peer: what they have in common is looked up
// once, and what they are counted by is added up first.
type outRun struct {
	peer   *peer
	filter *filter.Peer
	limit  int   // longest packet that goes by UDP; all go by a relay
	max    int64 // of the backlog
	cost   int64 // not added to the backlog yet

	patience time.Duration // with a full backlog

	bytes, packets int
}

func (r *outRun) begin(d *Device, p *peer) {
	*r = outRun{peer: p, filter: p.filter.Load(), limit: dataplane.MaxPacket, max: d.maxBacklog, patience: backpressure}
	if w, longest := p.ep.Way(); w.Kind != bind.Relay {
		r.limit, r.max, r.patience = innerLimit(longest, d.mtu), d.maxBacklogUDP, backpressureUDP
	}
	moment := mono.Now()
	stirs := moment-p.lastTx.Load() > int64(Pause)
	if stirs { // before lastTx: see stats
		// What is sent again and again pauses for longer each time.
		if s := p.stirred.Load(); p.lastIn.Load() >= s || moment-s > int64(5*Pause) {
			p.stirred.Store(moment)
		}
	}
	p.lastTx.Store(moment)
	if stirs {
		d.stir()
	}
}

func (r *outRun) end(d *Device) {
	if r.peer == nil {
		return
	}
	r.peer.backlog.cost.Add(r.cost)
	r.peer.txBytes.Add(uint64(r.bytes))
	r.peer.txPackets.Add(uint64(r.packets))
}

// innerLimit is the longest packet whose message is not longer than longest,
// with the padding that wireguard-go gives it (see padded).
func innerLimit(longest, mtu int) int {
	content := longest - messageHeader
	if mtu <= 0 {
		return content &^ (paddingUnit - 1)
	}
	return content/mtu*mtu + content%mtu&^(paddingUnit-1)
}

// limit tells Config.Net how long a TCP packet may be: 0 for as long as it
// likes. It runs on the packet path.
func (d *Device) limit(pkt []byte) int {
	p, _ := d.table.Load().byDestination(pkt)
	if p == nil {
		return 0
	}
	w, longest := p.ep.Way()
	if w.Kind == bind.Relay {
		return 0
	}
	return innerLimit(longest, d.mtu)
}

// Write is called by wireguard-go with decrypted packets of one peer, by one
// goroutine for each peer. It drops what the filter refuses by closing the gap
// in bufs, which belong to it for the call. What is left goes to Config.Net as
// one batch, which it may put together.
func (t inner) Write(bufs [][]byte, offset int) (int, error) {
	d := t.d
	table := d.table.Load()
	now := d.now()
	var p *peer
	var judge *filter.Peer
	bytes, packets, all := 0, 0, 0
	keep := bufs[:0]
	for _, b := range bufs {
		pkt := b[offset:]
		all += len(pkt)
		// WireGuard has matched the source with the key, but its length may
		// be wrong: it adds 40 to IPv6's payload length in 16 bits.
		from := table.bySource(pkt)
		if from == nil {
			d.verdicts[filter.Malformed].Add(1)
			continue
		}
		if from != p {
			p, judge = from, from.filter.Load()
		}
		v := judge.CheckIn(pkt, now)
		if !v.OK() {
			d.verdicts[v].Add(1)
			p.refused.Add(1)
			continue
		}
		bytes += len(pkt)
		packets++
		keep = append(keep, b)
	}
	if p != nil {
		moment := mono.Now()
		p.ep.Done(len(bufs), all, moment)
		p.lastIn.Store(moment)
		if packets > 0 {
			p.rxBytes.Add(uint64(bytes))
			p.rxPackets.Add(uint64(packets))
			p.lastRx.Store(moment)
		}
	}
	if len(keep) > 0 {
		if _, err := d.net.Write(keep, offset); err != nil {
			return 0, err
		}
	}
	return len(bufs), nil
}

// Close closes Config.Net, which ends a Read.
func (t inner) Close() error { return t.d.net.Close() }

func (t inner) File() *os.File           { return t.d.net.File() }
func (t inner) MTU() (int, error)        { return t.d.mtu, nil }
func (t inner) Name() (string, error)    { return t.d.net.Name() }
func (t inner) Events() <-chan tun.Event { return t.d.net.Events() }
func (t inner) BatchSize() int           { return t.d.net.BatchSize() }
