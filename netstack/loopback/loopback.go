// Package loopback connects peers to programs of this machine that listen on localhost.
// Such programs often trust any client from 127.0.0.1 or ::1. So on Linux peers connect
// from addresses of their own in 127.64.0.0/10. There are no such addresses beside ::1,
// so ::1 is a target only if the configuration names [::1] explicitly.
package loopback

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"weft/overlay/limited"
)

// Peers holds the addresses of Source. weft's own listeners refuse clients from there.
var Peers = netip.MustParsePrefix("127.64.0.0/10")

// Source derives the source address of a peer's connections to this machine's loopback
// from the peer's overlay address. It is always the same for a peer, so that the logs
// of programs distinguish peers. It consists of the low 22 bits of the overlay IPv4
// address, which the overlay IPv6 address contains too; the server gives no two nodes
// of a network the same 22 bits.
func Source(peer netip.Addr) netip.Addr {
	b := peer.Unmap().AsSlice()
	if len(b) < 4 {
		return netip.Addr{}
	}
	b = b[len(b)-4:]
	return netip.AddrFrom4([4]byte{127, 64 | b[1]&0x3f, b[2], b[3]})
}

// Target returns the address to dial for a target "HOST:PORT". The hosts "",
// "localhost", 0.0.0.0 and :: mean 127.0.0.1; the target "" means 127.0.0.1 with the
// given port.
func Target(target string, port uint16) (string, error) {
	if target == "" {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), nil
	}
	host, p, err := net.SplitHostPort(target)
	if err != nil {
		return "", err
	}
	ip, err := netip.ParseAddr(host)
	if host == "" || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") || err == nil && ip.Unmap().IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, p), nil
}

// errLoopback6 refuses a name that resolves to ::1.
var errLoopback6 = errors.New("it resolves to ::1, where peers are taken for local programs; to allow that, name the target [::1]")

// Dial connects to a target (see Target) for a peer; to 127.0.0.0/8 it connects from
// the peer's Source. timeout bounds the dial.
func Dial(ctx context.Context, network, target string, port uint16, peer netip.Addr, timeout time.Duration) (net.Conn, error) {
	address, err := Target(target, port)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(address)
	_, err = netip.ParseAddr(host)
	isName := err != nil
	source := Source(peer)
	d := net.Dialer{Timeout: timeout, KeepAlive: -1, Control: func(network, address string, c syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("parse target: %w", err)
		}
		if err := Inline(c); err != nil {
			return err
		}
		if strings.HasPrefix(network, "tcp") {
			limited.ShrinkSocket(c)
		}
		ip := to.Addr().Unmap()
		if err := judge(ip, isName); err != nil || !ip.Is4() || !ip.IsLoopback() || !source.IsValid() {
			return err
		}
		return bindTo(c, network, source)
	}}
	return d.DialContext(ctx, network, address)
}

// judge returns an error if a peer must not be connected to ip, which a target names
// directly or, with isName, a name resolves to.
func judge(ip netip.Addr, isName bool) error {
	switch {
	case ip.IsUnspecified():
		return errors.New("it resolves to no usable address")
	case isName && ip.Is6() && ip.IsLoopback():
		return errLoopback6
	}
	return nil
}

// Watch detects programs that listen on ::1 only. Peers used to reach them; now nothing
// answers on 127.0.0.1, and the owner has to know why.
type Watch struct {
	// Report is called with the port that peers ask for and the target's port. only6 is
	// true when a program was found to listen on ::1 only, and false when that ended.
	// Report must not block.
	Report func(port, target uint16, only6 bool)

	mu sync.Mutex
	// mu guards the following.
	lastLook time.Time
	reported map[uint16]bool
}

const (
	lookPause   = 250 * time.Millisecond // between reads of the system's socket table
	maxReported = 32
)

// Refused is called when the target of a port refused a connection. It may read a file.
func (w *Watch) Refused(network, target string, port uint16) {
	if w == nil || w.Report == nil {
		return
	}
	address, err := Target(target, port)
	if err != nil {
		return
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil || to.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.lastLook) < lookPause || w.reported[port] || len(w.reported) >= maxReported {
		return
	}
	w.lastLook = time.Now()
	if !listens6(network, to.Port()) {
		return
	}
	if w.reported == nil {
		w.reported = map[uint16]bool{}
	}
	w.reported[port] = true
	w.Report(port, to.Port(), true)
}

// Reached is called when the target of a port accepted a connection or answered.
func (w *Watch) Reached(port uint16) {
	if w == nil || w.Report == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reported[port] {
		delete(w.reported, port)
		w.Report(port, 0, false)
	}
}
