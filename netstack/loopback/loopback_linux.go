package loopback

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
)

// ipBindAddressNoPort is IP_BIND_ADDRESS_NO_PORT of linux/in.h.
const ipBindAddressNoPort = 24

// bindTo sets the local address of a socket. It leaves the choice of the port to
// connect, which can share a port between destinations; bind alone would reserve one
// for this socket.
func bindTo(c syscall.RawConn, network string, source netip.Addr) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		if strings.HasPrefix(network, "tcp") {
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
		}
		err = syscall.Bind(int(fd), &syscall.SockaddrInet4{Addr: source.As4()})
	})
	if cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("bind to %s: %w", source, err)
	}
	return nil
}

// listens6 reports whether a socket is bound to the port at ::1, or at ::, which
// accepts IPv4 too unless it is IPv6-only.
func listens6(network string, port uint16) bool {
	name, state := "tcp6", "0A"
	if strings.HasPrefix(network, "udp") {
		name, state = "udp6", "07"
	}
	f, err := os.Open("/proc/net/" + name)
	if err != nil {
		return false
	}
	defer f.Close()
	// The kernel prints each word of the address in the machine's byte order.
	const any6, little6, big6 = "00000000000000000000000000000000", "00000000000000000000000001000000", "00000000000000000000000000000001"
	want := fmt.Sprintf(":%04X", port)
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || fields[3] != state {
			continue
		}
		if a, ok := strings.CutSuffix(fields[1], want); ok && (a == any6 || a == little6 || a == big6) {
			return true
		}
	}
	return false
}
