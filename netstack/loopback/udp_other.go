//go:build !linux

package loopback

import (
	"context"
	"errors"
	"net/netip"
)

// Only a connected socket learns that the target refuses, and it receives from nobody
// else.
const takesOthers = false

func open(context.Context, netip.AddrPort, netip.Addr) (*UDP, error) {
	return nil, errors.ErrUnsupported
}
