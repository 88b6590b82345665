package wg

import (
	"log/slog"
	"net"
	"net/netip"
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
	"weft/overlay/internal/hosttest"
)

// testNet is an inner network: the test puts packets in and reads what comes out.
type testNet = hosttest.Net

// pumped hides the WakeRead of a network, so that it needs a Pump.
func pumped(n *testNet) dataplane.Net {
	return pumpedNet{dataplane.NewPump(struct{ tun.Device }{n}), n}
}

type pumpedNet struct {
	*dataplane.Pump
	net *testNet
}

func (n pumpedNet) SetLimit(limit func([]byte) int) { n.net.SetLimit(limit) }

// wire carries messages between binds by NodeID, at once and in order.
type wire struct {
	mu    sync.Mutex
	binds map[cert.NodeID]*bind.Bind
	// listen, if set, opens UDP sockets for the nodes, besides the wire.
	listen func(network, address string) (net.PacketConn, error)
	// drop reports whether to lose a message.
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
	fwd   *dataplane.Forwarder
	dev   *Device
	miss  chan netip.Addr
	alien chan cert.NodeID
}

func (n *node) ips() []netip.Addr { return []netip.Addr{n.v4, n.v6} }

var testLog = slog.New(slog.DiscardHandler)

// newNode makes node number i and attaches it to the wire. It replaces an earlier one
// with that number.
func newNode(t testing.TB, w *wire, i byte, wrap ...func(*testNet) dataplane.Net) *node {
	t.Helper()
	return newNodeOf(t, w, i, nil, wrap...)
}

// newNodeOf is newNode with another configuration.
func newNodeOf(t testing.TB, w *wire, i byte, alter func(*Config), wrap ...func(*testNet) dataplane.Net) *node {
	t.Helper()
	n := &node{
		t: t, id: cert.NodeID{i}, wire: w, net: hosttest.NewNet(),
		v4: netip.AddrFrom4([4]byte{100, 64, 0, i}), v6: netip.AddrFrom16([16]byte{0: 0xfd, 15: i}),
		miss: make(chan netip.Addr, 1024), alien: make(chan cert.NodeID, 1024),
	}
	n.port = &port{wire: w, from: n.id}
	n.bind = bind.New(bind.Config{Listen: w.listen, UnknownSender: func(from cert.NodeID, _ []byte) {
		select {
		case n.alien <- from:
		default:
		}
	}})
	var dev dataplane.Net = n.net
	for _, f := range wrap {
		dev = f(n.net)
	}
	n.fwd = dataplane.New(dataplane.Config{Net: dev, Miss: func(a netip.Addr) { n.miss <- a }})
	cfg := Config{Forwarder: n.fwd, Bind: n.bind, Log: testLog}
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

var everything = filter.Compile([]api.Rule{{From: []string{"*"}, Ports: []api.PortRange{{Proto: "*", First: 0, Last: 65535}}}}, &cert.Node{}, filter.Terms{})

// peerOf returns m as a peer of n.
func (n *node) peerOf(m *node, psk byte, initiate bool) dataplane.Peer {
	ep := endpoint(n.bind, m.id, m.v4)
	ep.SetSender(n.port)
	return dataplane.Peer{
		ID: m.id, Key: m.dev.PublicKey(), Secret: [32]byte{psk}, IPs: m.ips(), Endpoint: ep,
		Filter: filter.NewPeer(n.ips(), m.ips(), everything), Initiate: initiate,
	}
}

func (n *node) set(p dataplane.Peer) {
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

// udp makes a UDP packet that carries num.
func (n *node) udp(m *node, num uint32) []byte { return udpPacket(n.v4, m.v4, num) }

var udpPacket, ipPacket, number, waitFor = hosttest.UDP, hosttest.IP, hosttest.Number, hosttest.WaitFor

// recv waits for one inner packet.
func (n *node) recv() []byte { n.t.Helper(); return n.net.Recv(n.t) }

// silent fails if there is an inner packet or one comes within d.
func (n *node) silent(d time.Duration) { n.t.Helper(); n.net.Silent(n.t, d) }

// ping sends a packet from n to m and waits until it arrives.
func (n *node) ping(m *node, num uint32) {
	n.t.Helper()
	n.net.Out <- n.udp(m, num)
	if got := number(m.recv()); got != num {
		n.t.Fatalf("packet %d arrived, want %d", got, num)
	}
}

// checkLeaks fails if goroutines of the packages under test remain.
func checkLeaks(t *testing.T) {
	t.Helper()
	var dump string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		dump = string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(dump, "wireguard/") && !strings.Contains(dump, "weft/overlay/internal/wg.(*") && !strings.Contains(dump, "weft/overlay/internal/dataplane.(*") {
			return
		}
	}
	t.Errorf("goroutines left:\n%s", dump)
}

// endpoint returns the admitted endpoint of a node, and makes it if necessary.
func endpoint(b *bind.Bind, id cert.NodeID, ip netip.Addr) *bind.Endpoint {
	if ep := b.Find(id); ep != nil {
		return ep
	}
	ep := bind.NewEndpoint(id, ip)
	b.Admit(ep)
	return ep
}
