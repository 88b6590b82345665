// Package tun is an overlay.Net over a kernel TUN interface, for machines on which
// every program reaches the overlay, and whose services are reached on the overlay
// address.
//
//	tun.go         New, Net, Close
//	apply.go       addresses and routes, and their warnings
//	read.go        packets from the kernel to WireGuard
//	write.go       packets from WireGuard to the kernel
//	segment.go     TCP packets: parse, sum, split; pure
//	ranges.go      which route may be set beside existing ones; pure
//	firewall.go    whether another program's firewall drops our packets; pure
//	inbound.go     --inbound: closed ports, forwarded ports
//	refuse.go      answers for closed ports
//	socket.go      DialContext, ListenTCP, ListenUDP
//	ping.go        Ping
//	outlives.go    how long other programs' connections last
//	device_linux.go, link_linux.go, guard_linux.go, watch_linux.go  the interface itself
//
// # Packets
//
// This package does not use wireguard-go's tun package, which has the same offloads but
// splits every large TCP packet of the kernel to MTU size. Here a packet stays whole,
// up to MaxPacket bytes with complete checksums, as in package netstack: through a
// relay that moved 1.6 times as much, for two thirds of the processor time. Where a
// path cannot carry such a packet, SetLimit splits it while it is read. Incoming
// consecutive segments of a TCP flow go to the kernel in one writev without being
// copied together, with their checksum marked as valid: WireGuard has authenticated
// them. Nothing polls, and nothing runs while nothing is sent.
//
// An outgoing packet whose source is not an address of the interface is dropped and
// counted (Stats).
//
// # Addresses and routes
//
// The interface has the node's addresses as /32 and /128, and one route for each of the
// network's ranges, of protocol 119 and with a metric that lets any other route for the
// same range win. Routes of other programs are left alone: if a route of another
// interface covers the range, none is set, and a narrower one keeps its part;
// Config.Warn reports it. DialContext binds to the interface, so weft itself uses the
// tunnel even then. If the interface is set down and up again, or flushed, addresses
// and routes come back within about a second. They stay while the node is down, so that
// packets of programs are refused (package overlay) and do not leave unencrypted
// through the default route. They go with the interface, and the interface goes with
// the process, however it ends. A persistent interface (ip tuntap) with the alias
// "weft" is taken over, cleaned, and left clean at the end.
//
// The kernel accepts packets for the overlay address from any interface, so a neighbour
// on the LAN could bypass tunnel and filter. An nftables table of our own, set by the
// nft program, drops packets that come neither from the interface nor from this
// machine; without nft, Config.Warn reports it. If another program flushes the table,
// it is set again. Sockets of this package are bound to the interface in any case.
//
// # Inbound
//
// The kernel delivers what the filter (overlay/internal/dataplane) admits to services
// that listen on the overlay address or on any address. A service that listens on
// loopback only is reached only if Inbound.Maps names it.
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

	"weft/netstack/icmp"
	"weft/overlay/status"
)

const (
	// DefaultMTU is the interface's MTU when Config.MTU is zero. Package dataplane
	// handles paths with a smaller one.
	DefaultMTU = 1420

	// MaxPacket is the length in bytes of the longest packet that Read returns and that
	// the kernel may make. A WireGuard message carries it with all headers.
	MaxPacket = 60 << 10

	// batchSize is the number of packets that Read and Write take at once: one packet
	// of MaxPacket, split to the MTU.
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

	// Inbound says what peers may reach; the zero value is everything that the kernel
	// delivers.
	Inbound Inbound

	// Guard are further addresses of this machine that only the interface and this
	// machine itself may reach, like the overlay addresses.
	Guard []netip.Addr

	// Warn sets a health warning and Clear removes it. They are called from SetAddrs,
	// SetRanges and a goroutine of the Net. Either may be nil.
	Warn  func(code status.Code, message string)
	Clear func(code status.Code)

	// Gone is called once if another program removes the interface. The Net is unusable
	// then. May be nil.
	Gone func(error)

	// Log gets events; nil discards them.
	Log *slog.Logger
}

// ErrName is New's error for an invalid interface name.
var ErrName = errors.New("want 1 to 15 letters, digits, dots, dashes")

// ErrUnsupported is New's error on systems without support for kernel interfaces.
var ErrUnsupported = errors.New("kernel interfaces are not supported on this system yet")

// PermissionError is New's error if the process may not make interfaces.
type PermissionError struct{ Err error }

func (e *PermissionError) Error() string {
	return fmt.Sprintf("no permission to create a network interface (%v)", e.Err)
}

func (e *PermissionError) Unwrap() error { return e.Err }

// device reads from and writes to a kernel interface.
type device interface {
	// read puts one packet into buf and, what does not fit, into rest, and returns its
	// whole length. If there is none it waits, or without wait returns errNothing.
	// After wake, this read or the next one returns errWoken. Only one goroutine may
	// read.
	read(h *offload, buf, rest []byte, wait bool) (int, error)
	wake()
	// write passes one packet to the kernel, in parts.
	write(w *vector) error
	close() error
}

var (
	errNothing = errors.New("no packet")
	errWoken   = errors.New("woken")
	errGone    = errors.New("the interface was removed")
)

// link configures the interface in the kernel.
type link interface {
	// apply sets want without touching settings of other programs, and reports what it
	// could not do.
	apply(want hostState) (report, error)
	// watch calls changed after changes of interfaces, addresses or routes, until ctx
	// ends.
	watch(ctx context.Context, changed func())
	// bind restricts a socket to the interface.
	bind(fd uintptr) error
	// clean removes our settings from an interface that outlives us.
	clean()
}

// hostState is the desired state of the interface. Zero means none.
type hostState struct {
	v4, v6     netip.Addr
	net4, net6 netip.Prefix
}

// Net is a kernel interface. Its methods may be called from any goroutine, except Read,
// which belongs to one.
type Net struct {
	// Constant after New.
	cfg    Config
	log    *slog.Logger
	dev    device
	link   link
	events chan tun.Event
	ctx    context.Context // canceled by Close
	cancel context.CancelFunc

	addrs   atomic.Pointer[addrs]
	limit   atomic.Pointer[func(pkt []byte) int]
	reader  reader
	writers sync.Pool // *writer
	pings   icmp.Pings
	inject  injected
	gate    *gate // nil: all ports are open
	stats   counters
	gone    sync.Once

	// mu guards the following.
	mu      sync.Mutex
	want    hostState
	set     bool                   // SetAddrs was called
	warned  map[status.Code]string // last warnings given to Config.Warn
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

// Stats counts dropped packets since New.
type Stats struct {
	ForeignSource uint64 // outgoing, with a source that is not ours
	Closed        uint64 // incoming, for a port that Inbound closes
	NotTaken      uint64 // not accepted by the kernel: interface down, or invalid packet
}

type counters struct{ foreign, closed, notTaken atomic.Uint64 }

// Stats returns the counters.
func (n *Net) Stats() Stats {
	return Stats{n.stats.foreign.Load(), n.stats.closed.Load(), n.stats.notTaken.Load()}
}

var _ tun.Device = (*Net)(nil)

// New makes the interface without addresses and starts to watch it. The caller must
// Close it. A *PermissionError means that the process lacks the permission.
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
	n.pings.Context, n.pings.Send = n.ctx, n.send
	n.pings.Own = func() (v4, v6 netip.Addr) { a := n.addrs.Load(); return a.ip4, a.ip6 }
	n.gate = newGate(cfg.Inbound)
	n.writers.New = func() any { return newWriter(n) }
	n.wg.Go(func() { n.link.watch(n.ctx, n.restore) })
	n.events <- tun.EventUp
	return n
}

// lost reports, once, that the interface was removed.
func (n *Net) lost(err error) {
	n.gone.Do(func() {
		if n.cfg.Gone != nil {
			n.cfg.Gone(fmt.Errorf("%s: %w", n.cfg.Name, err))
		}
	})
}

// Close removes the interface with its addresses and routes and ends all listeners and
// reads on it. It returns when no goroutine is left.
func (n *Net) Close() error {
	n.closing.Do(func() {
		n.mu.Lock()
		n.closed = true
		n.maps.close()
		n.mu.Unlock()
		n.cancel()
		n.dev.close()
		n.link.clean() // before the guard is removed, so that there is no moment without it
		n.wg.Wait()
		n.maps.wait()
		close(n.events)
		if st := n.Stats(); st != (Stats{}) {
			n.log.Info("interface closed", "name", n.cfg.Name, "foreign_source", st.ForeignSource, "closed_port", st.Closed, "not_taken", st.NotTaken)
		}
	})
	return nil
}

// File returns nil: only this package reads and writes.
func (n *Net) File() *os.File { return nil }

// MTU returns the MTU that the interface was made with.
func (n *Net) MTU() (int, error) { return n.cfg.MTU, nil }

// Name returns the interface's name.
func (n *Net) Name() (string, error) { return n.cfg.Name, nil }

// Events returns a channel with one EventUp, closed by Close. If the interface is set
// down, that is a warning and does not end the tunnels.
func (n *Net) Events() <-chan tun.Event { return n.events }

// BatchSize is the number of buffers that Read can fill, 64.
func (n *Net) BatchSize() int { return batchSize }
