// Package tun is the kernel's side of the tunnel: an overlay.Net over a TUN
// interface, for machines on which every program is to reach the overlay, and
// whose services are to be reached on the overlay address.
//
//	tun.go         New, Net, its addresses, its end
//	read.go        packets from the kernel to WireGuard
//	write.go       packets from WireGuard to the kernel
//	segment.go     TCP packets: parse, sum, split; pure
//	ranges.go      which route may be set beside those that are there; pure
//	firewall.go    whether another program's firewall is in the way; pure
//	inbound.go     --inbound: ports that are closed, ports that lead elsewhere
//	refuse.go      answers to what is closed
//	socket.go      DialContext, ListenTCP, ListenUDP
//	ping.go        Ping
//	outlives.go    until when other programs' connections last
//	device_linux.go, link_linux.go, guard_linux.go, watch_linux.go  the interface itself
//
// # Packets
//
// Not wireguard-go's tun package, though with the same offloads: that one cuts
// every large TCP packet of the kernel into packets of MTU size. Here a packet
// stays whole, up to MaxPacket bytes with complete checksums, as package
// netstack sends it: through a relay that moved 1.6 times as much, for two thirds
// of the processor time. Where a way cannot carry it, SetLimit has it cut while
// it is read. Inwards,
// consecutive segments of a TCP flow are handed to the kernel in one writev
// without being copied together, their checksum marked as known: WireGuard has
// authenticated them. Nothing polls; while nothing is sent nothing runs.
//
// A packet that leaves with a source other than the interface's addresses is
// dropped and counted (Stats).
//
// # Addresses and routes
//
// The interface has the node's addresses as /32 and /128, and one route for
// each of the network's ranges, of protocol 119 and with a metric that lets any
// other route for the same range win. What others have routed is theirs: where
// a route of another interface covers the range none is set, and a narrower one
// keeps its part; Config.Warn says so. DialContext binds to the interface, so
// weft itself goes through the tunnel even then. When somebody sets the
// interface down and up again, or flushes it, addresses and routes come back
// within about a second. All of it stays while the node is down: what programs
// send is refused then (package overlay), and does not go out in the clear by the
// default route. It goes with the interface, and that goes with
// the process, however it ends. A persistent interface (ip tuntap) with the
// alias "weft" is taken over, cleaned, and left behind clean.
//
// The kernel takes a packet for the overlay address from any interface: a
// neighbour on the LAN could send there past tunnel and filter. An nftables
// table of our own, set by the nft program, drops what does not come from the
// interface or from this machine; without nft Config.Warn says so. A firewall that
// is reloaded by flushing everything takes the table along, until the next start
// or change of address. Sockets of this package are bound to the interface in any
// case.
//
// # Inbound
//
// What the filter (overlay/internal/dataplane) lets in, the kernel delivers: to services on the
// overlay address or on any address. A service that listens on loopback only is
// not reached unless Inbound.Maps names it.
package tun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/status"
)

const (
	// DefaultMTU is the interface's when Config.MTU is zero. Ways that carry
	// less are the business of package dataplane.
	DefaultMTU = 1420

	// MaxPacket is the longest packet in bytes that Read returns and that the
	// kernel is asked to make. A WireGuard message carries it with all headers.
	MaxPacket = 60 << 10

	// batchSize is how many packets Read and Write take at once: one packet
	// of MaxPacket cut to the MTU.
	batchSize = 64

	// Alias marks an interface as weft's.
	Alias = "weft"
)

// Config configures New.
type Config struct {
	// Name of the interface, at most 15 bytes.
	Name string

	// MTU in bytes, 1280 to 65535; 0 means DefaultMTU.
	MTU int

	// Inbound says what peers reach; the zero value is everything that the
	// kernel delivers.
	Inbound Inbound

	// Guard are further addresses of this machine that are for itself and for
	// what comes from the interface only, as the overlay addresses are.
	Guard []netip.Addr

	// Warn and Clear say what needs the owner's attention, and when it has
	// passed. They are called from SetAddrs, SetRanges and a goroutine of the
	// Net. Either may be nil.
	Warn  func(code status.Code, message string)
	Clear func(code status.Code)

	// Gone is called once if somebody else removes the interface. The Net is
	// of no use then. May be nil.
	Gone func(error)

	// Log gets what happens; nil discards.
	Log *slog.Logger
}

// ErrName is returned by New for a name that no interface can have.
var ErrName = errors.New("want 1 to 15 letters, digits, dots, dashes")

// ErrUnsupported is returned by New on systems where it is not built yet.
var ErrUnsupported = errors.New("kernel interfaces are not built for this system yet")

// PermissionError is returned by New when the process may not make interfaces.
type PermissionError struct{ Err error }

func (e *PermissionError) Error() string {
	return fmt.Sprintf("making a network interface is not permitted (%v)", e.Err)
}

func (e *PermissionError) Unwrap() error { return e.Err }

// device is one end of a kernel interface.
type device interface {
	// read puts one packet into buf and, what does not fit there, rest, and
	// returns the length of all of it. Unless wait is set it returns errNothing
	// when none is there. After wake, or the next time, it returns errWoken.
	// One goroutine reads.
	read(h *offload, buf, rest []byte, wait bool) (int, error)
	wake()
	// write hands one packet to the kernel, in parts.
	write(w *vector) error
	close() error
}

var (
	errNothing = errors.New("no packet")
	errWoken   = errors.New("woken")
	errGone    = errors.New("the interface was removed")
)

// link is the interface as the kernel's configuration sees it.
type link interface {
	// apply makes want so, as far as nothing of anybody else's is touched,
	// and says what could not be.
	apply(want hostState) (report, error)
	// watch calls changed when something about links, addresses or routes has,
	// until ctx ends.
	watch(ctx context.Context, changed func())
	// bind makes a socket use the interface only.
	bind(fd uintptr) error
	// clean removes what apply has set from an interface that outlives us.
	clean()
}

// hostState is what the interface is to have. Zero means none.
type hostState struct {
	v4, v6     netip.Addr
	net4, net6 netip.Prefix
}

// Net is a kernel interface. Its methods may be called from any goroutine, but
// Read from one.
type Net struct {
	// Constant after New.
	cfg    Config
	log    *slog.Logger
	dev    device
	link   link
	events chan tun.Event
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	addrs   atomic.Pointer[addrs]
	limit   atomic.Pointer[func(pkt []byte) int]
	reader  reader
	writers sync.Pool // *writer
	pings   pings
	inject  injected
	gate    *gate // nil: all ports are open
	stats   counters
	gone    sync.Once

	// mu guards the following.
	mu      sync.Mutex
	want    hostState
	set     bool                   // SetAddrs was called
	warned  map[status.Code]string // what Config.Warn was told last
	maps    listeners
	closed  bool
	wg      sync.WaitGroup
	closing sync.Once
}

// addrs is an immutable snapshot of the node's addresses, for the packet path.
type addrs struct {
	v4       [4]byte
	v6       [16]byte
	has4     bool
	has6     bool
	ip4, ip6 netip.Addr
}

func addrsOf(v4, v6 netip.Addr) *addrs {
	a := &addrs{ip4: v4, ip6: v6}
	if v4.IsValid() {
		a.v4, a.has4 = v4.As4(), true
	}
	if v6.IsValid() {
		a.v6, a.has6 = v6.As16(), true
	}
	return a
}

func (a *addrs) has(ip netip.Addr) bool { return ip.IsValid() && (ip == a.ip4 || ip == a.ip6) }

// Stats counts what the Net has refused since New.
type Stats struct {
	ForeignSource uint64 // left with a source that is not ours
	Closed        uint64 // came for a port that Inbound closes
	NotTaken      uint64 // the kernel would not have it: interface down, or no packet
}

type counters struct{ foreign, closed, notTaken atomic.Uint64 }

// Stats returns the counters.
func (n *Net) Stats() Stats {
	return Stats{n.stats.foreign.Load(), n.stats.closed.Load(), n.stats.notTaken.Load()}
}

var _ tun.Device = (*Net)(nil)

// New makes the interface, without addresses, and starts to watch it. The
// caller must Close it. A *PermissionError says that the process may not.
func New(cfg Config) (*Net, error) {
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	if cfg.MTU < 1280 || cfg.MTU > 65535 {
		return nil, fmt.Errorf("MTU %d is not in 1280..65535", cfg.MTU)
	}
	dev, l, err := open(cfg)
	if err != nil {
		return nil, err
	}
	return newNet(cfg, dev, l), nil
}

func newNet(cfg Config, dev device, l link) *Net {
	n := &Net{cfg: cfg, log: cfg.Log, dev: dev, link: l, events: make(chan tun.Event, 1), warned: map[status.Code]string{}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.addrs.Store(addrsOf(netip.Addr{}, netip.Addr{}))
	n.pings.init()
	n.gate = newGate(cfg.Inbound)
	n.writers.New = func() any { return newWriter(n) }
	n.wg.Go(func() { n.link.watch(n.ctx, n.look) })
	n.events <- tun.EventUp
	return n
}

// SetRanges names the network's whole address ranges, which are routed to the
// interface: the full desired state, repeatably. A range that no overlay may
// have, such as one of public addresses, is refused with an error; the zero
// Prefix is none. It implements overlay.Net.
func (n *Net) SetRanges(v4, v6 netip.Prefix) error {
	v4, v6 = v4.Masked(), v6.Masked()
	if err := errors.Join(checkRange(v4, true), checkRange(v6, false)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return os.ErrClosed
	}
	n.want.net4, n.want.net6 = v4, v6
	if !n.set {
		return nil // SetAddrs comes
	}
	return n.applyLocked()
}

// SetAddrs gives the interface its addresses and sets it up: the full desired
// state, repeatably. A zero Addr means none of that family.
func (n *Net) SetAddrs(v4, v6 netip.Addr) error {
	v4, v6 = v4.Unmap(), v6.WithZone("")
	if v4.IsValid() && !v4.Is4() {
		return fmt.Errorf("%s is not an IPv4 address", v4)
	}
	if v6.IsValid() && (!v6.Is6() || v6.Is4In6()) {
		return fmt.Errorf("%s is not an IPv6 address", v6)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return os.ErrClosed
	}
	n.want.v4, n.want.v6, n.set = v4, v6, true
	n.addrs.Store(addrsOf(v4, v6))
	if err := n.applyLocked(); err != nil {
		return fmt.Errorf("configure %s: %w", n.cfg.Name, err)
	}
	n.mapLocked()
	return nil
}

// look makes the interface as it was set, after something has changed.
func (n *Net) look() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || !n.set {
		return
	}
	if err := n.applyLocked(); errors.Is(err, errGone) {
		n.lost(err)
	} else if err != nil {
		n.warnLocked(map[status.Code]string{status.CodeTun: fmt.Sprintf("%s cannot be configured: %v", n.cfg.Name, err)})
	}
}

func (n *Net) applyLocked() error {
	r, err := n.link.apply(n.want)
	if err == nil {
		n.warnLocked(r.warnings(n.cfg.Name, n.want))
	}
	return err
}

// warnLocked tells what has changed about the warnings.
func (n *Net) warnLocked(now map[status.Code]string) {
	for code := range n.warned {
		if _, still := now[code]; !still {
			delete(n.warned, code)
			if n.cfg.Clear != nil {
				n.cfg.Clear(code)
			}
		}
	}
	for code, msg := range now {
		if n.warned[code] == msg {
			continue
		}
		n.warned[code] = msg
		n.log.Warn(msg)
		if n.cfg.Warn != nil {
			n.cfg.Warn(code, msg)
		}
	}
}

// lost tells, once, that the interface is no more.
func (n *Net) lost(err error) {
	n.gone.Do(func() {
		if n.cfg.Gone != nil {
			n.cfg.Gone(fmt.Errorf("%s: %w", n.cfg.Name, err))
		}
	})
}

// Close removes the interface with its addresses and routes and ends what
// listens and reads on it. It returns when no goroutine is left.
func (n *Net) Close() error {
	n.closing.Do(func() {
		n.mu.Lock()
		n.closed = true
		n.maps.close()
		n.mu.Unlock()
		n.cancel()
		n.dev.close()
		n.link.clean() // after it: there is no moment without guard
		n.wg.Wait()
		n.maps.wait()
		close(n.events)
		if st := n.Stats(); st != (Stats{}) {
			n.log.Info("interface closed", "name", n.cfg.Name, "foreign_source", st.ForeignSource, "closed_port", st.Closed, "not_taken", st.NotTaken)
		}
	})
	return nil
}

// File returns nil: reading and writing is this package's.
func (n *Net) File() *os.File { return nil }

// MTU returns the MTU that the interface was made with.
func (n *Net) MTU() (int, error) { return n.cfg.MTU, nil }

// Name returns the interface's name.
func (n *Net) Name() (string, error) { return n.cfg.Name, nil }

// Events returns a channel with one EventUp, closed by Close. An interface
// that is set down by somebody is a warning, not the end of all tunnels.
func (n *Net) Events() <-chan tun.Event { return n.events }

// BatchSize is the number of buffers that Read can fill, 64.
func (n *Net) BatchSize() int { return batchSize }
