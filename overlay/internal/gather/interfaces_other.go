//go:build !linux

package gather

import "net/netip"

// addrFlags returns nil: this system does not report the flags.
func addrFlags() map[netip.Addr]Local { return nil }
