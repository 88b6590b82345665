package paths

import (
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/path"
	"weft/overlay/internal/probe"
)

// peer is what a tunnel has of paths.
type peer struct {
	id       cert.NodeID
	endpoint *bind.Endpoint
	boot     uint64 // that the peer was introduced with
	agent    *path.Agent
	send     *probe.Key
	probers  [2]*prober // the session's, and the one before
	due      time.Time  // of the agent; zero for never
	shown    path.Path
	rtt      *atomic.Int64 // of the way in use, for status

	sockets map[uint16]*bind.Socket
	numbers map[*bind.Socket]uint16

	lane laneOf

	told              bool          // candidates are on their way to the peer
	again, againCalls bool          // … and newer ones have to follow
	live              bool          // the session takes messages
	said              intro.Message // the last one
}

// inward is the way by which datagrams of via come in, outward that by which
// they go. They differ for lanes only.
func (o *peer) inward(via path.Via) bind.Way {
	w := o.outward(via)
	if via.Lane {
		w.Lane = o.lane.info.Recv
	}
	return w
}

func (o *peer) outward(via path.Via) bind.Way {
	switch {
	case via.Lane && o.lane.addr.IsValid():
		return bind.Way{Kind: bind.Lane, Addr: o.lane.addr, Lane: o.lane.info.Send}
	case via.Addr.IsValid():
		return bind.Way{Kind: bind.Direct, Addr: via.Addr, Socket: o.sockets[via.Socket]}
	}
	return bind.Way{}
}

// via is the agent's name for a way by which something came in.
func (o *peer) via(w bind.Way) (path.Via, bool) {
	switch {
	case w.Kind == bind.Lane:
		return path.Via{Lane: true}, o.lane.addr == w.Addr && o.lane.bound
	case w.Socket == nil:
		return path.Via{Addr: w.Addr}, true
	}
	n, ok := o.numbers[w.Socket]
	return path.Via{Addr: w.Addr, Socket: n}, ok
}

func (o *peer) addSocket(n uint16, s *bind.Socket) {
	if o.sockets == nil {
		o.sockets, o.numbers = map[uint16]*bind.Socket{}, map[*bind.Socket]uint16{}
	}
	o.sockets[n], o.numbers[s] = s, n
}

// closeSockets closes the extra sockets that are not used.
func (o *peer) closeSockets(uses func(uint16) bool) {
	for n, s := range o.sockets {
		if !uses(n) {
			delete(o.sockets, n)
			delete(o.numbers, s)
			s.Close()
		}
	}
}
