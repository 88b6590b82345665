package overlay

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"weft/coord/api"
	"weft/overlay/bind"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

type home struct {
	n      *Node
	r      *running
	d      *link.Dialer
	relays atomic.Pointer[[]api.Relay]
	cur    atomic.Pointer[relay.Conn]
}

func newHome(n *Node, r *running, d *link.Dialer, relays []api.Relay) *home {
	h := &home{n: n, r: r, d: d}
	h.relays.Store(&relays)
	return h
}

func (h *home) run(ctx context.Context) {
	for ctx.Err() == nil {
		rl := (*h.relays.Load())[0]
		c, err := h.d.Dial(ctx, rl.URLs[0], link.ProtoRelay)
		if err == nil {
			rc := relay.NewConn(c, &inbound{home: h, source: h.n.bind.NewSource()})
			h.cur.Store(rc)
			err = rc.Run(ctx)
			h.cur.Store(nil)
			c.Close()
			h.n.health.notify()
		}
		h.n.log.Info("relay", "err", err)
		if !sleep(ctx, 200*time.Millisecond) {
			return
		}
	}
}

var errNoRelay = errors.New("not connected to a relay")

func (h *home) sendSession(to cert.NodeID, frame []byte) error {
	if c := h.cur.Load(); c != nil {
		return c.SendSession(to, frame)
	}
	return errNoRelay
}
func (h *home) SendPackets(to cert.NodeID, bufs [][]byte) error {
	if c := h.cur.Load(); c != nil {
		return c.SendPackets(to, bufs)
	}
	return errNoRelay
}
func (h *home) versions(v api.Versions) {
	if c := h.cur.Load(); c != nil {
		c.SendVersions(v)
	}
}
func (h *home) set(relays []api.Relay) { h.relays.Store(&relays) }
func (h *home) connected() bool        { return h.cur.Load() != nil }
func (h *home) name() string           { return (*h.relays.Load())[0].Name }
func (h *home) id() string             { return (*h.relays.Load())[0].ID }

// inbound hands on what one relay connection brings.
type inbound struct {
	*home
	source *bind.Source
}

func (in *inbound) Packet(from cert.NodeID, payload []byte)        { in.source.Deliver(from, payload) }
func (in *inbound) Drained()                                       { in.source.Flush() }
func (in *inbound) Session(from cert.NodeID, frame []byte)         { in.r.peers.intro.Deliver(from, frame) }
func (in *inbound) Gone(peer cert.NodeID, reason relay.GoneReason) { in.r.peers.goneHint(peer) }
func (in *inbound) Busy(cert.NodeID)                               {}
func (in *inbound) Welcome(w relay.Welcome) {
	in.n.clock.Contact(w.ServerTime)
	in.versions(in.n.versions())
	in.r.control.want(wanted{Versions: w.Versions, nudged: false})
	if in.n.versions().CRL >= w.Versions.CRL {
		in.r.peers.upToDate()
	}
	in.n.health.notify()
}
func (in *inbound) Nudge(nd relay.Nudge) {
	in.r.control.want(wanted{Versions: nd.Versions, spread: time.Duration(nd.SpreadMS) * time.Millisecond, nudged: true})
}
func (in *inbound) CRL(der []byte) {
	der = append([]byte(nil), der...)
	in.r.wg.Go(func() {
		if in.n.takeCRL(der) {
			in.r.peers.upToDate()
		}
	})
}
func (in *inbound) Replaced()               {}
func (in *inbound) Draining(relay.Draining) {}
