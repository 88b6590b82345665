package gcm

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/hosttest"
)

var number, waitFor = hosttest.Number, hosttest.WaitFor

var everything = filter.Compile([]api.Rule{{From: []string{"*"}, Ports: []api.PortRange{{Proto: "*", First: 0, Last: 65535}}}}, &cert.Node{}, filter.Terms{})

// wire is a relay that carries datagrams at once and in order.
type wire struct {
	mu    sync.Mutex
	nodes map[cert.NodeID]*node
	// drop reports whether to lose a datagram.
	drop atomic.Pointer[func(from, to cert.NodeID, msg []byte) bool]
}

func newWire() *wire { return &wire{nodes: map[cert.NodeID]*node{}} }

func (w *wire) lose(f func(from, to cert.NodeID, msg []byte) bool) {
	if f == nil {
		w.drop.Store(nil)
		return
	}
	w.drop.Store(&f)
}

type node struct {
	t    testing.TB
	id   cert.NodeID
	v4   netip.Addr
	v6   netip.Addr
	wire *wire
	net  *hosttest.Net
	bind *bind.Bind
	fwd  *dataplane.Forwarder
	dev  *Device
	miss chan netip.Addr

	jumped chan struct{}
	wall   atomic.Int64 // how far the wall clock was set

	mu  sync.Mutex
	src map[cert.NodeID]*bind.Source
}

func newNode(t testing.TB, w *wire, i byte) *node {
	t.Helper()
	n := &node{
		t: t, id: cert.NodeID{i}, wire: w, net: hosttest.NewNet(), bind: bind.New(bind.Config{}),
		v4: netip.AddrFrom4([4]byte{100, 64, 0, i}), v6: netip.AddrFrom16([16]byte{0: 0xfd, 15: i}),
		miss: make(chan netip.Addr, 1024), jumped: make(chan struct{}, 1024), src: map[cert.NodeID]*bind.Source{},
	}
	n.fwd = dataplane.New(dataplane.Config{Net: n.net, Miss: func(a netip.Addr) { n.miss <- a }})
	var err error
	n.dev, err = New(Config{
		Forwarder: n.fwd, Bind: n.bind, Alone: true, Jumped: func() { n.jumped <- struct{}{} },
		Wall: func() time.Time { return time.Now().Add(time.Duration(n.wall.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.nodes[n.id] = n
	w.mu.Unlock()
	t.Cleanup(func() { n.dev.Close() })
	return n
}

// SendPackets implements bind.Sender.
func (n *node) SendPackets(to cert.NodeID, bufs [][]byte) error {
	n.wire.mu.Lock()
	m := n.wire.nodes[to]
	n.wire.mu.Unlock()
	drop := n.wire.drop.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	src := m.src[n.id]
	if src == nil {
		src = m.bind.NewSource()
		m.src[n.id] = src
	}
	for _, b := range bufs {
		if drop == nil || !(*drop)(n.id, to, b) {
			src.Deliver(n.id, b)
		}
	}
	src.Flush()
	return nil
}

func (n *node) ips() []netip.Addr { return []netip.Addr{n.v4, n.v6} }

// peerOf returns m as a peer of n.
func (n *node) peerOf(m *node, secret byte, caller bool) dataplane.Peer {
	ep := n.bind.Find(m.id)
	if ep == nil {
		ep = bind.NewEndpoint(m.id, m.v4)
		ep.SetSender(n)
		n.bind.Admit(ep)
	}
	return dataplane.Peer{
		ID: m.id, Secret: [32]byte{secret}, IPs: m.ips(), Endpoint: ep, Claim: dataplane.Claimed,
		Filter: filter.NewPeer(n.ips(), m.ips(), everything), Initiate: caller,
	}
}

func (n *node) set(p dataplane.Peer) {
	n.t.Helper()
	if err := n.dev.SetPeer(p); err != nil {
		n.t.Fatal(err)
	}
}

// call begins an introduction as the caller: it has the keys, and m has not accepted.
func (n *node) call(m *node, secret byte) {
	n.t.Helper()
	p := n.peerOf(m, secret, true)
	p.Claim = dataplane.Tentative
	n.set(p)
}

// introduce makes two nodes peers, n being the caller, in the order of an introduction.
func (n *node) introduce(m *node, secret byte) {
	n.t.Helper()
	n.call(m, secret)
	m.set(m.peerOf(n, secret, false))
	n.set(n.peerOf(m, secret, true))
}

func (n *node) udp(m *node, num uint32) []byte { return hosttest.UDP(n.v4, m.v4, num) }

func (n *node) recv() []byte { n.t.Helper(); return n.net.Recv(n.t) }

// ping sends a packet from n to m and waits until it arrives.
func (n *node) ping(m *node, num uint32) {
	n.t.Helper()
	n.net.Out <- n.udp(m, num)
	if got := number(m.recv()); got != num {
		n.t.Fatalf("packet %d arrived, want %d", got, num)
	}
}

// both pings in both directions.
func (n *node) both(m *node, num uint32) {
	n.t.Helper()
	n.ping(m, num)
	m.ping(n, num)
}

func (n *node) peer(m *node) *peer {
	n.dev.mu.Lock()
	defer n.dev.mu.Unlock()
	return n.dev.peers[m.id]
}

// secretOf returns the first byte of the secret that n sends to m with.
func (n *node) secretOf(m *node) byte { return n.peer(m).cur.Load().secret[0] }

// sends reports whether n has sent packets to m under a secret.
func (n *node) sends(m *node, secret byte) bool {
	s := n.peer(m).cur.Load()
	return s.secret[0] == secret && s.sender.cur.Load().counter.Load() > 1
}
