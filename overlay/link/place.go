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

// Anybody may open connections to the API and to the public site, so both have
// bounds, each its own. How much memory strangers can take is the number of
// connections times what one can hold: at the site 8 requests with at most 32 KB
// of headers each, and about as much again in buffers and stacks.

const (
	apiConns = 4096
	// siteConns is what may be open at the site.
	siteConns     = 512
	siteConnsEach = 32
	// siteStreams is how many requests one HTTP/2 connection may have open, which
	// is a few more than browsers open connections where there is no HTTP/2.
	siteStreams  = 8
	writeTimeout = 30 * time.Second
	// placeWait is how long somebody waits for a place at the site before being
	// refused: a fleet that comes through one address with WebSockets passes
	// through its places within that time.
	placeWait = 5 * time.Second
	// refusals bounds the connections beyond siteConns that are told so; the
	// others are closed. refusalTime is how long one may take to hear it.
	refusals     = 64
	refusalsEach = 4
	refusalTime  = 5 * time.Second
	// siteUnsent is how much of its responses waits in the kernel for a client
	// that does not read.
	siteUnsent = 64 << 10
)

type connKey struct{}

// under returns the stream beneath what an http.Server serves.
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
	return context.WithValue(ctx, connKey{}, under(c))
}

// connOf returns the stream that a request to the site came over, nil when it was
// not accepted by a Server.
func connOf(r *http.Request) *Conn {
	c, _ := r.Context().Value(connKey{}).(*Conn)
	return c
}

// connState keeps the places informed.
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

// toAPI hands a connection to the API if there is a place.
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

// toSite hands nc, which c is beneath, to the site if there is a place, or comes
// to be one within placeWait. The connections of a trusted reverse proxy need
// none: their requests do (siteHandler).
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

// unhurried gives responses of h as long as they are read.
func (s *Server) unhurried(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := limited.Writer(w, s.cfg.WriteTimeout, nil)
		h.ServeHTTP(rw, r)
		rw.End()
	})
}

// siteHandler is the public site, with bounds on bodies. There is no read
// timeout for requests without one: an event stream stays open.
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
			r.Body = &body{r.Body, rc}
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

// clientAddr is whose request r is.
func (s *Server) clientAddr(r *http.Request) netip.Addr {
	if s.cfg.RemoteAddr != nil {
		if a := s.cfg.RemoteAddr(r); a != nil {
			return addrOf(a)
		}
	}
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap()
}

// body is a request's, whose deadline ends with it: with HTTP/1 the server goes
// on reading to notice that the client is gone.
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

// Keep says that the response to r may go on for as long as it is read, though
// others of the same address want the place of its connection, until the func
// that it returns is called.
func Keep(r *http.Request) (done func()) {
	if c := connOf(r); c != nil {
		return c.place.Keep()
	}
	return func() {}
}
