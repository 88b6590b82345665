package overlay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/api"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

type fakeRouter struct {
	Net
	v4, v6 netip.Prefix
	err    error
}

func (r *fakeRouter) SetRanges(v4, v6 netip.Prefix) error {
	if r.err == nil {
		r.v4, r.v6 = v4, v6
	}
	return r.err
}

// plainNet is a Net that has no routes, and connections that end with it.
type plainNet struct {
	PlainNet
	deeper
}

type deeper struct{ Net }

// deviceNet is a Net made of somebody's device.
type deviceNet struct {
	PlainNet
	WakeableDevice
	dialer
}

type dialer interface { // what there is no default for
	SetAddrs(v4, v6 netip.Addr) error
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	ListenTCP(addr netip.AddrPort) (net.Listener, error)
	ListenUDP(addr netip.AddrPort) (net.PacketConn, error)
	Ping(ctx context.Context, addr netip.Addr) (time.Duration, error)
}

// silentDevice is a device that reads nothing until it is closed.
type silentDevice struct {
	tun.Device
	closed chan struct{}
}

func (d silentDevice) BatchSize() int { return 1 }
func (d silentDevice) Close() error   { close(d.closed); return nil }
func (d silentDevice) Read([][]byte, []int, int) (int, error) {
	<-d.closed
	return 0, os.ErrClosed
}

// A device that knows nothing of this package makes a Net.
func TestNetOfDevice(t *testing.T) {
	var n Net = deviceNet{WakeableDevice: Wakeable(silentDevice{closed: make(chan struct{})})}
	n.SetLimit(func([]byte) int { return 1280 })
	if _, _, last := n.Outlives(); last != 0 {
		t.Error("its connections outlive the program")
	}
	go n.WakeRead()
	if k, err := n.Read([][]byte{make([]byte, 100)}, make([]int, 1), 0); k != 0 || err != nil {
		t.Errorf("woken: %d packets, %v", k, err)
	}
	n.Close()
	if _, err := n.Read([][]byte{make([]byte, 100)}, make([]int, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A range that cannot be routed is a warning, until the server sends another.
func TestSetRanges(t *testing.T) {
	r := &fakeRouter{}
	n := &Node{cfg: Config{Net: r}, log: slog.New(slog.DiscardHandler)}
	with := func(v4, v6 string) *network.Network {
		return &network.Network{Config: &api.Config{Self: api.Self{IPv4Prefix: v4, IPv6Prefix: v6}}}
	}
	n.setRanges(with("100.64.0.0/10", "fd00::/48"))
	if r.v4 != netip.MustParsePrefix("100.64.0.0/10") || r.v6 != netip.MustParsePrefix("fd00::/48") {
		t.Errorf("%v %v", r.v4, r.v6)
	}
	r.err = errors.New("no such range")
	n.setRanges(with("0.0.0.0/0", ""))
	if !n.health.Has(status.CodeRoutes) {
		t.Error("no warning")
	}
	r.err = nil
	n.setRanges(with("lots", ""))
	if n.health.Has(status.CodeRoutes) || r.v4.IsValid() || r.v6.IsValid() {
		t.Errorf("%v %v %v", n.health.List(), r.v4, r.v6)
	}
	n.cfg.Net = plainNet{}
	n.setRanges(with("100.64.0.0/10", "fd00::/48"))
}
