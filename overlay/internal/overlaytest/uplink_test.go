package overlaytest

import (
	"io"
	"net/netip"
	"testing"
	"time"
)

// A link with a rate sends queued packets one after the other, and loses those that find
// the queue full.
func TestUplinkDatagrams(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		a, b := in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2")
		a.Link.SetUplink(80_000, time.Second) // 10,000 bytes per second
		from, to := udp(t, a, ":1"), udp(t, b, ":2")
		begun := time.Now()
		for range 30 {
			send(t, from, netip.MustParseAddrPort("192.0.2.2:2"), string(make([]byte, 972))) // 1,000 with headers
		}
		if got := a.Link.Queued(); got != time.Second {
			t.Errorf("%v are queued", got)
		}
		for i := range 10 {
			if m, _ := recv(t, to); len(m) != 972 || time.Since(begun) != time.Duration(i+1)*100*time.Millisecond {
				t.Errorf("datagram %d: %d bytes after %v", i, len(m), time.Since(begun))
			}
		}
		if m, _ := recv(t, to); m != "" {
			t.Error("one more than there is room for")
		}
		// The other direction is not slowed down.
		begun = time.Now()
		send(t, to, netip.MustParseAddrPort("192.0.2.1:1"), "back")
		if m, _ := recv(t, from); m != "back" || time.Since(begun) != 0 {
			t.Errorf("%q after %v", m, time.Since(begun))
		}
		a.Link.SetUplink(0, 0)
		begun = time.Now()
		send(t, from, netip.MustParseAddrPort("192.0.2.2:2"), "free")
		if m, _ := recv(t, to); m != "free" || time.Since(begun) != 0 {
			t.Errorf("%q after %v", m, time.Since(begun))
		}
	})
}

// A stream fills a link with a rate and most of its queue, loses nothing, and shares with
// others.
func TestUplinkStreams(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		a, b := in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2")
		a.Link.SetLatency(10 * time.Millisecond)
		a.Link.SetUplink(256_000, 3*time.Second)
		l, err := b.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		const streams, size = 3, 1 << 20
		begun := time.Now()
		for n := range streams {
			c, err := a.DialContext(t.Context(), "tcp", "b:80")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer c.Close()
				data := make([]byte, size)
				for i := range data {
					data[i] = byte(n + i/256)
				}
				c.Write(data)
			}()
		}
		done := make(chan time.Duration, streams)
		for range streams {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				got, err := io.ReadAll(c)
				if err != nil || len(got) != size {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				for i, x := range got {
					if x != got[0]+byte(i/256) {
						t.Errorf("byte %d is another one's", i)
						break
					}
				}
				done <- time.Since(begun)
			}()
		}
		full, looks := 0, 0
		for len(done) < 1 {
			time.Sleep(100 * time.Millisecond)
			if looks++; a.Link.Queued() > time.Second {
				full++
			}
		}
		if full < looks*3/4 {
			t.Errorf("the queue was full only %d times of %d", full, looks)
		}
		var last time.Duration
		for range streams {
			last = max(last, <-done)
		}
		// 32,000 bytes per second, a thirtieth of them for headers.
		ideal := time.Duration(streams * size * 1500 / 1448 / 32000 * int(time.Second))
		if last < ideal || last > ideal*5/4 {
			t.Errorf("the last stream took %v, want %v to a quarter more", last, ideal)
		}
	})
}

// A stream continues after its link was off.
func TestUplinkOff(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		a, b := in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2")
		a.Link.SetUplink(256_000, 3*time.Second)
		l, err := b.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.DialContext(t.Context(), "tcp", "b:80")
		if err != nil {
			t.Fatal(err)
		}
		go func() { c.Write(make([]byte, 1<<19)); c.Close() }()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(2*time.Second, func() { a.Link.SetUp(false) })
		time.AfterFunc(time.Minute, func() { a.Link.SetUp(true) })
		begun := time.Now()
		n, err := io.Copy(io.Discard, s)
		if n != 1<<19 || err != nil || time.Since(begun) < time.Minute {
			t.Errorf("%d bytes, %v after %v", n, err, time.Since(begun))
		}
	})
}
