package dataplane

import (
	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/internal/bind"
)

// MaxPacket is the longest inner packet in bytes: with WireGuard's header, tag
// and padding it fills a message of bind.MaxMessage bytes.
const MaxPacket = bind.MaxMessage - 32 - 15

// Net is the host's network as a data plane sees it. overlay.Net documents its methods.
type Net interface {
	tun.Device
	WakeRead()
	SetLimit(limit func(pkt []byte) int)
}
