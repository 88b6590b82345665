package wg

import (
	"errors"
	"testing"

	"weft/overlay/internal/dataplane"
)

// Which node gets a WireGuard key that two nodes name.
func TestClaims(t *testing.T) {
	for _, test := range []struct {
		name        string
		holder      dataplane.Claim
		handshake   bool // the holder has completed a handshake under the key
		newcomer    dataplane.Claim
		yields, mix bool // mix: the holder names the key next to its own
	}{
		{name: "tentative takes nothing", holder: dataplane.Tentative, newcomer: dataplane.Tentative},
		{name: "tentative yields to claimed", holder: dataplane.Tentative, newcomer: dataplane.Claimed, yields: true},
		{name: "tentative yields to proven", holder: dataplane.Tentative, newcomer: dataplane.Proven, yields: true},
		{name: "claimed yields to claimed", holder: dataplane.Claimed, newcomer: dataplane.Claimed, yields: true},
		{name: "claimed yields to proven", holder: dataplane.Claimed, newcomer: dataplane.Proven, yields: true},
		{name: "claimed stays before tentative", holder: dataplane.Claimed, newcomer: dataplane.Tentative},
		{name: "claimed and used stays before claimed", holder: dataplane.Claimed, handshake: true, newcomer: dataplane.Claimed},
		{name: "claimed and used stays before proven", holder: dataplane.Claimed, handshake: true, newcomer: dataplane.Proven},
		{name: "proven stays before claimed", holder: dataplane.Proven, newcomer: dataplane.Claimed},
		{name: "proven stays before proven", holder: dataplane.Proven, newcomer: dataplane.Proven},
		{name: "the next key yields", holder: dataplane.Claimed, mix: true, newcomer: dataplane.Proven, yields: true},
		{name: "the next key stays", holder: dataplane.Proven, mix: true, newcomer: dataplane.Claimed},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWire()
			a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
			holder := a.peerOf(b, 1, true)
			if test.mix {
				b.set(b.peerOf(a, 1, false))
				a.set(holder)
				a.ping(b, 1)
				holder.Key = [32]byte{31: 9}
			}
			holder.Claim = test.holder
			if test.handshake {
				b.set(b.peerOf(a, 1, false))
			}
			a.set(holder)
			if test.handshake {
				a.ping(b, 1)
			}
			newcomer := a.peerOf(c, 2, false)
			newcomer.Key, newcomer.Claim = holder.Key, test.newcomer
			err := a.dev.SetPeer(newcomer)
			taken, ok := errors.AsType[*dataplane.TakenError](err)
			if !ok || !errors.Is(err, dataplane.ErrTaken) || taken.Holder != b.id || taken.Yields != test.yields {
				t.Fatalf("SetPeer: %v (%+v)", err, taken)
			}
			if _, there := a.fwd.Stats(c.id); there {
				t.Error("the newcomer has the key all the same")
			}
			// A key may be proven later.
			if a.dev.Prove(c.id, holder.Key) || a.dev.Prove(b.id, [32]byte{1}) {
				t.Error("a key was proven that is nobody's")
			}
			if !a.dev.Prove(b.id, holder.Key) {
				t.Error("the holder does not hold the key")
			}
			err = a.dev.SetPeer(newcomer)
			if taken, ok := errors.AsType[*dataplane.TakenError](err); !ok || taken.Yields {
				t.Errorf("SetPeer, the holder having proven its key: %v", err)
			}
			a.dev.RemovePeer(b.id)
			if err := a.dev.SetPeer(newcomer); err != nil {
				t.Errorf("a key that was given up: %v", err)
			}
		})
	}
}

// For the callee, the peer's key is proven once data in either direction show that the
// handshake was confirmed.
func TestHandshakeProvesKeyOfCaller(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	b.introduce(a, 1) // b is the caller
	b.ping(a, 1)
	a.ping(b, 2)
	p := a.peerOf(c, 2, false)
	p.Key, p.Claim = b.dev.PublicKey(), dataplane.Proven
	if taken, ok := errors.AsType[*dataplane.TakenError](a.dev.SetPeer(p)); !ok || taken.Yields {
		t.Errorf("a key with a handshake yields: %+v", taken)
	}
}

func TestPairKey(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	pair := func(x, y *node) [32]byte {
		t.Helper()
		k, err := x.dev.PairKey(x.dev.PublicKey(), y.dev.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ab := pair(a, b)
	if ab != pair(b, a) || ab == pair(a, c) || ab == pair(b, c) || ab == [32]byte{} {
		t.Error("pair keys are not of a pair")
	}
	// Points of low order, in both encodings (RFC 7748, 6.1).
	for _, low := range [][32]byte{{}, {1},
		{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
		{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
	} {
		if _, err := a.dev.PairKey(a.dev.PublicKey(), low); err == nil {
			t.Errorf("a key of low order is one: %x", low)
		}
	}
	own := a.dev.PublicKey()
	if err := a.dev.NewKey(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.dev.PairKey(own, b.dev.PublicKey()); !errors.Is(err, dataplane.ErrKeyGone) {
		t.Errorf("with the key before: %v", err)
	}
	if pair(a, b) == ab {
		t.Error("a new key has the old pair key")
	}
}
