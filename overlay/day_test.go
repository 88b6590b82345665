package overlay_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"weft/coord/ops"
	"weft/overlay"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/status"
	"weft/overlay/stun"
)

// dayNet is the host's side of a tunnel without a network stack, whose goroutines would
// not follow simulated time: the test makes and answers packets itself.
type dayNet struct {
	overlay.PlainNet
	out    chan []byte   // packets for Read
	in     chan uint32   // numbers of answers from Write
	wakes  chan struct{} // capacity 1
	events chan tun.Event
	done   chan struct{}
	close  sync.Once

	mu sync.Mutex
	v4 netip.Addr // mu guards it
}

func newDayNet() *dayNet {
	return &dayNet{
		out: make(chan []byte, 100), in: make(chan uint32, 100), wakes: make(chan struct{}, 1),
		events: make(chan tun.Event), done: make(chan struct{}),
	}
}

func (n *dayNet) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-n.out:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	case <-n.wakes:
		return 0, nil
	case <-n.done:
		return 0, os.ErrClosed
	}
}

// Write sends a question (to port 7) back and counts an answer.
func (n *dayNet) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		p := b[offset:]
		if len(p) != 32 || p[9] != 17 {
			continue
		}
		if binary.BigEndian.Uint16(p[22:]) != 7 {
			n.in <- binary.BigEndian.Uint32(p[28:])
			continue
		}
		n.out <- question(netip.AddrFrom4([4]byte(p[16:20])), netip.AddrFrom4([4]byte(p[12:16])), 7, 9, binary.BigEndian.Uint32(p[28:]))
	}
	return len(bufs), nil
}

// question makes a UDP packet that carries num.
func question(from, to netip.Addr, fromPort, toPort uint16, num uint32) []byte {
	b := make([]byte, 32)
	b[0], b[8], b[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(b[2:], 32)
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[20:], fromPort)
	binary.BigEndian.PutUint16(b[22:], toPort)
	binary.BigEndian.PutUint16(b[24:], 12)
	binary.BigEndian.PutUint32(b[28:], num)
	return b
}

func (n *dayNet) WakeRead() {
	select {
	case n.wakes <- struct{}{}:
	default:
	}
}

func (n *dayNet) Close() error {
	n.close.Do(func() { close(n.done); close(n.events) })
	return nil
}

func (n *dayNet) SetAddrs(v4, _ netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.v4 = v4
	return nil
}

func (n *dayNet) File() *os.File           { return nil }
func (n *dayNet) MTU() (int, error)        { return 1280, nil }
func (n *dayNet) Name() (string, error)    { return "day", nil }
func (n *dayNet) Events() <-chan tun.Event { return n.events }
func (n *dayNet) BatchSize() int           { return 1 }

func (n *dayNet) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
func (n *dayNet) ListenTCP(netip.AddrPort) (net.Listener, error)   { return nil, errors.ErrUnsupported }
func (n *dayNet) ListenUDP(netip.AddrPort) (net.PacketConn, error) { return nil, errors.ErrUnsupported }
func (n *dayNet) Ping(context.Context, netip.Addr) (time.Duration, error) {
	return 0, errors.ErrUnsupported
}

// dayWorld is a laptop and a device in simulated time, each behind a NAT, and a
// server with its relay.
type dayWorld struct {
	*world
	in         *overlaytest.Internet
	laptop, pi *dayNode
	num        uint32

	// What ask has measured since the last call of seen.
	worst      time.Duration // the longest until an answer
	oldest     time.Duration // age of keys
	introduced time.Duration // longest time between introductions
	handshakes int
	last       time.Time
}

type dayNode struct {
	*overlay.Node
	w    *dayWorld
	host *overlaytest.Host
	cfg  overlay.Config
	net  *dayNet
	wrap func(*dayNet) overlay.Net // around net; may be nil

	bytes atomic.Int64 // sent and received over TCP: with relay and server
}

// countedConn counts what goes over a connection.
type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// onDay runs f in simulated time, once the two nodes have a direct path.
func onDay(t *testing.T, life time.Duration, f func(*dayWorld)) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		in := overlaytest.New(1)
		t.Cleanup(in.Close)
		server := in.Host("server", "192.0.2.1")
		w := &dayWorld{in: in, world: newWorldOf(t, setup{host: server, life: life, stun: []string{"192.0.2.1:3478", "192.0.2.1:3479"}})}
		w.serveSTUN(server, ":3478")
		w.serveSTUN(server, ":3479")
		w.pi = w.day("pi", "198.51.100.1", "device")
		w.laptop = w.day("laptop", "203.0.113.1")
		w.direct()
		w.seen()
		f(w)
		t.Logf("%v simulated", time.Since(start))
	})
}

func (w *dayWorld) serveSTUN(h *overlaytest.Host, at string) {
	pc, err := h.ListenPacket("udp", at)
	if err != nil {
		w.t.Fatal(err)
	}
	c := pc.(*overlaytest.PacketConn)
	w.t.Cleanup(func() { c.Close() })
	go func() {
		answers := stun.NewServer(nil)
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if out := answers.Handle(b[:n], from, time.Now()); out != nil {
				c.WriteToUDPAddrPort(out, from)
			}
		}
	}()
}

// day starts a node behind a NAT of its own.
func (w *dayWorld) day(name, outside string, tags ...string) *dayNode {
	h := w.in.NAT(name+"-nat", overlaytest.PortRestricted, outside).Host(name, "192.168.1.2")
	h.Link.SetLatency(10 * time.Millisecond)
	n := w.nodeAt(h, tags...)
	n.start()
	return n
}

// nodeAt makes a node that has not started.
func (w *dayWorld) nodeAt(h *overlaytest.Host, tags ...string) *dayNode {
	name := h.Name()
	n := &dayNode{w: w, host: h}
	n.cfg = overlay.Config{
		StateDir: filepath.Join(w.t.TempDir(), name), Hostname: name, Token: w.token(ops.CreateKey{Tags: tags}),
		NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := h.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return countedConn{c, &n.bytes}, nil
		},
		Suite: os.Getenv("WEFT_TEST_SUITE"),
		UDP: overlay.UDP{NoPortMap: true, Listen: h.ListenPacket, Interfaces: func() ([]overlay.Interface, error) {
			return []overlay.Interface{{Name: "eth0", Net: netip.PrefixFrom(h.Addrs()[0], 24), MTU: 1500}}, nil
		}},
	}
	return n
}

func (n *dayNode) start() {
	t := n.w.t
	t.Helper()
	n.begin()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := n.Wait(ctx, ""); err != nil {
		t.Fatalf("%s: %v", n.cfg.Hostname, err)
	}
}

// begin starts the node without waiting.
func (n *dayNode) begin() {
	t := n.w.t
	t.Helper()
	n.net = newDayNet()
	n.cfg.Net = n.net
	if n.wrap != nil {
		n.cfg.Net = n.wrap(n.net)
	}
	var err error
	if n.Node, err = overlay.New(n.cfg); err != nil {
		t.Fatal(err)
	}
	n.IgnoreChanges()
	running := n.Node
	t.Cleanup(func() { running.Close() })
	if err := n.Start(t.Context()); err != nil {
		t.Fatalf("start %s: %v", n.cfg.Hostname, err)
	}
}

func (n *dayNode) peer(name string) status.PeerStatus {
	for _, p := range n.Status().Peers {
		if p.Name == name {
			return p
		}
	}
	return status.PeerStatus{}
}

// ask sends questions from the laptop to the device until it answers, and returns how
// long that took; ok is false if there is no answer within limit.
func (w *dayWorld) ask(limit time.Duration) (took time.Duration, ok bool) {
	w.t.Helper()
	begun := time.Now()
	from, to := w.laptop.Status().Self.IPv4, w.pi.Status().Self.IPv4
	first := w.num + 1
	for time.Since(begun) < limit {
		w.num++
		w.laptop.net.out <- question(netip.MustParseAddr(from), netip.MustParseAddr(to), 9, 7, w.num)
		again := time.After(200 * time.Millisecond)
		for waiting := true; waiting; {
			select {
			case num := <-w.laptop.net.in:
				if num >= first {
					return time.Since(begun), true
				}
			case <-again:
				waiting = false
			}
		}
	}
	return time.Since(begun), false
}

// talk asks every 20 s for some time. Each time there must be an answer within
// 5 s, and keys that are not older than the data plane lets them be.
func (w *dayWorld) talk(d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Second) {
		took, ok := w.ask(5 * time.Second)
		if !ok {
			w.t.Fatalf("no answer in 5 s, %v before the end: laptop %+v, device %+v", time.Until(end), w.laptop.peer("pi"), w.pi.peer("laptop"))
		}
		w.worst = max(w.worst, took)
		p := w.laptop.peer("pi")
		at := p.LastHandshake
		if at == nil {
			w.t.Fatal("no handshake")
		}
		w.introduced = max(w.introduced, time.Since(*at))
		if p.KeysSince != nil {
			at = p.KeysSince
		}
		if !at.Equal(w.last) {
			w.last = *at
			w.handshakes++
		}
		w.oldest = max(w.oldest, time.Since(*at))
	}
}

// seen reports what talk has measured since its last call.
func (w *dayWorld) seen() {
	w.t.Logf("longest wait %v; %d changes of keys, the oldest in use %v old", w.worst, w.handshakes, w.oldest)
	if w.oldest > 3*time.Minute {
		w.t.Errorf("keys were used for %v", w.oldest)
	}
	w.worst, w.oldest, w.handshakes = 0, 0, 0
}

// direct calls talk until both ends have a direct path.
func (w *dayWorld) direct() {
	w.t.Helper()
	begun := time.Now()
	for w.laptop.peer("pi").Path != status.PathDirect || w.pi.peer("laptop").Path != status.PathDirect {
		if time.Since(begun) > 10*time.Minute {
			w.t.Fatalf("no direct path: %+v", w.laptop.peer("pi"))
		}
		if _, ok := w.ask(5 * time.Second); !ok {
			w.t.Fatal("no answer in 5 s")
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Logf("direct after %v", time.Since(begun))
}

func (w *dayWorld) path(want status.PathKind) {
	w.t.Helper()
	for _, p := range []status.PeerStatus{w.laptop.peer("pi"), w.pi.peer("laptop")} {
		if p.Path != want {
			w.t.Errorf("want path %s: %+v", want, p)
		}
	}
}

// dayChild is set in the processes that TestDay starts. WireGuard's finalizers use
// channels of the synctest bubble from outside, which crashes the process when the
// garbage collector runs.
const dayChild = "WEFT_TEST_DAY"

// TestDay: something is cut for a day, which has 2 hours unless WEFT_DAY is set.
func TestDay(t *testing.T) {
	t.Parallel()
	day := 2 * time.Hour
	if s := os.Getenv("WEFT_DAY"); s != "" {
		var err error
		if day, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		life time.Duration // of certificates, if not as usual
		f    func(*dayWorld, time.Duration)
	}{
		{"direct", 0, dayWithoutDirect},
		{"relay", 0, dayWithoutRelay},
		{"server", 0, dayWithoutServer},
		{"certificate due", day * 5 / 4, dayCertificateDue},
		{"certificate ends", day / 2, dayCertificateEnds},
		{"reports", 0, dayReporting},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Getenv(dayChild) != "" {
				onDay(t, c.life, func(w *dayWorld) { c.f(w, day) })
				return
			}
			cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
			cmd.Env = append(os.Environ(), dayChild+"=1", "GOGC=off", "GOMEMLIMIT=off")
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// No direct path: traffic moves to the relay within 5 s, and later back.
func dayWithoutDirect(w *dayWorld, day time.Duration) {
	w.in.Partition(w.laptop.host, w.pi.host)
	w.talk(day)
	w.path(status.PathRelay)
	w.seen()
	w.in.Heal(w.laptop.host, w.pi.host)
	w.direct()
	w.talk(time.Minute)
	w.seen()
}

// No server, no relay: direct paths keep working. When both are back and the direct path
// is cut at once, traffic moves to the relay.
func dayWithoutRelay(w *dayWorld, day time.Duration) {
	w.setup.host.Link.SetUp(false)
	w.talk(day)
	w.path(status.PathDirect)
	w.seen()
	w.setup.host.Link.SetUp(true)
	begun := time.Now()
	for _, n := range []*dayNode{w.laptop, w.pi} {
		ctx, cancel := context.WithTimeout(w.t.Context(), 35*time.Second)
		if err := n.Wait(ctx, ""); err != nil {
			w.t.Errorf("%s: %v", n.cfg.Hostname, err)
		}
		cancel()
	}
	w.t.Logf("both at the relay again after %v", time.Since(begun))
	w.in.Partition(w.laptop.host, w.pi.host)
	w.talk(time.Minute)
	w.path(status.PathRelay)
	w.seen()
}

// No server, but the relay: nothing changes. Then both nodes restart with what they have
// on disk.
func dayWithoutServer(w *dayWorld, day time.Duration) {
	w.away.Store(true)
	w.talk(day)
	w.path(status.PathDirect)
	w.seen()
	for _, n := range []*dayNode{w.pi, w.laptop} {
		n.Close()
		n.start()
	}
	took, ok := w.ask(10 * time.Second)
	if !ok {
		w.t.Errorf("no tunnel after a restart without the server")
	}
	w.t.Logf("a tunnel %v after the restart", took)
	w.talk(time.Minute)
	w.seen()
	w.away.Store(false)
	w.online(2 * time.Minute)
}

// A certificate that becomes due for renewal meanwhile is renewed when the server is
// back, and no tunnel is affected.
func dayCertificateDue(w *dayWorld, day time.Duration) {
	w.away.Store(true)
	w.talk(day)
	w.away.Store(false)
	w.talk(day)
	w.seen()
}

// A certificate that expires meanwhile ends the tunnels, which come back by themselves.
func dayCertificateEnds(w *dayWorld, day time.Duration) {
	w.away.Store(true)
	w.talk(day/2 - 5*time.Minute)
	w.seen()
	w.warns("ends in")
	time.Sleep(10 * time.Minute)
	w.warns("ended")
	if _, ok := w.ask(time.Minute); ok {
		w.t.Error("a certificate that has ended is believed")
	}
	time.Sleep(day / 2)
	w.away.Store(false)
	w.online(2 * time.Minute)
	took, ok := w.ask(10 * time.Second)
	if !ok {
		w.t.Error("no tunnel with renewed certificates")
	}
	w.t.Logf("a tunnel %v after that", took)
	w.warns("")
}

// warns checks that both nodes have this warning about their certificates, none if "".
func (w *dayWorld) warns(want string) {
	w.t.Helper()
	for _, n := range []*dayNode{w.laptop, w.pi} {
		var got string
		for _, h := range n.Status().Health {
			if h.Code == "certificate" {
				got = h.Message
			}
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			w.t.Errorf("of the certificate: %q, want %q", got, want)
		}
	}
}

// online waits until both nodes see the server again.
func (w *dayWorld) online(limit time.Duration) {
	w.t.Helper()
	begun := time.Now()
	for !w.laptop.Status().Server.Online || !w.pi.Status().Server.Online {
		if time.Since(begun) > limit {
			w.t.Fatalf("the server is not seen within %v", limit)
		}
		time.Sleep(time.Second)
	}
	w.t.Logf("the server is seen again after %v", time.Since(begun))
}
