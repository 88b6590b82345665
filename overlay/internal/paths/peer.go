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

// peer holds the paths of one tunnel.
type peer struct {
	id       cert.NodeID
	endpoint *bind.Endpoint
	boot     uint64 // boot id of the peer's introduction
	agent    *path.Agent
	send     *probe.Key
	probers  [2]*prober // of the present session and the one before
	due      time.Time  // when the agent is due; zero for never
	shown    path.Selection
	rtt      *atomic.Int64 // round trip of the path in use, for status

	sockets map[uint16]*bind.Socket
	numbers map[*bind.Socket]uint16

	lane laneOf

	sending           bool          // candidates are being sent to the peer
	again, againCalls bool          // … and newer ones must follow
	live              bool          // the session is ready for messages
	lastSent          intro.Message // the last message sent
}

// inward returns the bind's path for datagrams that arrive on via, outward the one for
// sending. They differ only for relayed UDP.
func (o *peer) inward(ap path.Path) bind.Path {
	w := o.outward(ap)
	if ap.Relayed {
		w.Lane = o.lane.info.Recv
	}
	return w
}

func (o *peer) outward(ap path.Path) bind.Path {
	switch {
	case ap.Relayed && o.lane.addr.IsValid():
		return bind.Path{Kind: bind.RelayedUDP, Addr: o.lane.addr, Lane: o.lane.info.Send}
	case ap.Addr.IsValid():
		return bind.Path{Kind: bind.Direct, Addr: ap.Addr, Socket: o.sockets[ap.Socket]}
	}
	return bind.Path{}
}

// pathOf returns the agent's path for the bind's path on which something has arrived.
func (o *peer) pathOf(w bind.Path) (path.Path, bool) {
	switch {
	case w.Kind == bind.RelayedUDP:
		return path.Path{Relayed: true}, o.lane.addr == w.Addr && o.lane.bound
	case w.Socket == nil:
		return path.Path{Addr: w.Addr}, true
	}
	n, ok := o.numbers[w.Socket]
	return path.Path{Addr: w.Addr, Socket: n}, ok
}

func (o *peer) addSocket(n uint16, s *bind.Socket) {
	if o.sockets == nil {
		o.sockets, o.numbers = map[uint16]*bind.Socket{}, map[*bind.Socket]uint16{}
	}
	o.sockets[n], o.numbers[s] = s, n
}

// closeSockets closes extra sockets that are not in use.
func (o *peer) closeSockets(uses func(uint16) bool) {
	for n, s := range o.sockets {
		if !uses(n) {
			delete(o.sockets, n)
			delete(o.numbers, s)
			s.Close()
		}
	}
}
