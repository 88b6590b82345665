package relay_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
)

// fakeRelay is the relay's end of connections, controlled by a test.
type fakeRelay struct {
	mu    sync.Mutex
	down  bool
	mute  bool // reads and sends nothing
	delay time.Duration
	conns []net.Conn
	dials int
	got   []relay.Type
	holds []relay.Holds
}

func (f *fakeRelay) dial(ctx context.Context, url string) (net.Conn, error) {
	f.mu.Lock()
	f.dials++
	down, mute, delay := f.down, f.mute, f.delay
	f.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if down {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	f.mu.Lock()
	f.conns = append(f.conns, far)
	f.mu.Unlock()
	go f.serve(far, mute)
	return near, nil
}

func (f *fakeRelay) serve(c net.Conn, mute bool) {
	if !mute {
		go c.Write(relay.AppendFrame(nil, relay.TypeWelcome, []byte(`{"spread_ms":2000}`)))
	}
	r := relay.NewReader(c, relay.AtRelay)
	for r.Fill() == nil {
		for fr := r.Next(); fr != nil; fr = r.Next() {
			f.mu.Lock()
			f.got = append(f.got, relay.Type(fr[0]))
			var h relay.Holds
			if relay.Type(fr[0]) == relay.TypeVersions && json.Unmarshal(fr[relay.HeadLen:], &h) == nil {
				f.holds = append(f.holds, h)
			}
			mute := f.mute
			f.mu.Unlock()
			if relay.Type(fr[0]) == relay.TypePing && !mute {
				c.Write(relay.AppendFrame(nil, relay.TypePong, fr[relay.HeadLen:]))
			}
		}
	}
}

func (f *fakeRelay) dialled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

func (f *fakeRelay) last() net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns[len(f.conns)-1]
}

func (f *fakeRelay) count(t relay.Type) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.got {
		if g == t {
			n++
		}
	}
	return n
}

func (f *fakeRelay) set(down, mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.mute = down, mute
}

// silent ignores everything.
type silent struct{ relay.Handler }

func (silent) Packet(cert.NodeID, []byte)         {}
func (silent) Drained()                           {}
func (silent) Session(cert.NodeID, []byte)        {}
func (silent) Gone(cert.NodeID, relay.GoneReason) {}
func (silent) Busy(cert.NodeID)                   {}
func (silent) Welcome(relay.Welcome)              {}
func (silent) Nudge(relay.Nudge)                  {}
func (silent) CRL([]byte)                         {}
func (silent) Replaced()                          {}
func (silent) Draining(relay.Draining)            {}

func (silent) Lane(cert.NodeID, lane.Info)            {}
func (silent) LaneGone(cert.NodeID, relay.LaneReason) {}
func (silent) LaneRebind(cert.NodeID)                 {}

type homeStage struct {
	*relay.Home
	t      *testing.T
	relays map[string]*fakeRelay // by URL
	mu     sync.Mutex
	active bool
	states []relay.State
}

// withHome runs f in a bubble with a home over the named relays.
func withHome(t *testing.T, sticky string, names []string, f func(*homeStage)) {
	synctest.Test(t, func(t *testing.T) {
		st := &homeStage{t: t, relays: map[string]*fakeRelay{}}
		var list []api.Relay
		for _, n := range names {
			st.relays[n] = &fakeRelay{}
			list = append(list, api.Relay{ID: n, Name: n, URLs: []string{n}})
		}
		st.Home = relay.NewHome(relay.HomeConfig{
			Self:     cert.NodeID{1},
			Dial:     func(ctx context.Context, _, url string) (net.Conn, error) { return st.relays[url].dial(ctx, url) },
			Relays:   func() []api.Relay { return list },
			LastHome: sticky,
			Handler:  func(*relay.Conn) relay.Handler { return silent{} },
			Versions: func() api.Versions { return api.Versions{} },
			Active:   func() bool { st.mu.Lock(); defer st.mu.Unlock(); return st.active },
			OnState:  func(s relay.State) { st.mu.Lock(); st.states = append(st.states, s); st.mu.Unlock() },
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { st.Run(ctx); close(done) }()
		synctest.Wait()
		f(st)
		cancel()
		<-done
		for _, r := range st.relays {
			for _, c := range r.conns {
				c.Close()
			}
		}
	})
}

// within waits for the home to be online at a relay and says how long it took.
func (st *homeStage) within(max time.Duration, at string) time.Duration {
	st.t.Helper()
	start := time.Now()
	for time.Since(start) <= max {
		synctest.Wait()
		if s := st.State(); s.Online && s.Relay.ID == at {
			return time.Since(start)
		}
		time.Sleep(10 * time.Millisecond)
	}
	st.t.Fatalf("not online at %s within %v: %+v", at, max, st.State())
	return 0
}

// All connections of a Home send the same process value, and no other Home sends it.
func TestHomeStatesItsProcess(t *testing.T) {
	all := map[string]bool{}
	for range 3 {
		withHome(t, "", []string{"r"}, func(st *homeStage) {
			r := st.relays["r"]
			for i := range 3 {
				st.within(5*time.Second, "r")
				st.SendVersions()
				synctest.Wait()
				r.mu.Lock()
				for _, h := range r.holds {
					if len(h.Process) < 20 || h.Process != r.holds[0].Process {
						t.Errorf("connection %d: %v", i, r.holds)
					}
				}
				if len(r.holds) != 2*(i+1) {
					t.Errorf("%d of %d", len(r.holds), i)
				}
				all[r.holds[0].Process] = true
				r.mu.Unlock()
				r.last().Close()
				synctest.Wait()
			}
		})
	}
	if len(all) != 3 {
		t.Errorf("three homes state %d", len(all))
	}
}

func TestHomeComesBack(t *testing.T) {
	withHome(t, "", []string{"r"}, func(st *homeStage) {
		r := st.relays["r"]
		st.within(0, "r")
		if r.count(relay.TypeVersions) != 1 {
			t.Error("versions were not sent at connect")
		}
		// With active peers it reconnects as soon as the relay is back, plus jitter.
		st.mu.Lock()
		st.active = true
		st.mu.Unlock()
		r.set(true, false)
		r.last().Close()
		time.Sleep(3 * time.Second)
		r.set(false, false)
		st.within(350*time.Millisecond, "r")
		// Without, at a random time within the relay's spread, and after that less and
		// less often.
		st.mu.Lock()
		st.active = false
		st.mu.Unlock()
		r.last().Close()
		st.within(2100*time.Millisecond, "r")
		r.set(true, false)
		dials := r.dialled()
		r.last().Close()
		time.Sleep(10 * time.Minute)
		if n := r.dialled() - dials; n < 15 || n > 60 {
			t.Errorf("%d attempts in ten minutes", n)
		}
		r.set(false, false)
		st.within(30*time.Second, "r")
		// Wake ends a wait.
		r.set(true, false)
		r.last().Close()
		time.Sleep(5 * time.Minute)
		r.set(false, false)
		st.Wake()
		st.within(20*time.Millisecond, "r")
	})
}

func TestHomeReplaced(t *testing.T) {
	withHome(t, "", []string{"r"}, func(st *homeStage) {
		r := st.relays["r"]
		st.within(0, "r")
		r.last().Write(relay.AppendFrame(nil, relay.TypeReplaced))
		synctest.Wait()
		st.Wake() // does not shorten it
		time.Sleep(29 * time.Second)
		if r.dialled() != 1 || !errors.Is(st.State().Err, relay.ErrReplaced) {
			t.Fatalf("%d dials, %v", r.dialled(), st.State().Err)
		}
		st.within(3*time.Second, "r")
	})
}

func TestHomeRefused(t *testing.T) {
	withHome(t, "", []string{"r"}, func(st *homeStage) {
		r := st.relays["r"]
		st.within(0, "r")
		r.last().Write(relay.AppendFrame(nil, relay.TypeRefused, []byte{1}))
		time.Sleep(14 * time.Second)
		var refused *relay.RefusedError
		if r.dialled() != 1 || !errors.As(st.State().Err, &refused) {
			t.Fatalf("%d dials, %v", r.dialled(), st.State().Err)
		}
	})
}

func TestHomeMoves(t *testing.T) {
	names := []string{"r1", "r2", "r3"}
	withHome(t, "r2", names, func(st *homeStage) {
		st.within(0, "r2") // the last home, without a race
		if st.relays["r1"].dialled()+st.relays["r3"].dialled() != 0 {
			t.Error("others were dialled though the home works")
		}
		var list []api.Relay
		for _, n := range names {
			list = append(list, api.Relay{ID: n})
		}
		order := relay.Order(list, cert.NodeID{1})
		order = slices.DeleteFunc(order, func(r api.Relay) bool { return r.ID == "r2" })
		st.mu.Lock()
		st.active = true
		st.mu.Unlock()
		st.relays["r2"].set(true, false)
		st.relays["r2"].last().Close()
		time.Sleep(4 * time.Second)
		if st.State().Online {
			t.Fatal("moved before 5 s")
		}
		for !st.State().Online {
			time.Sleep(10 * time.Millisecond)
		}
		moved := st.State().Relay.ID
		if moved == "r2" || !slices.ContainsFunc(order, func(r api.Relay) bool { return r.ID == moved }) {
			t.Errorf("moved to %q", moved)
		}
		// It stays there when the old home is back.
		st.relays["r2"].set(false, false)
		st.relays[moved].last().Close()
		st.within(time.Second, moved)
		// It leaves a draining relay at once.
		st.relays[moved].last().Write(relay.AppendFrame(nil, relay.TypeDraining, []byte(`{"spread_ms":300}`)))
		time.Sleep(time.Second)
		if s := st.State(); !s.Online || s.Relay.ID == moved {
			t.Errorf("after draining: %+v", s)
		}
	})
}

func TestHomeNearest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fast, slow := &fakeRelay{delay: 10 * time.Millisecond}, &fakeRelay{delay: 80 * time.Millisecond}
		list := []api.Relay{{ID: "slow", URLs: []string{"slow"}}, {ID: "fast", URLs: []string{"fast"}}}
		h := relay.NewHome(relay.HomeConfig{
			Dial: func(ctx context.Context, _, url string) (net.Conn, error) {
				if url == "fast" {
					return fast.dial(ctx, url)
				}
				return slow.dial(ctx, url)
			},
			Relays:   func() []api.Relay { return list },
			Handler:  func(*relay.Conn) relay.Handler { return silent{} },
			Versions: func() api.Versions { return api.Versions{} },
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { h.Run(ctx); close(done) }()
		time.Sleep(200 * time.Millisecond)
		if s := h.State(); !s.Online || s.Relay.ID != "fast" {
			t.Errorf("home %+v", s)
		}
		cancel()
		<-done
		for _, c := range append(fast.conns, slow.conns...) {
			c.Close()
		}
	})
}

// The link that wins the race becomes the connection: a second link would replace it at
// the relay.
func TestHomeRacesOnce(t *testing.T) {
	withHome(t, "", []string{"a", "b", "c"}, func(st *homeStage) {
		time.Sleep(time.Second)
		if s := st.State(); !s.Online {
			t.Fatalf("%+v", s)
		}
		for name, r := range st.relays {
			if n := r.dialled(); n != 1 {
				t.Errorf("%s was dialled %d times", name, n)
			}
		}
	})
}

// A node leaves a draining relay. If no other relay works, it tries the draining one
// again.
func TestHomeDrainsAlone(t *testing.T) {
	withHome(t, "a", []string{"a", "b"}, func(st *homeStage) {
		st.within(time.Second, "a")
		st.relays["b"].set(true, false)
		st.relays["a"].last().Write(relay.AppendFrame(nil, relay.TypeDraining, []byte(`{"spread_ms":300}`)))
		st.within(10*time.Second, "a")
	})
}

// All relays are unreachable for long, then one is back: the node finds it within one
// round, however long its waits have become.
func TestHomeTriesAllInARound(t *testing.T) {
	withHome(t, "a", []string{"a", "b", "c"}, func(st *homeStage) {
		st.within(time.Second, "a")
		for _, r := range st.relays {
			r.set(true, false)
		}
		st.relays["a"].last().Close()
		time.Sleep(10 * time.Minute)
		st.relays["c"].set(false, false)
		st.within(31*time.Second, "c")
	})
}

// A node notices a relay that stops answering: at once on Wake, within 15 s while it
// sends, within 3 minutes otherwise.
func TestDeadRelay(t *testing.T) {
	for name, c := range map[string]struct {
		do  func(*homeStage)
		max time.Duration
	}{
		"wake":    {func(st *homeStage) { st.Wake() }, 3 * time.Second},
		"sending": {func(st *homeStage) { st.SendPackets(cert.NodeID{9}, [][]byte{{1}}) }, 16 * time.Second},
		"idle":    {func(*homeStage) {}, 161 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			withHome(t, "", []string{"r"}, func(st *homeStage) {
				r := st.relays["r"]
				st.within(0, "r")
				time.Sleep(20 * time.Minute) // long idle
				if r.dialled() != 1 {
					t.Fatalf("%d connections while idle", r.dialled())
				}
				synctest.Wait()
				r.set(true, true)
				c.do(st)
				start := time.Now()
				for st.State().Online && time.Since(start) < time.Hour {
					time.Sleep(10 * time.Millisecond)
				}
				if d := time.Since(start); d > c.max || !errors.Is(st.State().Err, relay.ErrDead) && st.State().Err.Error() != "connection refused" {
					t.Errorf("noticed after %v: %v", d, st.State().Err)
				}
			})
		})
	}
}

func TestNoWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := relay.NewConn(near, silent{})
		done := make(chan error)
		go func() { done <- c.Run(context.Background()) }()
		far.Write([]byte{1, 0, 0, 5, 1, 2, 3, 4, 5}) // too short for a packet
		if err := <-done; !errors.Is(err, relay.ErrFrame) {
			t.Error(err)
		}
		if err := c.SendPackets(cert.NodeID{1}, [][]byte{{1}}); !errors.Is(err, relay.ErrFrame) {
			t.Errorf("send after the end: %v", err)
		}
		if _, err := c.Ping(context.Background()); err == nil {
			t.Error("ping after the end")
		}
	})
}

// Senders block when the relay does not read, and return after Close.
func TestSendBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := relay.NewConn(near, silent{})
		run := make(chan error)
		go func() { run <- c.Run(context.Background()) }()
		sent := make(chan int)
		go func() {
			n := 0
			for c.SendPackets(cert.NodeID{1}, [][]byte{make([]byte, 10000)}) == nil {
				n++
			}
			sent <- n
		}()
		time.Sleep(time.Second)
		if err := c.SendSession(cert.NodeID{1}, []byte("x")); err != nil {
			t.Error("an introduction frame had to wait")
		}
		c.Close()
		if n := <-sent; n < 25 || n > 80 {
			t.Errorf("%d packets of 10 KB queued", n)
		}
		if err := <-run; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		far.Close()
	})
}

// TrySendPackets never waits: what finds no room is dropped. Control frames pass a long
// queue, and order and content of what was queued are kept.
func TestTrySend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := relay.NewConn(near, silent{})
		ran := make(chan struct{})
		go func() { c.Run(t.Context()); close(ran) }()
		queued := 0
		for {
			pkt := make([]byte, 10000)
			pkt[0], pkt[1] = byte(queued>>8), byte(queued)
			n, err := c.TrySendPackets(cert.NodeID{1}, [][]byte{pkt, pkt[:5000]})
			if err != nil {
				t.Fatal(err)
			}
			if queued++; n < 2 {
				queued += n - 1
				break
			}
		}
		synctest.Wait()
		if queued < 20 || queued > 200 {
			t.Fatalf("%d packets were queued", queued)
		}
		if err := c.SendSession(cert.NodeID{1}, []byte{1}); err != nil {
			t.Fatal(err)
		}
		next, session := 0, -1
		r := bufio.NewReader(far)
		for next < queued {
			head := make([]byte, relay.HeadLen)
			if _, err := io.ReadFull(r, head); err != nil {
				t.Fatal(err)
			}
			body := make([]byte, relay.FrameLen(head)-relay.HeadLen)
			if _, err := io.ReadFull(r, body); err != nil {
				t.Fatal(err)
			}
			switch relay.Type(head[0]) {
			case relay.TypeSession:
				session = next
			case relay.TypePacket:
				if pkt := body[relay.PeerLen:]; len(pkt) == 10000 {
					if got := int(pkt[0])<<8 | int(pkt[1]); got != next {
						t.Fatalf("packet %d, want %d", got, next)
					}
					next++
				}
			}
		}
		if session < 0 || session > queued/2 {
			t.Errorf("the control frame came after %d of %d packets", session, queued)
		}
		c.Close()
		far.Close()
		<-ran
		if _, err := c.TrySendPackets(cert.NodeID{1}, [][]byte{{1}}); err == nil {
			t.Error("queued after Close")
		}
	})
}

// Two goroutines send versions at once and the one with the older ones is slow: the relay
// receives the current ones last.
func TestCurrentVersionsAreSentLast(t *testing.T) {
	var held atomic.Uint64
	var slow atomic.Pointer[chan struct{}]
	asked := make(chan struct{})
	told := make(chan uint64, 10)
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		far.Write(relay.AppendFrame(nil, relay.TypeWelcome, []byte(`{}`)))
		for r := relay.NewReader(far, relay.AtRelay); r.Fill() == nil; {
			for fr := r.Next(); fr != nil; fr = r.Next() {
				var v api.Versions
				if relay.Type(fr[0]) == relay.TypeVersions && json.Unmarshal(fr[relay.HeadLen:], &v) == nil {
					told <- v.CRL
				}
			}
		}
	}()
	h := relay.NewHome(relay.HomeConfig{
		Dial:    func(context.Context, string, string) (net.Conn, error) { return near, nil },
		Relays:  func() []api.Relay { return []api.Relay{{ID: "a", URLs: []string{"a"}}} },
		Handler: func(*relay.Conn) relay.Handler { return silent{} },
		Versions: func() api.Versions {
			v := api.Versions{CRL: held.Load()}
			if on := slow.Swap(nil); on != nil {
				close(asked)
				<-*on
			}
			return v
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { h.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	<-told // at first
	for h.Current() == nil {
		time.Sleep(time.Millisecond)
	}
	on, first, second := make(chan struct{}), make(chan struct{}), make(chan struct{})
	slow.Store(&on)
	held.Store(1)
	go func() { h.SendVersions(); close(first) }()
	<-asked
	held.Store(2)
	go func() { h.SendVersions(); close(second) }()
	select { // it waits for the first, or has overtaken it
	case <-second:
	case <-time.After(50 * time.Millisecond):
	}
	close(on)
	<-first
	<-second
	if a, b := <-told, <-told; b != 2 {
		t.Errorf("the relay is told %d, then %d", a, b)
	}
}
