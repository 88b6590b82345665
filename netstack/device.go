package netstack

import (
	"os"

	"golang.zx2c4.com/wireguard/tun"
)

// File returns nil: there is no descriptor behind the network.
func (n *Net) File() *os.File { return nil }

// MTU returns the MTU that the network was made with.
func (n *Net) MTU() (int, error) { return n.mtu, nil }

// Name returns "netstack".
func (n *Net) Name() (string, error) { return "netstack", nil }

// Events returns the channel of tun events: one EventUp, then closed by Close.
func (n *Net) Events() <-chan tun.Event { return n.events }

// BatchSize is the number of packets that Read takes from the stack at once, 8. Read
// uses more buffers than that for packets that it splits.
func (n *Net) BatchSize() int { return batchSize }

// Read waits for packets that the network sends, writes one IP packet into each
// bufs[i][offset:] and sets sizes[i]. It returns their number, at least one unless
// WakeRead was called, or os.ErrClosed after Close. Packets are up to MaxSegment plus
// 100 bytes long (see SetLimit); a packet that does not fit its buffer is lost. One
// goroutine is expected to call Read; several are safe.
func (n *Net) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	return n.link.read(bufs, sizes, offset)
}

// WakeRead makes a waiting Read, or else the next one, return 0 packets and no error at
// once.
func (n *Net) WakeRead() { n.link.tx.interrupt() }

// Write gives the network one IP packet from a peer in each bufs[i][offset:]. The
// caller may reuse the buffers when it returns. Invalid packets are dropped silently.
// Calls may run concurrently, but the packets of one peer must come in order from one
// goroutine at a time. It returns len(bufs), or os.ErrClosed after Close. It does not
// block.
func (n *Net) Write(bufs [][]byte, offset int) (int, error) {
	return n.link.write(bufs, offset)
}
