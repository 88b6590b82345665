package overlay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

// deviceNet is a Net made of a device.
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

// A Net can be made of a device that does not depend on this package.
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
