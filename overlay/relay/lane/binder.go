package lane

import (
	"slices"
	"time"
)

// retries are the waits after each bind that was not answered. The last one is
// how long the last bind is given.
var retries = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 2 * time.Second}

// State is what a Binder knows.
type State uint8

// The states.
const (
	Binding State = iota // not bound yet
	IsBound              // the relay said so
	Blocked              // no answer: UDP to this relay does not work
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
	// sent holds the cookies sent since Restart: on a way of more than 250 ms
	// the answers to several attempts overlap.
	sent []Cookie
}

// NewBinder makes a Binder that wants to bind now.
func NewBinder(info Info) *Binder { return &Binder{info: info} }

// Restart binds anew: the socket, the address or the network is another one,
// or the relay asked for it.
func (b *Binder) Restart() { *b = Binder{info: b.info, sent: b.sent[:0]} }

// State returns the current state.
func (b *Binder) State() State { return b.state }

// Poll returns what to send now, nil for nothing, and when to call again, zero
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

// Handle takes a datagram that came from the relay's UDP address with a kind
// other than Data, and returns what to send there at once, nil for nothing.
// Datagrams that are not for this side or not from the relay change nothing.
// The state may be another one afterwards.
func (b *Binder) Handle(datagram []byte) (out []byte) {
	k, cookie, err := OpenControl(datagram, b.info.Send, b.info.Key)
	if err != nil || b.state == IsBound {
		return nil
	}
	switch k {
	case Challenge:
		if cookie == (Cookie{}) || slices.Contains(b.sent, cookie) || len(b.sent) == len(retries) {
			return nil // answered already, or more than were asked for
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
