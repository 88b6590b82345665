package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/hosttest"
)

var udpPacket, ipPacket, number, waitFor = hosttest.UDP, hosttest.IP, hosttest.Number, hosttest.WaitFor

var everything = filter.Compile([]api.Rule{{From: []string{"*"}, Ports: []api.PortRange{{Proto: "*", First: 0, Last: 65535}}}}, &cert.Node{}, filter.Terms{})

// kind says which of a node's two planes a pair uses. Both carry packets unencrypted,
// after a header with the kind. One plane calls Read, the other is a Carrier.
type kind byte

const (
	reads kind = iota
	isHanded
)

const testHeader = 4 // starts with the kind

// world holds nodes whose messages arrive at once.
type world map[cert.NodeID]*node

type node struct {
	t     testing.TB
	world world
	id    cert.NodeID
	v4    netip.Addr
	v6    netip.Addr
	net   *hosttest.Net
	fwd   *Forwarder
	bind  *bind.Bind
	miss  chan netip.Addr
	stop  func()
}

func (w world) node(t testing.TB, i byte) *node {
	return w.nodeOf(t, i, Config{Net: hosttest.NewNet()})
}

// nodeOf makes a node with a hosttest.Net and its own Miss.
func (w world) nodeOf(t testing.TB, i byte, cfg Config) *node {
	n := &node{
		t: t, world: w, id: cert.NodeID{i}, net: cfg.Net.(*hosttest.Net), bind: bind.New(bind.Config{}),
		v4: netip.AddrFrom4([4]byte{100, 64, 0, i}), v6: netip.AddrFrom16([16]byte{0: 0xfd, 15: i}),
		miss: make(chan netip.Addr, 1024),
	}
	cfg.Miss = func(a netip.Addr) { n.miss <- a }
	n.fwd = New(cfg)
	w[n.id] = n
	done := make(chan struct{})
	bufs := make([][]byte, 8)
	for i := range bufs {
		bufs[i] = make([]byte, 65536)
	}
	go func() {
		defer close(done)
		n.read(bufs, make([]int, len(bufs)))
	}()
	n.stop = func() {
		n.fwd.Close()
		<-done
	}
	t.Cleanup(n.stop)
	return n
}

// read is the plane that reads.
func (n *node) read(bufs [][]byte, sizes []int) {
	for {
		k, err := n.fwd.Read(bufs, sizes, testHeader)
		if err != nil {
			return
		}
		for i := range k {
			if sizes[i] == 0 {
				continue
			}
			// It finds the peer by itself, as wireguard-go does.
			e := n.fwd.entryOf(destination(bufs[i][testHeader:]))
			if e == nil || e.carrier != nil {
				n.t.Error("the plane that reads got a packet that is not its own")
				continue
			}
			n.seal(e, reads, bufs[i], sizes[i])
		}
	}
}

// Carry implements Carrier, for the plane that does not call Read.
func (n *node) Carry(e *Entry, bufs [][]byte, sizes []int, offset int) {
	for i, b := range bufs {
		if sizes[i] > 0 {
			n.seal(e, isHanded, b[offset-testHeader:], sizes[i])
		}
	}
}

func (n *node) seal(e *Entry, k kind, buf []byte, size int) {
	buf[0] = byte(k)
	one := [1][]byte{buf[:testHeader+size]}
	e.Send(n.bind, one[:])
}

// SendPackets implements bind.Sender, for the relay.
func (n *node) SendPackets(to cert.NodeID, bufs [][]byte) error {
	m := n.world[to]
	for _, b := range bufs {
		if e := m.fwd.entryOf(n.v4); e != nil && (e.carrier == nil) == (kind(b[0]) == reads) {
			opened := [][]byte{append([]byte(nil), b...)}
			if e.carrier == nil {
				m.fwd.Write(opened, testHeader)
			} else {
				e.Write(opened, testHeader)
			}
		}
	}
	return nil
}

func (f *Forwarder) peer(id cert.NodeID) *Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peers[id]
}

func (n *node) ips() []netip.Addr { return []netip.Addr{n.v4, n.v6} }

// entry makes m a peer without addresses.
func (n *node) entry(m *node, k kind, ports *filter.Ports) *Entry {
	ep := bind.NewEndpoint(m.id, m.v4)
	ep.SetSender(n)
	var carrier Carrier
	if k == isHanded {
		carrier = n
	}
	return n.fwd.NewEntry(ep, filter.NewPeer(n.ips(), m.ips(), ports), Framing{Overhead: testHeader, Unit: 1}, carrier)
}

// connect makes two nodes peers, and returns the entries of each for the other.
func (n *node) connect(m *node, k kind) (nm, mn *Entry) {
	mn = m.entry(n, k, everything)
	mn.SetAddrs(n.ips())
	nm = n.entry(m, k, everything)
	nm.SetAddrs(m.ips())
	return nm, mn
}

func (n *node) udp(m *node, num uint32) []byte { return udpPacket(n.v4, m.v4, num) }

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
