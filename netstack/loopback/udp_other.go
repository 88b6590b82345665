//go:build !linux

package loopback

import (
	"context"
	"errors"
	"net/netip"
)

// The target refuses only a socket that is connected, which hears from nobody
// else.
const takesOthers = false

func open(context.Context, netip.AddrPort, netip.Addr) (*UDP, error) {
	return nil, errors.ErrUnsupported
}
