package overlay

import (
	"context"
	"net"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/internal/dataplane"
)

// Net is the host's side of the tunnel. There are two: netstack.Net, a network
// in user space, and tun.Net, the kernel's. Another one embeds PlainNet for what it
// has no use for, and a device that cannot be woken by way of Wakeable. What wraps a
// Net embeds this interface.
type Net interface {
	// Read, Write and the rest are wireguard-go's. One goroutine reads. Writes
	// come from many. Close ends a Read.
	tun.Device
	// WakeRead makes a Read that is blocked, or else the next one, return 0
	// packets and no error at once.
	WakeRead()
	// SetLimit gives a function that says how long a TCP packet may be, in
	// bytes, that begins with the given IP header, or 0 for any length. Read
	// splits longer ones. limit may be called by any goroutine that reads; it
	// does not block and makes no garbage. A Net that splits no packets ignores
	// it: long ones go by the relay then, and their senders are told.
	SetLimit(limit func(pkt []byte) int)

	// SetRanges says which addresses belong to the network as a whole, for a
	// Net that has routes: the full desired state, repeatably. It comes before
	// SetAddrs and whenever the server changes it; the zero Prefix is none. A
	// range that is not to be routed here is an error, and changes nothing.
	SetRanges(v4, v6 netip.Prefix) error
	// SetAddrs gives the host its overlay addresses, repeatably.
	SetAddrs(v4, v6 netip.Addr) error
	// Outlives says of a Net whose connections go on when this program ends
	// which ports it gives to programs that ask for none: first to last. A last
	// of 0 says that they end with the program. epoch changes when no connection
	// of before is left; "" is an epoch of which nothing is known.
	Outlives() (epoch string, first, last uint16)

	// DialContext connects to an overlay "address:port".
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// ListenTCP and ListenUDP accept what peers send to this node.
	ListenTCP(addr netip.AddrPort) (net.Listener, error)
	ListenUDP(addr netip.AddrPort) (net.PacketConn, error)
	// Ping measures one ICMP echo.
	Ping(ctx context.Context, addr netip.Addr) (time.Duration, error)
}

// PlainNet is for embedding in a Net that splits no packets, has no routes, and
// whose connections end with the program.
type PlainNet struct{}

// SetLimit ignores the limit.
func (PlainNet) SetLimit(func(pkt []byte) int) {}

// SetRanges has nothing to do.
func (PlainNet) SetRanges(v4, v6 netip.Prefix) error { return nil }

// Outlives says that no connection does.
func (PlainNet) Outlives() (epoch string, first, last uint16) { return "", 0, 0 }

// WakeableDevice is the part of a Net that is a device.
type WakeableDevice interface {
	tun.Device
	WakeRead()
}

// Wakeable makes a device whose Read cannot be woken one that has WakeRead, for
// embedding in a Net. It costs a goroutine, a copy of each packet and a buffer of
// 64 KB for each of the device's batch. The device belongs to what it returns.
func Wakeable(dev tun.Device) WakeableDevice { return dataplane.NewPump(dev) }
