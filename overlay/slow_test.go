package overlay_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/status"
)

// A device behind an uplink that its own uploads keep full: its packets wait for up to
// three seconds or are lost. Time is simulated, so durations do not depend on the
// machine.

const (
	slowRate  = 256_000
	slowQueue = 3 * time.Second
	pageSize  = 20_000
	segment   = 1200
	segments  = (pageSize + segment - 1) / segment
	firstSegs = 10 // RFC 6928
)

// The messages of pageNets, over UDP from or to port 80: kind, number of the connection,
// then the first segment and the count, or a segment's number and bytes.
const (
	pageOpen = iota + 1
	pageOpened
	pageGet
	pageData
)

// pageNet is the host's side of a tunnel. It fetches and serves pages roughly as TCP
// does, in simulated time.
type pageNet struct {
	*dayNet

	mu sync.Mutex
	// mu guards the following.
	last  uint32
	conns map[uint32]*pageConn
}

type pageConn struct {
	net.Conn // nil: nobody uses it
	n        *pageNet
	id       uint32
	peer     netip.Addr
	trip     time.Duration

	in     chan []byte
	refuse chan struct{} // capacity 1
}

func (n *pageNet) send(to netip.Addr, from, port uint16, payload []byte) {
	n.dayNet.mu.Lock()
	self := n.v4
	n.dayNet.mu.Unlock()
	b := append(question(self, to, from, port, 0)[:28], payload...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
	select {
	case n.out <- b:
	default:
	}
}

func (n *pageNet) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		p := b[offset:]
		switch {
		case len(p) > 21 && p[9] == 1 && p[20] == 3: // unreachable
			n.mu.Lock()
			for _, c := range n.conns {
				select {
				case c.refuse <- struct{}{}:
				default:
				}
			}
			n.mu.Unlock()
		case len(p) >= 33 && p[9] == 17:
			n.take(netip.AddrFrom4([4]byte(p[12:16])), binary.BigEndian.Uint16(p[22:]), bytes.Clone(p[28:]))
		}
	}
	return len(bufs), nil
}

func (n *pageNet) take(from netip.Addr, port uint16, m []byte) {
	id := binary.BigEndian.Uint32(m[1:])
	switch {
	case port != 80:
		n.mu.Lock()
		c := n.conns[id]
		n.mu.Unlock()
		if c != nil {
			select {
			case c.in <- m:
			default:
			}
		}
	case m[0] == pageOpen:
		n.send(from, 80, 900, append([]byte{pageOpened}, m[1:5]...))
	case m[0] == pageGet:
		for i := m[5]; i < m[5]+m[6]; i++ {
			n.send(from, 80, 900, append(append([]byte{pageData}, m[1:5]...), append([]byte{i}, make([]byte, segment)...)...))
		}
	}
}

// DialContext repeats its request after 1, 3, 7 s and so on.
func (n *pageNet) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	c := &pageConn{n: n, peer: netip.MustParseAddrPort(address).Addr(), in: make(chan []byte, 100), refuse: make(chan struct{}, 1)}
	n.mu.Lock()
	n.last++
	c.id = n.last
	n.conns[c.id] = c
	n.mu.Unlock()
	for wait := time.Second; wait < time.Minute; wait *= 2 {
		sent := time.Now()
		n.send(c.peer, 900, 80, binary.BigEndian.AppendUint32([]byte{pageOpen}, c.id))
		again := time.NewTimer(wait)
		select {
		case <-c.in:
			again.Stop()
			c.trip = time.Since(sent)
			return c, nil
		case <-c.refuse:
			again.Stop()
			c.Close()
			return nil, syscall.EHOSTUNREACH
		case <-ctx.Done():
			again.Stop()
			c.Close()
			return nil, ctx.Err()
		case <-again.C:
		}
	}
	c.Close()
	return nil, syscall.ETIMEDOUT
}

func (c *pageConn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	delete(c.n.conns, c.id)
	return nil
}

// get fetches the page: a first flight, then the rest, and lost segments again.
func (c *pageConn) get(ctx context.Context) error {
	var have [segments]bool
	ask := func(first, count int) {
		c.n.send(c.peer, 900, 80, append(binary.BigEndian.AppendUint32([]byte{pageGet}, c.id), byte(first), byte(count)))
	}
	ask(0, firstSegs)
	asked, got := firstSegs, 0
	rto := min(max(time.Second, c.trip*3/2), 5*time.Second)
	for got < segments {
		again := time.NewTimer(rto)
		select {
		case m := <-c.in:
			if m[0] == pageData && !have[m[5]] {
				have[m[5]] = true
				got++
				if asked < segments {
					ask(asked, segments-asked)
					asked = segments
				}
			}
		case <-again.C:
			for i, ok := range have {
				if !ok && i < asked {
					ask(i, 1)
				}
			}
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("page: %w", context.Cause(ctx))
		}
		again.Stop()
	}
	return nil
}

// logCounts counts the log messages of nodes.
type logCounts struct {
	slog.Handler
	mu sync.Mutex
	// mu guards the following.
	counts map[string]int
	lines  []string
}

func (h *logCounts) Enabled(context.Context, slog.Level) bool { return true }
func (h *logCounts) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *logCounts) WithGroup(string) slog.Handler            { return h }
func (h *logCounts) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[r.Message]++
	h.lines = append(h.lines, time.Now().Format("15:04:05.000 ")+line)
	return nil
}

func (h *logCounts) count(what string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[what]
}

// slowWorld is a laptop and a device, whose uplink is slow.
type slowWorld struct {
	*dayWorld
	logs map[string]*logCounts
	sink *overlaytest.Host
}

func newSlowWorld(t *testing.T, direct bool) *slowWorld {
	in := overlaytest.New(1)
	t.Cleanup(in.Close)
	server := in.Host("server", "192.0.2.1")
	w := &slowWorld{
		dayWorld: &dayWorld{in: in, world: newWorldOf(t, setup{host: server, stun: []string{"192.0.2.1:3478", "192.0.2.1:3479"}})},
		logs:     map[string]*logCounts{}, sink: in.Host("sink", "192.0.2.9"),
	}
	t.Cleanup(in.Close) // before goroutines are counted
	w.serveSTUN(server, ":3478")
	w.serveSTUN(server, ":3479")
	l, err := w.sink.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	w.pi = w.slow("pi", "198.51.100.1", direct, "device")
	w.laptop = w.slow("laptop", "203.0.113.1", direct)
	return w
}

func (w *slowWorld) slow(name, addr string, direct bool, tags ...string) *dayNode {
	h := w.in.Host(name, addr)
	h.Link.SetLatency(10 * time.Millisecond)
	n := w.nodeAt(h, tags...)
	n.cfg.UDP.Off = !direct
	w.logs[name] = &logCounts{counts: map[string]int{}}
	n.cfg.Log = slog.New(w.logs[name])
	n.wrap = func(d *dayNet) overlay.Net { return &pageNet{dayNet: d, conns: map[uint32]*pageConn{}} }
	n.start()
	return n
}

// uploadOf keeps a node's uplink full, and waits until it is.
func (w *slowWorld) uploadOf(n *dayNode, streams int) (stop func()) {
	w.t.Helper()
	n.host.Link.SetUplink(slowRate, slowQueue)
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	for range streams {
		c, err := n.host.DialContext(ctx, "tcp", "sink:80")
		if err != nil {
			w.t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { c.Close() })
		wg.Go(func() {
			for b := make([]byte, 16<<10); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})
	}
	for n.host.Link.Queued() < slowQueue*9/10 {
		time.Sleep(100 * time.Millisecond)
	}
	return func() { cancel(); wg.Wait() }
}

// page fetches a page of the device's through the overlay.
func (w *slowWorld) page() (time.Duration, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	c, err := w.laptop.Dial(ctx, "tcp", "pi:80")
	if err != nil {
		return time.Since(begun), err
	}
	defer c.Close()
	err = c.(*pageConn).get(ctx)
	return time.Since(begun), err
}

// plain fetches as much over the same uplink with plain TCP.
func (w *slowWorld) plain(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	c, err := w.laptop.host.DialContext(ctx, "tcp", "pi:8080")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.Write([]byte("GET"))
	_, err = io.CopyN(io.Discard, c, pageSize)
	return time.Since(begun), err
}

func (w *slowWorld) servePlain() {
	l, err := w.pi.host.Listen("tcp", ":8080")
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := c.Read(make([]byte, 3)); err == nil {
					c.Write(make([]byte, pageSize))
				}
			}()
		}
	}()
}

// inSimulatedTime runs f in a process of its own; see dayChild.
func inSimulatedTime(t *testing.T, f func(t *testing.T)) {
	if os.Getenv(dayChild) != "" {
		synctest.Test(t, f)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	cmd.Env = append(os.Environ(), dayChild+"=1", "GOGC=off", "GOMEMLIMIT=off")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// Pages take as long as over any other connection through a full uplink, and the tunnel
// does not change.
func TestSlowUplink(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		direct  bool
		streams int
		before  bool // there was a tunnel before the uplink was full
	}{
		{"relay, first contact", false, 1, false},
		{"relay, tunnel from before", false, 1, true},
		{"relay, more uploads", false, 2, false},
		{"direct, tunnel from before", true, 1, true},
		{"direct, more uploads", true, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inSimulatedTime(t, func(t *testing.T) {
				w := newSlowWorld(t, c.direct)
				w.servePlain()
				want := status.PathRelay
				if c.before {
					if _, err := w.page(); err != nil {
						t.Fatal(err)
					}
				}
				if c.direct {
					want = status.PathDirect
					for w.laptop.peer("pi").Path != want {
						w.page()
					}
				}
				calls := w.logs["laptop"].count("introduce") + w.logs["pi"].count("introduce")
				defer w.uploadOf(w.pi, c.streams)()
				var plain, ours, worst time.Duration
				pages := 0
				begun := time.Now()
				for time.Since(begun) < 10*time.Minute {
					p, err := w.plain(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					o, err := w.page()
					if err != nil {
						t.Errorf("page %d after %v: %v", pages, o, err)
					}
					t.Logf("plain %v, ours %v", p, o)
					plain, ours, worst = plain+p, ours+o, max(worst, o)
					pages++
					// While the uplink fills up, traffic may use the relay for a moment.
					if got := w.laptop.peer("pi").Path; pages > 1 && got != want {
						t.Errorf("path %s", got)
					}
					time.Sleep(10 * time.Second)
				}
				calls = w.logs["laptop"].count("introduce") + w.logs["pi"].count("introduce") - calls
				t.Logf("%d pages: plain %v, ours %v (worst %v); %d introductions", pages, plain/time.Duration(pages), ours/time.Duration(pages), worst, calls)
				if ours > 2*plain {
					t.Errorf("pages take %v on average, by plain TCP %v", ours/time.Duration(pages), plain/time.Duration(pages))
				}
				if calls > 2 {
					t.Errorf("%d introductions", calls)
				}
				for name, l := range w.logs {
					if n := l.count("tunnel ended"); n > 0 {
						t.Errorf("%s: %d tunnels ended", name, n)
					}
				}
				if t.Failed() {
					for name, l := range w.logs {
						l.mu.Lock()
						t.Logf("%s:\n%s", name, strings.Join(l.lines, "\n"))
						l.mu.Unlock()
					}
				}
			})
		})
	}
}

// A device that starts while its uplink is full connects without a WebSocket; so does a
// laptop with such an uplink that starts, looks a name up and fetches a page.
func TestSlowUplinkStart(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"pi", "laptop"} {
		t.Run(who, func(t *testing.T) {
			inSimulatedTime(t, func(t *testing.T) {
				w := newSlowWorld(t, false)
				n := map[string]*dayNode{"pi": w.pi, "laptop": w.laptop}[who]
				defer w.uploadOf(n, 2)()
				for range 5 {
					if err := n.Node.Close(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
					begun := time.Now()
					n.begin()
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
					if err := n.Wait(ctx, ""); err != nil {
						t.Errorf("online: %v", err)
					}
					cancel()
					online := time.Since(begun)
					took, err := w.page()
					t.Logf("online after %v, a page after %v", online, took)
					if by := n.RelayTransport(); err != nil || online > time.Minute || by != "direct" {
						t.Errorf("online after %v by %s, then page: %v after %v", online, by, err, took)
					}
				}
				if l := w.logs[who].count("relay"); l > 0 {
					t.Errorf("%d attempts to connect to the relay failed", l)
				}
			})
		})
	}
}

// A device that was switched off is soon reported offline, whether there was a tunnel
// before or not.
func TestSlowUplinkOffline(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprint("tunnel before: ", before), func(t *testing.T) {
			inSimulatedTime(t, func(t *testing.T) {
				w := newSlowWorld(t, false)
				if before {
					if _, err := w.page(); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(30 * time.Second)
				w.pi.host.PowerOff()
				for range 3 {
					took, err := w.page()
					var e *status.Error
					if !errors.As(err, &e) || e.Kind != status.KindUnreachable || !strings.Contains(e.Message, "is offline") || took > 6*time.Second {
						t.Errorf("%v after %v", err, took)
					}
					t.Logf("%v after %v", err, took)
				}
			})
		})
	}
}
