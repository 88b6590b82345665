package relayserver

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2s"

	"weft/overlay/relay"
	"weft/overlay/relay/lane"
	"weft/overlay/stun"
)

// The UDP port: STUN and relayed UDP.
//
// How a datagram travels on Linux: udpLoop (udp_linux.go) takes a batch from the socket,
// cuts it into runs of one lane and looks up the destination of each; answer handles what
// is not lane data. One goroutine per socket does all this. It takes no lock, allocates
// nothing per datagram and never waits for a receiver. What does not fit in the socket's
// buffer is lost, as in any router. On other systems plainLoop (udp_plain.go) does the
// same one datagram at a time.

const (
	// cookieLife is how long the cookie of a challenge is valid.
	cookieLife = 10 * time.Second
	// laneBurst is how much a client with a limited rate may send at once, as time at
	// that rate.
	laneBurst    = 200 * time.Millisecond
	laneBurstMin = 128 << 10
	// udpBuffer is the size of the kernel's buffer in each direction, in bytes. With the
	// default size a burst of a few milliseconds is lost.
	udpBuffer = 7 << 20
	maxUDP    = 64 << 10
	maxErrors = 1000 // consecutive errors of a socket
)

// UDPConn is a UDP socket as ServeUDP uses it. *net.UDPConn is one.
type UDPConn interface {
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
	SetReadDeadline(time.Time) error
}

// binding is the address of a side, which has proved that it receives there.
type binding struct {
	remote netip.AddrPort // unmapped
	since  int64          // time of the challenge, by Server.now
	sock   *udpSocket
	wire   sourceInfo
}

// ServeUDP answers STUN requests (package stun) and forwards lane datagrams (package
// lane) on c until ctx ends, and then returns nil. It returns earlier only when the
// socket fails. It does not close c. It may be called once for each of several sockets,
// such as IPv4 and IPv6. The relay makes lanes while at least one is served. A
// *net.UDPConn is served in batches where the system can; any other socket (of tests) one
// datagram at a time.
func (s *Server) ServeUDP(ctx context.Context, c UDPConn) error {
	sock, err := newUDPSocket(c)
	if err != nil {
		return err
	}
	s.lanes.serving.Add(1)
	defer s.lanes.serving.Add(-1)
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.runUDP(ctx, sock); ctx.Err() == nil {
		return err
	}
	return nil
}

// udpCore is the part that both loops share.
type udpCore struct {
	s    *Server
	sock *udpSocket
	stun *stun.Server
	// limit is for challenges only, so that a flood of STUN requests with a node's source
	// address does not prevent it from binding.
	limit *stun.Limiter
	out   [lane.ControlLen]byte
}

func newUDPCore(s *Server, sock *udpSocket) udpCore {
	return udpCore{s: s, sock: sock, stun: stun.NewServer(s.cfg.Log), limit: stun.NewLimiter()}
}

// laneDestination returns where to forward n bytes of data datagrams with this ID from this
// address, nil for nowhere.
func (s *Server) laneDestination(id lane.ID, from netip.AddrPort, n int, now int64) *binding {
	x := s.lanes.table.find(id)
	if x == nil {
		return nil
	}
	at := x.at.Load()
	if at == nil {
		return nil
	}
	if at.remote != from {
		x.strayed(now)
		return nil
	}
	if now-x.used.Load() > int64(time.Second) {
		x.used.Store(now)
	}
	to := x.other.at.Load()
	if to == nil {
		return nil
	}
	if rate := s.cfg.Limits.LaneRate; rate > 0 && !x.owner.laneRate.allow(n, rate, now) {
		s.lanes.dropped.Add(uint64(n))
		return nil
	}
	x.owner.sent.Add(uint64(n))
	x.other.owner.received.Add(uint64(n))
	return to
}

// strayed sends a side's node a rebind over its relay connection, because its datagrams
// come from an unbound address. It answers nothing over UDP.
func (x *laneSide) strayed(now int64) {
	last := x.stray.Load()
	if last != 0 && now-last < int64(hintEvery) || !x.stray.CompareAndSwap(last, now) {
		return
	}
	x.owner.sendPeer(relay.TypeRebind, x.other.owner.id)
}

// answer returns the answer to a datagram that is not lane data, nil for none. The answer
// is valid until the next call.
func (u *udpCore) answer(b []byte, from netip.AddrPort, wire sourceInfo, now int64) []byte {
	if len(b) == 0 || b[0] != lane.First {
		return u.stun.Handle(b, from, time.Now())
	}
	k, id, ok := lane.Parse(b)
	if !ok || k != lane.Bind {
		return nil
	}
	x := u.s.lanes.table.find(id)
	if x == nil {
		return nil
	}
	_, cookie, err := lane.OpenControl(b, id, x.key)
	if err != nil {
		return nil
	}
	if cookie == (lane.Cookie{}) {
		// Whoever has seen a bind can repeat it with any source address, so the limit is
		// per address, not per side.
		if !u.limit.Allow(from.Addr(), time.Now()) {
			return nil
		}
		return lane.AppendControl(u.out[:0], lane.Challenge, id, u.s.lanes.cookie(id, from, now), x.key)
	}
	made, ok := u.s.lanes.open(cookie, id, from)
	if !ok || now-made > int64(cookieLife) {
		return nil
	}
	for {
		old := x.at.Load()
		if old != nil && made == old.since && from == old.remote {
			break // the bound was lost, or this is a replay: it changes nothing
		}
		if old != nil && made <= old.since {
			return nil // a replay
		}
		if x.at.CompareAndSwap(old, &binding{remote: from, since: made, sock: u.sock, wire: wire}) {
			x.used.Store(now)
			break
		}
	}
	return lane.AppendControl(u.out[:0], lane.Bound, id, cookie, x.key)
}

// cookie returns the cookie for a side and an address: the time 8 B, a MAC over time,
// side and address 16 B. Whoever sends it back receives at the address.
func (l *lanes) cookie(id lane.ID, from netip.AddrPort, now int64) (c lane.Cookie) {
	binary.BigEndian.PutUint64(c[:], uint64(now))
	m := l.cookieMAC(c[:8], id, from)
	copy(c[8:], m[:])
	return c
}

// open returns when a cookie was made. ok is false if it was not made for this side and
// address.
func (l *lanes) open(c lane.Cookie, id lane.ID, from netip.AddrPort) (made int64, ok bool) {
	m := l.cookieMAC(c[:8], id, from)
	return int64(binary.BigEndian.Uint64(c[:])), subtle.ConstantTimeCompare(m[:], c[8:]) == 1
}

func (l *lanes) cookieMAC(at []byte, id lane.ID, from netip.AddrPort) (out [16]byte) {
	h, err := blake2s.New128(l.secret[:])
	if err != nil {
		panic(err) // only for keys of another length
	}
	ip := from.Addr().As16()
	h.Write(at)
	h.Write(id[:])
	h.Write(ip[:])
	h.Write(binary.BigEndian.AppendUint16(nil, from.Port()))
	h.Sum(out[:0])
	return out
}

func newSecret() (k [32]byte) {
	rand.Read(k[:])
	return k
}

// rateLimit limits bytes per second without a lock. busyUntil is when everything allowed
// so far would have been sent at the limited rate.
type rateLimit struct{ busyUntil atomic.Int64 }

func (r *rateLimit) allow(n, perSecond int, now int64) bool {
	burst := max(int64(laneBurst), int64(laneBurstMin)*int64(time.Second)/int64(perSecond))
	cost := int64(n) * int64(time.Second) / int64(perSecond)
	for {
		old := r.busyUntil.Load()
		until := max(old, now) + cost
		if until-now > burst {
			return false
		}
		if r.busyUntil.CompareAndSwap(old, until) {
			return true
		}
	}
}
