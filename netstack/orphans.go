package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// maxOrphans bounds the connections that are closed and still send; where memory is
// short they are at most half of those that there is room for. That is more than one
// peer may have open, so all of its connections may end at once: each is an orphan
// for a round trip or a few.
const maxOrphans = DefaultMaxInbound

// orphans are the connections that both programs are done with while the stack
// still sends what was written last. They count in no quota any more, and a peer
// that says "not now" to every question, its window being closed, would have the
// stack keep each for ever. No time ends them: who reads on after an hour, as from a
// pager, gets the rest. So they have a bound of their own: beyond it the oldest of
// the peer that has most is reset.
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

// push returns which one has to go for it, or nil.
func (o *orphans) push(one orphan) (out tcpip.Endpoint) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 {
		time.AfterFunc(closingTime, o.late)
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

// sweep forgets those that have ended. The caller holds mu.
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

// late is called once in a while for as long as there are any.
func (o *orphans) late() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sweep(); len(o.list) > 0 {
		time.AfterFunc(closingTime, o.late)
	} else {
		o.list = nil
	}
}
