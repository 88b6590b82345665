package icmp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// newPings returns pings whose requests appear in sent, until it is full.
func newPings(ctx context.Context) (p *Pings, sent chan []byte) {
	sent = make(chan []byte, maxPings)
	return &Pings{
		Context: ctx,
		Own:     func() (v4, v6 netip.Addr) { return self4, self6 },
		Send: func(pkt []byte) bool {
			select {
			case sent <- pkt:
				return true
			default:
				return false
			}
		},
	}, sent
}

// replyTo makes the reply to a request.
func replyTo(pkt []byte) []byte {
	proto, msg, _, _ := Transport(pkt)
	src, dst := ends(pkt)
	msg = slices.Clone(msg)
	msg[0] = echoReply4
	if src.Is6() {
		msg[0] = echoReply6
	}
	return ip(dst, src, proto, msg)
}

// Of all that comes in only the reply of the peer, or an error about the request, ends
// a ping.
func TestPing(t *testing.T) {
	for family, f := range families {
		synctest.Test(t, func(t *testing.T) {
			p, sent := newPings(t.Context())
			ping := func(ends func(request []byte) []byte) (time.Duration, error) {
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() {
					time.Sleep(20 * time.Millisecond)
					request := <-sent
					if _, msg, _, _ := Transport(request); !isEcho(f.icmp, msg) || len(msg) != 24 {
						t.Errorf("sent %x", request)
					}
					reply := replyTo(request)
					change := func(pkt []byte, at int) []byte {
						pkt = slices.Clone(pkt)
						pkt[at]++
						return pkt
					}
					for name, pkt := range map[string][]byte{
						"the request":            request,
						"another identifier":     change(reply, f.head+5),
						"another sequence":       change(reply, f.head+7),
						"another payload":        change(reply, len(reply)-1),
						"a longer payload":       append(slices.Clone(reply), 0),
						"a shorter payload":      reply[:len(reply)-1],
						"no payload":             reply[:f.head+8],
						"another source":         change(reply, f.head-f.self.BitLen()/8-1),
						"another protocol":       ip(f.peer, f.self, 17, reply[f.head:]),
						"an error about another": Error(change(request, f.head+5), HostUnreachable, 0),
						"nothing":                nil,
					} {
						if p.Take(pkt) {
							t.Errorf("%s: taken: %s", family, name)
						}
					}
					for range 2 { // the second is a duplicate
						if !p.Take(ends(request)) {
							t.Errorf("%s: not taken", family)
						}
					}
				})
				return p.Ping(t.Context(), f.peer)
			}
			if rtt, err := ping(replyTo); rtt != 20*time.Millisecond || err != nil {
				t.Errorf("%s: %v, %v", family, rtt, err)
			}
			for why, want := range map[Reason]syscall.Errno{HostUnreachable: syscall.EHOSTUNREACH, Prohibited: syscall.EACCES, PortUnreachable: syscall.ECONNREFUSED} {
				if _, err := ping(func(request []byte) []byte { return Error(request, why, 0) }); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", family, err, want)
				}
			}
			// A ping that has ended leaves nothing.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := p.Ping(ctx, f.peer); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s, no reply: %v", family, err)
			}
			if p.Take(replyTo(<-sent)) || len(p.by) != 0 || p.waiting.Load() != 0 {
				t.Errorf("%s: %d left", family, len(p.by))
			}
		})
	}
}

func TestPingFails(t *testing.T) {
	closed, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		addr   string
		change func(*Pings)
		ctx    context.Context
		want   error
	}{
		"own IPv4":      {addr: "100.64.0.1"},
		"own, mapped":   {addr: "::ffff:100.64.0.1"},
		"own IPv6":      {addr: "fd00::1%eth0"},
		"own, too late": {addr: "fd00::1", ctx: closed},
		"nobody":        {addr: "::", want: syscall.EINVAL},
		"all":           {addr: "224.0.0.1", want: syscall.EINVAL},
		"no address":    {addr: "fd00::2", change: func(p *Pings) { p.Own = func() (v4, v6 netip.Addr) { return self4, v6 } }, want: syscall.ENETUNREACH},
		"queue full":    {addr: "fd00::2", change: func(p *Pings) { p.Send = func([]byte) bool { return false } }, want: syscall.ENOBUFS},
		"closed":        {addr: "fd00::1", change: func(p *Pings) { p.Context = closed }, want: net.ErrClosed},
		"ended before":  {addr: "fd00::2", ctx: closed, want: context.Canceled},
		"closed on the way": {addr: "fd00::2", change: func(p *Pings) {
			ctx, cancel := context.WithCancel(p.Context)
			p.Context, p.Send = ctx, func([]byte) bool { cancel(); return true }
		}, want: net.ErrClosed},
	} {
		p, _ := newPings(t.Context())
		if tc.change != nil {
			tc.change(p)
		}
		if tc.ctx == nil {
			tc.ctx = t.Context()
		}
		if rtt, err := p.Ping(tc.ctx, netip.MustParseAddr(tc.addr)); rtt != 0 || !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, %v, want %v", name, rtt, err, tc.want)
		}
	}
	p, _ := newPings(t.Context())
	if _, err := p.Ping(t.Context(), netip.Addr{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no address: %v", err)
	}
}

// Pings are bounded, and each has an identifier of its own.
func TestPingsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p, sent := newPings(t.Context())
		var wg sync.WaitGroup
		for range maxPings {
			wg.Go(func() { p.Ping(ctx, peer4) })
		}
		synctest.Wait()
		if len(sent) != maxPings || len(p.by) != maxPings {
			t.Errorf("%d sent, %d wait", len(sent), len(p.by))
		}
		if _, err := p.Ping(t.Context(), peer4); err == nil {
			t.Error("one more")
		}
		cancel()
		wg.Wait()
	})
	// Two with the same random bytes.
	p, q := new(Pings), new(ping)
	a, err := p.add(peer4, q)
	if b, err2 := p.add(peer4, q); a == b || errors.Join(err, err2) != nil {
		t.Errorf("%v, %v", a, b)
	}
}

// Packets that end no ping cause no garbage, whether there are pings or not.
func TestTakeMakesNoGarbage(t *testing.T) {
	p, _ := newPings(t.Context())
	pkts := [][]byte{
		ip(peer4, self4, protoTCP, make([]byte, 1000)),
		replyTo(request(self6, key{remote: peer6}, make([]byte, 16))),
		Error(request(self4, key{remote: peer4}, nil), Prohibited, 0),
	}
	take := func() {
		for _, pkt := range pkts {
			if p.Take(pkt) {
				t.Error("taken")
			}
		}
	}
	p.mu.Lock() // Take does not wait for it
	without := testing.AllocsPerRun(100, take)
	p.mu.Unlock()
	k, err := p.add(peer4, &ping{data: [16]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.remove(k)
	if with := testing.AllocsPerRun(100, take); without != 0 || with != 0 {
		t.Errorf("%v and %v allocations", without, with)
	}
}
