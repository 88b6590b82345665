package intro

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"weft/overlay/cert"
)

// network is a network CA with its nodes and a relay between them that may be hostile.
type network struct {
	t     testing.TB
	ca    *cert.CA
	id    cert.NetworkID
	roots *cert.NetworkRoots
	wire  *wire
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	ca, err := cert.NewCA("test network", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id := cert.PinOf(ca.Cert).NetworkID()
	roots, err := cert.NewNetworkRoots(id, [][]byte{ca.Cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	w := &network{t: t, ca: ca, id: id, roots: roots, wire: newWire(t)}
	t.Cleanup(w.stop)
	return w
}

// node is one end: a Switch, its recorded callbacks, and the peers that it would have
// installed.
type node struct {
	*Switch
	id     cert.NodeID
	key    *ecdsa.PrivateKey
	serial *big.Int
	wg     *ecdh.PrivateKey // of hello.Key
	hello  Hello

	mu        sync.Mutex
	identity  tls.Certificate
	crl       *cert.CRL
	installed map[cert.NodeID][32]byte // preshared keys of installed peers
	accepts   int
	deny      *Deny
	onAccept  func(*Session)
	closed    []error
	messages  []Message
	resets    []cert.NodeID
	offline   bool
	heard     time.Time // when data were received, for answers to pings
}

func (n *node) setHeard(t time.Time) {
	n.mu.Lock()
	n.heard = t
	n.mu.Unlock()
}

// stop closes all nodes, then the relay.
func (w *network) stop() {
	for _, n := range w.wire.nodes {
		n.Close()
	}
	close(w.wire.quit)
	w.wire.wg.Wait()
}

var nextIP struct {
	sync.Mutex
	n byte
}

func (w *network) node(name string) *node {
	w.t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now()
	return w.nodeWith(key, w.sign(w.ca, key, name, cert.NewSerial(), now.Add(-time.Hour), now.Add(24*time.Hour)))
}

// pair returns two nodes, the one with the lower NodeID first.
func (w *network) pair() (lo, hi *node) {
	lo, hi = w.node("a"), w.node("b")
	if hi.id.Less(lo.id) {
		lo, hi = hi, lo
	}
	return lo, hi
}

func (w *network) sign(ca *cert.CA, key *ecdsa.PrivateKey, name string, serial *big.Int, from, to time.Time) []byte {
	w.t.Helper()
	nextIP.Lock()
	nextIP.n++
	ip := nextIP.n
	nextIP.Unlock()
	der, err := ca.SignNode(&key.PublicKey, cert.Attributes{
		Name: name, FQDN: name + ".weft.internal", User: "alice",
		IPv4: netip.AddrFrom4([4]byte{100, 64, 0, ip}),
		IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 15: ip}),
	}, serial, from, to)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

func (w *network) nodeWith(key *ecdsa.PrivateKey, der []byte) *node {
	w.t.Helper()
	parsed, err := cert.ParseNode(w.id, der)
	if err != nil {
		w.t.Fatal(err)
	}
	wg, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{
		wg: wg,
		id: parsed.ID, key: key, serial: parsed.Serial,
		identity:  tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed.Leaf},
		installed: map[cert.NodeID][32]byte{},
		hello:     Hello{Boot: uint64(len(w.wire.nodes) + 1), Key: [32]byte(wg.PublicKey().Bytes())},
	}
	n.start(w)
	return n
}

// start makes a fresh Switch, as a restart of the daemon does.
func (n *node) start(w *network) {
	n.Switch = New(Config{
		Network: w.id,
		ID:      n.id,
		Identity: func() *tls.Certificate {
			n.mu.Lock()
			defer n.mu.Unlock()
			c := n.identity
			return &c
		},
		Verify: func(der []byte) (*cert.Node, error) {
			n.mu.Lock()
			crl := n.crl
			n.mu.Unlock()
			return w.roots.VerifyNode(der, time.Now(), crl)
		},
		Hello: func() Hello {
			n.mu.Lock()
			defer n.mu.Unlock()
			h := n.hello
			if n.crl != nil {
				h.CRL = n.crl.Number
			}
			return h
		},
		PairKey: n.pairKey,
		CRL: func() (uint64, []byte) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.crl == nil {
				return 0, nil
			}
			return n.crl.Number, n.crl.Raw
		},
		OnCRL: func(der []byte) {
			crl, err := w.roots.VerifyCRL(der)
			if err != nil {
				w.t.Errorf("OnCRL: %v", err)
				return
			}
			n.mu.Lock()
			n.crl = crl
			n.mu.Unlock()
			n.Recheck()
		},
		Send: func(to cert.NodeID, frame []byte) error { return w.wire.send(n.id, to, frame) },
		LastReceived: func(cert.NodeID) time.Time {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.heard
		},
		Accept: func(s *Session) *Deny {
			n.mu.Lock()
			deny, hook := n.deny, n.onAccept
			n.accepts++
			if deny == nil {
				n.installed[s.Peer.ID] = s.PSK
			}
			n.mu.Unlock()
			if hook != nil {
				hook(s)
			}
			return deny
		},
		Closed: func(s *Session, err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.closed = append(n.closed, err)
		},
		Message: func(s *Session, m Message) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.messages = append(n.messages, m)
		},
		OnReset: func(from cert.NodeID) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.resets = append(n.resets, from)
		},
	})
	w.wire.attach(n)
}

// pairKey does what a WireGuard device does, without key derivation.
func (n *node) pairKey(own, peer [32]byte) (key [32]byte, err error) {
	if own != [32]byte(n.wg.PublicKey().Bytes()) {
		return key, errors.New("another key by now")
	}
	pub, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return key, err
	}
	shared, err := n.wg.ECDH(pub)
	if err != nil {
		return key, err
	}
	return [32]byte(shared), nil
}

// direct connects nodes without queues, latency or goroutines.
func direct(nodes ...*node) (bytes map[cert.NodeID]int) {
	byID := map[cert.NodeID]*node{}
	bytes = map[cert.NodeID]int{}
	var mu sync.Mutex
	for _, n := range nodes {
		byID[n.id] = n
		n.Switch.cfg.Send = func(to cert.NodeID, f []byte) error {
			mu.Lock()
			bytes[n.id] += len(f)
			mu.Unlock()
			byID[to].Deliver(n.id, f)
			return nil
		}
	}
	return bytes
}

// install does what the owner does in established.
func (n *node) install(s *Session) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.installed[s.Peer.ID] = s.PSK
}

func (n *node) get(f func() int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return f()
}

func (n *node) psk(peer *node) [32]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.installed[peer.id]
}

func (n *node) ends() []error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.closed)
}

// table returns the number of sessions and of half-open ones.
func (n *node) table() (sessions, halfOpen int) {
	n.Switch.mu.Lock()
	defer n.Switch.mu.Unlock()
	return n.sessions, n.Switch.halfOpen
}

// hop is one delivery of a frame.
type hop struct {
	from, to cert.NodeID
	frame    []byte
	after    time.Duration // added to the latency
}

type lane struct {
	from, to cert.NodeID
	after    time.Duration
}

// wire is the relay: FIFO per pair of nodes, with latency, and a tamper
// function that turns one frame into any number of deliveries.
type wire struct {
	t       testing.TB
	latency time.Duration

	mu     sync.Mutex
	nodes  map[cert.NodeID]*node
	pipes  map[lane]chan hop
	tamper func(hop) []hop
	log    []hop
	bytes  map[cert.NodeID]int
	quit   chan struct{}
	wg     sync.WaitGroup
}

func newWire(t testing.TB) *wire {
	return &wire{t: t, nodes: map[cert.NodeID]*node{}, pipes: map[lane]chan hop{},
		bytes: map[cert.NodeID]int{}, quit: make(chan struct{})}
}

func (w *wire) attach(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[n.id] = n
}

func (w *wire) setTamper(f func(hop) []hop) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tamper = f
}

func (w *wire) send(from, to cert.NodeID, frame []byte) error {
	if len(frame) > MaxFrame {
		w.t.Errorf("frame of %d bytes", len(frame))
	}
	h := hop{from: from, to: to, frame: slices.Clone(frame)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes[from] += len(frame)
	w.log = append(w.log, h)
	hops := []hop{h}
	if w.tamper != nil {
		hops = w.tamper(h)
	}
	for _, h := range hops {
		w.putLocked(h)
	}
	return nil
}

// put injects a frame.
func (w *wire) put(h hop) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.putLocked(h)
}

func (w *wire) putLocked(h hop) {
	key := lane{h.from, h.to, h.after} // delayed frames do not delay the rest
	pipe := w.pipes[key]
	if pipe == nil {
		pipe = make(chan hop, 4096)
		w.pipes[key] = pipe
		w.wg.Go(func() { w.carry(pipe) })
	}
	h.after += w.latency
	due := time.Now().Add(h.after)
	h.after = time.Duration(due.UnixNano())
	select {
	case pipe <- h:
	default:
		panic(fmt.Sprintf("pipe %v full", key))
	}
}

func (w *wire) carry(pipe chan hop) {
	for {
		select {
		case h := <-pipe:
			if d := time.Until(time.Unix(0, int64(h.after))); d > 0 {
				select {
				case <-time.After(d):
				case <-w.quit:
					return
				}
			}
			w.mu.Lock()
			n := w.nodes[h.to]
			w.mu.Unlock()
			if n == nil || n.get(func() int { return btoi(n.offline) }) == 1 {
				continue
			}
			n.Deliver(h.from, h.frame)
			clear(h.frame) // the buffer is reused
		case <-w.quit:
			return
		}
	}
}

func (w *wire) frames() []hop {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.log)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// kindOf reads a frame's kind.
func kindOf(b []byte) kind { return kind(b[12]) }
