package stun

import (
	"log/slog"
	"net/netip"
	"time"
)

// Server answers Binding requests. It has no socket: package relayserver receives and
// sends. One goroutine uses a Server.
type Server struct {
	log   *slog.Logger
	limit *Limiter
	out   [64]byte
}

// NewServer makes a server. log may be nil.
func NewServer(log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{log: log, limit: NewLimiter()}
}

// Handle returns the answer to a datagram, nil for none. The slice is valid
// until the next call.
func (s *Server) Handle(pkt []byte, from netip.AddrPort, now time.Time) []byte {
	tx, err := ParseRequest(pkt)
	if err != nil || !from.IsValid() || from.Port() == 0 {
		return nil
	}
	out := AppendResponse(s.out[:0], tx, from)
	if len(out) > 2*len(pkt) || !s.limit.Allow(from.Addr(), now) {
		return nil
	}
	return out
}
