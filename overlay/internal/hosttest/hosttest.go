// Package hosttest is a host network for tests of data planes: the test puts packets in
// and reads what comes out.
package hosttest

import (
	"encoding/binary"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/internal/bind"
)

// Net implements dataplane.Net. Its fields are constant once it is used, except Feed and
// Sink, which may be set while no packets flow.
type Net struct {
	Out   chan []byte                     // packets for Read
	In    chan []byte                     // packets from Write; dropped when full
	Sink  func(bufs [][]byte, offset int) // instead of In, if set
	Feed  func(buf []byte) int            // instead of Out, if set; 0 means no packet now
	Limit func(pkt []byte) int            // the last argument of SetLimit

	wakes  chan struct{}
	events chan tun.Event
	done   chan struct{}
	once   sync.Once
}

// NewNet makes a network with room for 1,024 packets out and 65,536 in.
func NewNet() *Net {
	return &Net{
		Out: make(chan []byte, 1024), In: make(chan []byte, 65536), wakes: make(chan struct{}, 1),
		events: make(chan tun.Event), done: make(chan struct{}),
	}
}

// Recv waits for a packet from Write, for at most ten seconds.
func (n *Net) Recv(t testing.TB) []byte {
	t.Helper()
	select {
	case p := <-n.In:
		return p
	case <-time.After(10 * time.Second):
		t.Fatal("no packet in 10 s")
		return nil
	}
}

// Silent fails if Write has delivered a packet or delivers one within d.
func (n *Net) Silent(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case p := <-n.In:
		t.Fatalf("unexpected packet %x", p)
	case <-time.After(d):
	}
}

// WaitFor waits until ok, for at most ten seconds.
func WaitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	WaitLong(t, 10*time.Second, what, ok)
}

// WaitLong is WaitFor with another limit.
func WaitLong(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// Read implements tun.Device.
func (n *Net) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if n.Feed != nil {
		select {
		case <-n.done:
			return 0, os.ErrClosed
		case <-n.wakes:
			return 0, nil
		default:
		}
		k := 0
		for ; k < len(bufs); k++ {
			if sizes[k] = n.Feed(bufs[k][offset:]); sizes[k] == 0 {
				break
			}
		}
		if k == 0 {
			time.Sleep(5 * time.Microsecond)
		}
		return k, nil
	}
	select {
	case p := <-n.Out:
		sizes[0] = copy(bufs[0][offset:], p)
		k := 1
		for k < len(bufs) {
			select {
			case p := <-n.Out:
				sizes[k] = copy(bufs[k][offset:], p)
				k++
				continue
			default:
			}
			break
		}
		return k, nil
	case <-n.wakes:
		return 0, nil
	case <-n.done:
		return 0, os.ErrClosed
	}
}

// Write implements tun.Device.
func (n *Net) Write(bufs [][]byte, offset int) (int, error) {
	if n.Sink != nil {
		n.Sink(bufs, offset)
		return len(bufs), nil
	}
	for _, b := range bufs {
		select {
		case n.In <- append([]byte(nil), b[offset:]...):
		default:
		}
	}
	return len(bufs), nil
}

// WakeRead implements overlay.Net.
func (n *Net) WakeRead() {
	select {
	case n.wakes <- struct{}{}:
	default:
	}
}

// Idle waits until whoever reads packets has taken those in Out, and has sent or held them.
// One reader only.
func (n *Net) Idle() {
	for len(n.Out) > 0 {
		time.Sleep(100 * time.Microsecond)
	}
	// A second wake fits when the first one was taken, which a Read after those packets did.
	for range 2 {
		n.wakes <- struct{}{}
	}
}

// SetLimit implements overlay.Net.
func (n *Net) SetLimit(limit func(pkt []byte) int) { n.Limit = limit }

// Close implements tun.Device.
func (n *Net) Close() error {
	n.once.Do(func() { close(n.done); close(n.events) })
	return nil
}

// The rest of tun.Device.

func (n *Net) File() *os.File           { return nil }
func (n *Net) MTU() (int, error)        { return 1280, nil }
func (n *Net) Name() (string, error)    { return "test", nil }
func (n *Net) Events() <-chan tun.Event { return n.events }
func (n *Net) BatchSize() int           { return bind.BatchSize }

// UDP makes a UDP packet from port 7 to port 9 that carries num.
func UDP(src, dst netip.Addr, num uint32) []byte {
	p := make([]byte, 8, 12)
	binary.BigEndian.PutUint16(p, 7)
	binary.BigEndian.PutUint16(p[2:], 9)
	binary.BigEndian.PutUint16(p[4:], 12)
	return IP(src, dst, 17, binary.BigEndian.AppendUint32(p, num))
}

// Number returns the num of a packet that UDP made.
func Number(pkt []byte) uint32 { return binary.BigEndian.Uint32(pkt[len(pkt)-4:]) }

// IP makes a packet without checksum, IPv4 if both addresses are, else IPv6.
func IP(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if src.Is4() && dst.Is4() {
		b := make([]byte, 20, 20+len(payload))
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}
