package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// maxOrphans bounds the closed connections that still send; where memory is short the
// bound is at most half of the connections that fit. It is more than one peer may have
// open, because all connections of a peer may close at once; each is then an orphan for
// a few round trips.
const maxOrphans = DefaultMaxInbound

// orphans are the connections that both programs have closed while the stack still
// sends the last data. They no longer count in a quota, and a peer that keeps its
// window closed could make the stack keep each of them for ever. They do not time out:
// a reader that continues after an hour, such as a pager, gets the rest. So they have a
// bound of their own: beyond it, the oldest orphan of the peer with the most is reset.
//
// Its methods may be called from any goroutine.
type orphans struct {
	max int // constant

	// mu guards the following. None of gVisor's locks is taken under it.
	mu   sync.Mutex
	list []orphan // oldest first
}

type orphan struct {
	ep   tcpip.Endpoint
	peer netip.Addr
}

// add notes a connection that the program has closed.
func (o *orphans) add(ep tcpip.Endpoint, peer netip.Addr) {
	if holdsNothing(ep) {
		return
	}
	if out := o.push(orphan{ep, peer}); out != nil {
		out.Abort()
	}
}

// push adds one and returns the orphan that has to go for it, or nil.
func (o *orphans) push(one orphan) (out tcpip.Endpoint) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 {
		time.AfterFunc(closingTime, o.recheck)
	}
	if o.list = append(o.list, one); len(o.list) <= o.max {
		return nil
	}
	o.sweep()
	if len(o.list) <= o.max {
		return nil
	}
	count, most := map[netip.Addr]int{}, 0
	for _, c := range o.list {
		count[c.peer]++
		most = max(most, count[c.peer])
	}
	for i, c := range o.list {
		if count[c.peer] == most {
			o.list = append(o.list[:i], o.list[i+1:]...)
			return c.ep
		}
	}
	return nil // not reached
}

// sweep removes the orphans that have ended. The caller holds mu.
func (o *orphans) sweep() {
	left := o.list[:0]
	for _, c := range o.list {
		if !holdsNothing(c.ep) {
			left = append(left, c)
		}
	}
	clear(o.list[len(left):])
	o.list = left
}

// recheck runs every closingTime while there are orphans.
func (o *orphans) recheck() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sweep(); len(o.list) > 0 {
		time.AfterFunc(closingTime, o.recheck)
	} else {
		o.list = nil
	}
}
