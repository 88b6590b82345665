package dns

import (
	"net"
	"net/netip"
	"time"
)

// maxQuery bounds the datagrams that are parsed, in bytes.
const maxQuery = 1500

// serveUDP answers the datagrams of one socket until it is closed. It reads without a
// deadline: a deadline would wake an idle device for nothing.
func (s *Server) serveUDP(pc net.PacketConn) {
	if c, ok := pc.(*net.UDPConn); ok && s.serveBatches(c) {
		return
	}
	in, out := make([]byte, maxQuery+1), make([]byte, 0, maxUDP)
	for {
		n, from, err := pc.ReadFrom(in)
		if err != nil {
			if s.ctx.Err() != nil || !temporary(err) {
				s.ended(pc, err)
				return
			}
			continue
		}
		ap, ok := addrPortOf(from)
		if n > maxQuery || !ok {
			continue
		}
		i := incoming{st: s.current(), from: ap.Addr(), now: time.Now()}
		b, rest := s.answer(&i, in[:n], out)
		switch {
		case b != nil:
			s.sent(pc.WriteTo(b, from))
		case rest != nil:
			s.startRest(rest, func(b []byte) { s.sent(pc.WriteTo(b, from)) })
		}
	}
}

// startRest runs the rest of a query's work and sends the result; false after Close.
func (s *Server) startRest(rest func([]byte) []byte, send func([]byte)) bool {
	if s.start(func() { send(rest(nil)) }) {
		return true
	}
	s.waited()
	return false
}

func (s *Server) sent(_ int, err error) {
	if err != nil && s.ctx.Err() == nil {
		s.cfg.Log.Debug("dns: write answer", "err", err)
	}
}

// ended logs a listener that failed before Close.
func (s *Server) ended(l interface{ LocalAddr() net.Addr }, err error) {
	if s.ctx.Err() == nil {
		s.cfg.Log.Warn("dns: listener ended", "addr", l.LocalAddr(), "err", err)
	}
}

// temporary reports whether reading can continue: a socket also reports errors of
// answers sent earlier.
func temporary(err error) bool {
	ne, ok := err.(net.Error)
	return ok && (ne.Timeout() || !isClosed(err))
}

func addrPortOf(a net.Addr) (netip.AddrPort, bool) {
	if u, ok := a.(*net.UDPAddr); ok {
		ap := u.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), ap.IsValid()
	}
	ap, err := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), err == nil
}
