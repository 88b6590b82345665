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

// peer is one introduced node, or one being introduced. It belongs to the
// goroutine of peers.run.
type peer struct {
	id       cert.NodeID
	node     *cert.Node     // as its certificate said in the last introduction; nil before the first
	session  *intro.Session // nil when lost; the tunnel goes on without
	hello    intro.Hello
	local    uint64    // boot id that this node was introduced with
	rekey    time.Time // when to tell it of another, at the latest; see rekey.go
	endpoint *bind.Endpoint
	filter   *filter.Peer
	made     time.Time // the tunnel; zero while there is none
	ours     bool      // this node called
	way      homes.Way // relay connection that carries what goes there; nil: lost

	dial       *dialing
	failures   int       // of introductions in a row
	nextRedial time.Time // not before
	nextHint   time.Time // no introduction before only because a relay may have meddled
	nextRenew  time.Time // no introduction before only because its certificate is about to end
	lost       time.Time // when the session was lost, if there is none
	gone       time.Time // when the relay last said that it is not there

	trip  rtt.Estimate // of introductions, and of what is said in the session
	asked time.Time    // there, the first thing that it has not answered; zero: nothing

	silence silence // of which it is waited for whether it counts; zero: none

	watchers []chan struct{} // closed when the relay says that the peer is gone
	renewed  []chan struct{} // closed when the tunnel was made anew
	rtt      time.Duration   // of the last ping through the tunnel

	unanswered time.Time // first data sent after the last received, zero when answered
	pinging    time.Time // a ping over the session is on its way since
	proved     time.Time // when one was last answered, or the keys were agreed upon
	oneWay     time.Time // when the peer was last known to have nothing to say to what it is sent
}

func (q *peer) installed() bool { return !q.made.IsZero() }

// waiter is somebody who waits for the result of an introduction.
type waiter struct {
	came   time.Time
	result chan<- error // capacity 1
}

// dialing is an introduction in progress, with those who wait for it.
type dialing struct {
	id cert.NodeID // constant: the goroutine that dials reads it

	waiters []waiter
	tried   time.Time // when the last attempt began: its failure says nothing to who came later
	cancel  context.CancelCauseFunc
	heard   bool                    // the peer has answered the attempt under way
	way     homes.Way               // relay connection of it
	gone    context.CancelCauseFunc // ends that attempt

	// late says that there was a tunnel under the same key already: it goes on
	// with the keys it has until the peer has accepted, so that an introduction
	// that comes to nothing leaves it alone. Or another node holds the key, and
	// may have to give it up then.
	late      bool
	session   *intro.Session // of the tunnel that was made before the peer accepted
	overtaken bool           // the peer's own introduction was accepted meanwhile: its keys are newer
}
