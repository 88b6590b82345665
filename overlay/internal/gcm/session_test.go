package gcm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bothModes runs a test with nonces that count and with random ones, as in FIPS mode
// "only".
func bothModes(t *testing.T, f func(t *testing.T)) {
	for _, random := range []bool{false, true} {
		t.Run(fmt.Sprintf("random=%v", random), func(t *testing.T) {
			before := enforced
			enforced = random
			t.Cleanup(func() { enforced = before }) // after the nodes' own
			f(t)
		})
	}
}

// room returns a buffer with a packet at headerLen.
func room(pkt []byte) []byte {
	return append(append(make([]byte, headerLen, headerLen+len(pkt)+overheadRandom), pkt...), make([]byte, overheadRandom)...)
}

// sealOne seals a copy of pkt.
func (s *session) sealOne(pkt []byte, now int64) []byte {
	e, counter, ok := s.reserve(1, now)
	if !ok {
		return nil
	}
	return e.seal(room(pkt), len(pkt), counter)
}

// openOne opens a copy of msg as a peer with only this session does.
func (s *session) openOne(msg []byte, now int64) (pkt []byte, ok bool) {
	msg = append(make([]byte, 0, len(msg)), msg...)
	h, ok := parse(msg)
	if !ok {
		return nil, false
	}
	e := s.known(h.index, now)
	if e == nil {
		e = s.later(h.index)
	}
	if e == nil {
		return nil, false
	}
	opened, ok := e.open(msg, h)
	if !ok {
		return nil, false
	}
	s.commit(e, now)
	return opened[headerLen:], true
}

// pairOf makes both ends of a session.
func pairOf(secret byte) (caller, callee *session) {
	return newSession([32]byte{secret}, true, 0), newSession([32]byte{secret}, false, 0)
}

func TestBothDirections(t *testing.T) {
	bothModes(t, func(t *testing.T) {
		a, b := pairOf(1)
		for _, size := range []int{0, 1, 15, 16, 1420, 65488} {
			pkt := bytes.Repeat([]byte{7}, size)
			for _, way := range [][2]*session{{a, b}, {b, a}} {
				msg := way[0].sealOne(pkt, 0)
				if want := len(pkt) + framing().Overhead; len(msg) != want {
					t.Fatalf("%d bytes, want %d", len(msg), want)
				}
				if size > 15 && bytes.Contains(msg, pkt) {
					t.Fatal("the packet is in the datagram")
				}
				if got, ok := way[1].openOne(msg, 0); !ok || !bytes.Equal(got, pkt) {
					t.Fatalf("opened %d bytes, %v", len(got), ok)
				}
				if _, ok := way[1].openOne(msg, 0); ok {
					t.Error("taken twice")
				}
				if _, ok := way[0].openOne(msg, 0); ok {
					t.Error("reflected, and taken")
				}
			}
		}
		if c, _ := pairOf(2); c.known(a.sender.cur.Load().index, 0) != nil || c.later(a.sender.cur.Load().index) != nil {
			t.Error("another session knows the index")
		}
	})
}

// A change of any byte, and a shorter or longer datagram, is refused, and costs no counter.
func TestForged(t *testing.T) {
	bothModes(t, func(t *testing.T) {
		a, b := pairOf(1)
		msg := a.sealOne([]byte("a packet of forty bytes, more or less..."), 0)
		for i := range msg {
			for _, bit := range []byte{1, 0x80} {
				bad := bytes.Clone(msg)
				bad[i] ^= bit
				if _, ok := b.openOne(bad, 0); ok {
					t.Fatalf("byte %d changed, and taken", i)
				}
			}
		}
		for n := range len(msg) {
			if _, ok := b.openOne(msg[:n], 0); ok {
				t.Fatalf("%d bytes taken", n)
			}
		}
		if _, ok := b.openOne(append(bytes.Clone(msg), 0), 0); ok {
			t.Error("a longer one taken")
		}
		if _, ok := b.openOne(msg, 0); !ok {
			t.Error("the authentic one refused")
		}
	})
}

// A node that counts its nonces and one whose nonces are random understand each other.
func TestModesMix(t *testing.T) {
	before := enforced
	defer func() { enforced = before }()
	for _, random := range []bool{false, true} {
		enforced = random
		a := newSession([32]byte{1}, true, 0)
		msg := a.sealOne([]byte("packet"), 0)
		enforced = !random
		b := newSession([32]byte{1}, false, 0)
		if pkt, ok := b.openOne(msg, 0); !ok || string(pkt) != "packet" {
			t.Errorf("random %v: %q, %v", random, pkt, ok)
		}
	}
}

// The receiver follows the epochs of the sender, at most maxAhead at a time. The one before
// is taken for oldLife.
func TestEpochs(t *testing.T) {
	bothModes(t, func(t *testing.T) {
		a, b := pairOf(1)
		first := a.sender.cur.Load()
		late := a.sealOne([]byte("late"), 0)
		tooLate := a.sealOne([]byte("too late"), 0)
		now := int64(epochLife)
		if got := a.sealOne([]byte("x"), now-1); binary.BigEndian.Uint32(got[4:]) != first.index {
			t.Error("the epoch has ended too early")
		}
		msg := a.sealOne([]byte("next"), now)
		second := a.sender.cur.Load()
		if second == first || binary.BigEndian.Uint32(msg[4:]) == first.index || second.counter.Load() != 1 {
			t.Fatal("the epoch has not ended")
		}
		// A forged datagram of the next epoch changes nothing.
		bad := bytes.Clone(msg)
		bad[len(bad)-1]++
		if _, ok := b.openOne(bad, now); ok || b.receiver.cur.Load().index != first.index {
			t.Fatal("a forged datagram began an epoch")
		}
		if _, ok := b.openOne(msg, now); !ok || b.receiver.cur.Load().index != second.index {
			t.Fatal("the next epoch did not begin")
		}
		if _, ok := b.openOne(late, now+int64(oldLife)-1); !ok {
			t.Error("a late datagram of the epoch before was refused")
		}
		if _, ok := b.openOne(tooLate, now+int64(oldLife)); ok {
			t.Error("a datagram of the epoch before was taken after its time")
		}
		if _, ok := b.openOne(late, now+1); ok {
			t.Error("a datagram was taken twice, over two epochs")
		}
		// Epochs of which nothing has arrived.
		for _, missed := range []int{1, 2, maxAhead - 1} {
			for range missed + 1 {
				now += int64(epochLife)
				msg = a.sealOne([]byte("y"), now)
			}
			if _, ok := b.openOne(msg, now); !ok {
				t.Fatalf("refused after %d missed epochs", missed)
			}
		}
		for range maxAhead + 1 {
			now += int64(epochLife)
			msg = a.sealOne([]byte("z"), now)
		}
		if _, ok := b.openOne(msg, now); ok {
			t.Error("taken after too many missed epochs")
		}
	})
}

// An epoch ends after epochPackets datagrams, and no counter is given twice even if several
// goroutines ask for many at the end.
func TestEpochOfMany(t *testing.T) {
	a, b := pairOf(1)
	e := a.sender.cur.Load()
	e.counter.Store(epochPackets - 10)
	if got, first, ok := a.reserve(10, 0); !ok || got != e || first != epochPackets-10 {
		t.Fatalf("reserved from %d", first)
	}
	msg := a.sealOne([]byte("x"), 0)
	if got := a.sender.cur.Load(); got == e || got.counter.Load() != 1 {
		t.Fatal("the epoch has not ended")
	}
	if _, ok := b.openOne(msg, 0); !ok {
		t.Error("refused")
	}
	if _, ok := parse(header{index: 1, counter: epochPackets}.of(40)); ok {
		t.Error("a counter beyond the epoch was parsed")
	}
}

// of makes a datagram of n bytes with the header.
func (h header) of(n int) []byte {
	b := make([]byte, n)
	h.put(b)
	return b
}

// Dropped keys seal nothing more.
func TestDroppedKeys(t *testing.T) {
	a, b := pairOf(1)
	msg := b.sealOne([]byte("x"), 0)
	a.sender.drop()
	if a.sealOne([]byte("y"), 0) != nil || a.sealOne([]byte("y"), int64(time.Hour)) != nil {
		t.Error("sealed")
	}
	if _, ok := a.openOne(msg, 0); !ok {
		t.Error("not opened")
	}
}

// No two datagrams of all epochs and sessions have the same key and nonce.
func TestNoncesAreUnique(t *testing.T) {
	type use struct{ key, nonce string }
	seen := map[use]bool{}
	for secret := range byte(4) {
		for _, caller := range []bool{true, false} {
			send, _ := chains([32]byte{secret}, caller)
			after, c := uint32(0), send
			for range 40 {
				k := c.derive(after)
				e := newSendEpoch(k, 0)
				after, c = k.index, k.next
				for counter := range uint64(20) {
					msg := e.seal(room([]byte("x")), 1, counter)
					u := use{string(k.key[:]), string(msg[4:16])}
					if seen[u] {
						t.Fatal("the same key and nonce twice")
					}
					seen[u] = true
				}
			}
		}
	}
}

// An epoch never has the index of the one before.
func TestIndexesDiffer(t *testing.T) {
	_, receive := chains([32]byte{1}, true)
	k := receive.derive(0)
	again := receive.derive(k.index)
	if again.index == k.index || again.key == k.key || again.next != k.next.derive(0).next {
		t.Error("the epoch with the forbidden index was not skipped")
	}
}

// The second implementation and this one understand each other.
func TestIndependent(t *testing.T) {
	bothModes(t, func(t *testing.T) {
		secret := [32]byte{1, 2, 3}
		for _, caller := range []bool{true, false} {
			label, other := "weft aes 1 caller", "weft aes 1 callee"
			if !caller {
				label, other = other, label
			}
			s := newSession(secret, caller, 0)
			for epoch := range 5 {
				now := int64(epoch) * int64(epochLife)
				for i, size := range []int{0, 1, 16, 33, 200} {
					pkt := bytes.Repeat([]byte{byte(epoch), byte(i)}, size)[:size]
					msg := s.sealOne(pkt, now)
					counter, got, ok := theirOpen(secret[:], label, epoch, msg)
					if !ok || !bytes.Equal(got, pkt) || counter != uint64(i) {
						t.Fatalf("epoch %d: they opened %x, counter %d, %v", epoch, got, counter, ok)
					}
					var nonce []byte
					if i%2 == 1 {
						nonce = bytes.Repeat([]byte{byte(i)}, nonceLen)
					}
					if got, ok := s.openOne(theirSeal(secret[:], other, epoch, uint64(i), nonce, pkt), now); !ok || !bytes.Equal(got, pkt) {
						t.Fatalf("epoch %d: we opened %x, %v", epoch, got, ok)
					}
				}
			}
		}
	})
}

// Datagrams made by Python (testdata/vectors.py) are opened, and made again byte for byte.
func TestVectors(t *testing.T) {
	bothModes(t, func(t *testing.T) {
		text, err := os.ReadFile("testdata/vectors.txt")
		if err != nil {
			t.Fatal(err)
		}
		checked := 0
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if f[0] == "#" {
				continue
			}
			checked++
			secret, _ := hex.DecodeString(f[0])
			epoch, _ := strconv.Atoi(f[2])
			counter, _ := strconv.ParseUint(f[3], 10, 64)
			pkt, _ := hex.DecodeString(strings.Trim(f[4], "-"))
			msg, _ := hex.DecodeString(f[5])
			s := newSession([32]byte(secret), f[1] != "caller", 0)
			if got, ok := s.openOne(msg, 0); !ok || !bytes.Equal(got, pkt) {
				t.Errorf("line %d: opened %x, %v", checked, got, ok)
			}
			if msg[0] == 5 && !enforced {
				send, _ := chains([32]byte(secret), f[1] == "caller")
				k := send.derive(0)
				for range epoch {
					k = k.next.derive(k.index)
				}
				if got := newSendEpoch(k, 0).seal(room(pkt), len(pkt), counter); !bytes.Equal(got, msg) {
					t.Errorf("line %d: sealed %x", checked, got)
				}
			}
		}
		if checked < 20 {
			t.Errorf("%d vectors", checked)
		}
	})
}

// A network that loses, repeats and reorders: every packet is taken at most once and as it
// was sent, and none is refused that arrives in time. WEFT_PACKETS is how many are sent.
func TestHostileOrder(t *testing.T) {
	packets := 300_000
	if n, err := strconv.Atoi(os.Getenv("WEFT_PACKETS")); err == nil {
		packets = n
	}
	a, b := pairOf(1)
	r := rand.New(rand.NewPCG(3, 4))
	type flying struct {
		msg    []byte
		number uint64
		sent   int64
	}
	// A datagram arrives up to 500 later than it was sent. Up to two thousand of them lie
	// in an epoch.
	const late = 500
	var queue [late + 1][]flying
	got := make([]uint8, packets)
	now := int64(0)
	lost := 0
	for i := range uint64(packets) {
		now += int64(epochLife) / 2000
		if r.Uint64N(5000) == 0 {
			now += r.Int64N(10 * int64(epochLife))
		}
		var pkt [12]byte
		binary.BigEndian.PutUint64(pkt[:], i)
		msg := a.sealOne(pkt[:], now)
		if r.Uint64N(10) == 0 {
			lost++
			got[i] = 2 // must not arrive
		} else {
			for range 1 + r.Uint64N(8)/7 {
				at := (i + r.Uint64N(late)) % uint64(len(queue))
				queue[at] = append(queue[at], flying{msg, i, now})
			}
		}
		slot := i % uint64(len(queue))
		for _, f := range queue[slot] {
			pkt, ok := b.openOne(f.msg, now)
			n := f.number
			switch {
			case ok && (len(pkt) != 12 || binary.BigEndian.Uint64(pkt) != n):
				t.Fatalf("packet %d arrived as %x", n, pkt)
			case ok && got[n] != 0:
				t.Fatalf("packet %d was taken again", n)
			case ok:
				got[n] = 1
			case got[n] == 0 && now-f.sent < int64(oldLife):
				t.Fatalf("packet %d was refused", n)
			}
		}
		queue[slot] = queue[slot][:0]
	}
	taken := 0
	for _, g := range got {
		if g == 1 {
			taken++
		}
	}
	if taken < (packets-lost)/2 {
		t.Errorf("%d of %d packets were taken", taken, packets-lost)
	}
}

func FuzzOpen(f *testing.F) {
	a, _ := pairOf(1)
	f.Add(a.sealOne([]byte("packet"), 0))
	f.Add(header{index: a.sender.cur.Load().index}.of(40))
	f.Add(header{random: true, index: a.sender.cur.Load().index, counter: 1}.of(44))
	f.Fuzz(func(t *testing.T, msg []byte) {
		_, b := pairOf(1)
		pkt, ok := b.openOne(msg, 0)
		if !ok {
			return
		}
		// Only what the other end has made is opened.
		a, _ := pairOf(1)
		again := a.sender.cur.Load().seal(room(pkt), len(pkt), binary.BigEndian.Uint64(msg[8:]))
		if msg[0] == 5 && !bytes.Equal(again, msg) {
			t.Errorf("%x was opened", msg)
		}
	})
}

func TestFit(t *testing.T) {
	first := Fit()
	if Fit() != first {
		t.Error("it changes")
	}
}
