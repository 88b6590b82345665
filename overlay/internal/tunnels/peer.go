package tunnels

import (
	"context"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/rtt"
)

// peer is one introduced node, or one whose introduction is pending. The owner's
// goroutine owns it.
type peer struct {
	id        cert.NodeID
	node      *cert.Node     // from its certificate in the last introduction; nil before the first
	session   *intro.Session // nil when lost; the tunnel continues without
	hello     intro.Hello
	suite     intro.Suite
	exchange  string    // key exchange of the last introduction
	keyed     time.Time // when that was
	accepted  bool      // by the peer, unless it was the caller
	refreshed time.Time // when this node last introduced itself for fresh keys
	keyless   bool      // the plane has dropped the keys since; see rekey.go
	local     uint64    // boot id that this node has sent it
	rekey     time.Time // when to send it a newer one, at the latest; see rekey.go
	endpoint  *bind.Endpoint
	filter    *filter.Peer
	made      time.Time       // when the tunnel was made; zero while there is none
	ours      bool            // this node was the caller
	conn      homes.RelayConn // relay connection to it; nil: lost

	dial       *dialing
	failures   int       // failed introductions in a row
	nextRedial time.Time // not before
	nextHint   time.Time // earliest introduction because of a reset or a report of a relay
	nextRenew  time.Time // earliest introduction because its certificate is about to expire
	lost       time.Time // when the session was lost, while there is none
	gone       time.Time // when the relay last reported it gone

	trip  rtt.Estimate // of introductions, and of answers in the session
	asked time.Time    // when the first message without an answer was sent there; zero: all are answered

	silence silence // the report that waits until it counts; zero: none

	watchers []chan struct{} // closed when the relay reports the peer gone
	renewed  []chan struct{} // closed when the tunnel was made anew
	rtt      time.Duration   // of the last ping through the tunnel

	unanswered time.Time // when the first data after the last received ones were sent; zero when answered
	pinging    time.Time // when the ping over the session was sent that has no answer yet
	proved     time.Time // when a ping was last answered, or keys were agreed on
	oneWay     time.Time // when the peer was last known to receive data without answering
}

func (q *peer) installed() bool { return !q.made.IsZero() }

// waiter is somebody who waits for the result of an introduction.
type waiter struct {
	since  time.Time
	result chan<- error // capacity 1
}

// dialing is an introduction in progress, with those who wait for it.
type dialing struct {
	id cert.NodeID // constant, because the goroutine that dials reads it

	waiters  []waiter
	tried    time.Time // when the last attempt began: waiters that joined later get a fresh attempt
	cancel   context.CancelCauseFunc
	answered bool                    // the peer has answered the attempt in progress
	conn     homes.RelayConn         // relay connection of that attempt
	gone     context.CancelCauseFunc // ends that attempt

	// late says that there was a tunnel under the same key already. It keeps its keys
	// until the peer has accepted, so that a failed introduction does not affect it. Or
	// another node has the key, and may lose it when the peer has accepted.
	late      bool
	session   *intro.Session // session of the tunnel that was made before the peer accepted
	overtaken bool           // the peer's own introduction was accepted since it answered: its keys are newer
}
