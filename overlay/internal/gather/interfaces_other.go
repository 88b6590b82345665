//go:build !linux

package gather

import "net/netip"

// addrFlags is not known here: all addresses are alike.
func addrFlags() map[netip.Addr]Local { return nil }
