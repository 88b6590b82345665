package tun

import (
	"fmt"
	"os"
	"strings"
)

// Outlives implements overlay.Net: sockets of other programs, and the
// connections over them, do not end with this one. They end with the machine's
// boot.
func (n *Net) Outlives() (epoch string, first, last uint16) {
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		epoch = strings.TrimSpace(string(b))
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // for IPv6, too
	if _, serr := fmt.Sscan(string(b), &first, &last); err != nil || serr != nil || first > last {
		first, last = 32768, 60999 // as the kernel has it
	}
	return epoch, first, last
}
