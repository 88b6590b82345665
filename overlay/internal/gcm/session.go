package gcm

import (
	"crypto/cipher"
	"crypto/subtle"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// epochLife and epochPackets end an epoch: whichever comes first, at the next seal.
	epochLife    = 2 * time.Minute
	epochPackets = 1 << 32
	// maxAhead is how many epochs a receiver may have missed.
	maxAhead = 64
	// oldLife is how long after a change the datagrams of the epoch, or session, before
	// are still taken.
	oldLife = 10 * time.Second
)

// session is what one introduction gives: the keys of both directions. It is pure: its
// methods get the time, by mono.Now. They may be called from several goroutines, and take
// a lock only when an epoch changes.
type session struct {
	secret [32]byte     // constant
	ahead  int64        // of Device.clocks when it was made; constant
	until  atomic.Int64 // when an old one ends
	sender
	receiver
}

// newSession makes the session of an introduction. caller says that this node was its
// caller.
func newSession(secret [32]byte, caller bool, now int64) *session {
	send, receive := chains(secret, caller)
	s := &session{secret: secret}
	s.sender.cur.Store(newSendEpoch(send.derive(0), now))
	s.receiver.cur.Store(newReceiveEpoch(receive.derive(0)))
	return s
}

// has reports whether the session has this secret.
func (s *session) has(secret [32]byte) bool {
	return subtle.ConstantTimeCompare(s.secret[:], secret[:]) == 1
}

// sender seals.
type sender struct {
	cur atomic.Pointer[sendEpoch] // nil: the keys were dropped; changes with mu held
	mu  sync.Mutex
}

type sendEpoch struct {
	// Constant.
	index uint32
	aead  cipher.AEAD
	next  chain
	begun int64

	counter atomic.Uint64 // of the next datagram
}

func newSendEpoch(k keys, now int64) *sendEpoch {
	return &sendEpoch{index: k.index, aead: cipherOf(&k.key), next: k.next, begun: now}
}

// reserve returns the epoch for n datagrams and the first of their counters, which nobody
// else gets. ok is false once the keys were dropped.
func (s *sender) reserve(n int, now int64) (e *sendEpoch, first uint64, ok bool) {
	for {
		e := s.cur.Load()
		if e == nil {
			return nil, 0, false
		}
		if now-e.begun < int64(epochLife) {
			if end := e.counter.Add(uint64(n)); end <= epochPackets {
				return e, end - uint64(n), true
			}
		}
		s.ratchet(e, now)
	}
}

// ratchet replaces an epoch that is over.
func (s *sender) ratchet(over *sendEpoch, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur.Load() == over {
		s.cur.Store(newSendEpoch(over.next.derive(over.index), now))
	}
}

// drop drops the keys. What has been reserved before may still be sealed.
func (s *sender) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur.Store(nil)
}

// seal encrypts msg[headerLen:headerLen+size] in place and returns the datagram. msg has
// room for overheadRandom more bytes than the packet.
func (e *sendEpoch) seal(msg []byte, size int, counter uint64) []byte {
	h := header{random: enforced, index: e.index, counter: counter}
	h.put(msg)
	var nonce []byte
	if !h.random {
		nonce = msg[4:headerLen]
	}
	sealed := e.aead.Seal(msg[headerLen:headerLen], nonce, msg[headerLen:headerLen+size], h.data(msg))
	return msg[:headerLen+len(sealed)]
}

// receiver opens.
type receiver struct {
	cur atomic.Pointer[receiveEpoch] // changes with mu held
	old atomic.Pointer[receiveEpoch] // the one before, until its time is over; nil: none

	mu sync.Mutex
	// mu guards the following.
	ahead []keys        // of the epochs after cur, as far as they were looked for
	guess *receiveEpoch // made for one of them
	which int           // its place in ahead
}

type receiveEpoch struct {
	// Constant.
	index uint32
	aead  cipher.AEAD
	next  chain

	until  atomic.Int64 // when an old one ends
	window window
}

func newReceiveEpoch(k keys) *receiveEpoch {
	return &receiveEpoch{index: k.index, aead: cipherOf(&k.key), next: k.next}
}

// known returns the present or previous epoch if it has the index, or nil.
func (r *receiver) known(index uint32, now int64) *receiveEpoch {
	if e := r.cur.Load(); e.index == index {
		return e
	}
	if e := r.old.Load(); e != nil && e.index == index && now < e.until.Load() {
		return e
	}
	return nil
}

// later returns a later epoch with the index, or nil. The index of an epoch is secret until
// its sender uses it, so a forger makes it derive 64 epochs at most once in an epoch.
func (r *receiver) later(index uint32) *receiveEpoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	cur := r.cur.Load()
	if cur.index == index { // it was committed meanwhile
		return cur
	}
	next, after := cur.next, cur.index
	for i := range maxAhead {
		if i == len(r.ahead) {
			r.ahead = append(r.ahead, next.derive(after))
		}
		k := &r.ahead[i]
		next, after = k.next, k.index
		if k.index != index {
			continue
		}
		if r.guess == nil || r.which != i {
			r.guess, r.which = newReceiveEpoch(*k), i
		}
		return r.guess
	}
	return nil
}

// commit makes e the present epoch, if it is a later one, because a datagram of it has been
// opened. It returns the epoch that ends oldLife later, or nil.
func (r *receiver) commit(e *receiveEpoch, now int64) (ending *receiveEpoch) {
	if r.cur.Load() == e || r.old.Load() == e {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.guess != e {
		return nil // another goroutine has done it
	}
	ending = r.cur.Load()
	ending.until.Store(now + int64(oldLife))
	r.old.Store(ending)
	r.cur.Store(e)
	r.ahead, r.guess = append([]keys(nil), r.ahead[r.which+1:]...), nil
	return ending
}

// forget drops the keys of an epoch whose time is over.
func (r *receiver) forget(e *receiveEpoch) { r.old.CompareAndSwap(e, nil) }

// open decrypts a datagram in place. The packet is at headerLen in what it returns, which
// is a part of msg. ok is false for a datagram that is not authentic or was taken before.
func (e *receiveEpoch) open(msg []byte, h header) (opened []byte, ok bool) {
	if e.window.has(h.counter) {
		return nil, false
	}
	at := headerLen // of the ciphertext
	if h.random {
		at += nonceLen
	}
	if !enforced {
		pkt, err := e.aead.Open(msg[at:at], msg[at-nonceLen:at], msg[at:], h.data(msg))
		if err != nil || !e.window.take(h.counter) {
			return nil, false
		}
		return msg[at-headerLen : at+len(pkt)], true
	}
	// The nonce is a part of the ciphertext, and the packet takes its place.
	pkt, err := e.aead.Open(msg[at-nonceLen:at-nonceLen], nil, msg[at-nonceLen:], h.data(msg))
	if err != nil || !e.window.take(h.counter) {
		return nil, false
	}
	if !h.random {
		copy(msg[headerLen:], pkt)
	}
	return msg[:headerLen+len(pkt)], true
}
