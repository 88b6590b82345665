// Package loopback is the way on which peers come to programs of this machine
// that listen on localhost. Such programs often trust whoever comes from
// 127.0.0.1 or ::1. So peers come from addresses of their own in 127.64.0.0/10,
// where the system has them (Linux); and as there is nothing like that for ::1, it
// is never a target but for who asks for it in so many words.
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

// Peers holds the addresses of Source. weft's own listeners serve nobody who comes
// from there.
var Peers = netip.MustParsePrefix("127.64.0.0/10")

// Source derives from a peer's overlay address the address that its connections
// to this machine's loopback come from: always the same for a peer, so that the
// logs of programs tell peers apart. It is the low 22 bits of the overlay IPv4
// address, which are in the overlay's IPv6 address too: the server gives no two
// nodes of a network the same.
func Source(peer netip.Addr) netip.Addr {
	b := peer.Unmap().AsSlice()
	if len(b) < 4 {
		return netip.Addr{}
	}
	b = b[len(b)-4:]
	return netip.AddrFrom4([4]byte{127, 64 | b[1]&0x3f, b[2], b[3]})
}

// Target returns the address to dial for a target "HOST:PORT": "" and the hosts
// "", "localhost", 0.0.0.0 and :: mean 127.0.0.1; "" on the given port.
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

// errLoopback6 refuses a name that leads to ::1.
var errLoopback6 = errors.New("it leads to ::1, where peers pass for programs of this machine; to let them, the target has to be [::1] itself")

// Dial connects to a target (see Target) for a peer: what is in 127.0.0.0/8 from
// the peer's Source. timeout bounds it.
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

// judge says whether a peer may be led to an address of this machine's choice, or
// that a name leads to.
func judge(ip netip.Addr, isName bool) error {
	switch {
	case ip.IsUnspecified():
		return errors.New("it leads to no address")
	case isName && ip.Is6() && ip.IsLoopback():
		return errLoopback6
	}
	return nil
}

// Watch finds out why nothing answers on 127.0.0.1: a program that listens on ::1
// alone was once reached, and its owner has to be told.
type Watch struct {
	// Tell is called with the port that peers ask for and the one that leads to,
	// when a program was found to listen at ::1 only, and with only6 false when
	// that is over. It must not block.
	Tell func(port, target uint16, only6 bool)

	mu sync.Mutex
	// mu guards the following.
	looked time.Time
	told   map[uint16]bool
}

const (
	lookPause = 250 * time.Millisecond // between looks at the system's table of sockets
	maxTold   = 32
)

// Refused is called when the target of a port refused. It may read a file.
func (w *Watch) Refused(network, target string, port uint16) {
	if w == nil || w.Tell == nil {
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
	if time.Since(w.looked) < lookPause || w.told[port] || len(w.told) >= maxTold {
		return
	}
	w.looked = time.Now()
	if !listens6(network, to.Port()) {
		return
	}
	if w.told == nil {
		w.told = map[uint16]bool{}
	}
	w.told[port] = true
	w.Tell(port, to.Port(), true)
}

// Reached is called when the target of a port took a connection or answered.
func (w *Watch) Reached(port uint16) {
	if w == nil || w.Tell == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told[port] {
		delete(w.told, port)
		w.Tell(port, 0, false)
	}
}
