//go:build !linux

package loopback

import (
	"net/netip"
	"syscall"
)

// bindTo does nothing: 127.0.0.1 is the only address of the interface.
func bindTo(syscall.RawConn, string, netip.Addr) error { return nil }

// listens6 is not known here.
func listens6(string, uint16) bool { return false }
