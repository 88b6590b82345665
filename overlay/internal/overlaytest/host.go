package overlaytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	errReset      = os.NewSyscallError("read", syscall.ECONNRESET)
	errRefused    = os.NewSyscallError("connect", syscall.ECONNREFUSED)
	errTimedOut   = os.NewSyscallError("connect", syscall.ETIMEDOUT)
	errNoRoute    = os.NewSyscallError("connect", syscall.ENETUNREACH)
	errInUse      = os.NewSyscallError("bind", syscall.EADDRINUSE)
	errNotHere    = os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	errTooLong    = os.NewSyscallError("sendto", syscall.EMSGSIZE)
	errBrokenPipe = os.NewSyscallError("write", syscall.EPIPE)
	errPoweredOff = fmt.Errorf("host is off: %w", net.ErrClosed)
)

// backlog bounds the streams that wait to be accepted, per listener.
const backlog = 4096

// Host is a machine with sockets. Its loopback addresses work too.
type Host struct {
	// Link joins the host to its network.
	Link *Link

	in   *Internet
	name string
	rand *rand.Rand

	// Guarded by Internet.mu.
	net       *Net
	addrs     []netip.Addr
	listeners map[uint16]*Listener
	packets   map[uint16]*PacketConn
	moves     int // streams do not survive one
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// Addrs returns the host's addresses.
func (h *Host) Addrs() []netip.Addr {
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	return slices.Clone(h.addrs)
}

// Move moves the host to another network, or gives it other addresses. Sockets that are
// bound to no particular address keep working. Streams stall for ever, at both ends.
func (h *Host) Move(to *Net, addrs ...string) {
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	for _, a := range h.addrs {
		delete(h.net.hosts, a)
	}
	h.moves++
	to.attachLocked(h, addrs)
}

// Kill closes all sockets of the host as the kernel does for a process that
// dies: peers of streams get ECONNRESET.
func (h *Host) Kill() {
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	h.dropSocketsLocked(errPoweredOff, errReset)
}

// PowerOff takes the host away without notice: its link goes down and its sockets are
// gone. After Link.SetUp(true) the host is back, and answers packets of earlier streams
// with a reset.
func (h *Host) PowerOff() {
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	h.Link.down = true
	h.dropSocketsLocked(errPoweredOff, nil)
}

// dropSocketsLocked ends all sockets with err. The peers of streams get the error tell,
// unless it is nil.
func (h *Host) dropSocketsLocked(err, tell error) {
	for _, l := range h.listeners {
		l.endLocked(err)
	}
	for _, c := range h.packets {
		c.endLocked(err)
	}
	for _, c := range h.in.streamsLocked() {
		if c.host == h {
			c.abortLocked(err, tell)
		}
	}
}

// sourceLocked returns the source address to use for dst, the zero Addr if there is none.
func (h *Host) sourceLocked(dst netip.Addr) netip.Addr {
	if dst.IsLoopback() {
		return dst
	}
	for _, a := range h.addrs {
		if a.Is4() == dst.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// resolve returns the addresses behind "host:port", the host being an address,
// the name of a Host, "localhost", or empty.
func (h *Host) resolve(network, address string) ([]netip.AddrPort, error) {
	name, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, &net.AddrError{Err: "invalid port", Addr: address}
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(name); err == nil {
		addrs = []netip.Addr{a.Unmap()}
	} else if name == "localhost" {
		addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	} else if name == "" {
		addrs = []netip.Addr{netip.IPv6Unspecified()}
	} else {
		h.in.mu.Lock()
		if host := h.in.names[name]; host != nil {
			addrs = slices.Clone(host.addrs)
		}
		h.in.mu.Unlock()
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		if strings.HasSuffix(network, "4") && a.Is6() && !a.IsUnspecified() || strings.HasSuffix(network, "6") && a.Is4() {
			continue
		}
		out = append(out, netip.AddrPortFrom(a, uint16(port)))
	}
	if len(out) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return out, nil
}

// Listen opens a stream listener: network "tcp", "tcp4" or "tcp6", address
// ":PORT" or "ADDR:PORT"; port 0 picks one.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	at, err := h.resolve(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	port, err := pickPort(h, h.listeners, at[0])
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	l := &Listener{host: h, local: netip.AddrPortFrom(at[0].Addr(), port), changed: newSignal()}
	h.listeners[port] = l
	return l, nil
}

// ListenPacket opens a UDP socket: network "udp", "udp4" or "udp6", address as
// for Listen. The result is a *PacketConn.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	at, err := h.resolve(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	h.in.mu.Lock()
	defer h.in.mu.Unlock()
	port, err := pickPort(h, h.packets, at[0])
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	c := &PacketConn{host: h, local: netip.AddrPortFrom(at[0].Addr(), port), changed: newSignal()}
	h.packets[port] = c
	return c, nil
}

func pickPort[T any](h *Host, used map[uint16]T, at netip.AddrPort) (uint16, error) {
	a, port := at.Addr(), at.Port()
	switch {
	case h.in.closed:
		return 0, net.ErrClosed
	case !a.IsUnspecified() && !a.IsLoopback() && !slices.Contains(h.addrs, a):
		return 0, errNotHere
	}
	_, taken := used[port]
	for port == 0 {
		p := uint16(32768 + h.rand.IntN(28232))
		if _, taken = used[p]; !taken {
			port = p
		}
	}
	if taken {
		return 0, errInUse
	}
	return port, nil
}

// DialContext opens a stream to "ADDR:PORT" or "NAME:PORT", trying the addresses in
// order. It has the signature of net.Dialer's DialContext.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	targets, err := h.resolve(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	var first error
	for _, to := range targets {
		c, err := h.dial(ctx, to)
		if err == nil {
			return c, nil
		}
		err = &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: err}
		if first == nil || errors.Is(first, errNoRoute) {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// dial asks for a stream, again after 1, 2, 4, 8, 16 and 32 s, and gives up 64 s later,
// after 127 s in all.
func (h *Host) dial(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(ctx)
	}
	d := &dialing{done: make(chan struct{})}
	defer h.in.cancel(d)
	for wait := time.Second; wait <= 64*time.Second; wait *= 2 {
		if err := h.in.syn(h, to, d); err != nil {
			return nil, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-d.done:
			timer.Stop()
			d.taken = true
			return d.conn, d.err
		case <-ctx.Done():
			timer.Stop()
			return nil, dialError(ctx)
		case <-h.in.quit:
			timer.Stop()
			return nil, net.ErrClosed
		case <-timer.C:
		}
	}
	return nil, errTimedOut
}

// dialError returns the error that net.Dialer returns for a context that ended.
func dialError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return ctx.Err()
}

// signal wakes all goroutines that wait for a change. Guarded by Internet.mu.
type signal struct{ ch chan struct{} }

func newSignal() signal { return signal{make(chan struct{})} }

func (s *signal) tell() {
	close(s.ch)
	s.ch = make(chan struct{})
}

// waitLocked releases the lock until the signal or the deadline.
func (in *Internet) waitLocked(s *signal, deadline time.Time) {
	ch := s.ch
	in.mu.Unlock()
	defer in.mu.Lock()
	if deadline.IsZero() {
		<-ch
		return
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-ch:
	case <-timer.C:
	}
}

func expired(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }
