package portmap

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultGateway returns the gateway of the IPv4 default route with the lowest metric,
// and the address that the kernel uses towards it. An error means that there is none.
func DefaultGateway() (gw, self netip.Addr, err error) {
	f, err := os.Open("/proc/thread-self/net/route") // the thread's network namespace
	if err != nil {
		return gw, self, fmt.Errorf("read routes: %w", err)
	}
	defer f.Close()
	gw, ok := defaultRoute(f)
	if !ok {
		return gw, self, errNoGateway
	}
	// Connecting a UDP socket sends nothing.
	c, err := net.Dial("udp4", netip.AddrPortFrom(gw, pmpPort).String())
	if err != nil {
		return gw, self, fmt.Errorf("find the local address towards gateway %s: %w", gw, err)
	}
	defer c.Close()
	return gw, c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// defaultRoute parses /proc/net/route.
func defaultRoute(r io.Reader) (gw netip.Addr, ok bool) {
	best := uint64(1 << 63)
	for sc := bufio.NewScanner(r); sc.Scan(); {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …
		w := strings.Fields(sc.Text())
		if len(w) < 8 || w[1] != "00000000" || w[7] != "00000000" {
			continue
		}
		flags, err1 := strconv.ParseUint(w[3], 16, 32)
		metric, err2 := strconv.ParseUint(w[6], 10, 32)
		raw, err3 := hex.DecodeString(w[2])
		if err1 != nil || err2 != nil || err3 != nil || len(raw) != 4 ||
			flags&(unix.RTF_UP|unix.RTF_GATEWAY) != unix.RTF_UP|unix.RTF_GATEWAY || metric >= best {
			continue
		}
		// The kernel prints the address as a number in the machine's byte order.
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], binary.BigEndian.Uint32(raw))
		gw, ok, best = netip.AddrFrom4(b), true, metric
	}
	return gw, ok
}
