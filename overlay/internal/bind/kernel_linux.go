package bind

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/overlay/limited"
)

// socketBuffer is how many bytes the kernel may hold for a socket in each direction: what
// arrives while this process does not run. They count as this process's memory where a
// control group limits it.
const (
	socketBuffer      = 7 << 20
	socketBufferShare = 1. / 32 // bound, as a share of the machine's memory
)

// Listen opens a UDP socket of the system, for Config.Listen.
func Listen(network, address string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { configure(int(fd)) })
	}}
	return lc.ListenPacket(context.Background(), network, address)
}

// configure sets helpful socket options and ignores errors, because none is needed: a
// process without CAP_NET_ADMIN gets the buffers that net.core allows, an old kernel has
// fewer options, and an IPv4 socket has none of IPv6's.
func configure(fd int) {
	buffer := limited.Share(socketBuffer, socketBufferShare)
	for _, o := range []struct{ level, opt, value int }{
		{unix.SOL_SOCKET, unix.SO_RCVBUF, buffer},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, buffer},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer},
		// Do not fragment, and ignore ICMP about the path MTU, which anybody can forge:
		// probes find out the limit of a path.
		{unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
	} {
		unix.SetsockoptInt(fd, o.level, o.opt, o.value)
	}
}

// kernel is the transport of a socket of the Linux kernel.
type kernel struct {
	// Constant after kernelTransport.
	raw  syscall.RawConn
	is4  bool // an AF_INET socket
	gro  bool // may deliver joined datagrams
	main bool

	noGSO atomic.Bool // the kernel or the device cannot split datagrams
}

func kernelTransport(c *net.UDPConn, main bool) transport {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	k := &kernel{raw: raw, main: main}
	err = raw.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		k.is4 = err == nil && domain == unix.AF_INET
		_, err = unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		k.noGSO.Store(err != nil)
		k.gro = main && unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) == nil
	})
	if err != nil {
		return nil
	}
	return k
}

var errFamily = os.NewSyscallError("sendmsg", unix.EAFNOSUPPORT)

var writers = sync.Pool{New: func() any {
	w := new(writer)
	w.fd = w.write
	return w
}}

const readMessages = 64
