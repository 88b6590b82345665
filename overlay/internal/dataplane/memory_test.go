package dataplane

import (
	"testing"

	"weft/overlay/limited"
)

// On a machine with little memory a peer's backlog has a sixteenth of it, in whole
// buffers, and held packets a thirty-second. With 1 GB and more, or if its size is
// unknown, all bounds are the normal ones.
func TestBoundsOfMemory(t *testing.T) {
	for _, c := range []struct {
		memory, most, mostUDP, packet int64
		hold                          int
	}{
		{0, MaxBacklog, maxBacklogUDP, packetCost, holdAllBytes},
		{48 << 20, 3 << 20, 3 << 20, packetBuffer, 3 << 19},
		{64 << 20, 4 << 20, 4 << 20, packetBuffer, 2 << 20},
		{512 << 20, 32 << 20, 32 << 20, packetBuffer, holdAllBytes},
		{1<<30 - 16, 64<<20 - 1, 64<<20 - 1, packetBuffer, holdAllBytes},
		{1 << 30, MaxBacklog, maxBacklogUDP, packetCost, holdAllBytes},
		{24 << 30, MaxBacklog, maxBacklogUDP, packetCost, holdAllBytes},
	} {
		most, mostUDP, packet := backlogBounds(c.memory)
		if hold := limited.ShareOf(c.memory, holdAllBytes, holdShare); most != c.most || mostUDP != c.mostUDP || packet != c.packet || hold != c.hold {
			t.Errorf("%d bytes of memory: %d on the way out, %d by UDP, %d a packet, %d held; want %d, %d, %d, %d", c.memory, most, mostUDP, packet, hold, c.most, c.mostUDP, c.packet, c.hold)
		}
	}
}
