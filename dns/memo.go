package dns

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
	"time"
)

// Bounds of what is answered from the memo.
const (
	memoSets  = 8192 // of memoWays entries
	memoWays  = 4
	memoBytes = 3 << 20
	memoMost  = 1500 // bytes of one message
	// memoCost is what an entry takes beside the two messages.
	memoCost = 112
)

// memo gives a message that was answered a moment ago the same answer, without
// looking into it: the messages are equal byte for byte but for the id, and so
// are their answers as long as the state is the same, but for the id and the
// TTLs that count down. It is read and written without locks.
type memo struct {
	// Constant.
	seed maphash.Seed

	table atomic.Pointer[memoTable] // nil until there is something to remember
	bytes atomic.Int64
	hand  atomic.Uint32 // where room is made next
}

// memoTable is sets of memoWays entries.
type memoTable [memoSets * memoWays]atomic.Pointer[memoEntry]

// set returns the entries that one with hash h can be among.
func (t *memoTable) set(h uint64) []atomic.Pointer[memoEntry] {
	return t[h%memoSets*memoWays:][:memoWays]
}

// memoEntry is immutable.
type memoEntry struct {
	st     *state
	hash   uint64
	msg    []byte // the question without its id, then the answer without its id
	qlen   uint16
	tcp    bool
	out    outcome
	ttls   []uint16 // where the TTLs are in the answer
	stored time.Time
	until  time.Time // zero: as long as the state lives
}

// answer appends the answer to the message in to out, which is empty, and
// returns nil when there is none.
func (m *memo) answer(st *state, in []byte, tcp bool, now time.Time, out []byte) ([]byte, outcome) {
	table := m.table.Load()
	if table == nil || len(in) < headerLen || len(in) > memoMost {
		return nil, 0
	}
	key := in[2:]
	h := maphash.Bytes(m.seed, key)
	set := table.set(h)
	for i := range set {
		e := set[i].Load()
		if e == nil || e.hash != h || e.st != st || e.tcp != tcp || !bytes.Equal(e.msg[:e.qlen], key) {
			continue
		}
		if !e.until.IsZero() && !now.Before(e.until) {
			return nil, 0
		}
		out = append(out, in[0], in[1])
		out = append(out, e.msg[e.qlen:]...)
		if len(e.ttls) > 0 {
			if age := uint32(now.Sub(e.stored) / time.Second); age > 0 {
				for _, off := range e.ttls {
					ttl := binary.BigEndian.Uint32(out[off:])
					if ttl > age {
						ttl -= age
					} else {
						ttl = min(ttl, 1)
					}
					binary.BigEndian.PutUint32(out[off:], ttl)
				}
			}
		}
		return out, e.out
	}
	return nil, 0
}

// put remembers that in was answered with out.
func (m *memo) put(st *state, in []byte, tcp bool, now time.Time, out []byte, a *answer) {
	if len(in) > memoMost || len(out) > memoMost || len(in) < headerLen || len(out) < headerLen {
		return
	}
	table := m.table.Load()
	if table == nil {
		if t := new(memoTable); m.table.CompareAndSwap(nil, t) {
			table = t
		} else {
			table = m.table.Load()
		}
	}
	e := &memoEntry{st: st, qlen: uint16(len(in) - 2), tcp: tcp, out: a.out, stored: now, until: a.until}
	switch e.out {
	case outForwarded:
		e.out = outCached // from now on
	}
	e.msg = make([]byte, 0, len(in)+len(out)-4)
	e.msg = append(append(e.msg, in[2:]...), out[2:]...)
	e.hash = maphash.Bytes(m.seed, in[2:])
	if !a.until.IsZero() {
		if e.ttls = ttlOffsets(out); e.ttls == nil {
			return
		}
	}
	set := table.set(e.hash)
	// In place of the same one, an empty or a useless one, or the oldest.
	victim, oldest := 0, time.Time{}
	for i := range set {
		o := set[i].Load()
		if o == nil || o.st != st || !o.until.IsZero() && !now.Before(o.until) || o.hash == e.hash {
			victim = i
			break
		}
		if oldest.IsZero() || o.stored.Before(oldest) {
			victim, oldest = i, o.stored
		}
	}
	m.bytes.Add(e.cost() - set[victim].Swap(e).cost())
	for m.bytes.Load() > memoBytes {
		i := m.hand.Add(1) % uint32(len(table))
		m.bytes.Add(-table[i].Swap(nil).cost())
	}
}

// cost is the memory of an entry, 0 of none.
func (e *memoEntry) cost() int64 {
	if e == nil {
		return 0
	}
	return int64(cap(e.msg) + 2*len(e.ttls) + memoCost)
}
