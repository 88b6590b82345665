package overlay_test

import (
	"bytes"
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// backWorld is a laptop and a device in simulated time, which have a tunnel. The relay
// answers the laptop in 10 ms, the device in 50 ms.
type backWorld struct {
	*dayWorld
	from, to netip.Addr // the laptop, the device
	sent     int        // questions
}

var bothPaths = []string{"relay", "direct"}

// onBack runs f in simulated time for each suite, and for each of the paths.
func onBack(t *testing.T, paths []string, f func(w *backWorld, direct bool)) {
	t.Parallel()
	for _, suite := range []string{overlay.SuiteAES, overlay.SuiteWireGuard} {
		for _, path := range paths {
			t.Run(suite+" "+path, func(t *testing.T) {
				t.Parallel()
				inSimulatedTime(t, func(t *testing.T) {
					in := overlaytest.New(1)
					t.Cleanup(in.Close)
					w := &backWorld{dayWorld: &dayWorld{in: in, world: newWorldOf(t, setup{host: in.Host("server", "192.0.2.1")})}}
					node := func(name, addr string, far time.Duration, tags ...string) *dayNode {
						h := in.Host(name, addr)
						h.Link.SetLatency(far)
						n := w.nodeAt(h, tags...)
						n.cfg.Suite, n.cfg.UDP.Off = suite, path == "relay"
						n.start()
						return n
					}
					w.pi, w.laptop = node("pi", "198.51.100.1", 20*time.Millisecond, "device"), node("laptop", "203.0.113.1", 5*time.Millisecond)
					if _, ok := w.ask(5 * time.Second); !ok {
						t.Fatal("no answer in 5 s")
					}
					w.from, w.to = netip.MustParseAddr(w.laptop.Status().Self.IPv4), netip.MustParseAddr(w.pi.Status().Self.IPv4)
					f(w, path == "direct")
				})
			})
		}
	}
}

// die ends the device as kill -9 does: it says goodbye to nobody.
func (w *backWorld) die() {
	w.pi.host.Kill()
	w.pi.host.Link.SetUp(false) // what it would still send
	w.pi.Close()
	w.pi.host.Link.SetUp(true)
}

// open asks the device once, as a program that opens a connection does: nothing that is
// lost is sent again by the program, only by the node, which runs it once more. It returns
// how long the answer took.
func (w *backWorld) open() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	begun := time.Now()
	err := w.laptop.Through(ctx, "pi", func(ctx context.Context) error {
		w.num++
		w.sent++
		w.laptop.net.out <- question(w.from, w.to, 9, 7, w.num)
		for {
			select {
			case num := <-w.laptop.net.in:
				if num == w.num {
					return nil
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return time.Since(begun), err
}

const isBack = 250 * time.Millisecond // from the device's arrival at the relay to its answer

// A device was killed and is back at the relay. The first connection to it takes an
// introduction and no more: nothing waits until it is repeated after a time.
func TestBackAfterKill(t *testing.T) {
	onBack(t, bothPaths, func(w *backWorld, direct bool) {
		for _, pause := range []time.Duration{0, 6 * time.Second, 3 * time.Minute} {
			if direct {
				w.direct() // again
			}
			time.Sleep(pause)
			w.die()
			w.pi.start()
			w.sent = 0
			took, err := w.open()
			w.t.Logf("after a pause of %v: %v", pause, took)
			if err != nil || took > isBack {
				w.t.Errorf("after a pause of %v: %v, %v", pause, took, err)
			}
			if w.sent > 2 {
				w.t.Errorf("asked %d times", w.sent)
			}
			if again, err := w.open(); err != nil || again > 60*time.Millisecond {
				w.t.Errorf("then: %v, %v", again, err)
			}
		}
	})
}

// A program tries to connect while the device is away: the node says at once that it is
// offline, or, if there was a direct path, that of which the relay does not know, goes on
// looking for a moment. The program tries until it succeeds.
func TestBackWhileTrying(t *testing.T) {
	onBack(t, bothPaths, func(w *backWorld, direct bool) {
		for _, pause := range []time.Duration{0, 6 * time.Second} {
			if direct {
				w.direct() // again
			}
			time.Sleep(pause)
			w.die()
			reached := make(chan time.Time)
			go func() {
				defer close(reached)
				for {
					took, err := w.open()
					if err == nil {
						reached <- time.Now()
						return
					}
					if most := 100 * time.Millisecond; status.KindOf(err) != status.KindUnreachable || took > most && !direct || took > 700*time.Millisecond {
						w.t.Errorf("error after %v, want at most %v: %v", took, most, err)
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
			time.Sleep(330 * time.Millisecond)
			w.pi.start()
			arrived := time.Now()
			took := (<-reached).Sub(arrived)
			w.t.Logf("after a pause of %v: %v", pause, took)
			if took > isBack {
				w.t.Errorf("after a pause of %v: %v", pause, took)
			}
		}
	})
}

// A device loses its connection to the relay and lives on: on the direct path it is
// reached as before, whatever the relay says, and by the relay once it is connected again.
// Neither takes an introduction.
func TestGoneButAlive(t *testing.T) {
	onBack(t, bothPaths, func(w *backWorld, direct bool) {
		if direct {
			w.direct()
		}
		made := *w.laptop.peer("pi").LastHandshake
		w.in.Partition(w.pi.host, w.setup.host)
		w.in.Reset(w.setup.host, w.pi.host)
		time.Sleep(100 * time.Millisecond)
		if took, err := w.open(); direct && (err != nil || took > 60*time.Millisecond) || !direct && status.KindOf(err) != status.KindUnreachable {
			w.t.Errorf("away from the relay: %v, %v", took, err)
		}
		w.in.Heal(w.pi.host, w.setup.host)
		time.Sleep(40 * time.Second)
		if took, err := w.open(); err != nil || took > 60*time.Millisecond {
			w.t.Errorf("at the relay again: %v, %v", took, err)
		}
		if now := *w.laptop.peer("pi").LastHandshake; w.laptop.peer("pi").Suite == overlay.SuiteAES && !now.Equal(made) {
			w.t.Error("introduced anew")
		}
	})
}

// Forged reports and resets cost what they did before: a question in the session for a
// connection that is opened, and one introduction in five seconds.
func TestForgedReturn(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{overlay.SuiteAES, overlay.SuiteWireGuard} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, setup{evil: true})
			w.suite = suite
			pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
			pi.echo()
			old := laptop.dial("tcp", "kitchen-pi:7")
			say(t, old, "before")
			var opens, frames atomic.Int64
			w.evil.watch(func(c carried) {
				if c.isOpen() {
					opens.Add(1)
				} else if c.t == relay.TypeSession {
					frames.Add(1)
				}
			})
			dials := func() {
				t.Helper()
				for range 5 {
					say(t, laptop.dial("tcp", "kitchen-pi:7"), "reached nevertheless")
				}
				say(t, old, "the old connection, too")
			}
			for range 100 {
				w.evil.put(laptop.id(), relay.AppendPeerFrame(nil, relay.TypeGone, pi.id(), []byte{byte(relay.GoneAbsent)}))
			}
			eventually(t, 5*time.Second, "the laptop believes it", func() bool { return !laptop.pathTo("kitchen-pi").Online })
			dials()
			if opens.Load() != 0 || frames.Load() > 2 {
				t.Errorf("%d introductions and %d other frames because of reports", opens.Load(), frames.Load())
			}
			for range 100 {
				w.evil.carry(zeroReset(pi.id(), laptop.id()))
			}
			dials()
			if opens.Load() > 1 {
				t.Errorf("%d introductions because of resets", opens.Load())
			}
		})
	}
}

// kernelNet has connections of a kernel's TCP, which the node does not open itself.
type kernelNet struct{ *dayNet }

func (kernelNet) Outlives() (epoch string, first, last uint16) { return "boot 1", 16000, 65535 }

// seenNet reports TCP packets that arrive.
type seenNet struct {
	*dayNet
	tcp chan []byte
}

func (n seenNet) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		if p := b[offset:]; p[9] == 6 {
			n.tcp <- bytes.Clone(p)
		}
	}
	return n.dayNet.Write(bufs, offset)
}

// A kernel opens a connection to a device that was killed and is back. Its first packet goes
// into the tunnel with the dead instance, and arrives in the new one, once, without having
// been repeated by the kernel, which would take a second.
func TestBackForKernel(t *testing.T) {
	onBack(t, []string{"relay"}, func(w *backWorld, _ bool) {
		w.laptop.Close()
		w.laptop.wrap = func(n *dayNet) overlay.Net { return kernelNet{n} }
		w.laptop.start()
		if _, ok := w.ask(5 * time.Second); !ok {
			w.t.Fatal("no answer in 5 s")
		}
		tcp := make(chan []byte, 100)
		w.pi.wrap = func(n *dayNet) overlay.Net { return seenNet{n, tcp} }
		for _, pause := range []time.Duration{0, 6 * time.Second} {
			time.Sleep(pause)
			w.die()
			w.pi.start()
			syn := question(w.from, w.to, 40000, 80, 0)
			syn = append(syn, make([]byte, 8)...)
			syn[9], syn[3] = 6, byte(len(syn)) // TCP
			syn[32], syn[33] = 5<<4, 1<<1      // a header of 20 bytes, SYN
			begun := time.Now()
			w.laptop.net.out <- syn
			select {
			case got := <-tcp:
				if took := time.Since(begun); took > isBack || !bytes.Equal(got, syn) {
					w.t.Errorf("after a pause of %v: %x after %v", pause, got, took)
				}
			case <-time.After(5 * time.Second):
				w.t.Errorf("after a pause of %v: lost", pause)
			}
			time.Sleep(5 * time.Second)
			if len(tcp) > 0 {
				w.t.Errorf("it has arrived %d times more", len(tcp))
			}
		}
	})
}
