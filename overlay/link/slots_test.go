package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The first to arrive is next, until the wait is long: then the last is. Nobody waits for
// longer than a handshake may take.
func TestSlots(t *testing.T) {
	for name, c := range map[string]struct {
		every time.Duration // between arrivals
		want  []int
	}{
		"soon":     {lateAfter / 10, []int{0, 1, 2, 3}},
		"overload": {lateAfter, []int{3, 2, 1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slots{free: 1}
				if err := s.take(nil); err != nil {
					t.Fatal(err)
				}
				served := make(chan int)
				var wg sync.WaitGroup
				for i := range 4 {
					wg.Go(func() {
						if err := s.take(nil); err != nil {
							t.Error(err)
						}
						served <- i
					})
					time.Sleep(c.every)
				}
				var got []int
				for range 4 {
					s.release()
					got = append(got, <-served)
				}
				if wg.Wait(); !slices.Equal(got, c.want) {
					t.Errorf("served %v, want %v", got, c.want)
				}
				start := time.Now()
				if err := s.take(nil); !errors.Is(err, errTooMany) || time.Since(start) != handshakeTimeout {
					t.Errorf("after %s: %v", time.Since(start), err)
				}
				done := make(chan struct{})
				close(done)
				if err := s.take(done); !errors.Is(err, net.ErrClosed) {
					t.Errorf("at the end: %v", err)
				}
				s.release()
				if s.free != 1 || s.waiting.Len() != 0 {
					t.Errorf("%d free, %d wait", s.free, s.waiting.Len())
				}
			})
		})
	}
}

// slowSite is a site whose handshakes wait in Certificate, with their slots, until hold
// is closed.
func slowSite(t *testing.T) (s *site, hold chan struct{}, begun *atomic.Int64) {
	hold, begun = make(chan struct{}), new(atomic.Int64)
	s = newSite(t, func(c *ServerConfig) {
		crt := c.Certificate
		c.Certificate = func() *tls.Certificate {
			begun.Add(1)
			<-hold
			return crt()
		}
	})
	return s, hold, begun
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

func (s *site) waiting() int {
	s.srv.cpu.mu.Lock()
	defer s.srv.cpu.mu.Unlock()
	return s.srv.cpu.waiting.Len()
}

// Nothing is computed for clients that gave up while they waited for a slot.
func TestNothingIsComputedForClientsThatGaveUp(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("there is no way to know here")
		return
	}
	s, hold, begun := slowSite(t)
	d := dialer(t, s.ca)
	s.srv.cpu.mu.Lock()
	slots := s.srv.cpu.free
	s.srv.cpu.mu.Unlock()
	var served, gone sync.WaitGroup
	dial := func(wg *sync.WaitGroup, ctx context.Context) {
		wg.Go(func() {
			if tc, err := d.DialRelay(ctx, "", s.url); err == nil {
				CloseNow(tc)
			}
		})
	}
	for range slots {
		dial(&served, t.Context())
	}
	until(t, "all slots are taken", func() bool { return int(begun.Load()) == slots })
	ctx, cancel := context.WithCancel(t.Context())
	for range 20 {
		dial(&gone, ctx)
	}
	until(t, "the others wait", func() bool { return s.waiting() == 20 })
	cancel()
	gone.Wait() // their sockets are closed, which the server sees at once on loopback
	close(hold)
	served.Wait()
	until(t, "nobody waits", func() bool { return s.waiting() == 0 })
	if n := int(begun.Load()); n != slots {
		t.Errorf("%d handshakes were computed for %d clients", n, slots)
	}
}

// Where a direct handshake worked, the next two that get no answer get more time and no
// WebSocket is tried: else a server that restarts under a fleet would compute three
// handshakes for each node. After that the network may have changed.
func TestDirectHandshakeIsTrusted(t *testing.T) {
	s := newSite(t, nil)
	d := dialer(t, s.ca)
	var answers atomic.Bool
	var dials atomic.Int64
	answers.Store(true)
	d.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		if answers.Load() {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
		return eof{}, nil
	}
	for round := range 2 {
		answers.Store(true)
		tc, err := d.DialRelay(t.Context(), "", s.url)
		if err != nil {
			t.Fatal(err)
		}
		if CloseNow(tc); Of(tc).WebSocket() {
			t.Fatal("over a WebSocket")
		}
		answers.Store(false)
		for i, want := range []int64{1, 1, 2} {
			dials.Store(0)
			if _, err := d.DialRelay(t.Context(), "", s.url); err == nil || dials.Load() != want {
				t.Errorf("round %d, attempt %d: %d connections, want %d: %v", round, i, dials.Load(), want, fmt.Sprint(err))
			}
		}
	}
}

// eof is a connection whose other end reads everything and closes.
type eof struct{ net.Conn }

func (eof) Read([]byte) (int, error)        { return 0, io.EOF }
func (eof) Write(p []byte) (int, error)     { return len(p), nil }
func (eof) Close() error                    { return nil }
func (eof) LocalAddr() net.Addr             { return &net.TCPAddr{} }
func (eof) RemoteAddr() net.Addr            { return &net.TCPAddr{} }
func (eof) SetDeadline(time.Time) error     { return nil }
func (eof) SetReadDeadline(time.Time) error { return nil }
