package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// servePlain also serves the site without TLS and returns its address.
func (s *site) servePlain() string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	go s.srv.ServePlain(l) // newSite's Shutdown ends it
	return l.Addr().String()
}

// dialSite opens a connection to the site from an address of loopback.
func dialSite(t testing.TB, addr, from string, plain bool) net.Conn {
	t.Helper()
	nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(40 * time.Second))
	t.Cleanup(func() { nc.Close() })
	if plain {
		return nc
	}
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return tc
}

// ask sends a request and returns the head of its answer, "" for none.
func ask(c net.Conn, request string) string {
	io.WriteString(c, request)
	b := make([]byte, 2048)
	n, _ := c.Read(b)
	return string(b[:n])
}

const getRoot = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// An address that has all the places that it may have is refused more. Other addresses,
// nodes and relay connections are not affected.
func TestPlaces(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			t.Parallel()
			busy := make(chan struct{})
			s := newSite(t, func(c *ServerConfig) {
				c.MaxSite, c.MaxSiteEach = 6, 4
				c.Site = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/busy" {
						w.(http.Flusher).Flush()
						<-busy
					}
				})
			})
			defer close(busy)
			addr := s.addr
			if plain {
				addr = s.servePlain()
			}
			take := func(from string) net.Conn {
				t.Helper()
				c := dialSite(t, addr, from, plain)
				if a := ask(c, "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n"); !strings.HasPrefix(a, "HTTP/1.1 200") {
					t.Fatalf("%s: %q", from, a)
				}
				return c
			}
			for range 4 {
				take("127.0.0.2")
			}
			if a := ask(dialSite(t, addr, "127.0.0.2", plain), getRoot); !strings.HasPrefix(a, "HTTP/1.1 429") || !strings.Contains(a, "Retry-After: ") || !strings.Contains(a, "Connection: close") {
				t.Errorf("the fifth: %q", a)
			}
			take("127.0.0.3")
			take("127.0.0.3")
			// All places are taken; the next connection takes one from the address that
			// has most.
			take("127.0.0.4")
			if n := s.srv.sites.Len(); n != 6 {
				t.Errorf("%d places are taken", n)
			}
			d := dialer(t, s.ca, s.url)
			tc, err := d.DialRelay(t.Context(), "", s.url)
			if err != nil {
				t.Fatal(err)
			}
			defer CloseNow(tc)
			echo(t, tc)
			if got, err := get(t, d); err != nil || got == "" {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}

// A fleet behind one address gets in with WebSockets though it needs more connections
// than the address may have open at the site at a time. Afterwards it has no place at the
// site.
func TestFleetBehindOneAddress(t *testing.T) {
	const fleet = 300
	for name, base := range map[string]func(s *site) string{
		"TLS":   func(s *site) string { return s.url },
		"plain": func(s *site) string { return "http://" + s.servePlain() },
		"proxy": func(s *site) string { return proxied(t, s) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *ServerConfig) {
				c.MaxSite, c.MaxSiteEach = 40, 8
				c.Trusts = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.7") }
				c.RemoteAddr = func(r *http.Request) net.Addr {
					if !strings.HasPrefix(r.RemoteAddr, "127.0.0.7:") {
						return nil
					}
					return &net.TCPAddr{IP: net.ParseIP("192.0.2.1")} // all behind one NAT
				}
			})
			u, err := url.Parse(base(s))
			if err != nil {
				t.Fatal(err)
			}
			d := dialer(t, s.ca)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			conns := make([]*tls.Conn, fleet)
			var wg sync.WaitGroup
			for i := range conns {
				wg.Go(func() {
					var err error
					for ctx.Err() == nil { // as nodes do
						if conns[i], err = d.inWebSocket(ctx, u, aRelay("")); err == nil {
							return
						}
						select { // nodes wait, too: without it, on a busy machine, tries leave no time for success
						case <-ctx.Done():
						case <-time.After(200 * time.Millisecond):
						}
					}
					t.Errorf("node %d: %v", i, err)
				})
			}
			wg.Wait()
			for _, c := range conns {
				if c == nil {
					continue
				}
				defer CloseNow(c)
				c.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "the site is free", func() bool { return s.srv.sites.Len() == 0 })
		})
	}
}

// proxied starts a reverse proxy at 127.0.0.7 in front of the site.
func proxied(t *testing.T, s *site) string {
	up, _ := url.Parse("http://" + s.servePlain())
	rp := httputil.NewSingleHostReverseProxy(up)
	tr := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.7")}}).DialContext}
	rp.Transport = tr
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: rp}
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done; tr.CloseIdleConnections() })
	return "http://" + l.Addr().String()
}

// A request that a trusted reverse proxy hands on counts for the address that the proxy
// states.
func TestPlacesBehindProxy(t *testing.T) {
	busy := make(chan struct{})
	s := newSite(t, func(c *ServerConfig) {
		c.MaxSiteEach = 2
		c.Trusts = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.7") }
		c.RemoteAddr = func(r *http.Request) net.Addr {
			return &net.TCPAddr{IP: net.ParseIP(r.Header.Get("X-From"))}
		}
		c.Site = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-busy
		})
	})
	addr := s.servePlain()
	defer close(busy)
	request := func(from string) string {
		return ask(dialSite(t, addr, "127.0.0.7", true), "GET / HTTP/1.1\r\nHost: x\r\nX-From: "+from+"\r\n\r\n")
	}
	for _, c := range []struct{ from, want string }{{"192.0.2.1", "200"}, {"192.0.2.1", "200"}, {"192.0.2.1", "429"}, {"192.0.2.2", "200"}} {
		if a := request(c.from); !strings.HasPrefix(a, "HTTP/1.1 "+c.want) {
			t.Errorf("from %s: %q, want %s", c.from, a, c.want)
		}
	}
}

// A client that sends nothing, or a byte at a time, is cut off after the TLS handshake,
// in the head of a request and in its body, on every listener.
func TestSlowRequests(t *testing.T) {
	s := newSite(t, func(c *ServerConfig) {
		c.Site = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				t.Error("a body without an end was read to its end")
			}
		})
	})
	plain := s.servePlain()
	d := dialer(t, s.ca)
	api := func() net.Conn {
		tc, err := d.Dial(t.Context(), s.url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { CloseNow(tc) })
		return tc
	}
	var wg sync.WaitGroup
	for where, dial := range map[string]func() net.Conn{
		"plain": func() net.Conn { return dialSite(t, plain, "127.0.0.2", true) },
		"TLS":   func() net.Conn { return dialSite(t, s.addr, "127.0.0.2", false) },
		"API":   api,
	} {
		for what, start := range map[string]string{
			"silence": "",
			"head":    "GET / HTTP/1.1\r\nHost: x\r\nA: ",
			"body":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		} {
			c := dial()
			c.SetDeadline(time.Now().Add(40 * time.Second))
			if _, err := io.WriteString(c, start); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			wg.Go(func() { // a byte a second
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for start != "" {
					select {
					case <-tick.C:
						c.Write([]byte("a"))
					case <-stop:
						return
					}
				}
			})
			wg.Go(func() {
				defer close(stop)
				if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
					t.Errorf("%s, %s: still open after 40 s", where, what)
				}
			})
		}
	}
	wg.Wait()
	until(t, "nothing is left", func() bool { return s.srv.sites.Len()+s.srv.apis.Len() == 0 })
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// The API has places of its own; the address that has most gives one up.
func TestAPIPlaces(t *testing.T) {
	s := newSite(t, nil)
	d := dialer(t, s.ca, s.url)
	for range 3 {
		tc, err := d.Dial(t.Context(), s.url)
		if err != nil {
			t.Fatal(err)
		}
		defer CloseNow(tc)
	}
	until(t, "the connections have places", func() bool { return s.srv.apis.Len() == 3 })
	if n := s.srv.sites.Len(); n != 0 {
		t.Errorf("nodes have %d places at the site", n)
	}
}

// A handler may think for longer than a client may leave a response unread, over HTTP/2
// as over HTTP/1: hashing a password takes that long on a slow and busy machine.
func TestSlowHandler(t *testing.T) {
	const timeout = 100 * time.Millisecond
	s := newSite(t, func(c *ServerConfig) {
		c.WriteTimeout = timeout
		c.Site = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-time.After(5 * timeout) // what would end it ends it within this
			io.WriteString(w, r.Proto)
		})
	})
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: proto == "HTTP/2.0"}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get("https://" + s.addr + "/")
		if err != nil {
			t.Errorf("%s: %v", proto, err)
			continue
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err != nil || string(b) != proto {
			t.Errorf("%s: %q, %v", proto, b, err)
		}
	}
}

// A response that nobody reads is ended, at the API too.
func TestUnreadAnswers(t *testing.T) {
	ended := make(chan error, 2)
	endless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		for b := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(b)
		}
		ended <- err
	})
	s := newSite(t, func(c *ServerConfig) {
		c.API, c.Site, c.WriteTimeout = endless, endless, 200*time.Millisecond
	})
	tc, err := dialer(t, s.ca).Dial(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseNow(tc)
	io.WriteString(tc, getRoot)
	io.WriteString(dialSite(t, s.addr, "127.0.0.2", false), getRoot)
	for range 2 {
		select {
		case err := <-ended:
			if !isTimeout(err) {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("still written")
		}
	}
}

// What is left of a body that broke off, or came too slowly, is never taken for another
// request: a proxy would send the one of somebody else behind it, and whoever wrote the
// body could say by it whose request it is.
func TestRestOfBody(t *testing.T) {
	var second atomic.Bool
	s := newSite(t, func(c *ServerConfig) {
		c.Site = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/second" {
				second.Store(true)
				return
			}
			http.NewResponseController(w).SetReadDeadline(time.Now())
			if _, err := io.ReadAll(r.Body); err == nil {
				t.Error("the body is there")
			}
			r.Body.Close()
			http.Error(w, "too slow", http.StatusRequestTimeout)
		})
	})
	c := dialSite(t, s.servePlain(), "127.0.0.1", true)
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusRequestTimeout {
		t.Fatal(res, err)
	}
	io.Copy(io.Discard, res.Body)
	io.WriteString(c, "GET /second HTTP/1.1\r\nHost: x\r\n\r\n")
	if rest, _ := io.ReadAll(in); len(rest) > 0 || second.Load() {
		t.Errorf("the rest of the body was answered: %q", rest)
	}
}
