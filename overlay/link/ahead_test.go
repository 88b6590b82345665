package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay/cert"
)

// counting counts the TCP connections that d makes.
func counting(d *Dialer) *atomic.Int64 {
	var n atomic.Int64
	d.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return &n
}

// A link that was made ahead is used once, by whoever dials the same.
func TestDialAhead(t *testing.T) {
	s := newSite(t, nil)
	d := dialer(t, s.ca, s.url)
	made := counting(d)
	d.DialAhead()
	if _, err := get(t, d); err != nil || made.Load() != 1 {
		t.Errorf("a request: %d connections, %v", made.Load(), err)
	}
	if _, err := get(t, d); err != nil || made.Load() != 2 {
		t.Errorf("the next: %d connections, %v", made.Load(), err)
	}
	d.DialAhead()
	relayed := func(d *Dialer) {
		t.Helper()
		tc, err := d.DialRelay(t.Context(), "", s.url)
		if err != nil {
			t.Fatal(err)
		}
		defer tc.Close()
		echo(t, tc)
	}
	if relayed(d); made.Load() != 4 {
		t.Errorf("a link for the API was used for the relay: %d connections", made.Load())
	}
	d.Drop()
	other := dialer(t, s.ca)
	elsewhere := counting(other)
	d.Take(other.DialRelayAhead("", s.url))
	if relayed(d); made.Load() != 4 || elsewhere.Load() != 1 {
		t.Errorf("taken from another dialer: %d and %d connections", made.Load(), elsewhere.Load())
	}
}

// What was made ahead for another relay is not used, and the certificate is checked.
func TestDialAheadChecks(t *testing.T) {
	s := newSite(t, nil)
	d := dialer(t, s.ca, s.url)
	made := counting(d)
	defer d.Drop()
	d.Take(d.DialRelayAhead("another", s.url))
	if tc, err := d.DialRelay(t.Context(), "", s.url); err != nil || made.Load() != 2 {
		t.Errorf("%d connections, %v", made.Load(), err)
	} else {
		tc.Close()
	}
	if _, err := d.DialRelay(t.Context(), "another", s.url); !errors.Is(err, cert.ErrUntrusted) || made.Load() != 2 {
		t.Errorf("another relay: %v, %d connections", err, made.Load())
	}
}

// A link that the server may have closed meanwhile is made anew.
func TestDialAheadIsNotKept(t *testing.T) {
	s := newSite(t, nil)
	d := dialer(t, s.ca, s.url)
	made := counting(d)
	a := d.DialRelayAhead("", s.url)
	<-a.done
	a.made = a.made.Add(-aheadFor - time.Second)
	d.Take(a)
	tc, err := d.DialRelay(t.Context(), "", s.url)
	if err != nil || made.Load() != 2 {
		t.Fatalf("%d connections, %v", made.Load(), err)
	}
	tc.Close()
	if _, err := a.tc.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the old one is open: %v", err)
	}
}

// What nobody uses is closed, and an attempt ends with who waits for it.
func TestDialAheadEnds(t *testing.T) {
	ended := make(chan struct{})
	s := newSite(t, func(c *ServerConfig) {
		c.Relay = func(_ context.Context, c *tls.Conn) { io.Copy(io.Discard, c); close(ended) }
	})
	d := dialer(t, s.ca, s.url)
	a := d.DialRelayAhead("", s.url)
	<-a.done
	d.Take(a)
	d.Drop()
	d.Drop()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the server still has the connection")
	}
	d.NetDial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	d.Take(d.DialRelayAhead("", s.url))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.DialRelay(ctx, "", s.url); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
	d.DialAhead()
	d.Drop() // returns
}
