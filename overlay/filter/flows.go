package filter

import "sync/atomic"

// The lives of entries in seconds: how long after the last packet an answer is
// still one.
const (
	tcpLife   = 2 * 60 * 60
	shortLife = 60 // UDP, ICMP and all others
	fragLife  = 15
)

func lifeOf(proto uint8) uint32 {
	if proto == protoTCP {
		return tcpLife
	}
	return shortLife
}

// flowKey names a flow with the peer in 41 bits: our port, the peer's port, the
// protocol and the family. Addresses need no room, since each side has one
// address of each family.
func flowKey(v6 bool, proto uint8, ourPort, theirPort uint16) uint64 {
	key := uint64(proto)<<32 | uint64(ourPort)<<16 | uint64(theirPort)
	if v6 {
		key |= 1 << 40
	}
	return key
}

// fragKey names a fragmented datagram in 41 bits.
func (h *header) fragKey() uint64 {
	// The protocol is left out for IPv6: a later fragment need not tell it.
	if h.v6 {
		return 1<<40 | uint64(h.fragID)
	}
	return uint64(h.proto)<<32 | uint64(h.fragID)
}

// MaxFlows is the size of a peer's flow table. When a set of it is full the
// flow that would end first makes room.
const MaxFlows = numSets * numWays

const (
	numSets = 512
	numWays = 8
	keyBits = 41
	keyMask = 1<<keyBits - 1
)

// table is a set-associative table of exact 41-bit keys that is read and
// written without locks. An entry is one word, so that it is always whole:
//
//	bits 63-32  tag: the low 32 bits of the mixed key; the set is its high 9
//	bit  31     begun by this node
//	bits 30-0   second until which it lives; 0 is an empty entry
//
// Sets are made when first used.
type table struct {
	sets [numSets]atomic.Pointer[set]
}

type set [numWays]atomic.Uint64

const (
	oursBit = 1 << 31
	endMask = oursBit - 1
)

// origin says who began a flow.
type origin uint8

const (
	nobody origin = iota
	ours
	theirs
)

// place mixes a key, one to one, and cuts it into set and tag.
func place(key uint64) (index int, tag uint64) {
	key ^= key >> 21
	key = key * 0x9e3779b97f4a7c15 & keyMask
	key ^= key >> 21
	key = key * 0xd1b54a32d192ed03 & keyMask
	key ^= key >> 21
	return int(key >> 32), key << 32
}

// seconds turns the caller's nanoseconds into the table's seconds, from 1 on.
func seconds(now int64) uint64 { return uint64(max(now, 0))/1e9 + 1 }

// look says who began the flow key, if it is alive.
func (t *table) look(key uint64, now int64) origin {
	index, tag := place(key)
	s := t.sets[index].Load()
	if s == nil {
		return nobody
	}
	sec := seconds(now)
	for i := range s {
		if e := s[i].Load(); e>>32 == tag>>32 && e&endMask >= sec {
			if e&oursBit != 0 {
				return ours
			}
			return theirs
		}
	}
	return nobody
}

// touch reports whether key is alive and was begun by this node, and if so
// makes it live on.
func (t *table) touch(key uint64, now int64, life uint32) bool {
	return t.renew(key, now, life, true)
}

// refresh makes key live on, whoever began it, and reports whether it was
// alive.
func (t *table) refresh(key uint64, now int64, life uint32) bool {
	return t.renew(key, now, life, false)
}

func (t *table) renew(key uint64, now int64, life uint32, oursOnly bool) bool {
	index, tag := place(key)
	s := t.sets[index].Load()
	if s == nil {
		return false
	}
	sec := seconds(now)
	end := (sec + uint64(life)) & endMask
	for i := range s {
		e := s[i].Load()
		if e>>32 != tag>>32 || e&endMask < sec || oursOnly && e&oursBit == 0 {
			continue
		}
		if e&endMask < end { // at most once a second
			// Lost only to somebody who changed the same entry just now.
			s[i].CompareAndSwap(e, e&^uint64(endMask)|end)
		}
		return true
	}
	return false
}

// put makes key live from now on, begun by this node or by the peer.
func (t *table) put(key uint64, began bool, now int64, life uint32) {
	index, tag := place(key)
	s := t.sets[index].Load()
	if s == nil {
		t.sets[index].CompareAndSwap(nil, new(set))
		s = t.sets[index].Load()
	}
	entry := tag | (seconds(now)+uint64(life))&endMask
	if began {
		entry |= oursBit
	}
	// A set is fought over by a handful of goroutines at most, so a few tries
	// are many. Giving up loses one flow, as a full set would.
	for range 8 {
		victim, old := 0, uint64(0)
		first := ^uint64(0)
		for k := range uint64(numWays) {
			// From a place that the key decides: of those that end in the same
			// second it is not always the same, and so the newest, that makes room.
			i := int((tag>>32 + k) % numWays)
			e := s[i].Load()
			if e != 0 && e>>32 == tag>>32 {
				victim, old = i, e
				break
			}
			if end := e & endMask; end < first {
				first, victim, old = end, i, e
			}
		}
		if old == entry {
			return
		}
		if s[victim].CompareAndSwap(old, entry) {
			if old == 0 || old>>32 != tag>>32 {
				s.settle(victim, tag)
			}
			return
		}
	}
}

// settle removes what two goroutines may have put at once under one tag. The
// entry of the peer stays: it gives the peer less.
func (s *set) settle(mine int, tag uint64) {
	for i := range s {
		other := s[i].Load()
		if i == mine || other == 0 || other>>32 != tag>>32 {
			continue
		}
		e := s[mine].Load()
		if e == 0 || e>>32 != tag>>32 {
			return
		}
		if other&oursBit != 0 {
			s[i].CompareAndSwap(other, 0)
		} else {
			s[mine].CompareAndSwap(e, 0)
			return
		}
	}
}

// anyOurs reports whether any flow begun by this node is alive.
func (t *table) anyOurs(now int64) bool {
	sec := seconds(now)
	for i := range t.sets {
		s := t.sets[i].Load()
		if s == nil {
			continue
		}
		for j := range s {
			if e := s[j].Load(); e&oursBit != 0 && e&endMask >= sec {
				return true
			}
		}
	}
	return false
}
