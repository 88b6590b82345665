package overlay

import (
	"context"
	"net"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/internal/dataplane"
)

// Net is the host's side of the tunnel. There are two: netstack.Net, a network in user
// space, and tun.Net, the kernel's. Another implementation may embed PlainNet for methods
// that it does not need, and Wakeable for a device without WakeRead. A wrapper of a Net
// should embed this interface.
type Net interface {
	// The methods of tun.Device, as wireguard-go defines them. One goroutine reads, many
	// write. Close ends a Read.
	tun.Device
	// WakeRead makes a Read that is blocked, or else the next one, return 0
	// packets and no error at once.
	WakeRead()
	// SetLimit sets a function that returns how long a TCP packet with this IP header may
	// be, in bytes, or 0 for any length. Read splits longer packets. limit may be called
	// by any goroutine that reads; it does not block or allocate. A Net that cannot split
	// packets ignores it: long ones then go through the relay, and their senders get
	// "packet too big".
	SetLimit(limit func(pkt []byte) int)

	// SetRanges sets the address ranges of the network, for a Net that has routes. It is
	// called before SetAddrs and whenever the server changes them, always with the full
	// desired state. The zero Prefix means none. A range that must not be routed here is
	// an error, and changes nothing.
	SetRanges(v4, v6 netip.Prefix) error
	// SetAddrs sets the host's overlay addresses. It may be called repeatedly.
	SetAddrs(v4, v6 netip.Addr) error
	// Outlives is for a Net whose connections outlive this program: first to last are the
	// ports that it gives to programs that ask for none. A last of 0 means that
	// connections end with the program. epoch changes when all earlier connections have
	// ended; "" means unknown.
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

// SetRanges does nothing.
func (PlainNet) SetRanges(v4, v6 netip.Prefix) error { return nil }

// Outlives says that connections end with the program.
func (PlainNet) Outlives() (epoch string, first, last uint16) { return "", 0, 0 }

// WakeableDevice is the part of a Net that is a device.
type WakeableDevice interface {
	tun.Device
	WakeRead()
}

// Wakeable adds WakeRead to a device, for embedding in a Net. It costs a goroutine, a
// copy of each packet and a buffer of 64 KB for each packet of the device's batch. The
// result owns the device.
func Wakeable(dev tun.Device) WakeableDevice { return dataplane.NewPump(dev) }
