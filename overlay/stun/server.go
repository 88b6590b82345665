package stun

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"
)

// Server answers Binding requests. Handle is for sharing the socket with
// other protocols, Serve runs the whole of it. One goroutine uses a Server.
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

// Serve answers on c until ctx ends, then returns nil. It does not close c.
func (s *Server) Serve(ctx context.Context, c *net.UDPConn) error {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [maxMessage + 1]byte
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf[:])
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			// An ICMP error about an earlier answer, for example.
			s.log.Debug("STUN read", "err", err)
			continue
		}
		if out := s.Handle(buf[:n], from, time.Now()); out != nil {
			if _, err := c.WriteToUDPAddrPort(out, from); err != nil {
				s.log.Debug("STUN answer", "to", from, "err", err)
			}
		}
	}
}
