package portmap

import (
	"errors"
	"net/netip"
)

var errNoGateway = errors.New("there is no IPv4 gateway")

// askable returns an error if the gateway must not be asked.
func askable(gw, self netip.Addr) error {
	switch {
	case !gw.Is4() || !self.Is4() || !gw.IsGlobalUnicast() || gw == self:
		return errNoGateway
	case public(self):
		return errors.New("this machine has a public address")
	}
	return nil
}

// carrier is the space between a provider's NAT and its customers (RFC 6598).
var carrier = netip.MustParsePrefix("100.64.0.0/10")

func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !carrier.Contains(a)
}
