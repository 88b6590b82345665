package bind

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/cert"
	"weft/overlay/internal/mono"
	"weft/overlay/limited"
)

// Endpoint is one peer as WireGuard sees it. It implements conn.Endpoint.
type Endpoint struct {
	// Constant after NewEndpoint.
	id   cert.NodeID
	name string
	ip   netip.Addr
	most int64 // bounds inFlight; see MaxInFlight
	page int64 // what a message costs besides its bytes

	sender atomic.Pointer[Sender]
	taker  atomic.Pointer[Taker]
	path   atomic.Pointer[sendPath] // nil: through the sender

	keepalive atomic.Int64  // when the last keepalive arrived, by mono.Now
	relayed   atomic.Int64  // when the last message arrived through a relay, by mono.Now
	lost      atomic.Uint64 // messages not sent for want of a working path

	inFlight atomic.Int64 // cost of the data messages between arrival and Done
	progress atomic.Int64 // when Done was last called, by mono.Now
	waiting  atomic.Bool  // a socket's reader waits for Done
	stuck    atomic.Bool  // it has waited in vain: it does not wait again before the next Done
	moved    chan struct{}
}

var _ conn.Endpoint = (*Endpoint)(nil)

// ID returns the node that the endpoint stands for.
func (e *Endpoint) ID() cert.NodeID { return e.id }

// SetSender sets what carries messages to the peer from now on; nil drops them. It does
// not stop a SendPackets that is running.
func (e *Endpoint) SetSender(s Sender) {
	if s == nil {
		e.sender.Store(nil)
		return
	}
	e.sender.Store(&s)
}

// A Taker takes the messages of one peer that are not WireGuard's (Sealed, SealedRandom).
type Taker interface {
	// Take takes messages in the order of arrival. Several goroutines may call it at the
	// same time: those that read the sockets and the relay connections. They call it on the
	// packet path, so it must not block. It may overwrite messages and msgs until it
	// returns.
	Take(msgs [][]byte)
}

// SetTaker sets what takes the messages that are not WireGuard's; nil drops them. With a
// Taker, Send does not wait for the Sender if that is a TrySender.
func (e *Endpoint) SetTaker(t Taker) {
	if t == nil {
		e.taker.Store(nil)
		return
	}
	e.taker.Store(&t)
}

// KeptAlive says that an authentic keepalive of the peer has arrived, by mono.Now.
func (e *Endpoint) KeptAlive(now int64) { e.keepalive.Store(now) }

// take passes messages to the Taker.
func (e *Endpoint) take(msgs [][]byte) {
	if t := e.taker.Load(); t != nil {
		(*t).Take(msgs)
	}
}

// LastKeepalive returns when the last keepalive of the peer arrived, authentic or not; the zero
// Time if none did. WireGuard answers with a keepalive when the peer has nothing else to
// send, but does not report them.
func (e *Endpoint) LastKeepalive() time.Time {
	return mono.Time(e.keepalive.Load())
}

// SetPath sets the path of messages to the peer from now on. For Direct and RelayedUDP, limit is
// the longest datagram that the path carries, in bytes of UDP payload (with a lane's
// header), between MinLimit and MaxLimit. Longer messages go through the Sender, and so
// do those that the system refuses to send. With the zero Path everything goes through the
// Sender. It does not stop a Send that is running. The endpoint need not be admitted, and
// w need not be verified.
func (e *Endpoint) SetPath(w Path, limit int) error {
	if w.Kind == Relay {
		e.path.Store(nil)
		return nil
	}
	r, err := newSendPath(w, limit)
	if err != nil {
		return fmt.Errorf("send on path %s: %w", w, err)
	}
	if old := e.path.Load(); old != nil && old.path == r.path && old.max == r.max {
		return nil
	}
	e.path.Store(r)
	return nil
}

// Path returns the path that SetPath has set, and the longest WireGuard message that it
// carries: MaxMessage for Relay.
func (e *Endpoint) Path() (w Path, longest int) {
	if r := e.path.Load(); r != nil {
		return r.path, r.max
	}
	return Path{}, MaxMessage
}

// PathSince returns when SetPath has set the present path; the zero Time for Relay.
func (e *Endpoint) PathSince() time.Time {
	if r := e.path.Load(); r != nil {
		return r.since
	}
	return time.Time{}
}

// LastRelayed returns when the last message arrived through a relay; the zero Time if none
// did. For other paths see Bind.LastReceived.
func (e *Endpoint) LastRelayed() time.Time {
	return mono.Time(e.relayed.Load())
}

// send sends messages on the present path, and through the sender those that do not fit
// or that the system refuses.
func (e *Endpoint) send(b *Bind, bufs [][]byte) {
	r := e.path.Load()
	if r == nil {
		e.relay(bufs)
		return
	}
	s := r.path.Socket
	if s == nil {
		s = b.main.Load()
	}
	if s == nil || s.closed.Load() {
		b.sendFailed(e, r, ErrNoSocket)
		e.relay(bufs)
		return
	}
	for len(bufs) > 0 {
		fit := 0
		for fit < len(bufs) && len(bufs[fit]) <= r.max {
			fit++
		}
		if fit == 0 {
			long := 1
			for long < len(bufs) && len(bufs[long]) > r.max {
				long++
			}
			e.relay(bufs[:long])
			bufs = bufs[long:]
			continue
		}
		n, err := s.io.send(bufs[:fit], r)
		if err != nil {
			// The rest of this batch goes through the relay. Whoever chose the path
			// should choose another.
			b.sendFailed(e, r, err)
			e.relay(bufs[n:])
			return
		}
		bufs = bufs[fit:]
	}
}

func (e *Endpoint) relay(bufs [][]byte) {
	s := e.sender.Load()
	if s == nil {
		e.lost.Add(uint64(len(bufs)))
		return
	}
	if try, ok := (*s).(TrySender); ok && e.taker.Load() != nil {
		if n, err := try.TrySendPackets(e.id, bufs); err != nil || n < len(bufs) {
			e.lost.Add(uint64(len(bufs) - n))
		}
		return
	}
	if (*s).SendPackets(e.id, bufs) != nil {
		e.lost.Add(uint64(len(bufs)))
	}
}

// The cost of a message inside wireguard-go is its bytes and the page of 4 KB that the
// first of them make resident. Its buffer has 64 KB, all of which become resident once
// the garbage collector has reused them. On a machine with little memory the whole buffer
// is counted.
const (
	pageCost   = 4 << 10
	bufferCost = 64 << 10
	shortShare = 1. / 16 // of the memory, for what one peer has in flight
)

// inFlightBounds returns Endpoint.most and page for a machine with this many bytes of
// memory.
func inFlightBounds(memory int64) (most, page int64) {
	if limited.Short(memory) {
		return int64(limited.ShareOf(memory, 4*MaxInFlight, shortShare)), bufferCost
	}
	return MaxInFlight, pageCost
}

// costOf returns the cost of a data message, without the bytes that may be padding, so
// that Done never subtracts less than was added.
func (e *Endpoint) costOf(msg []byte) int64 { return e.page + int64(max(len(msg)-32-15, 0)) }

// admit reports whether a message of the peer may enter WireGuard, and counts it if it
// carries data.
func (e *Endpoint) admit(msg []byte) bool {
	if !isData(msg) {
		return true
	}
	if e.inFlight.Load() >= e.most {
		if mono.Now()-e.progress.Load() < int64(stalled) {
			return false
		}
		e.inFlight.Store(0)
	}
	e.inFlight.Add(e.costOf(msg))
	return true
}

// admitWaiting is admit for the reader of a socket: it may wait, because meanwhile the
// kernel's buffer takes datagrams.
func (e *Endpoint) admitWaiting(msg []byte) bool {
	if e.inFlight.Load() >= e.most && isData(msg) && !e.stuck.Load() {
		e.wait()
	}
	return e.admit(msg)
}

func (e *Endpoint) wait() {
	timer := time.NewTimer(socketBackpressure)
	defer timer.Stop()
	for {
		e.waiting.Store(true)
		if e.inFlight.Load() < e.most {
			e.waiting.Store(false)
			return
		}
		select {
		case <-e.moved:
		case <-timer.C:
			e.waiting.Store(false)
			e.stuck.Store(true)
			return
		}
	}
}

// Done says that n data messages of the peer have left WireGuard, with this many bytes of
// inner packets altogether. now is mono.Now. The owner of the WireGuard device calls it
// for decrypted packets. Messages that WireGuard refuses never get there; the count of
// messages in flight corrects itself.
func (e *Endpoint) Done(n, bytes int, now int64) {
	e.progress.Store(now)
	if e.inFlight.Add(-int64(n)*e.page-int64(bytes)) < 0 {
		e.inFlight.Store(0)
	}
	if e.stuck.Load() {
		e.stuck.Store(false)
	}
	if e.waiting.Load() {
		e.waiting.Store(false)
		select {
		case e.moved <- struct{}{}:
		default:
		}
	}
}

// isData reports whether a WireGuard message is a transport message with
// content (not a keepalive).
func isData(msg []byte) bool { return len(msg) > 32 && msg[0] == 4 }

func isKeepalive(msg []byte) bool { return len(msg) == 32 && msg[0] == 4 }

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
