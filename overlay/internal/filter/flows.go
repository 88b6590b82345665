package filter

import (
	"math/rand/v2"
	"sync/atomic"
)

// The lives of entries in seconds: how long after the last packet an answer is still let
// in.
const (
	tcpLife   = 2 * 60 * 60
	shortLife = 60 // UDP, ICMP, all others, and ended TCP connections
	fragLife  = 15
)

// ConnLife is how long after its last packet a TCP connection of this node stays in the
// table, in nanoseconds.
const ConnLife = tcpLife * int64(1e9)

func lifeOf(proto uint8) uint32 {
	if proto == protoTCP {
		return tcpLife
	}
	return shortLife
}

// flowKey names a flow with the peer in 41 bits: our port, the peer's port, the protocol
// and the family. Addresses are not part of it, because each side has one address of each
// family.
func flowKey(v6 bool, proto uint8, ourPort, theirPort uint16) uint64 {
	key := uint64(proto)<<32 | uint64(ourPort)<<16 | uint64(theirPort)
	if v6 {
		key |= 1 << 40
	}
	return key
}

// anyPortKey names the UDP flows of one port of ours with any port of the peer's. The
// key's protocol is one without ports, so that it equals no flow's key.
func anyPortKey(v6 bool, ourPort uint16) uint64 { return flowKey(v6, protoNone, ourPort, 0) }

// fragKey names a fragmented datagram in 41 bits.
func (h *header) fragKey() uint64 {
	// IPv6 leaves the protocol out, because later fragments need not have it.
	if h.v6 {
		return 1<<40 | uint64(h.fragID)
	}
	return uint64(h.proto)<<32 | uint64(h.fragID)
}

// MaxFlows is the size of a peer's flow table. When a set is full, a new flow replaces
// one that has ended or was never answered, or else the one that would end first.
const MaxFlows = numSets * numWays

const (
	numSets = 512
	numWays = 16
	keyBits = 41
	keyMask = 1<<keyBits - 1
)

// table is a set-associative table of exact 41-bit keys that is read and
// written without locks. An entry is one word, so that it is always whole:
//
//	bits 63-32  tag: the low 32 bits of the mixed key; the set is its high 9
//	bit  31     it was renewed: for TCP, there was more than a SYN
//	bit  30     TCP: we have sent FIN or RST
//	bit  29     TCP: the peer has; with both the connection is over
//	bits 28-0   second until which it lives; 0 is an empty entry
//
// The seconds last for 17 years. Sets are allocated when first used.
type table struct {
	sets [numSets]atomic.Pointer[set]
}

type set [numWays]atomic.Uint64

const (
	renewed  = 1 << 31
	endOurs  = 1 << 30
	endPeers = 1 << 29
	over     = endOurs | endPeers
	endMask  = endPeers - 1
)

// keys make the places of entries different in every process, so that nobody can predict
// which flows share a set. They are random; the multipliers are odd.
var keys = struct{ flip, mul1, mul2 uint64 }{rand.Uint64() & keyMask, rand.Uint64() | 1, rand.Uint64() | 1}

// place maps a key one to one to a set and a tag.
func place(key uint64) (index int, tag uint64) {
	key = (key ^ keys.flip) * keys.mul1 & keyMask
	key ^= key >> 21
	key = key * keys.mul2 & keyMask // its high bits depend on all bits
	return int(key >> 32), key << 32
}

// seconds turns the caller's nanoseconds into the table's seconds, from 1 on.
func seconds(now int64) uint64 { return uint64(max(now, 0))/1e9 + 1 }

// way returns the k-th place to look for a tag. The tag decides where to start, so that
// most entries are found at once.
func (s *set) way(tag uint64, k int) *atomic.Uint64 { return &s[(tag>>32+uint64(k))%numWays] }

// look reports whether key is alive.
func (t *table) look(key uint64, now int64) bool {
	index, tag := place(key)
	s := t.sets[index].Load()
	if s == nil {
		return false
	}
	sec := seconds(now)
	for k := range numWays {
		if e := s.way(tag, k).Load(); e>>32 == tag>>32 && e&endMask >= sec {
			return true
		}
	}
	return false
}

// renew reports whether key is alive, and if so prolongs it to life from now and adds
// marks (endOurs, endPeers). A flow that is over lives for shortLife.
func (t *table) renew(key uint64, now int64, life uint32, marks uint64) bool {
	index, tag := place(key)
	s := t.sets[index].Load()
	if s == nil {
		return false
	}
	sec := seconds(now)
	for k := range numWays {
		slot := s.way(tag, k)
		e := slot.Load()
		if e>>32 != tag>>32 || e&endMask < sec {
			continue
		}
		next, end := e|renewed|marks, (sec+uint64(life))&endMask
		if next&over == over {
			next, end = next&^renewed&^endMask, (sec+shortLife)&endMask
		}
		if next&endMask < end {
			next = next&^endMask | end
		}
		if next != e { // mostly at most once a second
			// This fails only if another goroutine has just changed the same entry.
			slot.CompareAndSwap(e, next)
		}
		return true
	}
	return false
}

// put inserts key as a flow that has just begun.
func (t *table) put(key uint64, now int64, life uint32) {
	index, tag := place(key)
	s := t.sets[index].Load()
	if s == nil {
		t.sets[index].CompareAndSwap(nil, new(set))
		s = t.sets[index].Load()
	}
	sec := seconds(now)
	entry := tag | (sec+uint64(life))&endMask
	// Only a few goroutines can compete for a set, so a few tries are enough. Giving up
	// loses one flow, as in a full set.
	for range 8 {
		var victim *atomic.Uint64
		old, least := uint64(0), ^uint64(0)
		for k := range numWays {
			// Start at a place that depends on the key: otherwise, of entries that end in
			// the same second, always the same one, which is the newest, would be
			// replaced.
			slot := s.way(tag, k)
			e := slot.Load()
			if e != 0 && e>>32 == tag>>32 {
				victim, old = slot, e
				break
			}
			rank := e & (renewed | endMask)
			if e&endMask < sec {
				rank = 0
			}
			if rank < least {
				least, victim, old = rank, slot, e
			}
		}
		if old == entry {
			return
		}
		if victim.CompareAndSwap(old, entry) {
			if old == 0 || old>>32 != tag>>32 {
				s.settle(tag)
			}
			return
		}
	}
}

// settle removes all but the first entry of a tag, which two goroutines may have put at
// once.
func (s *set) settle(tag uint64) {
	found := false
	for i := range s {
		e := s[i].Load()
		if e == 0 || e>>32 != tag>>32 {
			continue
		}
		if found {
			s[i].CompareAndSwap(e, 0)
		}
		found = true
	}
}

// forget removes key.
func (t *table) forget(key uint64) {
	index, tag := place(key)
	s := t.sets[index].Load()
	if s == nil {
		return
	}
	for i := range s {
		for e := s[i].Load(); e != 0 && e>>32 == tag>>32; e = s[i].Load() {
			s[i].CompareAndSwap(e, 0)
		}
	}
}

// any reports whether any flow is alive.
func (t *table) any(now int64) bool {
	sec := seconds(now)
	for i := range t.sets {
		s := t.sets[i].Load()
		if s == nil {
			continue
		}
		for j := range s {
			if e := s[j].Load(); e&endMask >= sec {
				return true
			}
		}
	}
	return false
}
