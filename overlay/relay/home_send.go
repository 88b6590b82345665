package relay

import (
	"errors"

	"weft/overlay/cert"
)

// What a node sends over its home connection.

// ErrOffline is returned by Home's sending methods while it has no connection.
var ErrOffline = errors.New("not connected to a relay")

// SendPackets is Conn.SendPackets on the live connection, or ErrOffline. Packets sent
// between two connections are held for the next one (see gap.go).
func (h *Home) SendPackets(to cert.NodeID, bufs [][]byte) error {
	if h.gap.open.Load() {
		h.gap.hold(to, bufs)
	}
	if c := h.Current(); c != nil {
		return c.SendPackets(to, bufs)
	}
	return ErrOffline
}

// TrySendPackets is Conn.TrySendPackets on the live connection, like SendPackets.
func (h *Home) TrySendPackets(to cert.NodeID, bufs [][]byte) (int, error) {
	if h.gap.open.Load() {
		h.gap.hold(to, bufs)
	}
	if c := h.Current(); c != nil {
		return c.TrySendPackets(to, bufs)
	}
	return 0, ErrOffline
}

// SendSession is Conn.SendSession on the live connection, or ErrOffline.
func (h *Home) SendSession(to cert.NodeID, frame []byte) error {
	if c := h.Current(); c != nil {
		return c.SendSession(to, frame)
	}
	return ErrOffline
}

// RequestLane is Conn.RequestLane on the live connection, or ErrOffline.
func (h *Home) RequestLane(peer cert.NodeID) error {
	if c := h.Current(); c != nil {
		return c.RequestLane(peer)
	}
	return ErrOffline
}

// SendVersions sends the relay the versions that this node has now. Without a connection
// it does nothing, because every connection begins with them. Concurrent calls are safe:
// the versions sent last are the current ones, if each caller changes what Versions
// returns before it calls SendVersions.
func (h *Home) SendVersions() {
	h.telling.Lock()
	defer h.telling.Unlock()
	if c := h.Current(); c != nil {
		c.SendVersions(h.cfg.Versions())
	}
}
