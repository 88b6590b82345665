package tun

import (
	"os"
	"strconv"
	"strings"
)

// Outlives implements overlay.Net: other programs' sockets and connections survive this
// process. They end with the machine's boot.
func (n *Net) Outlives() (epoch string, first, last uint16) {
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		epoch = strings.TrimSpace(string(b))
	}
	b, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // for IPv6, too
	first, last = portRange(string(b))
	return epoch, first, last
}

// portRange parses two ports in order; it returns the kernel's defaults if text has
// none.
func portRange(text string) (first, last uint16) {
	if f := strings.Fields(text); len(f) == 2 {
		from, err := strconv.ParseUint(f[0], 10, 16)
		to, terr := strconv.ParseUint(f[1], 10, 16)
		if err == nil && terr == nil && from <= to {
			return uint16(from), uint16(to)
		}
	}
	return 32768, 60999
}
