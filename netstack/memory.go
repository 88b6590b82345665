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
	// Where memory is short, this part of it, one in so many, bounds the sum of the
	// buffers of all TCP connections. The rest is for what a connection costs
	// beside its buffers, for the tunnels and for the garbage collector.
	memoryShare = 4

	// What a connection begins with, and has at least. A receive buffer is three
	// times a power of two, as gVisor keeps data in pieces that are powers of two
	// and offers half of the buffer as the window: a segment that fills the window
	// then leaves room for the one before it, should that be late.
	leastReceive = 24 << 10
	leastSend    = 16 << 10

	// leastConn is what a connection is charged for at least: these, and what the
	// system keeps in the socket of the program at its other end.
	leastConn = leastReceive + leastSend + limited.SmallSocket

	// growShare is the part in so many of the bound that buffers do not grow
	// into, so that there is room for new connections.
	growShare = 4
	// eachShare is one part in so many of the bound, the most for one buffer.
	eachShare = 16

	// closingTime is for how long a connection that both ends have closed counts, if
	// it does not end.
	closingTime = 10 * time.Second

	// unknownRTT is a connection's round trip of which nothing is known.
	unknownRTT = 250 * time.Millisecond
)

// memory is what the buffers of all TCP connections may hold together on a
// machine with little memory. Each connection begins with small buffers. One that
// makes use of them, in that more would let it be faster, takes more from the
// bound for as long as it lives. When there is no more, connections stay as they
// are, and are slow; when there is not even enough to begin with, they are refused.
//
// Buffers never become smaller: gVisor would forget a writer that waits, and a
// receive buffer full of segments behind a missing one would not take that one
// any more. They are made larger by the one goroutine that reads or writes. So
// gVisor's own tuning, which knows bounds of one connection and of none other, is
// not used.
//
// Its methods may be called from any goroutine, and while gVisor's locks are held.
// A nil *memory has no bound.
type memory struct {
	// Constant.
	total   int64 // bytes, at least leastConn
	machine int64 // bytes of memory, for the message
	alarm   limited.Alarm

	// mu guards the following. None of gVisor's locks is taken under it.
	mu      sync.Mutex
	used    int64               // of total
	conns   int                 // that have a share
	closing map[*share]struct{} // closed by the program, with data still to be sent
	shared  int                 // the most that were too many, since the last message
	refused int                 // the same of those that were refused
}

// share is one connection's part of a memory. It is given back once.
type share struct {
	m  *memory
	ep tcpip.Endpoint // set by closed

	// m.mu guards the following.
	size int64 // bytes
	over bool
}

// memoryBound is the bound for a machine with so many bytes of memory: 0 for none,
// as when the memory is not known.
func memoryBound(machine int64) int64 {
	if !limited.Short(machine) {
		return 0
	}
	return max(machine/memoryShare, leastConn)
}

// newMemory returns nil where there is no bound.
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
	text := fmt.Sprintf("memory is short: %d connections share %d MB for their buffers, so they are slower than they could be", m.shared, m.total>>20)
	if m.refused > 0 {
		text += fmt.Sprintf(", and %d more were refused", m.refused)
	}
	m.shared, m.refused = 0, 0
	return text + fmt.Sprintf("; weft may use %d MB: raise that limit, or have fewer connections at a time (weft status shows with whom)", m.machine>>20)
}

// most is how many connections there may be at a time, at most bound.
func (m *memory) most(bound int) int {
	if m == nil {
		return bound
	}
	return int(min(int64(bound), m.total/leastConn))
}

// errMemory refuses a connection.
var errMemory = fmt.Errorf("memory is short, and there are as many connections as it has room for; close some, or let weft use more: %w", syscall.ENOBUFS)

// take returns the share of a new connection, nil where there is no bound, or
// errMemory.
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

// short says that there is not enough for all. The caller holds mu.
func (m *memory) short() {
	m.shared = max(m.shared, m.conns)
	m.alarm.Raise()
}

// sweep gives back what ended without a word. The caller holds mu.
func (m *memory) sweep() {
	for s := range m.closing {
		if holdsNothing(s.ep) {
			s.giveLocked()
		}
	}
}

// most is the largest that one buffer may be: of the receive buffers, or of the
// send buffers.
func (s *share) most(receive bool) int64 {
	if receive {
		return min(s.m.total/eachShare, tcpReceiveBufferMax)
	}
	return min(s.m.total/eachShare, tcpSendBufferMax)
}

// grow takes so many bytes more, or reports false.
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

// give gives the share back at once. It may be called again, and on nil.
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

// closed gives the share back as soon as the endpoint, which the program has
// closed, holds nothing any more. It may be called on nil.
func (s *share) closed(wq *waiter.Queue, ep tcpip.Endpoint) {
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
	s.ended() // before the registration
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if !s.over {
		time.AfterFunc(closingTime, s.late)
	}
}

// late is called once in a while until the share has been given back. In CLOSING
// all has been sent, and the other end has nothing more to say. gVisor stays there
// until its keepalive finds nobody, all acknowledged, when the acknowledgement of
// the FIN comes before the other's FIN.
func (s *share) late() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	switch {
	case s.over:
	case holdsNothing(s.ep) || tcp.EndpointState(s.ep.State()) == tcp.StateClosing:
		s.giveLocked()
	default:
		time.AfterFunc(closingTime, s.late)
	}
}

func (s *share) ended() {
	if holdsNothing(s.ep) {
		s.give()
	}
}

// holdsNothing reports whether an endpoint that the program has closed holds no
// data any more.
func holdsNothing(ep tcpip.Endpoint) bool {
	switch tcp.EndpointState(ep.State()) {
	case tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		return true
	}
	return false
}

// tuner makes one of the two buffers of a connection larger. Its methods belong to
// the goroutine that reads, or that writes. A zero tuner does nothing.
type tuner struct {
	share   *share
	receive bool
	size    int64     // of the buffer, as taken from the share
	moved   int64     // bytes since
	since   time.Time // zero: not yet
}

// move counts bytes that were read or written, and makes the buffer larger when
// it, and nothing else, is what keeps the connection from being faster: then about
// a window of data moves in each round trip. It looks once in four windows.
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
	// With notify gVisor tells the peer of a larger window, and wakes a writer. If
	// its own code, which writes the size that it has read before, undoes this, the
	// buffer stays as it was until the next time.
	if t.receive {
		ep.SocketOptions().SetReceiveBufferSize(t.size, true)
	} else {
		ep.SocketOptions().SetSendBufferSize(t.size, true)
	}
}
