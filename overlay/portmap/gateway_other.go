//go:build !linux

package portmap

import "net/netip"

// gateway is not known here.
func gateway() (gw, self netip.Addr, err error) { return gw, self, errNoGateway }
