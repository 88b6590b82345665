package wg

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"weft/overlay/cert"
)

// initiation makes a handshake initiation from one node to another with any time stamp
// (WireGuard paper, section 5.4.2), as the sender would with its clock at that time.
func initiation(t *testing.T, from, to *node, at time.Time) []byte {
	t.Helper()
	config, err := from.dev.dev.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(config, "private_key=")
	raw, err := hex.DecodeString(after[:64])
	if err != nil {
		t.Fatal(err)
	}
	static, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	theirs := to.dev.PublicKey()
	their, err := ecdh.X25519().NewPublicKey(theirs[:])
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hmac2s := func(key []byte, in ...[]byte) []byte {
		m := hmac.New(func() hash.Hash { h, _ := blake2s.New256(nil); return h }, key)
		for _, b := range in {
			m.Write(b)
		}
		return m.Sum(nil)
	}
	sum := func(in ...[]byte) []byte { s := blake2s.Sum256(slices.Concat(in...)); return s[:] }
	kdf2 := func(key, in []byte) (a, b []byte) {
		secret := hmac2s(key, in)
		a = hmac2s(secret, []byte{1})
		return a, hmac2s(secret, a, []byte{2})
	}
	seal := func(key, plain, ad []byte) []byte {
		aead, err := chacha20poly1305.New(key)
		if err != nil {
			t.Fatal(err)
		}
		return aead.Seal(nil, make([]byte, chacha20poly1305.NonceSize), plain, ad)
	}
	dh := func(k *ecdh.PrivateKey) []byte {
		s, err := k.ECDH(their)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}

	chain := sum([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"))
	h := sum(sum(chain, []byte("WireGuard v1 zx2c4 Jason@zx2c4.com")), theirs[:])
	msg := binary.LittleEndian.AppendUint32([]byte{messageInitiation, 0, 0, 0}, 7)
	e := ephemeral.PublicKey().Bytes()
	msg = append(msg, e...)
	h = sum(h, e)
	chain, _ = kdf2(chain, e)
	chain, key := kdf2(chain, dh(ephemeral))
	sealed := seal(key, static.PublicKey().Bytes(), h)
	msg = append(msg, sealed...)
	h = sum(h, sealed)
	_, key = kdf2(chain, dh(static))
	stamp := binary.BigEndian.AppendUint64(nil, 0x400000000000000a+uint64(at.Unix()))
	stamp = binary.BigEndian.AppendUint32(stamp, uint32(at.Nanosecond()))
	msg = append(msg, seal(key, stamp, h)...)
	mac, err := blake2s.New128(sum([]byte("mac1----"), theirs[:]))
	if err != nil {
		t.Fatal(err)
	}
	mac.Write(msg)
	return append(mac.Sum(msg), make([]byte, 16)...)
}

// setBack makes it look to m as if n's clock had been set back by an hour since n's last
// handshake: m receives an initiation of n with a time in the future.
func setBack(t *testing.T, n, m *node) {
	t.Helper()
	var answered atomic.Bool
	m.wire.lose(func(from, _ cert.NodeID, msg []byte) bool {
		if from == m.id && msg[0] == messageResponse && binary.LittleEndian.Uint32(msg[8:]) == 7 {
			answered.Store(true)
			return true
		}
		return false
	})
	time.Sleep(30 * time.Millisecond) // two initiations within 20 ms are a flood
	m.bind.Deliver(n.id, initiation(t, n, m, time.Now().Add(time.Hour)))
	waitFor(t, "an answer to the initiation of the future", answered.Load)
	m.wire.lose(nil)
}

func handshakes(n, m *node) time.Time {
	s, _ := n.fwd.Stats(m.id)
	return s.LastHandshake
}

// A caller's clock was set back unnoticed, and the callee ignores its initiations. So the
// callee begins by itself.
func TestCalleeBeginsWhenCallerIsIgnored(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.ping(b, 1)
	b.ping(a, 2)
	setBack(t, a, b)
	a.ping(b, 5)

	before := handshakes(a, b)
	a.introduce(b, 2)
	waitFor(t, "a handshake", func() bool { return handshakes(a, b).After(before) })
	a.ping(b, 3)
	b.ping(a, 4)
}

// A caller whose clock was set back takes another key: the callee accepts it at once, and
// flows in the tunnel continue.
func TestRekeyAfterClockSetBack(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	f := startFlows(a, b, 200*time.Millisecond)
	f.goOn()
	setBack(t, a, b)

	old := a.dev.Key()
	if err := a.dev.Rekey(); err != nil {
		t.Fatal(err)
	}
	if now := a.dev.Key(); now.Public == old.Public || now.Boot == old.Boot {
		t.Fatalf("key %x, boot %x before and after", now.Public, now.Boot)
	}
	before := handshakes(a, b)
	a.introduce(b, 2)
	f.goOn()
	if !handshakes(a, b).After(before) {
		t.Error("flows went on without a handshake")
	}
	b.dev.mu.Lock()
	p := b.dev.peers[a.id]
	if len(b.dev.byKey) != 1 || p.next != nil || p.cur.key != a.dev.PublicKey() {
		t.Error("the callee has kept the tunnel of the old key")
	}
	b.dev.mu.Unlock()
}

// Only a step back since an initiation under the present key counts, and only one that
// affects peers.
func TestSetBack(t *testing.T) {
	w := newWire()
	var offset atomic.Int64
	var told atomic.Int64
	b := newNode(t, w, 2)
	a := newNodeOf(t, w, 1, func(c *Config) {
		c.Wall = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		c.SetBack = func() { told.Add(1) }
	})
	check := func(when string, want bool) {
		t.Helper()
		if got := a.dev.SetBack(); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	begin := func(psk byte) {
		t.Helper()
		before := handshakes(a, b)
		time.Sleep(30 * time.Millisecond)
		a.introduce(b, psk)
		waitFor(t, "a handshake", func() bool { return handshakes(a, b).After(before) })
	}
	offset.Store(-int64(time.Hour))
	check("no handshake yet", false)
	offset.Store(0)
	begin(1)
	check("nothing happened", false)
	offset.Store(-int64(time.Second))
	check("a leap second", false)
	offset.Store(-int64(3 * time.Second))
	check("a step", true)
	offset.Store(int64(time.Hour))
	check("the machine slept", false)
	begin(2)
	offset.Store(int64(time.Hour) - 3*int64(time.Second))
	check("a step back after a sleep", true)
	if told.Load() != 0 {
		t.Errorf("told %d times before an initiation", told.Load())
	}
	begin(3)
	if told.Load() == 0 {
		t.Error("not told by an initiation whose stamp is too low")
	}
	if err := a.dev.Rekey(); err != nil {
		t.Fatal(err)
	}
	check("a new key", false)
	told.Store(0)
	begin(4)
	check("a handshake under the new key", false)
	if told.Load() != 0 {
		t.Error("told under the new key")
	}
}

// A new key in the middle of handshakes, whichever side has started them, does not
// deadlock the device.
func TestRekeyDuringHandshakes(t *testing.T) {
	w := newWire()
	a := newNode(t, w, 1)
	var others []*node
	for i := range byte(4) {
		others = append(others, newNode(t, w, 2+i))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 300 {
			if err := a.dev.Rekey(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	for round := byte(1); ; round++ {
		for i, b := range others {
			from, to := a, b
			if (int(round)+i)%2 == 0 {
				from, to = to, from
			}
			// The key may have changed meanwhile: then one side refuses, or waits.
			to.dev.SetPeer(to.peerOf(from, max(round, 1), false))
			from.dev.SetPeer(from.peerOf(to, max(round, 1), true))
		}
		select {
		case <-done:
			for i, b := range others {
				a.introduce(b, 7)
				a.ping(b, uint32(i))
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}
