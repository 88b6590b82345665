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

// outer is the conn.Bind that wireguard-go sees: the bind with tunnels for
// endpoints, which watch the handshakes go out.
type outer struct {
	*bind.Bind
	d *Device
}

// ParseEndpoint returns the tunnel that configure is making.
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

// Begins implements dataplane.Plane: a handshake initiation (WireGuard paper,
// section 5.4.2) does.
func (d *Device) Begins(msg []byte) bool { return len(msg) == 148 && msg[0] == messageInitiation }

// Send is called with one handshake message, or with data messages of one
// tunnel.
func (o outer) Send(bufs [][]byte, endpoint conn.Endpoint) error {
	t, ok := endpoint.(*tunnel)
	if !ok {
		return o.Bind.Send(bufs, endpoint) // a cookie reply goes to where it came from
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
			t.stand()
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

// tunnel is one WireGuard peer: a key of a node. It is the conn.Endpoint of that
// WireGuard peer.
type tunnel struct {
	*bind.Endpoint // constant

	// Constant.
	d    *Device
	peer *peer
	key  [32]byte
	gate dataplane.Gate // known by its address: what is sent to the peer waits for this tunnel

	session   atomic.Uint32 // receiver index of the last data sent: a new one is a new handshake
	waiting   atomic.Bool   // no new session since SetPeer asked for one
	responded atomic.Bool   // has answered an initiation since then
	answered  atomic.Int64  // by mono.Now, of the last response to an initiation
	pending   atomic.Bool   // has no addresses yet: waits to take over from peer.cur

	// Device.mu guards the following.
	trip   time.Duration // of Peer
	proven bool          // the node holds the key: it has shown so in an introduction
	want   []netip.Addr  // the addresses to take over
	begun  time.Time     // when the handshake was asked for
	tries  int           // initiations sent since
	probed bool          // a keepalive was sent since, to see whether a session stands
	timer  *time.Timer   // armed while waiting
	armed  uint64        // tells the timer that counts from earlier ones
}

// promote is called when the first message that needs a working handshake is
// about to go out. If the tunnel is pending it takes the message, which is sent
// when the tunnel has taken over: the peer's data, which follow that message,
// would be dropped until then.
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
	// Not here: wireguard-go holds locks that taking over needs.
	go func() {
		defer t.d.wg.Done()
		t.d.takeOver(t, held)
	}()
	return true
}

// stand notes that the tunnel has a new session, and lets out what waited for it.
func (t *tunnel) stand() {
	t.waiting.Store(false)
	t.open()
}

// open lets out what waits for this tunnel: it may wait in WireGuard now. After
// a response WireGuard begins no handshake of its own for a while, so that none
// crosses the one that is going on.
func (t *tunnel) open() {
	t.peer.ReleaseAt(&t.gate)
}
