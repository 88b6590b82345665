package wg

import (
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/filter"
)

// testNet is an inner network: the test sends into it and sees what comes out.
type testNet struct {
	out    chan []byte // packets for Read
	in     chan []byte // packets from Write
	wakes  chan struct{}
	events chan tun.Event
	done   chan struct{}
	once   sync.Once
	sink   func(bufs [][]byte, offset int) // instead of in, if set
	feed   func(buf []byte) int            // instead of out, if set
	limit  func([]byte) int                // of SetLimit
}

func newTestNet() *testNet {
	return &testNet{
		out: make(chan []byte, 1024), in: make(chan []byte, 65536), wakes: make(chan struct{}, 1),
		events: make(chan tun.Event), done: make(chan struct{}),
	}
}

func (n *testNet) SetLimit(limit func([]byte) int) { n.limit = limit }

// pumped hides the WakeRead of a network, so that it has to be pumped.
func pumped(n *testNet) dataplane.Net {
	return pumpedNet{dataplane.NewPump(struct{ tun.Device }{n}), n}
}

type pumpedNet struct {
	*dataplane.Pump
	net *testNet
}

func (n pumpedNet) SetLimit(limit func([]byte) int) { n.net.SetLimit(limit) }

func (n *testNet) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if n.feed != nil {
		select {
		case <-n.done:
			return 0, os.ErrClosed
		case <-n.wakes:
			return 0, nil
		default:
		}
		for i := range bufs {
			sizes[i] = n.feed(bufs[i][offset:])
		}
		return len(bufs), nil
	}
	select {
	case p := <-n.out:
		sizes[0] = copy(bufs[0][offset:], p)
		k := 1
		for k < len(bufs) {
			select {
			case p := <-n.out:
				sizes[k] = copy(bufs[k][offset:], p)
				k++
				continue
			default:
			}
			break
		}
		return k, nil
	case <-n.wakes:
		return 0, nil
	case <-n.done:
		return 0, os.ErrClosed
	}
}

func (n *testNet) Write(bufs [][]byte, offset int) (int, error) {
	if n.sink != nil {
		n.sink(bufs, offset)
		return len(bufs), nil
	}
	for _, b := range bufs {
		select {
		case n.in <- append([]byte(nil), b[offset:]...):
		default:
		}
	}
	return len(bufs), nil
}

func (n *testNet) WakeRead() {
	select {
	case n.wakes <- struct{}{}:
	default:
	}
}
func (n *testNet) Close() error {
	n.once.Do(func() { close(n.done); close(n.events) })
	return nil
}
func (n *testNet) File() *os.File           { return nil }
func (n *testNet) MTU() (int, error)        { return 1280, nil }
func (n *testNet) Name() (string, error)    { return "test", nil }
func (n *testNet) Events() <-chan tun.Event { return n.events }
func (n *testNet) BatchSize() int           { return bind.BatchSize }

// wire carries messages between binds by NodeID, at once and in order.
type wire struct {
	mu    sync.Mutex
	binds map[cert.NodeID]*bind.Bind
	// listen gives the nodes UDP sockets beside the wire, if set.
	listen func(network, address string) (net.PacketConn, error)
	// drop says that a message is lost.
	drop atomic.Pointer[func(from, to cert.NodeID, msg []byte) bool]
}

func newWire() *wire { return &wire{binds: make(map[cert.NodeID]*bind.Bind)} }

func (w *wire) find(id cert.NodeID) *bind.Bind {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.binds[id]
}

func (w *wire) lose(f func(from, to cert.NodeID, msg []byte) bool) {
	if f == nil {
		w.drop.Store(nil)
		return
	}
	w.drop.Store(&f)
}

// port is a node's relay connection.
type port struct {
	wire *wire
	from cert.NodeID

	mu  sync.Mutex
	src *bind.Source
	to  *bind.Bind
}

func (p *port) SendPackets(to cert.NodeID, bufs [][]byte) error {
	dst := p.wire.find(to)
	if dst == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to != dst {
		p.to, p.src = dst, dst.NewSource()
	}
	drop := p.wire.drop.Load()
	for _, b := range bufs {
		if drop == nil || !(*drop)(p.from, to, b) {
			p.src.Deliver(p.from, b)
		}
	}
	p.src.Flush()
	return nil
}

type node struct {
	t     testing.TB
	id    cert.NodeID
	v4    netip.Addr
	v6    netip.Addr
	wire  *wire
	port  *port
	net   *testNet
	bind  *bind.Bind
	dev   *Device
	miss  chan netip.Addr
	alien chan cert.NodeID
}

func (n *node) ips() []netip.Addr { return []netip.Addr{n.v4, n.v6} }

var testLog = slog.New(slog.DiscardHandler)

// newNode makes node number i and attaches it to the wire in place of an
// earlier one with that number.
func newNode(t testing.TB, w *wire, i byte, wrap ...func(*testNet) dataplane.Net) *node {
	t.Helper()
	return newNodeOf(t, w, i, nil, wrap...)
}

// newNodeOf is newNode with another configuration.
func newNodeOf(t testing.TB, w *wire, i byte, alter func(*Config), wrap ...func(*testNet) dataplane.Net) *node {
	t.Helper()
	n := &node{
		t: t, id: cert.NodeID{i}, wire: w, net: newTestNet(),
		v4: netip.AddrFrom4([4]byte{100, 64, 0, i}), v6: netip.AddrFrom16([16]byte{0: 0xfd, 15: i}),
		miss: make(chan netip.Addr, 1024), alien: make(chan cert.NodeID, 1024),
	}
	n.port = &port{wire: w, from: n.id}
	n.bind = bind.New(bind.Config{Listen: w.listen, Stranger: func(from cert.NodeID, _ []byte) {
		select {
		case n.alien <- from:
		default:
		}
	}})
	var dev dataplane.Net = n.net
	for _, f := range wrap {
		dev = f(n.net)
	}
	cfg := Config{Net: dev, Bind: n.bind, Log: testLog, Miss: func(a netip.Addr) { n.miss <- a }}
	if alter != nil {
		alter(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.dev = d
	w.mu.Lock()
	w.binds[n.id] = n.bind
	w.mu.Unlock()
	t.Cleanup(func() { d.Close() })
	return n
}

var everything = filter.Compile([]api.Rule{{From: []string{"*"}, Ports: []api.PortRange{{Proto: "*", First: 0, Last: 65535}}}}, &cert.Node{})

// peerOf describes m as n's peer.
func (n *node) peerOf(m *node, psk byte, initiate bool) Peer {
	ep := endpoint(n.bind, m.id, m.v4)
	ep.SetSender(n.port)
	return Peer{
		ID: m.id, Key: m.dev.PublicKey(), PSK: [32]byte{psk}, IPs: m.ips(), Endpoint: ep,
		Filter: filter.NewPeer(n.ips(), m.ips(), everything), Initiate: initiate,
	}
}

func (n *node) set(p Peer) {
	n.t.Helper()
	if err := n.dev.SetPeer(p); err != nil {
		n.t.Fatal(err)
	}
}

// introduce makes two nodes peers, n being the caller.
func (n *node) introduce(m *node, psk byte) {
	n.t.Helper()
	m.set(m.peerOf(n, psk, false))
	n.set(n.peerOf(m, psk, true))
}

// udp makes a packet with a number in it.
func (n *node) udp(m *node, num uint32) []byte { return udpPacket(n.v4, m.v4, num) }

func udpPacket(src, dst netip.Addr, num uint32) []byte {
	p := make([]byte, 8, 12)
	binary.BigEndian.PutUint16(p, 7)
	binary.BigEndian.PutUint16(p[2:], 9)
	binary.BigEndian.PutUint16(p[4:], 12)
	return ipPacket(src, dst, 17, binary.BigEndian.AppendUint32(p, num))
}

func ipPacket(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if src.Is4() && dst.Is4() {
		b := make([]byte, 20, 20+len(payload))
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}

func number(pkt []byte) uint32 { return binary.BigEndian.Uint32(pkt[len(pkt)-4:]) }

// recv waits for one inner packet.
func (n *node) recv() []byte {
	n.t.Helper()
	select {
	case p := <-n.net.in:
		return p
	case <-time.After(10 * time.Second):
		n.t.Fatal("no packet in 10 s")
		return nil
	}
}

// silent fails if an inner packet is there or comes within a short while.
func (n *node) silent(d time.Duration) {
	n.t.Helper()
	select {
	case p := <-n.net.in:
		n.t.Fatalf("unexpected packet %x", p)
	case <-time.After(d):
	}
}

// ping sends a packet from n to m and waits until it arrives.
func (n *node) ping(m *node, num uint32) {
	n.t.Helper()
	n.net.out <- n.udp(m, num)
	if got := number(m.recv()); got != num {
		n.t.Fatalf("packet %d arrived, want %d", got, num)
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	waitLong(t, 10*time.Second, what, ok)
}

func waitLong(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// checkLeaks fails if goroutines of the packages under test are left.
func checkLeaks(t *testing.T) {
	t.Helper()
	var dump string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		dump = string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(dump, "wireguard/") && !strings.Contains(dump, "weft/overlay/internal/wg.(*") {
			return
		}
	}
	t.Errorf("goroutines left:\n%s", dump)
}

// endpoint returns the admitted endpoint of a node, made if need be.
func endpoint(b *bind.Bind, id cert.NodeID, ip netip.Addr) *bind.Endpoint {
	if ep := b.Find(id); ep != nil {
		return ep
	}
	ep := bind.NewEndpoint(id, ip)
	b.Admit(ep)
	return ep
}
