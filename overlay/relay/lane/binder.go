package lane

import (
	"slices"
	"time"
)

// retries are the waits after each bind. The last one is how long to wait for an answer
// to the last bind.
var retries = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 2 * time.Second}

// State is the state of a Binder.
type State uint8

// The states.
const (
	Binding State = iota // not bound yet
	IsBound              // confirmed by the relay
	Blocked              // no answer: UDP to this relay is blocked
)

// Binder binds a side of a lane to the address of one socket. It has no clock
// and no socket; one goroutine uses it:
//
//	b := NewBinder(info)
//	for {
//		out, wake := b.Poll(now)           // send out, if any, to the relay's UDP address
//		… at wake: Poll; at a control datagram from there: send what Handle returns
//	}
type Binder struct {
	info  Info
	state State
	try   int
	next  time.Time
	// sent holds the cookies sent since Restart: when the round trip is longer than 250
	// ms, the answers to several attempts overlap.
	sent []Cookie
}

// NewBinder makes a Binder in the state Binding, whose first Poll returns a bind.
func NewBinder(info Info) *Binder { return &Binder{info: info} }

// Restart binds again, after a change of socket, address or network, or when the relay
// asks for it.
func (b *Binder) Restart() { *b = Binder{info: b.info, sent: b.sent[:0]} }

// State returns the current state.
func (b *Binder) State() State { return b.state }

// Poll returns the datagram to send now, nil for none, and when to call Poll again, zero
// for never.
func (b *Binder) Poll(now time.Time) (out []byte, wake time.Time) {
	if b.state != Binding {
		return nil, time.Time{}
	}
	if now.Before(b.next) {
		return nil, b.next
	}
	if b.try == len(retries) {
		b.state = Blocked
		return nil, time.Time{}
	}
	b.next = now.Add(retries[b.try])
	b.try++
	return AppendControl(nil, Bind, b.info.Send, Cookie{}, b.info.Key), b.next
}

// Handle takes a datagram with a kind other than Data from the relay's UDP address, and
// returns the datagram to send there at once, nil for none. It ignores datagrams of
// another side or not made by the relay. It may change the state.
func (b *Binder) Handle(datagram []byte) (out []byte) {
	k, cookie, err := OpenControl(datagram, b.info.Send, b.info.Key)
	if err != nil || b.state == IsBound {
		return nil
	}
	switch k {
	case Challenge:
		if cookie == (Cookie{}) || slices.Contains(b.sent, cookie) || len(b.sent) == len(retries) {
			return nil // answered already, or more challenges than binds
		}
		b.sent = append(b.sent, cookie)
		return AppendControl(nil, Bind, b.info.Send, cookie, b.info.Key)
	case Bound:
		if slices.Contains(b.sent, cookie) {
			b.state = IsBound
		}
	}
	return nil
}
