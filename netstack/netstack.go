// Package netstack is a whole TCP/IP network in user space: gVisor's stack
// behind wireguard-go's tun.Device. A program that uses it needs no root, no
// kernel interface and no route.
//
// A Net has two sides. Below, it is a tun.Device: wireguard-go reads the packets that
// this node sends, and writes the packets that it received and decrypted. Above, it is
// a network for the program: DialContext, ListenTCP, ListenUDP and Ping, and an Inbound
// policy that forwards peers' connections to programs on this machine's loopback.
//
// # Packets
//
// Outgoing TCP uses large IP packets with up to Config.MaxSegment bytes of payload, far
// above the MTU, each with complete checksums. A WireGuard message can carry them
// whole, and one pass through the stack, the cipher and a relay then costs the same for
// 60 KB as for 1.2 KB. A path that needs packets of MTU size has to split them; to a
// kernel they would be GSO segments of the negotiated MSS. IP fragments UDP at the MTU.
// Incoming packets may have any size; consecutive small TCP segments of one batch are
// merged before they enter the stack. Checksums of incoming packets are not verified:
// WireGuard has authenticated them.
//
// Packets waiting for Read sit in a bounded queue that is fair between flows,
// so that one bulk transfer does not delay another connection's packets.
//
// # Memory
//
// With less than 1 GB of memory the buffers of all TCP connections share one bound:
// each connection starts with small buffers, grows them while the bound allows, and is
// slow when it does not. The number of connections that are closed but still send is
// always bounded.
//
// # Errors
//
// Connections fail with the errors that the operating system would give,
// reachable by errors.Is: syscall.ECONNREFUSED for an RST or a port
// unreachable, syscall.EHOSTUNREACH and ENETUNREACH for an ICMP unreachable,
// syscall.EACCES for an ICMP "administratively prohibited", ECONNRESET, EPIPE,
// ETIMEDOUT, os.ErrDeadlineExceeded for a deadline, net.ErrClosed after Close.
// An ICMP error fails a pending dial at once.
//
// # Goroutines
//
// New starts gVisor's TCP workers, one per processor; they sleep while there is nothing
// to do. There is no periodic work. Each forwarded TCP connection has two goroutines,
// each forwarded UDP flow one. Close ends them all and waits for them.
package netstack

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"weft/overlay/limited"
)

const (
	// DefaultMTU is the inner MTU when Config.MTU is zero: what WireGuard leaves of
	// 1,500 bytes. It decides how UDP is fragmented and which MSS is announced.
	// Outgoing TCP packets are as long as the path allows (SetLimit); on a path with a
	// smaller MTU the peer shortens its packets in the same way.
	DefaultMTU = 1420

	// DefaultMaxSegment is the TCP payload of the largest packet when
	// Config.MaxSegment is zero, in bytes. With all headers and WireGuard's
	// padding it stays below 64 KB, the size of wireguard-go's buffers and of
	// gVisor's largest pooled chunk.
	DefaultMaxSegment = 60 << 10

	// batchSize is the largest number of packets that one Read returns. It is small
	// because wireguard-go keeps a buffer of 64 KB for each; with packets of 60 KB a
	// larger batch would gain nothing.
	batchSize = 8

	// TCP's window and buffers. Buffers are limits, not allocations: an idle connection
	// holds none. They start small; gVisor tunes them up to the maximum as the path's
	// bandwidth and delay require.
	tcpReceiveBuffer    = 512 << 10
	tcpReceiveBufferMax = 8 << 20
	tcpSendBuffer       = 256 << 10
	tcpSendBufferMax    = 6 << 20

	// tcpTimeWait is how long a closed connection's port pair is kept. The
	// usual 60 s would hold megabytes for a busy web server on a small
	// device; timestamps (PAWS) guard the reuse of a pair.
	tcpTimeWait = 5 * time.Second

	nicID tcpip.NICID = 1
)

// Config configures New. The zero value is usable.
type Config struct {
	// MTU of the inner network in bytes, 1280 to 65535; 0 means DefaultMTU.
	MTU int

	// MaxSegment is the largest TCP payload put into one packet, in bytes,
	// at most DefaultMaxSegment; 0 means DefaultMaxSegment. A value at or
	// below the MTU turns segmentation offload off.
	MaxSegment int

	// MaxInbound bounds the TCP connections and, separately, the UDP flows
	// forwarded for peers at the same time; one peer gets two thirds.
	// 0 means DefaultMaxInbound, or a third of it with less than 1 GB of memory.
	MaxInbound int

	// Memory is how many bytes of memory the process may use; 0 means limited.Memory().
	// With less than 1 GB, a quarter of it bounds the buffers of all TCP connections
	// together. A negative value means no bound.
	Memory int64

	// Log receives what the owner of the machine should know. nil discards.
	Log *slog.Logger

	// Health receives the problems of the network, each under a stable code:
	// "connections" when some were refused, "memory" when connections are slow or were
	// refused for lack of memory. An empty message ends a problem. Health must not
	// block. May be nil.
	Health func(code, message string)
}

// Net is the user-space network. Its methods may be called from any goroutine.
type Net struct {
	// Constant after New.
	mtu        int
	maxSegment int
	maxInbound int
	log        *slog.Logger
	health     func(code, message string) // may be nil
	stack      *stack.Stack
	link       *link
	events     chan tun.Event
	ctx        context.Context // canceled by Close; parent of dials for peers
	cancel     context.CancelFunc

	addrs   atomic.Pointer[addrs]
	inbound atomic.Pointer[Inbound]

	memory   *memory // constant; nil: no bound
	orphans  orphans
	refusals limited.Alarm // connections refused by a bound
	tcpIn    inboundTCP
	udpIn    inboundUDP

	dialled dialledUDP

	// mu guards the following.
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup // forwarders; Add only under mu while !closed

	closeDone chan struct{} // closed at the end of the first Close
}

// addrs is an immutable snapshot of the node's addresses; a zero Addr is none.
type addrs struct{ v4, v6 netip.Addr }

func (a *addrs) has(ip netip.Addr) bool { return ip.IsValid() && (ip == a.v4 || ip == a.v6) }

var _ tun.Device = (*Net)(nil)

// New makes a network without addresses: until SetAddrs nothing can be dialled and
// incoming packets are dropped. The caller must Close it.
func New(cfg Config) (*Net, error) {
	n := &Net{
		mtu:        cfg.MTU,
		maxSegment: cfg.MaxSegment,
		maxInbound: cfg.MaxInbound,
		log:        cfg.Log,
		health:     cfg.Health,
		events:     make(chan tun.Event, 1),
		closeDone:  make(chan struct{}),
		dialled:    dialledUDP{by: make(map[strayKey]*dialled)},
	}
	if n.mtu == 0 {
		n.mtu = DefaultMTU
	}
	if n.mtu < header.IPv6MinimumMTU || n.mtu > 65535 {
		return nil, fmt.Errorf("netstack: MTU %d is not in 1280..65535", n.mtu)
	}
	if n.maxSegment == 0 {
		n.maxSegment = DefaultMaxSegment
	}
	if n.maxSegment < 0 || n.maxSegment > DefaultMaxSegment {
		return nil, fmt.Errorf("netstack: MaxSegment %d is not in 0..%d", n.maxSegment, DefaultMaxSegment)
	}
	if n.maxInbound < 0 {
		return nil, fmt.Errorf("netstack: MaxInbound %d is negative", n.maxInbound)
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.addrs.Store(&addrs{})
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.link = newLink(n.mtu, n.maxSegment)
	pings := &n.link.icmp.pings
	pings.Context, pings.Send = n.ctx, n.sendPacket
	pings.Own = func() (v4, v6 netip.Addr) { a := n.addrs.Load(); return a.v4, a.v6 }
	machine := cfg.Memory
	if machine == 0 {
		machine = limited.Memory()
	}
	switch {
	case n.maxInbound > 0:
	case limited.Short(machine):
		n.maxInbound = shortMaxInbound
	default:
		n.maxInbound = DefaultMaxInbound
	}
	n.link.tx.maxBytes = limited.ShareOf(machine, txBytes, 1./32)
	n.memory = newMemory(n, machine)
	n.orphans.max = max(n.memory.most(2*maxOrphans)/2, 1)

	// When FIPS mode is enforced SHA-1 panics, and gVisor's TCP workers check SYN cookies
	// with it, whenever an ACK for no connection arrives. It protects nothing: a cookie
	// that is guessed opens a connection for who could open one anyway. The workers inherit
	// the exemption; nothing of ours runs on them.
	fips140.WithoutEnforcement(func() {
		n.stack = stack.New(stack.Options{
			// The zero options switch off router solicitation, link-local addresses, DAD,
			// MLD and IGMP: a link with one node and no neighbours does not need them, and
			// they would send packets while idle.
			NetworkProtocols: []stack.NetworkProtocolFactory{
				ipv4.NewProtocolWithOptions(ipv4.Options{}),
				ipv6.NewProtocolWithOptions(ipv6.Options{}),
			},
			TransportProtocols: []stack.TransportProtocolFactory{
				tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
			},
			// Packets to our own addresses stay inside, and packets from outside
			// with one of our addresses as the source are dropped.
			HandleLocal: true,
		})
	})
	if err := n.configure(); err != nil {
		n.cancel()
		n.stack.Destroy()
		return nil, err
	}
	n.events <- tun.EventUp
	return n, nil
}

// configure sets the options of the stack, makes its one interface and routes
// everything to it.
func (n *Net) configure() error {
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpReceiveBuffer, Max: tcpReceiveBufferMax}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpSendBuffer, Max: tcpSendBufferMax}
	if n.memory != nil {
		// The sizes that a connection starts with. The maximum of the receive buffer
		// stays as it is, because it decides the window scale; the lower maximum of the
		// send buffer switches off gVisor's own tuning. Neither changes later: see
		// memory.
		receive.Default, send.Default, send.Max = leastReceive, leastSend, leastSend
	}
	sack := tcpip.TCPSACKEnabled(true)
	// RACK is off. Its tail loss probe fires after two round trips; gVisor's receiver
	// sends no DSACK, so the sender takes each unnecessary probe for a loss and cuts
	// the window. That happens all the time where a round trip is a few milliseconds
	// and the processors are busy: through the relay RACK costs a quarter more
	// processor time per byte and a sixth of the throughput. On a direct path without
	// loss it makes no difference; with 0.1 % loss and 100 ms, or with one packet in a
	// hundred reordered, it is up to twice as fast. gVisor has RACK for the whole stack
	// or not at all, and traffic starts on the relay.
	var recovery tcpip.TCPRecovery
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	timeWait := tcpip.TCPTimeWaitTimeoutOption(tcpTimeWait)
	for _, opt := range []tcpip.SettableTransportProtocolOption{&receive, &send, &sack, &recovery, &moderate, &timeWait} {
		if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return fmt.Errorf("netstack: set %T: %s", opt, err)
		}
	}
	if err := n.stack.CreateNIC(nicID, n.link); err != nil {
		return fmt.Errorf("netstack: create interface: %s", err)
	}
	n.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	n.initInboundTCP()
	n.initInboundUDP()
	return nil
}

// SetAddrs sets the node's addresses. It takes the full desired state and is cheap when
// nothing changed. A zero Addr means no address of that family. Connections over an
// address that goes away break.
func (n *Net) SetAddrs(v4, v6 netip.Addr) error {
	v4, v6 = v4.Unmap(), v6.WithZone("")
	if v4.IsValid() && !v4.Is4() {
		return fmt.Errorf("netstack: %s is not an IPv4 address", v4)
	}
	if v6.IsValid() && (!v6.Is6() || v6.Is4In6()) {
		return fmt.Errorf("netstack: %s is not an IPv6 address", v6)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return os.ErrClosed
	}
	old := n.addrs.Load()
	next := *old
	err := errors.Join(n.swapAddr(&next.v4, v4), n.swapAddr(&next.v6, v6))
	n.addrs.Store(&next)
	return err
}

// swapAddr replaces the assigned address *cur by want and updates *cur.
func (n *Net) swapAddr(cur *netip.Addr, want netip.Addr) error {
	if *cur == want {
		return nil
	}
	if want.IsValid() {
		addr := toAddress(want)
		pa := tcpip.ProtocolAddress{Protocol: protocolOf(want), AddressWithPrefix: addr.WithPrefix()}
		if err := n.stack.AddProtocolAddress(nicID, pa, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("netstack: add address %s: %s", want, err)
		}
	}
	old := *cur
	*cur = want
	if old.IsValid() {
		if err := n.stack.RemoveAddress(nicID, toAddress(old)); err != nil {
			return fmt.Errorf("netstack: remove address %s: %s", old, err)
		}
	}
	return nil
}

// start runs f in a goroutine that Close waits for. It reports false, and does
// not run f, once Close has begun.
func (n *Net) start(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Go(f)
	return true
}

// Close ends every connection, listener and forwarder of the network, fails a Read in
// progress with os.ErrClosed and closes the channel of Events. It returns when no
// goroutine of the network is left. Further calls wait for the first and return nil.
func (n *Net) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		<-n.closeDone
		return nil
	}
	n.closed = true
	n.mu.Unlock()

	n.cancel()
	n.link.close()
	n.closeInboundUDP()

	// The stack's Close aborts only the endpoints that exist at that moment, and a
	// forwarder may be adding one. So abort until all forwarders have ended.
	gone := make(chan struct{})
	go func() { n.wg.Wait(); close(gone) }()
	for wait := time.Millisecond; ; wait *= 2 {
		n.stack.Close()
		select {
		case <-gone:
		case <-time.After(wait):
			continue
		}
		break
	}
	n.stack.Destroy()
	close(n.events)
	close(n.closeDone)
	return nil
}

// SetRanges implements overlay.Net: there are no routes to set.
func (n *Net) SetRanges(v4, v6 netip.Prefix) error { return nil }

// Outlives implements overlay.Net: connections end with the program.
func (n *Net) Outlives() (epoch string, first, last uint16) { return "", 0, 0 }
