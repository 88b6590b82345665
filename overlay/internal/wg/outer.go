package wg

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/mono"
)

// outer is the conn.Bind that wireguard-go sees: the bind, with tunnels as endpoints,
// which observe outgoing handshakes.
type outer struct {
	*bind.Bind
	d *Device
}

// ParseEndpoint returns the tunnel that makeTunnel is making.
func (o outer) ParseEndpoint(string) (conn.Endpoint, error) {
	if o.d.parsing == nil {
		return nil, conn.ErrWrongEndpointType
	}
	return o.d.parsing, nil
}

// The types of WireGuard messages.
const (
	messageInitiation = 1
	messageResponse   = 2
	messageData       = 4
)

// Begins implements dataplane.Plane: it is true for a handshake initiation (WireGuard
// paper, section 5.4.2).
func (d *Device) Begins(msg []byte) bool { return len(msg) == 148 && msg[0] == messageInitiation }

// Send is called with one handshake message, or with data messages of one
// tunnel.
func (o outer) Send(bufs [][]byte, endpoint conn.Endpoint) error {
	t, ok := endpoint.(*tunnel)
	if !ok {
		return o.Bind.Send(bufs, endpoint) // a cookie reply, to the sender of the message
	}
	if len(bufs) == 0 || len(bufs[0]) < messageHeader {
		return nil
	}
	switch first := bufs[0]; first[0] {
	case messageData:
		session := binary.LittleEndian.Uint32(first[4:])
		isNew := session != t.session.Load()
		if isNew {
			t.session.Store(session)
			t.peer.Keyed()
			if t.promote(bufs) {
				return nil
			}
		}
		err := t.peer.Send(o.Bind, bufs)
		if isNew {
			t.established()
		}
		return err
	case messageResponse:
		if t.promote(bufs) {
			return nil
		}
		err := o.Bind.Send(bufs, t.Endpoint)
		t.answered.Store(mono.Now())
		t.responded.Store(true)
		t.open()
		return err
	case messageInitiation:
		if o.d.stamped() {
			o.d.back()
		}
	}
	return o.Bind.Send(bufs, t.Endpoint)
}

// tunnel is a WireGuard peer: one key of a node. It is also the conn.Endpoint of that
// WireGuard peer.
type tunnel struct {
	*bind.Endpoint // constant

	// Constant.
	d    *Device
	peer *peer
	key  [32]byte
	gate dataplane.Gate // where packets to the peer wait for this tunnel

	session   atomic.Uint32 // receiver index of the last data sent; it changes with each handshake
	waiting   atomic.Bool   // waits for the new session that SetPeer has requested
	responded atomic.Bool   // has answered an initiation since SetPeer
	answered  atomic.Int64  // when it last answered an initiation, by mono.Now
	pending   atomic.Bool   // has no addresses yet: waits to replace peer.cur

	// Device.mu guards the following.
	trip   time.Duration // dataplane.Peer.Trip
	proven bool          // the node has proven the key in an introduction
	want   []netip.Addr  // the addresses to get from peer.cur
	begun  time.Time     // when the handshake was requested
	tries  int           // initiations sent since then
	probed bool          // a keepalive was sent since then, to see whether there is a session
	timer  *time.Timer   // set while waiting
	armed  uint64        // number of the current timer, to recognise earlier ones that fire late
}

// promote is called when the first message that needs a working handshake is about to be
// sent. If the tunnel is pending, it holds the message until the tunnel has replaced the
// old one: the peer answers that message with data, which would be dropped before.
func (t *tunnel) promote(bufs [][]byte) (taken bool) {
	if !t.pending.Load() || !t.pending.CompareAndSwap(true, false) {
		return false
	}
	if !t.d.hire() {
		return true
	}
	held := make([][]byte, len(bufs))
	for i, b := range bufs {
		held[i] = slices.Clone(b)
	}
	// Not in this goroutine: wireguard-go holds locks here that takeOver needs.
	go func() {
		defer t.d.wg.Done()
		t.d.takeOver(t, held)
	}()
	return true
}

// established records that the tunnel has a new session, and releases packets that waited
// for it.
func (t *tunnel) established() {
	t.waiting.Store(false)
	t.open()
}

// open releases packets that wait for this tunnel: from now on they may wait in
// WireGuard. After a response WireGuard starts no handshake of its own for a while, so
// that none crosses the one in progress.
func (t *tunnel) open() {
	t.peer.ReleaseAt(&t.gate)
}
