package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/internal/hosttest"
)

// What opened a connection lately is sent once more to a peer that has restarted, unless the
// peer has answered meanwhile; nothing else is.
func TestAgain(t *testing.T) {
	for _, k := range []kind{reads, isHanded} {
		synctest.Test(t, func(t *testing.T) {
			w := world{}
			a, b, c := w.nodeOf(t, 1, Config{Net: hosttest.NewNet(), Opens: true}), w.node(t, 2), w.node(t, 3)
			a.connect(b, k)
			a.connect(c, k)
			send := func(to netip.Addr, flags byte, seq uint32) {
				from := a.v4
				if to.Is6() {
					from = a.v6
				}
				a.net.Out <- ipPacket(from, to, 6, segment(flags, seq, 0))
				synctest.Wait()
			}
			// arrived empties what has arrived at a node and returns the sequence numbers.
			arrived := func(n *node) (seqs []byte) {
				synctest.Wait()
				for len(n.net.In) > 0 {
					p := <-n.net.In
					seqs = append(seqs, p[len(p)-20+7])
				}
				return seqs
			}
			again := func(n *node, want string) {
				t.Helper()
				arrived(n)
				a.fwd.Again(n.id)
				if got := string(arrived(n)); got != want {
					t.Errorf("sent again: %q, want %q", got, want)
				}
			}
			send(b.v4, tcpSYN, 1)
			time.Sleep(openingLife / 2)
			send(b.v6, tcpSYN, 2)
			send(b.v4, tcpSYN|tcpACK, 3)
			send(b.v4, tcpACK, 4)
			a.net.Out <- a.udp(b, 5)
			send(c.v4, tcpSYN, 6)
			again(b, "\x01\x02")
			again(b, "\x01\x02") // those, too, were sent just now
			time.Sleep(openingLife)
			again(b, "") // a kernel has sent them again itself
			again(c, "")

			send(b.v4, tcpSYN, 7)
			send(c.v4, tcpSYN, 8)
			time.Sleep(time.Millisecond)
			b.net.Out <- b.udp(a, 9)
			again(b, "") // it has received something since
			again(c, "\x08")

			// What waits for the peer and what is sent again arrive once.
			var gate Gate
			e := a.fwd.peer(b.id)
			time.Sleep(time.Millisecond)
			send(b.v4, tcpSYN, 10)
			e.Hold(&gate)
			send(b.v4, tcpSYN, 11)
			again(b, "")
			e.Release()
			if got := string(arrived(b)); got != "\x0b\x0a" {
				t.Errorf("released: %q", got)
			}

			for range openings { // a flood takes the places of others
				send(c.v4, tcpSYN, 12)
			}
			again(b, "")
			a.fwd.Again(a.id) // nobody
			a.stop()
		})
	}
}

// Nothing is kept if this node opens the connections itself, or if a packet is too long.
func TestAgainNothing(t *testing.T) {
	w := world{}
	a, b := w.node(t, 1), w.node(t, 2)
	a.connect(b, reads)
	a.net.Out <- ipPacket(a.v4, b.v4, 6, segment(tcpSYN, 1, 0))
	b.recv()
	a.fwd.Again(b.id)
	b.silent(10 * time.Millisecond)

	l := w.nodeOf(t, 3, Config{Net: hosttest.NewNet(), Opens: true})
	l.connect(b, reads)
	l.net.Out <- ipPacket(l.v4, b.v4, 6, segment(tcpSYN, 1, openingMax))
	b.recv()
	l.fwd.Again(b.id)
	b.silent(10 * time.Millisecond)
}

const tcpSYN, tcpACK = 2, 16

// segment makes a TCP segment without a checksum.
func segment(flags byte, seq uint32, data int) []byte {
	b := make([]byte, 20+data)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 80)
	binary.BigEndian.PutUint32(b[4:], seq)
	b[12], b[13] = 5<<4, flags
	return b
}
