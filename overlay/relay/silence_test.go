package relay

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// forgetful is a network whose router forgets connections that are silent for longer than
// memory, and then drops their packets.
type forgetful struct {
	mu     sync.Mutex
	memory time.Duration // 0: it does not forget
	conns  int
	pings  int
}

// forgetfulConn is a relay that answers pings.
type forgetfulConn struct {
	net.Conn
	n    *forgetful
	last time.Time // of the last byte in either direction; n.mu guards it
	gone bool
}

func (f *forgetful) dial(context.Context, string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns++
	near, far := net.Pipe()
	c := &forgetfulConn{Conn: near, n: f, last: time.Now()}
	go func() {
		defer far.Close()
		far.Write(AppendFrame(nil, TypeWelcome, []byte(`{"spread_ms":30000}`)))
		// Like a real relay it pings after 120 s of silence.
		const asks = 120 * time.Second
		var ask *time.Timer
		ask = time.AfterFunc(asks, func() {
			if !c.forgotten() {
				far.Write(AppendFrame(nil, TypePing, make([]byte, 8)))
			}
			ask.Reset(asks)
		})
		defer ask.Stop()
		r := NewReader(far, AtRelay)
		for r.Fill() == nil {
			for fr := r.Next(); fr != nil; fr = r.Next() {
				ask.Reset(asks)
				if Type(fr[0]) == TypePing {
					far.Write(AppendFrame(nil, TypePong, fr[HeadLen:]))
				}
			}
		}
	}()
	return c, nil
}

// forgotten records that something is sent in either direction, and reports whether the
// router drops it.
func (c *forgetfulConn) forgotten() bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	now := time.Now()
	if c.n.memory > 0 && now.Sub(c.last) > c.n.memory {
		c.gone = true
	}
	c.last = now
	return c.gone
}

// Write drops the data of a forgotten connection.
func (c *forgetfulConn) Write(b []byte) (int, error) {
	if Type(b[0]) == TypePing {
		c.n.mu.Lock()
		c.n.pings++
		c.n.mu.Unlock()
	}
	if c.forgotten() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// TestSilence: an idle node finds out how much silence its network tolerates, is offline
// for a moment at most meanwhile, and sends nothing extra where nothing is wrong.
func TestSilence(t *testing.T) {
	for _, c := range []struct {
		name          string
		memory        time.Duration
		conns         int // connections within the first hour
		quiet         time.Duration
		pingsLeast    int // within the second hour
		pingsMost     int
		firstHourMost int
	}{
		{"a good network", 0, 1, 0, 0, 0, 3},
		{"45 s", 45 * time.Second, 2, 30 * time.Second, 110, 125, 130},
		{"100 s", 100 * time.Second, 2, 60 * time.Second, 55, 62, 70},
		{"20 s", 20 * time.Second, 2, 15 * time.Second, 220, 245, 250},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &forgetful{memory: c.memory}
				h := NewHome(HomeConfig{
					Self:     cert.NodeID{1},
					Dial:     func(ctx context.Context, _, url string) (net.Conn, error) { return f.dial(ctx, url) },
					Relays:   func() []api.Relay { return []api.Relay{{ID: "r", Name: "r", URLs: []string{"r"}}} },
					Handler:  func(*Conn) Handler { return deaf{} },
					Versions: func() api.Versions { return api.Versions{} },
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { h.Run(ctx); close(done) }()
				defer func() { cancel(); <-done }()
				time.Sleep(time.Hour)
				f.mu.Lock()
				if f.conns != c.conns || f.pings > c.firstHourMost {
					t.Errorf("%d connections and %d pings in the first hour, want %d and at most %d", f.conns, f.pings, c.conns, c.firstHourMost)
				}
				f.pings = 0
				f.mu.Unlock()
				if got := h.allowedSilence(); got != c.quiet {
					t.Errorf("asks after %v, want %v", got, c.quiet)
				}
				time.Sleep(time.Hour)
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.conns != c.conns || f.pings < c.pingsLeast || f.pings > c.pingsMost {
					t.Errorf("%d connections, %d pings in the second hour, want %d and %d to %d", f.conns, f.pings, c.conns, c.pingsLeast, c.pingsMost)
				}
			})
		})
	}
}

// TestSilenceMoved: the tolerance is found out anew in another network, even if the
// connection survives.
func TestSilenceMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &forgetful{}
		h := NewHome(HomeConfig{
			Self:     cert.NodeID{1},
			Dial:     func(ctx context.Context, _, url string) (net.Conn, error) { return f.dial(ctx, url) },
			Relays:   func() []api.Relay { return []api.Relay{{ID: "r", Name: "r", URLs: []string{"r"}}} },
			Handler:  func(*Conn) Handler { return deaf{} },
			Versions: func() api.Versions { return api.Versions{} },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { h.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		time.Sleep(time.Hour)
		if got := h.allowedSilence(); got != 0 {
			t.Fatalf("asks after %v in a good network", got)
		}
		h.Moved()
		time.Sleep(time.Second)
		f.mu.Lock()
		f.memory, f.pings = 45*time.Second, 0
		f.mu.Unlock()
		time.Sleep(10 * time.Minute)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.conns != 2 || f.pings < 15 {
			t.Errorf("%d connections, %d pings within ten minutes; want 2, and one each half minute", f.conns, f.pings)
		}
	})
}

// TestSilenceTable: the effect of steps, losses, outages and time.
func TestSilenceTable(t *testing.T) {
	t0 := time.Unix(1e9, 0)
	var s silence
	want := func(now time.Time, d time.Duration) {
		t.Helper()
		if got := s.allowed(now); got != d {
			t.Errorf("asks after %v, want %v", got, d)
		}
	}
	want(t0, 30*time.Second)
	s.survived(31 * time.Second)
	want(t0, 60*time.Second)
	// An outage, without a connection for a while, proves nothing.
	s.failed(t0, 61*time.Second)
	s.back(t0.Add(time.Minute))
	want(t0, 60*time.Second)
	s.failed(t0, 61*time.Second)
	s.back(t0.Add(time.Second))
	want(t0, 30*time.Second)
	s.survived(30 * time.Second)
	want(t0, 30*time.Second)
	// Shorter still.
	s.failed(t0, 30*time.Second)
	s.back(t0)
	want(t0, 15*time.Second)
	s.survived(15 * time.Second)
	// A day later the step is tried again.
	t1 := t0.Add(25 * time.Hour)
	want(t1, 30*time.Second)
	s.survived(30 * time.Second)
	want(t1, 60*time.Second)
	s.survived(3 * time.Minute)
	want(t1, 0)
	// A reconnection for another reason changes nothing.
	s.back(t1)
	want(t1, 0)
}

// deaf ignores everything.
type deaf struct{ Handler }

func (deaf) Drained()        {}
func (deaf) Welcome(Welcome) {}
