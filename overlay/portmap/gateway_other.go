//go:build !linux

package portmap

import "net/netip"

// DefaultGateway is not implemented on this system.
func DefaultGateway() (gw, self netip.Addr, err error) { return gw, self, errNoGateway }
