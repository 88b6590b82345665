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
	// RelayedUDP is relayed UDP: the relay forwards by the lane's id.
	RelayedUDP
)

// String returns "relay", "direct" or "lane".
func (k Kind) String() string {
	switch k {
	case Direct:
		return "direct"
	case RelayedUDP:
		return "lane"
	}
	return "relay"
}

// Path is a path: where a datagram came from, or where to send one. The zero Path is the
// relay connection. Paths are comparable.
type Path struct {
	Kind   Kind
	Socket *Socket        // nil: the main socket
	Addr   netip.AddrPort // of the peer (Direct) or of the relay (RelayedUDP)
	Lane   lane.ID        // zero unless Kind is RelayedUDP
}

// String returns the kind and the address.
func (w Path) String() string {
	if w.Kind == Relay {
		return w.Kind.String()
	}
	return w.Kind.String() + " " + w.Addr.String()
}

// canonical returns w with its address unmapped and without zone.
func (w Path) canonical() Path {
	w.Addr = netip.AddrPortFrom(w.Addr.Addr().Unmap().WithZone(""), w.Addr.Port())
	if w.Kind != RelayedUDP {
		w.Lane = lane.ID{}
	}
	return w
}

// header is the length of what precedes a message on the path.
func (w Path) header() int {
	if w.Kind == RelayedUDP {
		return lane.HeaderLen
	}
	return 0
}

const (
	// MinLimit and MaxLimit bound the limit of a path, in bytes of UDP payload.
	MinLimit = 512
	MaxLimit = 65507
)

// sendPath is a path on which an Endpoint sends. It is immutable, except troubled.
type sendPath struct {
	path   Path
	max    int                  // longest WireGuard message in bytes
	prefix [lane.HeaderLen]byte // the header of a lane
	since  time.Time

	failedAt atomic.Int64 // when Config.SendFailed was called, by mono.Now
}

var errNoAddress = errors.New("path without a usable address")

func newSendPath(w Path, limit int) (*sendPath, error) {
	w = w.canonical()
	if w.Kind != Direct && w.Kind != RelayedUDP {
		return nil, fmt.Errorf("path of kind %d", w.Kind)
	}
	if a := w.Addr.Addr(); !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || w.Addr.Port() == 0 {
		return nil, errNoAddress
	}
	r := &sendPath{path: w, max: min(max(limit, MinLimit), MaxLimit) - w.header(), since: time.Now()}
	if w.Kind == RelayedUDP {
		lane.PutHeader(r.prefix[:], w.Lane)
	}
	return r, nil
}

// sendFailedPause is the least time between two calls of Config.SendFailed for one
// route.
const sendFailedPause = 100 * time.Millisecond

// sendFailed passes an error to Config.SendFailed, at most once in sendFailedPause.
func (b *Bind) sendFailed(ep *Endpoint, r *sendPath, err error) {
	now := mono.Now()
	last := r.failedAt.Load()
	if now-last < int64(sendFailedPause) || !r.failedAt.CompareAndSwap(last, now) {
		return
	}
	b.onSendFailed(ep, r.path, err)
}
