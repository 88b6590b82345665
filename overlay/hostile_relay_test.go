package overlay_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

func (n *node) id() cert.NodeID {
	id, err := cert.ParseNodeID(n.Status().Self.ID)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return id
}

// flow sends requests and answers over a connection until stop is called. stop returns
// the longest pause between two answers and the number of rounds. The test fails if the
// connection does.
func flow(t *testing.T, c net.Conn) (stop func() (pause time.Duration, rounds int)) {
	t.Helper()
	end := flowOf(c)
	return func() (time.Duration, int) {
		t.Helper()
		pause, rounds, err := end()
		if err != nil {
			t.Errorf("the flow died: %v", err)
		}
		return pause, rounds
	}
}

// flowOf is flow for a test that decides what the end of the flow means.
func flowOf(c net.Conn) (stop func() (pause time.Duration, rounds int, err error)) {
	var longest time.Duration
	rounds := 0
	quit, done := make(chan struct{}), make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		b := make([]byte, 512)
		c.SetDeadline(time.Now().Add(time.Minute))
		last := time.Now()
		for {
			select {
			case <-quit:
				return
			default:
			}
			if _, err := c.Write(b); err != nil {
				failed = err
				return
			}
			if _, err := io.ReadFull(c, b); err != nil {
				failed = err
				return
			}
			longest, last = max(longest, time.Since(last)), time.Now()
			rounds++
			time.Sleep(5 * time.Millisecond) // a flow, not a load
		}
	}()
	return func() (time.Duration, int, error) {
		close(quit)
		<-done
		return longest, rounds, failed
	}
}

// Whatever frames a relay makes up (gone, busy, resets, nudges, welcomes, revocation
// lists), a flow survives, and nodes do not do unbounded work.
func TestForgedHints(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{evil: true})
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	a, b := pi.id(), laptop.id()
	c := laptop.dial("tcp", "kitchen-pi:7")
	say(t, c, "before")
	var opens atomic.Int64
	var mu sync.Mutex
	var sessions []carried // a frame of each session seen, for making resets
	w.evil.watch(func(c carried) {
		if c.isOpen() {
			opens.Add(1)
		}
		if c.t == relay.TypeSession {
			mu.Lock()
			sessions = append(sessions, c)
			sessions = sessions[max(0, len(sessions)-8):]
			mu.Unlock()
		}
	})
	requests := w.requests.Load()
	stop := flow(t, c)
	const attack = 3 * time.Second
	n := uint64(0)
	start := time.Now()
	for end := start.Add(attack); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		n++
		for from, to := range map[cert.NodeID]cert.NodeID{a: b, b: a} {
			e := w.evil
			e.put(to, relay.AppendPeerFrame(nil, relay.TypeGone, from, []byte{byte(relay.GoneAbsent)}))
			e.put(to, relay.AppendPeerFrame(nil, relay.TypeBusy, from, nil))
			e.carry(zeroReset(from, to))
			e.say(to, relay.TypeNudge, relay.Nudge{Versions: bogus(n)})
			e.say(to, relay.TypeWelcome, relay.Welcome{ServerTime: time.Now(), Versions: bogus(n)})
			e.put(to, relay.AppendFrame(nil, relay.TypeCRL, []byte(fmt.Sprint("a list ", n))))
			e.put(to, relay.AppendFrame(nil, 77, []byte("from the future")))
			e.say(to, relay.TypeDraining, relay.Draining{SpreadMS: 1 << 30})
			mu.Lock()
			for _, s := range sessions {
				e.carry(s.reset())
				s.from, s.to = s.to, s.from
				e.carry(s.reset())
			}
			mu.Unlock()
		}
	}
	pause, rounds := stop()
	asked := w.requests.Load() - requests
	lasted := time.Since(start) // longer than intended on a busy machine
	t.Logf("%d forged rounds: longest pause of the flow %v in %d rounds, %d introductions, %d requests", n, pause.Round(time.Millisecond), rounds, opens.Load(), asked)
	if pause > 5*time.Second {
		t.Errorf("the flow stood still for %v", pause)
	}
	// Each side may introduce itself every 5 s, with one more try each, and fetch
	// three things every 2 s. Where the relay says that nobody is there before an
	// introduction is over, the nudges have a node look for the other again and ask
	// the server where it is: after 0.2, 0.4, 0.8 and then each time 1 s, give or take
	// a quarter. They do so for 5 s of each minute.
	behind := min(lasted, 5*time.Second*(lasted/time.Minute+1))
	again := int64(3 + behind/(750*time.Millisecond))
	if got, most := opens.Load(), 2*2*(int64(lasted/(5*time.Second)+1)+again); got > most {
		t.Errorf("%d introductions in %v, want at most %d", got, lasted, most)
	}
	if most := 2 * (3*int64(lasted/(2*time.Second)+1) + again); asked > most {
		t.Errorf("%d requests to the server in %v, want at most %d", asked, lasted, most)
	}
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "after")
	eventually(t, 20*time.Second, "the peer is online again", func() bool {
		for _, p := range laptop.Status().Peers {
			if p.Name == "kitchen-pi" {
				start := time.Now()
				say(t, c, "still there")
				if d := time.Since(start); d > 5*time.Second {
					t.Errorf("the flow stood still for %v after the attack", d)
				}
				return p.Online
			}
		}
		return false
	})
}

// A relay that reorders, repeats, loses, damages, reflects and cross-delivers frames
// cannot connect a node to the wrong one, and when it stops everything works.
func TestHostileDelivery(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{evil: true})
	nodes := []*node{w.node("a"), w.node("b"), w.node("c")}
	ids := []cert.NodeID{}
	for _, n := range nodes {
		n.named()
		ids = append(ids, n.id())
	}
	eventually(t, 20*time.Second, "everybody knows everybody", func() bool {
		for _, n := range nodes {
			if len(n.Status().Peers) != 2 {
				return false
			}
		}
		return true
	})
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2))
	var old []carried
	tamper := func(c carried) []carried {
		mu.Lock()
		defer mu.Unlock()
		if len(old) < 500 {
			old = append(old, c)
		} else {
			old[r.IntN(len(old))] = c
		}
		if r.IntN(100) < 75 {
			return []carried{c}
		}
		other := c
		switch r.IntN(9) {
		case 0:
			return nil
		case 1: // repeated
			return []carried{c, old[r.IntN(len(old))]}
		case 2: // reordered
			time.AfterFunc(time.Duration(r.IntN(100))*time.Millisecond, func() { w.evil.carry(other) })
			return nil
		case 3: // cross-delivered
			other.to = ids[r.IntN(3)]
			return []carried{c, other}
		case 4: // with another sender
			other.from = ids[r.IntN(3)]
			return []carried{other}
		case 5: // reflected, with the other as the sender
			other.from, other.to = c.to, c.from
			return []carried{c, other}
		case 6: // reflected unchanged
			other.to = c.from
			return []carried{c, other}
		case 7: // damaged
			other.payload = append([]byte(nil), c.payload...)
			other.payload[r.IntN(len(other.payload))] ^= 1 << r.IntN(8)
			return []carried{other}
		default: // an old frame of any pair, with any sender
			other = old[r.IntN(len(old))]
			other.from, other.to = ids[r.IntN(3)], ids[r.IntN(3)]
			return []carried{c, other}
		}
	}
	w.evil.set(tamper)
	var reached, failed atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// For three seconds, or longer if nothing has arrived by then.
	time.AfterFunc(3*time.Second, func() {
		for reached.Load() == 0 && ctx.Err() == nil {
			sleepCtx(ctx, 50*time.Millisecond)
		}
		cancel()
	})
	for i, from := range nodes {
		for j := range nodes {
			if i == j {
				continue
			}
			want := nodes[j].cfg.Hostname
			wg.Go(func() {
				for ctx.Err() == nil {
					got, err := from.whoIs(ctx, want)
					switch {
					case err != nil:
						failed.Add(1)
						sleepCtx(ctx, 50*time.Millisecond)
					case got != want:
						t.Errorf("%s dialled %s and reached %q", from.cfg.Hostname, want, got)
					default:
						reached.Add(1)
						sleepCtx(ctx, 50*time.Millisecond)
					}
				}
			})
		}
	}
	wg.Wait()
	t.Logf("under attack: %d connections, %d failures", reached.Load(), failed.Load())
	if reached.Load() == 0 {
		t.Error("nothing at all got through a relay that carries three frames of four")
	}
	w.evil.set(nil)
	start := time.Now()
	for _, from := range nodes {
		for _, to := range nodes {
			if from == to {
				continue
			}
			eventually(t, 20*time.Second, from.cfg.Hostname+" reaches "+to.cfg.Hostname+" again", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				got, err := from.whoIs(ctx, to.cfg.Hostname)
				return err == nil && got == to.cfg.Hostname
			})
		}
	}
	t.Logf("everybody reached everybody %v after the attack", time.Since(start).Round(time.Millisecond))
}

// A relay that records everything finds neither the contents nor the names of the nodes
// in it.
func TestRelayCannotReadAlong(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{evil: true})
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	const words = "canary of the payload "
	secrets := map[string][]byte{
		"payload": []byte(words), "device's name": []byte("kitchen-pi"), "laptop's name": []byte("laptop"),
		"IPv4 address": []byte(pi.Status().Self.IPv4), "IPv6 address": netip.MustParseAddr(pi.Status().Self.IPv6).AsSlice(),
	}
	var mu sync.Mutex
	carriedBytes, found := 0, map[string]int{}
	w.evil.watch(func(c carried) {
		mu.Lock()
		defer mu.Unlock()
		carriedBytes += len(c.payload)
		for what, secret := range secrets {
			if bytes.Contains(c.payload, secret) {
				found[what]++
			}
		}
	})
	c := laptop.dial("tcp", "kitchen-pi:7")
	defer c.Close()
	page := strings.Repeat(words, 500)
	const times = 20
	for range times {
		say(t, c, page)
	}
	mu.Lock()
	defer mu.Unlock()
	if carriedBytes < 2*times*len(page) {
		t.Errorf("the relay carried %d bytes of %d", carriedBytes, 2*times*len(page))
	}
	if len(found) != 0 {
		t.Errorf("the relay could read: %v", found)
	}
}

// A relay that reflects a node's own ClientHello makes no session.
func TestReflectedIntroduction(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{evil: true})
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	var frames atomic.Int64
	w.evil.set(func(c carried) []carried {
		frames.Add(1)
		return []carried{{from: c.to, to: c.from, t: c.t, payload: c.payload}}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if c, err := laptop.Dial(ctx, "tcp", "kitchen-pi:7"); err == nil {
		c.Close()
		t.Error("reached somebody")
	}
	if frames.Load() == 0 || frames.Load() > 200 {
		t.Errorf("%d frames were sent into the mirror", frames.Load())
	}
	w.evil.set(nil)
	eventually(t, 20*time.Second, "a straight way", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		c, err := laptop.Dial(ctx, "tcp", "kitchen-pi:7")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// named serves the node's name on its overlay port 8.
func (n *node) named() {
	l, err := n.Listen("tcp", ":8")
	if err != nil {
		n.w.t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.WriteString(c, n.cfg.Hostname); c.Close() }()
		}
	}()
}

// whoIs returns the name that the node at an address serves.
func (n *node) whoIs(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", name+":8")
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

func sleepCtx(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
