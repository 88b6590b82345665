package bind

import (
	"net/netip"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/cert"
)

// Endpoint is one peer as WireGuard sees it. It implements conn.Endpoint.
type Endpoint struct {
	// Constant after Bind.Endpoint.
	id   cert.NodeID
	name string
	ip   netip.Addr

	sender atomic.Pointer[Sender]

	received atomic.Int64  // wall clock of the last message, unix nanoseconds
	lost     atomic.Uint64 // messages not sent for want of a working sender

	inFlight atomic.Int64 // data messages between Deliver and Done
	progress atomic.Int64 // unix nanoseconds of the last Done
}

var _ conn.Endpoint = (*Endpoint)(nil)

// ID returns the node that the endpoint stands for.
func (e *Endpoint) ID() cert.NodeID { return e.id }

// SetSender decides what carries messages to the peer from now on; nil drops
// them. A SendPackets that is running goes on.
func (e *Endpoint) SetSender(s Sender) {
	if s == nil {
		e.sender.Store(nil)
		return
	}
	e.sender.Store(&s)
}

// Sender returns what carries messages to the peer, or nil.
func (e *Endpoint) Sender() Sender {
	if s := e.sender.Load(); s != nil {
		return *s
	}
	return nil
}

// Received returns when the last message of the peer arrived, authentic or not;
// the zero Time if none did.
func (e *Endpoint) Received() time.Time {
	if ns := e.received.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Lost returns how many messages were dropped because there was no Sender or it
// failed.
func (e *Endpoint) Lost() uint64 { return e.lost.Load() }

func (e *Endpoint) send(bufs [][]byte) {
	s := e.sender.Load()
	if s == nil || (*s).SendPackets(e.id, bufs) != nil {
		e.lost.Add(uint64(len(bufs)))
	}
}

// admit reports whether one more message of the peer may enter WireGuard, and
// counts it if it carries data.
func (e *Endpoint) admit(msg []byte) bool {
	if !isData(msg) {
		return true
	}
	if e.inFlight.Load() >= MaxInFlight {
		if time.Now().UnixNano()-e.progress.Load() < int64(stalled) {
			return false
		}
		e.inFlight.Store(0)
	}
	e.inFlight.Add(1)
	return true
}

// Done says that n data messages of the peer have left WireGuard. now is the
// wall clock in unix nanoseconds. The owner of the WireGuard device calls it
// where decrypted packets come out. Messages that WireGuard refuses never come
// out; a count that has become too high for that reason corrects itself.
func (e *Endpoint) Done(n int, now int64) {
	e.progress.Store(now)
	if e.inFlight.Add(-int64(n)) < 0 {
		e.inFlight.Store(0)
	}
}

// isData reports whether a WireGuard message is a transport message with
// content (not a keepalive).
func isData(msg []byte) bool { return len(msg) > 32 && msg[0] == 4 }

// ClearSrc implements conn.Endpoint.
func (e *Endpoint) ClearSrc() {}

// SrcToString implements conn.Endpoint.
func (e *Endpoint) SrcToString() string { return "" }

// DstToString returns the NodeID in hexadecimal.
func (e *Endpoint) DstToString() string { return e.name }

// DstToBytes returns the NodeID, to which WireGuard binds its cookies.
func (e *Endpoint) DstToBytes() []byte { return e.id[:] }

// DstIP returns the overlay address, by which WireGuard limits handshakes.
func (e *Endpoint) DstIP() netip.Addr { return e.ip }

// SrcIP implements conn.Endpoint.
func (e *Endpoint) SrcIP() netip.Addr { return netip.Addr{} }
