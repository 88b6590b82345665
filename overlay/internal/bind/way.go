package bind

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"weft/overlay/internal/mono"
	"weft/overlay/relay/lane"
)

// Kind says what carries messages.
type Kind uint8

// The kinds of paths. The zero value is the path at first.
const (
	// Relay is the relay connection: the Endpoint's Sender.
	Relay Kind = iota
	// Direct is UDP to an address of the peer.
	Direct
	// Lane is relayed UDP: the relay forwards by the lane's id.
	Lane
)

// String returns "relay", "direct" or "lane".
func (k Kind) String() string {
	switch k {
	case Direct:
		return "direct"
	case Lane:
		return "lane"
	}
	return "relay"
}

// Way is a path: where a datagram came from, or where to send one. The zero Way is the
// relay connection. Ways are comparable.
type Way struct {
	Kind   Kind
	Socket *Socket        // nil: the main socket
	Addr   netip.AddrPort // of the peer (Direct) or of the relay (Lane)
	Lane   lane.ID        // zero unless Kind is Lane
}

// String returns the kind and the address.
func (w Way) String() string {
	if w.Kind == Relay {
		return w.Kind.String()
	}
	return w.Kind.String() + " " + w.Addr.String()
}

// canonical returns w with its address unmapped and without zone.
func (w Way) canonical() Way {
	w.Addr = netip.AddrPortFrom(w.Addr.Addr().Unmap().WithZone(""), w.Addr.Port())
	if w.Kind != Lane {
		w.Lane = lane.ID{}
	}
	return w
}

// header is the length of what precedes a message on the path.
func (w Way) header() int {
	if w.Kind == Lane {
		return lane.HeaderLen
	}
	return 0
}

const (
	// MinLimit and MaxLimit bound the limit of a path, in bytes of UDP payload.
	MinLimit = 512
	MaxLimit = 65507
)

// route is a path on which an Endpoint sends. It is immutable, except troubled.
type route struct {
	way    Way
	max    int                  // longest WireGuard message in bytes
	prefix [lane.HeaderLen]byte // the header of a lane
	since  time.Time

	troubled atomic.Int64 // when Config.Trouble was called, by mono.Now
}

var errNoAddress = errors.New("path without a usable address")

func newRoute(w Way, limit int) (*route, error) {
	w = w.canonical()
	if w.Kind != Direct && w.Kind != Lane {
		return nil, fmt.Errorf("path of kind %d", w.Kind)
	}
	if a := w.Addr.Addr(); !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || w.Addr.Port() == 0 {
		return nil, errNoAddress
	}
	r := &route{way: w, max: min(max(limit, MinLimit), MaxLimit) - w.header(), since: time.Now()}
	if w.Kind == Lane {
		lane.PutHeader(r.prefix[:], w.Lane)
	}
	return r, nil
}

// troublePause is the least time between two calls of Config.Trouble for one
// route.
const troublePause = 100 * time.Millisecond

// trouble passes an error to Config.Trouble, at most once in troublePause.
func (b *Bind) trouble(ep *Endpoint, r *route, err error) {
	now := mono.Now()
	last := r.troubled.Load()
	if now-last < int64(troublePause) || !r.troubled.CompareAndSwap(last, now) {
		return
	}
	b.onTrouble(ep, r.way, err)
}
