package dataplane

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/cert"
)

// None is a Plane without peers, in the place of one that a node must not use: SetPeer
// returns why. If there is no other plane, it reads the packets of the host, so that
// programs are told at once, and its key is random and nobody's, so that a peer's
// introduction comes as far as the refusal. Otherwise its key is zero: the node has none.
type None struct {
	why  error
	key  atomic.Pointer[Key]
	done chan struct{} // closed when run has returned; constant
	f    *Forwarder    // that it reads; nil: another plane does
}

var (
	_ Plane = (*None)(nil)
	_ Keys  = (*None)(nil)
)

// NewNone makes a None that starts to read the Forwarder, unless that is nil. Close closes
// the Forwarder and waits for that.
func NewNone(f *Forwarder, why error) *None {
	d := &None{why: why, done: make(chan struct{}), f: f}
	d.NewKey()
	if f != nil {
		go d.run()
	}
	return d
}

// run reads until the Net is closed. No destination has an entry, so that each packet is
// held and refused as the owner of tunnels says, and Read returns nothing else.
func (d *None) run() {
	defer close(d.done)
	n := d.f.Net().BatchSize()
	bufs, sizes := make([][]byte, n), make([]int, n)
	for i := range bufs {
		bufs[i] = make([]byte, MaxPacket)
	}
	for {
		if _, err := d.f.Read(bufs, sizes, 0); err != nil && !errors.Is(err, tun.ErrTooManySegments) {
			return
		}
	}
}

// SetPeer implements Plane. It fails.
func (d *None) SetPeer(Peer) error { return d.why }

// Prove implements Plane.
func (d *None) Prove(cert.NodeID, [32]byte) bool { return false }

// RemovePeer implements Plane.
func (d *None) RemovePeer(cert.NodeID) {}

// Begins implements Plane.
func (d *None) Begins([]byte) bool { return false }

// Close implements Plane.
func (d *None) Close() error {
	if d.f == nil {
		return nil
	}
	err := d.f.Close()
	<-d.done
	return err
}

// Key implements Keys.
func (d *None) Key() Key { return *d.key.Load() }

// PairKey implements Keys. It fails.
func (d *None) PairKey(_, _ [32]byte) (key [32]byte, err error) { return key, d.why }

// NewKey implements Keys.
func (d *None) NewKey() error {
	var k Key
	var boot [8]byte
	if d.f != nil {
		rand.Read(k.Public[:])
	}
	rand.Read(boot[:])
	k.Boot = binary.BigEndian.Uint64(boot[:])
	d.key.Store(&k)
	return nil
}

// SetBack implements Keys.
func (d *None) SetBack() bool { return false }

// Rekey implements Keys.
func (d *None) Rekey() error { return d.NewKey() }
