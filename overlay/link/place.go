package link

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"weft/overlay/limited"
)

// Anybody can open connections to the API and to the public site, so each has its own
// bounds. The memory that they can take is the number of connections times what one can
// use: at the site 8 requests with at most 32 KB of headers each, and about as much again
// in buffers and stacks.

const (
	apiConns = 4096
	// siteConns bounds the connections open at the site.
	siteConns     = 512
	siteConnsEach = 32
	// siteStreams is how many requests one HTTP/2 connection may have open: a few more
	// than the connections that browsers open with HTTP/1.
	siteStreams  = 8
	writeTimeout = 30 * time.Second
	// placeWait is how long a connection waits for a place at the site before it is
	// refused. It is long enough for a fleet behind one address to pass, a few at a time,
	// to its WebSockets.
	placeWait = 5 * time.Second
	// refusals bounds the connections that get an answer with the reason when the site is
	// full; the others are closed without one. refusalTime is how long a client may take
	// to read it.
	refusals     = 64
	refusalsEach = 4
	refusalTime  = 5 * time.Second
	// siteUnsent is how many bytes of responses may wait in the kernel for a client that
	// does not read.
	siteUnsent = 64 << 10
)

type connKey struct{}

// under returns the stream below a connection of an http.Server.
func under(c net.Conn) *Conn {
	switch c := c.(type) {
	case *Conn:
		return c
	case apiConn:
		return Of(c.tls)
	case *tls.Conn:
		return Of(c)
	}
	return nil
}

func siteContext(ctx context.Context, c net.Conn) context.Context {
	if _, ok := c.(apiConn); ok {
		ctx = apiContext(ctx, c)
	}
	return context.WithValue(ctx, connKey{}, under(c))
}

// connOf returns the stream of a request to the site, nil when another server accepted
// it.
func connOf(r *http.Request) *Conn {
	c, _ := r.Context().Value(connKey{}).(*Conn)
	return c
}

// connState tells a connection's place whether the connection is idle, so that it can be
// taken.
func connState(c net.Conn, state http.ConnState) {
	if u := under(c); u != nil {
		u.place.Idle(state == http.StateNew || state == http.StateIdle)
	}
}

// addrOf returns the IP address of a, zero when it has none.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	if a != nil {
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			return ap.Addr().Unmap()
		}
	}
	return netip.Addr{}
}

func (s *Server) trusts(a netip.Addr) bool { return s.cfg.Trusts != nil && s.cfg.Trusts(a) }

// toAPI hands a connection to the API if there is a place for it, and else closes it.
func (s *Server) toAPI(tc *tls.Conn, c *Conn) {
	p, err := s.apis.Take(addrOf(c.RemoteAddr()), func() { c.Conn.Close() })
	if err != nil {
		s.cfg.Log.Debug("no place at the API", "remote", c.RemoteAddr(), "err", err)
		c.Close()
		return
	}
	c.place = p
	c.limitUnsent(siteUnsent)
	s.apiIn.put(apiConn{tc, tc}, tc)
}

// toSite hands nc, whose stream is c, to the site once there is a place for it. If there
// is none within placeWait, the client is refused. Connections of a trusted reverse proxy
// need no place: each of their requests does (siteHandler).
func (s *Server) toSite(nc net.Conn, c *Conn) {
	addr, close := addrOf(c.RemoteAddr()), func() { c.Conn.Close() }
	if !s.trusts(addr) {
		p, err := s.sites.Wait(s.ctx.Done(), placeWait, addr, close)
		if err != nil {
			s.cfg.Log.Debug("no place at the site", "remote", c.RemoteAddr(), "err", err)
			c.refused = err
			if p, err = s.refusals.Take(addr, close); err != nil {
				c.Close()
				return
			}
			time.AfterFunc(refusalTime, close)
		}
		c.place = p
	}
	c.limitUnsent(siteUnsent)
	s.siteIn.put(nc, nc)
}

// unhurried lets responses of h take as long as the client keeps reading.
func (s *Server) unhurried(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := limited.Writer(w, s.cfg.WriteTimeout, nil)
		h.ServeHTTP(rw, r)
		rw.End()
	})
}

// siteHandler serves the public site and bounds request bodies. A request without a body
// has no read timeout, so that an event stream stays open.
func (s *Server) siteHandler() http.Handler {
	site := s.cfg.Site
	if site == nil {
		site = http.NotFoundHandler()
	}
	site = http.MaxBytesHandler(s.unhurried(site), bodyLimit)
	serve := func(w http.ResponseWriter, r *http.Request, place *limited.Place) {
		if r.URL.Path == Path {
			s.webSocket(w, r, place)
			return
		}
		if r.ContentLength != 0 {
			rc := http.NewResponseController(w)
			rc.SetReadDeadline(time.Now().Add(bodyTimeout))
			// In a copy: net/http looks at the body of its own request to see whether the
			// rest of it may still come, and would be taken for another request.
			mine := *r
			mine.Body = &body{r.Body, rc}
			r = &mine
		}
		site.ServeHTTP(w, r)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r)
		switch {
		case c != nil && c.refused != nil:
			w.Header().Set("Connection", "close")
			limited.Refuse(w, r, c.refused)
		case c != nil && c.place == nil:
			s.sites.Serve(w, r, s.clientAddr(r), placeWait, func(w http.ResponseWriter, p *limited.Place) { serve(w, r, p) })
		case c != nil:
			serve(w, r, c.place)
		default:
			serve(w, r, nil)
		}
	})
}

// clientAddr returns the address of the client that sent r.
func (s *Server) clientAddr(r *http.Request) netip.Addr {
	if s.cfg.RemoteAddr != nil {
		if a := s.cfg.RemoteAddr(r); a != nil {
			return addrOf(a)
		}
	}
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap()
}

// body is a request body that lifts the read deadline at its end: with HTTP/1 the server
// goes on reading to notice when the client disconnects.
type body struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Keep protects the connection of r until done is called: its place is not given to
// another connection of the same address.
func Keep(r *http.Request) (done func()) {
	if c := connOf(r); c != nil {
		return c.place.Keep()
	}
	return func() {}
}
