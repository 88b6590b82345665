package wg

import (
	"os"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/internal/dataplane"
)

// The lengths of WireGuard's data messages, in bytes.
const (
	paddingUnit   = 16
	messageHeader = 32 // header and tag
)

// inner is the tun.Device that wireguard-go sees. Read, Write and Close are the
// forwarder's.
type inner struct {
	*dataplane.Forwarder
	mtu int
}

func (t inner) MTU() (int, error)        { return t.mtu, nil }
func (t inner) File() *os.File           { return t.Net().File() }
func (t inner) Name() (string, error)    { return t.Net().Name() }
func (t inner) Events() <-chan tun.Event { return t.Net().Events() }
func (t inner) BatchSize() int           { return t.Net().BatchSize() }
