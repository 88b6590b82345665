// Package overlaytest simulates the internet in memory: hosts with addresses, links with
// latency and loss, NAT routers of every kind, streams and datagrams. Whole meshes
// (nodes, relays, servers) run on it inside one test, without root and, under
// testing/synctest, in no time and with exact clocks.
//
//	synctest.Test(t, func(t *testing.T) {
//		in := overlaytest.New(1)
//		defer in.Close()
//		server := in.Host("server", "192.0.2.1", "2001:db8::1")
//		home := in.NAT("home", overlaytest.PortRestricted, "198.51.100.7")
//		pi := home.Host("pi", "192.168.1.10")
//		pi.Link.SetLatency(50 * time.Millisecond)
//
//		l, _ := server.Listen("tcp", ":8443")              // net.Listener
//		c, _ := pi.DialContext(ctx, "tcp", "server:8443")  // 100 ms later: net.Conn
//		u, _ := pi.ListenPacket("udp", ":0")               // net.PacketConn
//		…
//	})
//
// # Topology
//
// An Internet is a network (Net) of hosts and NAT routers; behind each router is a Net of
// its own, and so on for carrier-grade NAT. Every host and router has one Link to the
// network outside of it, with a latency each way, a loss probability, an MTU, and a
// switch. A packet crosses one link after the other: a NAT decides about it when it
// arrives there. IPv6 is not translated: hosts behind a router keep their addresses, and
// the router lets in packets of flows that began inside.
//
// # Streams
//
// Streams are reliable and ordered, like TCP: loss becomes delay, a link that is down
// stalls them (they continue when it is back), and they fail only after 15 minutes
// without progress. They end like TCP: CloseWrite and Close give the peer EOF after the
// data in flight, Host.Kill and Internet.Reset give it ECONNRESET, Host.PowerOff gives it
// nothing. Errors of dialling are ECONNREFUSED after a round trip when nobody listens or
// a NAT refuses, ETIMEDOUT after 127 s (with retries like Linux's) when there is no
// answer, and ENETUNREACH at once without an address of that family. At most Window bytes
// are in flight or unread in each direction; then Write blocks. On a link with a rate,
// streams are sent in segments with a congestion window (see uplink.go).
//
// # Datagrams
//
// Datagrams are lost by Loss, by a link that is down, by the queue of a link with a rate,
// when larger than the MTU (without an error to anybody), and when the receiver's buffer
// is full. They keep their order on one path unless latencies change.
//
// # Determinism
//
// One goroutine moves everything, in order of time and, at equal times, of sending.
// Random choices (loss, NAT ports) come from generators seeded with the seed and the name
// of the link or router, so they depend only on the packets that pass there. The
// scheduler decides the order of what goroutines of the test do at the same instant.
// Without synctest everything works in real time.
//
// Invalid names and addresses panic, because they are mistakes in the test. All methods
// may be used from any goroutine.
package overlaytest

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Internet is a simulated internet.
type Internet struct {
	*Net // the public network

	seed uint64
	quit chan struct{}
	wake chan struct{} // capacity 1
	wg   sync.WaitGroup

	mu sync.Mutex
	// mu guards the following and all variable fields of Nets, NATs, Links, Hosts and
	// their sockets.
	events   events
	seq      uint64
	names    map[string]*Host
	hosts    []*Host
	parted   map[[2]*Host]bool
	streams  map[*Conn]struct{} // ends that are open or have something to send
	closed   bool
	onPacket func(Packet)
}

// Packet is a datagram or a piece of a stream as its sender sends it, for OnPacket.
type Packet struct {
	From     *Host
	Network  string // "udp" or "tcp"
	Src, Dst netip.AddrPort
	Payload  []byte // borrowed
}

// New returns an empty internet. The seed decides losses and port numbers.
func New(seed uint64) *Internet {
	in := &Internet{
		seed:    seed,
		quit:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		names:   map[string]*Host{},
		parted:  map[[2]*Host]bool{},
		streams: map[*Conn]struct{}{},
	}
	in.Net = &Net{in: in, name: "internet", hosts: map[netip.Addr]*Host{}, routers: map[netip.Addr]*NAT{}}
	in.wg.Go(in.run)
	return in
}

// Close closes every socket and ends the internet's goroutine.
func (in *Internet) Close() {
	in.mu.Lock()
	if !in.closed {
		in.closed = true
		for _, h := range in.hosts {
			h.dropSocketsLocked(errPoweredOff, nil)
		}
		close(in.quit)
	}
	in.mu.Unlock()
	in.wg.Wait()
}

// OnPacket calls f for everything that any host sends, lost or not. f must not
// block and must not use the internet.
func (in *Internet) OnPacket(f func(Packet)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.onPacket = f
}

// Partition silently stops all packets between two hosts, until Heal.
func (in *Internet) Partition(a, b *Host) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.parted[[2]*Host{a, b}], in.parted[[2]*Host{b, a}] = true, true
}

// Heal undoes Partition. Streams that have stalled go on.
func (in *Internet) Heal(a, b *Host) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.parted, [2]*Host{a, b})
	delete(in.parted, [2]*Host{b, a})
	in.resumeLocked()
}

// Reset resets every stream between two hosts: both ends get ECONNRESET now.
func (in *Internet) Reset(a, b *Host) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, c := range in.streamsLocked() {
		if c.host == a && c.peer.host == b || c.host == b && c.peer.host == a {
			c.failLocked(errReset)
		}
	}
}

// event is an action at a time.
type event struct {
	due time.Time
	seq uint64
	do  func() // with Internet.mu held; must not block
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if !e[i].due.Equal(e[j].due) {
		return e[i].due.Before(e[j].due)
	}
	return e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

func (in *Internet) atLocked(due time.Time, do func()) {
	if in.closed {
		return
	}
	in.seq++
	heap.Push(&in.events, event{due, in.seq, do})
	if in.events[0].seq == in.seq {
		select {
		case in.wake <- struct{}{}:
		default:
		}
	}
}

func (in *Internet) afterLocked(d time.Duration, do func()) { in.atLocked(time.Now().Add(d), do) }

// run runs events at their time.
func (in *Internet) run() {
	for {
		in.mu.Lock()
		for len(in.events) > 0 && !in.closed && !in.events[0].due.After(time.Now()) {
			heap.Pop(&in.events).(event).do()
		}
		var timer *time.Timer
		var due <-chan time.Time
		if len(in.events) > 0 {
			timer = time.NewTimer(time.Until(in.events[0].due))
			due = timer.C
		}
		in.mu.Unlock()
		select {
		case <-due:
		case <-in.wake:
		case <-in.quit:
		}
		if timer != nil {
			timer.Stop()
		}
		select {
		case <-in.quit:
			return
		default:
		}
	}
}

// rand returns a generator that depends on the seed and the name only.
func (in *Internet) rand(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(in.seed, h.Sum64()))
}

// Link joins a host or router to the network outside of it.
type Link struct {
	in   *Internet
	rand *rand.Rand

	latency time.Duration
	loss    float64
	mtu     int
	down    bool
	out     queue
}

func newLink(in *Internet, name string) *Link { return &Link{in: in, rand: in.rand("link " + name)} }

// SetLatency sets the time that a packet takes to cross the link, each way.
// At first it is 0.
func (l *Link) SetLatency(d time.Duration) {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	l.latency = d
}

// SetLoss sets the probability with which a packet is lost, each way. Streams
// are delayed by it instead.
func (l *Link) SetLoss(p float64) {
	if p < 0 || p >= 1 {
		panic(fmt.Sprintf("overlaytest: loss of %v", p))
	}
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	l.loss = p
}

// SetMTU silently drops datagrams whose IP packet has more than n bytes. 0, as
// at first, means any size passes.
func (l *Link) SetMTU(n int) {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	l.mtu = n
}

// SetUp switches the link on or off. While it is off, datagrams on it are lost silently
// and streams stall.
func (l *Link) SetUp(up bool) {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	l.down = !up
	if up {
		l.in.resumeLocked()
	}
}

// losesLocked reports whether a packet of size bytes is lost.
func (l *Link) losesLocked(size int) bool {
	return l.down || l.mtu > 0 && size > l.mtu || l.loss > 0 && l.rand.Float64() < l.loss
}

// Net is one network: the public one, or the one behind a NAT router.
type Net struct {
	in      *Internet
	name    string
	router  *NAT // towards the outside; nil: this is the public network
	hosts   map[netip.Addr]*Host
	routers map[netip.Addr]*NAT // by outside address
}

// Host adds a host. Its name resolves to its addresses on every host.
func (n *Net) Host(name string, addrs ...string) *Host {
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	if n.in.names[name] != nil || name == "" {
		panic(fmt.Sprintf("overlaytest: host name %q is taken", name))
	}
	h := &Host{
		in: n.in, name: name, Link: newLink(n.in, name), rand: n.in.rand("host " + name),
		listeners: map[uint16]*Listener{}, packets: map[uint16]*PacketConn{},
	}
	n.in.names[name] = h
	n.in.hosts = append(n.in.hosts, h)
	n.attachLocked(h, addrs)
	return h
}

func (n *Net) attachLocked(h *Host, addrs []string) {
	h.net, h.addrs = n, nil
	for _, s := range addrs {
		a := netip.MustParseAddr(s).Unmap()
		if n.hosts[a] != nil || n.routers[a] != nil {
			panic(fmt.Sprintf("overlaytest: %s: address %v is taken", h.name, a))
		}
		n.hosts[a] = h
		h.addrs = append(h.addrs, a)
	}
	if len(h.addrs) == 0 {
		panic(fmt.Sprintf("overlaytest: %s has no address", h.name))
	}
}

// behindLocked returns the router of n behind which a keeps its own address:
// hosts behind NoNAT, and every IPv6 host.
func (n *Net) behindLocked(a netip.Addr) *NAT {
	for _, r := range n.routers {
		if r.Net.hosts[a] != nil && !r.translates(a) || r.Net.behindLocked(a) != nil {
			return r
		}
	}
	return nil
}
