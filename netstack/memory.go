package netstack

import (
	"fmt"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"weft/overlay/limited"
)

const (
	// Where memory is short, one memoryShare-th of it bounds the buffers of all TCP
	// connections together. The rest is for the other costs of a connection, for the
	// tunnels and for the garbage collector.
	memoryShare = 4

	// The buffers that a connection starts with, its minimum. gVisor keeps data in
	// pieces of power-of-two size and offers half of the receive buffer as the window.
	// Three times a power of two leaves room for one late segment after a segment that
	// fills the window.
	leastReceive = 24 << 10
	leastSend    = 16 << 10

	// leastConn is the minimum charge for a connection: both buffers, and what the
	// system keeps in the socket of the local program.
	leastConn = leastReceive + leastSend + limited.SmallSocket

	// Buffers do not grow into the last growShare-th of the bound: it is for new
	// connections.
	growShare = 4
	// One buffer takes at most one eachShare-th of the bound.
	eachShare = 16

	// closingTime is the interval at which a closed connection is checked again. One
	// that both ends have closed counts at most that long.
	closingTime = 10 * time.Second

	// unknownRTT is assumed for a connection without a measured round trip.
	unknownRTT = 250 * time.Millisecond
)

// memory is the bound on the buffers of all TCP connections together, on a machine with
// little memory. Each connection starts with small buffers. One that a larger buffer
// would make faster takes more from the bound, and keeps it for as long as it lives.
// When the bound is used up, buffers stop growing and connections are slow; when not
// even the minimum is left, connections are refused.
//
// Buffers never shrink: gVisor would forget a waiting writer, and a receive buffer that
// is full of segments behind a missing one could no longer accept that one. Only the
// goroutine that reads or writes enlarges a buffer. gVisor's own tuning is not used,
// because it bounds each connection by itself.
//
// Its methods may be called from any goroutine, and while gVisor's locks are held. A
// nil *memory has no bound.
type memory struct {
	// Constant.
	total   int64 // bytes, at least leastConn
	machine int64 // bytes of memory, for the message
	alarm   limited.Alarm

	// mu guards the following. None of gVisor's locks is taken under it.
	mu      sync.Mutex
	used    int64               // bytes of total in use
	conns   int                 // connections with a share
	closing map[*share]struct{} // closed by the program, data still unsent
	shared  int                 // highest conns while memory was short, since the last message
	refused int                 // connections refused since the last message
}

// share is one connection's part of a memory. It is returned once.
type share struct {
	m  *memory
	ep tcpip.Endpoint // set by releaseAfterClose

	// m.mu guards the following.
	size int64 // bytes
	over bool
}

// memoryBound is the bound for a machine with this many bytes of memory, 0 for none. It
// is 0 when the memory is not known.
func memoryBound(machine int64) int64 {
	if !limited.Short(machine) {
		return 0
	}
	return max(machine/memoryShare, leastConn)
}

// newMemory returns nil if there is no bound.
func newMemory(n *Net, machine int64) *memory {
	total := memoryBound(machine)
	if total == 0 {
		return nil
	}
	m := &memory{total: total, machine: machine, closing: make(map[*share]struct{})}
	m.alarm = limited.Alarm{Log: n.log, Code: "memory", Health: n.health, Describe: m.describe}
	return m
}

func (m *memory) describe(int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	text := fmt.Sprintf("memory is short: %d connections share %d MB of buffers, so they are slower than they could be", m.shared, m.total>>20)
	if m.refused > 0 {
		text += fmt.Sprintf(", and %d more were refused", m.refused)
	}
	m.shared, m.refused = 0, 0
	return text + fmt.Sprintf("; weft may use %d MB: raise that limit, or open fewer connections at a time (weft status shows the peers)", m.machine>>20)
}

// most lowers bound to the number of connections that the memory has room for.
func (m *memory) most(bound int) int {
	if m == nil {
		return bound
	}
	return int(min(int64(bound), m.total/leastConn))
}

// errMemory refuses a connection.
var errMemory = fmt.Errorf("memory is short: no room for another connection; close some, or allow weft more memory: %w", syscall.ENOBUFS)

// take returns the share of a new connection, nil if there is no bound, or errMemory.
func (m *memory) take() (*share, error) {
	if m == nil {
		return nil, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used+leastConn > m.total {
		m.sweep()
	}
	if m.used+leastConn > m.total {
		m.refused++
		m.short()
		return nil, errMemory
	}
	m.used += leastConn
	m.conns++
	return &share{m: m, size: leastConn}, nil
}

// short reports that memory is short. The caller holds mu.
func (m *memory) short() {
	m.shared = max(m.shared, m.conns)
	m.alarm.Raise()
}

// sweep returns the shares of connections that ended without an event. The caller holds
// mu.
func (m *memory) sweep() {
	for s := range m.closing {
		if holdsNothing(s.ep) {
			s.giveLocked()
		}
	}
}

// most is the largest size of one receive or send buffer, in bytes.
func (s *share) most(receive bool) int64 {
	if receive {
		return min(s.m.total/eachShare, tcpReceiveBufferMax)
	}
	return min(s.m.total/eachShare, tcpSendBufferMax)
}

// grow enlarges the share by so many bytes, or reports false.
func (s *share) grow(by int64) bool {
	m := s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.over {
		return false
	}
	if m.used+by > m.total-m.total/growShare {
		m.sweep()
	}
	if m.used+by > m.total-m.total/growShare {
		m.short()
		return false
	}
	m.used += by
	s.size += by
	return true
}

// give returns the share at once. It may be called again, and on nil.
func (s *share) give() {
	if s == nil {
		return
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.giveLocked()
}

func (s *share) giveLocked() {
	if s.over {
		return
	}
	s.over = true
	s.m.used -= s.size
	s.m.conns--
	delete(s.m.closing, s)
}

// releaseAfterClose returns the share once the endpoint, which the program has closed,
// holds no data. It may be called on nil.
func (s *share) releaseAfterClose(wq *waiter.Queue, ep tcpip.Endpoint) {
	if s == nil {
		return
	}
	s.m.mu.Lock()
	s.ep = ep
	if !s.over {
		s.m.closing[s] = struct{}{}
	}
	s.m.mu.Unlock()
	gone := waiter.NewFunctionEntry(waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) { s.ended() })
	wq.EventRegister(&gone)
	s.ended() // it may have ended before the registration
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if !s.over {
		time.AfterFunc(closingTime, s.recheck)
	}
}

// recheck runs every closingTime until the share is returned. In CLOSING everything has
// been sent and the peer sends nothing more. But if the acknowledgement of our FIN
// comes before the peer's FIN, gVisor stays in CLOSING until its keepalive gives up.
func (s *share) recheck() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	switch {
	case s.over:
	case holdsNothing(s.ep) || tcp.EndpointState(s.ep.State()) == tcp.StateClosing:
		s.giveLocked()
	default:
		time.AfterFunc(closingTime, s.recheck)
	}
}

func (s *share) ended() {
	if holdsNothing(s.ep) {
		s.give()
	}
}

// holdsNothing reports whether an endpoint that the program has closed no longer holds
// data.
func holdsNothing(ep tcpip.Endpoint) bool {
	switch tcp.EndpointState(ep.State()) {
	case tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		return true
	}
	return false
}

// tuner enlarges one of the two buffers of a connection. Only the goroutine that reads,
// or the one that writes, calls its methods. A zero tuner does nothing.
type tuner struct {
	share   *share
	receive bool
	size    int64     // of the buffer, as taken from the share
	moved   int64     // bytes moved since then
	since   time.Time // start of the measurement; zero: not started
}

// move counts bytes that were read or written. It enlarges the buffer if only the
// buffer limits the speed: then about one window of data moves per round trip. It
// checks once per four windows.
func (t *tuner) move(ep tcpip.Endpoint, n int) {
	if t.share == nil {
		return
	}
	if t.since.IsZero() {
		t.since = time.Now()
	}
	window := t.size
	if t.receive {
		window /= 2
	}
	if t.moved += int64(n); t.moved < 4*window {
		return
	}
	now := time.Now()
	took := now.Sub(t.since)
	t.moved, t.since = 0, now
	var info tcpip.TCPInfoOption
	rtt := unknownRTT
	if err := ep.GetSockOpt(&info); err == nil && info.RTT > 0 {
		rtt = info.RTT
	}
	if took > 8*rtt || 2*t.size > t.share.most(t.receive) || !t.share.grow(t.size) {
		return
	}
	t.size *= 2
	// With notify set, gVisor tells the peer about the larger window and wakes a
	// writer. gVisor's own code may write back the size that it read before; the buffer
	// then keeps its old size until the next check.
	if t.receive {
		ep.SocketOptions().SetReceiveBufferSize(t.size, true)
	} else {
		ep.SocketOptions().SetSendBufferSize(t.size, true)
	}
}
