package overlaytest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// TestConnIsANetConn runs the conformance tests of x/net, in real time.
func TestConnIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		in := New(1)
		client, server, err := in.pipe(in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2"))
		return client, server, in.Close, err
	})
}

// pipe returns the two ends of a new stream.
func (in *Internet) pipe(a, b *Host) (net.Conn, net.Conn, error) {
	l, err := b.Listen("tcp", ":0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	client, err := a.DialContext(context.Background(), "tcp", net.JoinHostPort(b.Name(), port))
	if err != nil {
		return nil, nil, err
	}
	server, err := l.Accept()
	return client, server, err
}

func mustPipe(t *testing.T, in *Internet, a, b *Host) (*Conn, *Conn) {
	t.Helper()
	client, server, err := in.pipe(a, b)
	if err != nil {
		t.Fatal(err)
	}
	return client.(*Conn), server.(*Conn)
}

func TestRoundTrips(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		a, b := in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2")
		a.Link.SetLatency(50 * time.Millisecond)
		l, err := b.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		accepted := make(chan time.Duration, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			accepted <- time.Since(start)
			io.Copy(c, c)
			c.Close()
		}()
		c, err := a.DialContext(t.Context(), "tcp", "b:80")
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("dial took %v", took)
		}
		c.Write([]byte("x"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil || time.Since(start) != 200*time.Millisecond {
			t.Errorf("answer after %v, %v", time.Since(start), err)
		}
		if at := <-accepted; at != 150*time.Millisecond {
			t.Errorf("accepted after %v", at)
		}
		// Half-close: all data come back, then EOF.
		want := make([]byte, 3*Window)
		rand.New(rand.NewSource(1)).Read(want)
		go func() { c.Write(want); c.(*Conn).CloseWrite() }()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
		c.Close()
	})
}

func TestDialFails(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		a, b := in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2", "2001:db8::2")
		home := in.NAT("home", FullCone, "198.51.100.1")
		home.Host("inside", "192.168.1.2", "2001:db8:1::2")
		a.Link.SetLatency(10 * time.Millisecond)
		dark := in.Host("dark", "192.0.2.3")
		dark.Link.SetUp(false)
		office := in.NAT("office", PortRestricted, "198.51.100.2")
		office.SetOnlyTCP(443)
		worker := office.Host("worker", "10.0.0.1", "2001:db8:2::1")
		for _, test := range []struct {
			from *Host
			to   string
			want error
			took time.Duration
		}{
			{a, "b:80", syscall.ECONNREFUSED, 20 * time.Millisecond},
			{a, "198.51.100.1:80", syscall.ECONNREFUSED, 20 * time.Millisecond},
			{a, "[2001:db8::2]:80", syscall.ENETUNREACH, 0},
			{b, "[2001:db8:1::2]:80", syscall.ETIMEDOUT, 127 * time.Second},
			{a, "dark:80", syscall.ETIMEDOUT, 127 * time.Second},
			{a, "192.0.2.99:80", syscall.ETIMEDOUT, 127 * time.Second},
			{worker, "192.0.2.2:80", syscall.ETIMEDOUT, 127 * time.Second},
			{worker, "192.0.2.2:443", syscall.ECONNREFUSED, 0},
			{a, "localhost:80", syscall.ECONNREFUSED, 0},
		} {
			start := time.Now()
			_, err := test.from.DialContext(t.Context(), "tcp", test.to)
			if !errors.Is(err, test.want) || time.Since(start) != test.took {
				t.Errorf("%s to %s: %v after %v, want %v after %v", test.from.Name(), test.to, err, time.Since(start), test.want, test.took)
			}
		}
		if _, err := a.DialContext(t.Context(), "tcp", "nobody:80"); err == nil {
			t.Error("dialled a name that does not exist")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := a.DialContext(ctx, "tcp", "dark:80"); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("dial with a timeout: %v after %v", err, time.Since(start))
		}
		// A retry reaches a host that is back in time.
		time.AfterFunc(4*time.Second, func() { dark.Link.SetUp(true) })
		l, err := dark.Listen("tcp", "192.0.2.3:80")
		if err != nil {
			t.Fatal(err)
		}
		start = time.Now()
		if _, err := a.DialContext(t.Context(), "tcp", "dark:80"); err != nil || time.Since(start) != 7*time.Second+20*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		l.Close()
		if _, err := dark.Listen("tcp", "192.0.2.99:80"); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("listen on another's address: %v", err)
		}
	})
}

// TestStreamEnds: what the other side gets from its next read and write.
func TestStreamEnds(t *testing.T) {
	for _, test := range []struct {
		name        string
		do          func(in *Internet, a, b *Host, c *Conn)
		read, write error // at the other side; nil: no answer, or no error
	}{
		{"close", func(in *Internet, a, b *Host, c *Conn) { c.Close() }, io.EOF, nil},
		{"close with unread data", func(in *Internet, a, b *Host, c *Conn) { c.peer.Write([]byte("x")); time.Sleep(1e9); c.Close() }, syscall.ECONNRESET, syscall.ECONNRESET},
		{"process killed", func(in *Internet, a, b *Host, c *Conn) { a.Kill() }, syscall.ECONNRESET, syscall.ECONNRESET},
		{"reset", func(in *Internet, a, b *Host, c *Conn) { in.Reset(b, a) }, syscall.ECONNRESET, syscall.ECONNRESET},
		{"power off", func(in *Internet, a, b *Host, c *Conn) { a.PowerOff() }, os.ErrDeadlineExceeded, nil},
		{"power off and on", func(in *Internet, a, b *Host, c *Conn) { a.PowerOff(); a.Link.SetUp(true) }, os.ErrDeadlineExceeded, nil},
		{"link down", func(in *Internet, a, b *Host, c *Conn) { a.Link.SetUp(false) }, os.ErrDeadlineExceeded, nil},
		{"partition", func(in *Internet, a, b *Host, c *Conn) { in.Partition(a, b) }, os.ErrDeadlineExceeded, nil},
		{"moved", func(in *Internet, a, b *Host, c *Conn) { a.Move(in.Net, "192.0.2.77") }, os.ErrDeadlineExceeded, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, in *Internet) {
				a, b := in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2")
				a.Link.SetLatency(time.Millisecond)
				c, s := mustPipe(t, in, a, b)
				test.do(in, a, b, c)
				s.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := s.Read(make([]byte, 1)); !errors.Is(err, test.read) {
					t.Errorf("read: %v, want %v", err, test.read)
				}
				if _, err := s.Write([]byte("x")); !errors.Is(err, test.write) {
					t.Errorf("write: %v, want %v", err, test.write)
				}
				// After a write that is lost the stream fails sooner or later.
				s.SetReadDeadline(time.Now().Add(time.Hour))
				for range 3 {
					time.Sleep(time.Second)
					s.Write([]byte("x"))
				}
				if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("an hour later: %v", err)
				}
			})
		})
	}
}

// TestStallAndResume: an outage only delays a stream, with data and the end of the stream
// in flight in both directions.
func TestStallAndResume(t *testing.T) {
	for _, kind := range []Kind{NoNAT, Symmetric, UDPBlocked} {
		bubble(t, func(t *testing.T, in *Internet) {
			home := in.NAT("home", kind, "198.51.100.1")
			a, b := home.Host("a", "198.51.100.5"), in.Host("b", "192.0.2.2")
			a.Link.SetLatency(50 * time.Millisecond)
			home.Link.SetLoss(0.2)
			c, s := mustPipe(t, in, a, b)
			want := make([]byte, 10*Window)
			rand.New(rand.NewSource(1)).Read(want)
			for _, end := range []*Conn{c, s} {
				go func() { end.Write(want); end.CloseWrite() }()
			}
			go func() {
				for range 20 {
					time.Sleep(300 * time.Millisecond)
					home.Link.SetUp(false)
					time.Sleep(time.Second)
					home.Link.SetUp(true)
				}
				in.Partition(a, b)
				time.Sleep(10 * time.Minute)
				in.Heal(a, b)
			}()
			done := make(chan []byte)
			go func() {
				got, err := io.ReadAll(s)
				if err != nil {
					t.Error(err)
				}
				done <- got
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) || !bytes.Equal(<-done, want) {
				t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
			}
			c.Close()
			s.Close()
			time.Sleep(time.Hour)
			in.mu.Lock()
			defer in.mu.Unlock()
			if n := len(in.streams); n > 0 {
				t.Errorf("%d ends of streams left", n)
			}
		})
	}
}

// TestRouterReboot: the router has lost its mappings, so the stream never continues.
func TestRouterReboot(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		home := in.NAT("home", PortRestricted, "198.51.100.1")
		a, b := home.Host("a", "10.0.0.1"), in.Host("b", "192.0.2.2")
		c, s := mustPipe(t, in, a, b)
		if s.RemoteAddr().(*net.TCPAddr).IP.String() != "198.51.100.1" {
			t.Errorf("the server sees %v", s.RemoteAddr())
		}
		home.Reboot()
		start := time.Now()
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start) != stallLimit {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		s.Close()
	})
}

// TestWindow: a reader that does not read stops its writer.
func TestWindow(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		c, s := mustPipe(t, in, in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2"))
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := c.Write(make([]byte, 2*Window))
		if n != Window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d bytes, %v", n, err)
		}
		c.SetWriteDeadline(time.Time{})
		go c.Write(make([]byte, Window))
		if n, err := io.CopyN(io.Discard, s, 2*Window); err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		synctest.Wait()
	})
}

// TestHTTP: HTTP works on simulated streams.
func TestHTTP(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		server := in.Host("server", "192.0.2.1", "2001:db8::1")
		l, err := server.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
		served := make(chan error, 1)
		go func() { served <- web.Serve(l) }()
		h := in.NAT("home", Symmetric, "198.51.100.1").Host("h", "10.0.0.1")
		h.Link.SetLatency(50 * time.Millisecond)
		client := &http.Client{Transport: &http.Transport{DialContext: h.DialContext}}
		start := time.Now()
		resp, err := client.Get("http://server/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if time.Since(start) != 200*time.Millisecond || !bytes.HasPrefix(body, []byte("198.51.100.1:")) {
			t.Errorf("%q after %v", body, time.Since(start))
		}
		client.CloseIdleConnections()
		web.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
}

// TestCloseEndsEverything: all blocked calls return.
func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New(1)
		a, b := in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2")
		b.Link.SetLatency(time.Second)
		l, _ := a.Listen("tcp", ":1")
		u, _ := a.ListenPacket("udp", ":1")
		c, s := mustPipe(t, in, a, b)
		errs := make(chan error, 5)
		go func() { _, err := l.Accept(); errs <- err }()
		go func() { _, _, err := u.ReadFrom(nil); errs <- err }()
		go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := s.Write(make([]byte, 2*Window)); errs <- err }()
		go func() { _, err := a.DialContext(t.Context(), "tcp", "192.0.2.9:1"); errs <- err }()
		synctest.Wait()
		in.Close()
		in.Close()
		for range 5 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		if _, err := a.Listen("tcp", ":2"); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
