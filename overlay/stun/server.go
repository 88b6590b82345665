package stun

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	perSecond = 20
	buckets   = 1 << 14
)

// Server answers Binding requests. Handle is for sharing the socket with
// other protocols, Serve runs the whole of it. One goroutine uses a Server.
type Server struct {
	log *slog.Logger
	// Sources share buckets by hash under a random seed, so the table cannot
	// grow and nobody can choose whom to share with.
	seed  maphash.Seed
	table []bucket
	out   [64]byte
}

// bucket counts answers within one second.
type bucket struct {
	second int64
	n      uint8
}

// NewServer makes a server. log may be nil.
func NewServer(log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{log: log, seed: maphash.MakeSeed(), table: make([]bucket, buckets)}
}

// Handle returns the answer to a datagram, nil for none. The slice is valid
// until the next call.
func (s *Server) Handle(pkt []byte, from netip.AddrPort, now time.Time) []byte {
	tx, err := ParseRequest(pkt)
	if err != nil || !from.IsValid() || from.Port() == 0 {
		return nil
	}
	out := AppendResponse(s.out[:0], tx, from)
	if len(out) > 2*len(pkt) || !s.Allow(from.Addr(), now) {
		return nil
	}
	return out
}

// Allow counts one more datagram to an address that may not have asked for
// it, and reports whether it may be sent.
func (s *Server) Allow(ip netip.Addr, now time.Time) bool {
	if ip = ip.Unmap(); ip.Is6() {
		p, _ := ip.WithZone("").Prefix(64)
		ip = p.Addr()
	}
	b := &s.table[maphash.Comparable(s.seed, ip)%buckets]
	if sec := now.Unix(); b.second != sec {
		*b = bucket{second: sec}
	}
	if b.n >= perSecond {
		return false
	}
	b.n++
	return true
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
