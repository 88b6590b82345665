package bind

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/cert"
	"weft/overlay/internal/mono"
)

var (
	alice = cert.NodeID{1}
	bob   = cert.NodeID{2}
	addr  = netip.MustParseAddr("100.64.0.1")
)

func data(size int, fill byte) []byte {
	b := bytes.Repeat([]byte{fill}, size)
	copy(b, []byte{4, 0, 0, 0})
	return b
}

// receive calls a receive function with fresh buffers.
func receive(t testing.TB, fn conn.ReceiveFunc) ([][]byte, []conn.Endpoint, error) {
	t.Helper()
	bufs, sizes, eps := make([][]byte, BatchSize), make([]int, BatchSize), make([]conn.Endpoint, BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, MaxMessage)
	}
	n, err := fn(bufs, sizes, eps)
	for i := range n {
		bufs[i] = bufs[i][:sizes[i]]
	}
	return bufs[:n], eps[:n], err
}

func opened(t testing.TB, cfg Config) (*Bind, conn.ReceiveFunc) {
	t.Helper()
	b := New(cfg)
	if err := b.Close(); err != nil { // as wireguard-go does
		t.Fatal(err)
	}
	fns, _, err := b.Open(0)
	if err != nil || len(fns) != 1 {
		t.Fatalf("open: %d functions, %v", len(fns), err)
	}
	return b, fns[0]
}

func TestMessagesArriveInOrderWithTheirEndpoint(t *testing.T) {
	b, fn := opened(t, Config{})
	a, c := endpoint(b, alice, addr), endpoint(b, bob, addr)
	src := b.NewSource()
	var want [][]byte
	var from []*Endpoint
	for i := range 60 {
		size := []int{32, 148, 1400, 60000, MaxMessage}[i%5]
		msg, ep := data(size, byte(i)), a
		if i%3 == 0 {
			ep = c
		}
		src.Deliver(ep.ID(), msg)
		clear(msg) // Deliver has copied it
		want, from = append(want, data(size, byte(i))), append(from, ep)
	}
	src.Flush()
	for len(want) > 0 {
		got, eps, err := receive(t, fn)
		if err != nil || len(got) == 0 {
			t.Fatalf("%d messages, %v", len(got), err)
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) || eps[i] != from[i] {
				t.Fatalf("message of %d bytes from %v, want %d from %v", len(got[i]), eps[i].DstToString(), len(want[i]), from[i].name)
			}
		}
		want, from = want[len(got):], from[len(got):]
	}
	if time.Since(a.LastKeepalive()) > time.Minute || b.Dropped() != 0 {
		t.Errorf("received %v, dropped %d", a.LastKeepalive(), b.Dropped())
	}
}

func TestUnknownSendersAndJunk(t *testing.T) {
	var strangers []int
	b, _ := opened(t, Config{UnknownSender: func(from cert.NodeID, pkt []byte) { strangers = append(strangers, len(pkt)) }})
	src := b.NewSource()
	src.Deliver(alice, data(148, 1))
	endpoint(b, alice, addr)
	for _, size := range []int{0, 1, 31, MaxMessage + 1, 1 << 20} {
		src.Deliver(alice, make([]byte, size))
	}
	src.Flush()
	if len(b.ready) != 0 {
		t.Error("junk was queued")
	}
	src.Deliver(alice, data(148, 1))
	src.Flush()
	b.Drop(alice)
	b.Drop(alice)
	src.Deliver(alice, data(32, 1))
	if len(b.ready) != 1 || len(strangers) != 2 || strangers[0] != 148 || strangers[1] != 32 {
		t.Errorf("%d chunks, strangers %v", len(b.ready), strangers)
	}
}

func TestCloseEndsReceive(t *testing.T) {
	b, fn := opened(t, Config{})
	if _, _, err := b.Open(0); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Errorf("second open: %v", err)
	}
	errs := make(chan error)
	go func() {
		_, _, err := receive(t, fn)
		errs <- err
	}()
	runtime.Gosched()
	b.Close()
	if err := <-errs; !errors.Is(err, net.ErrClosed) {
		t.Errorf("receive: %v", err)
	}
	if _, _, err := receive(t, fn); !errors.Is(err, net.ErrClosed) {
		t.Errorf("receive after close: %v", err)
	}
	b.Close()
	fns, _, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	endpoint(b, alice, addr)
	b.Deliver(alice, data(40, 1))
	if got, _, err := receive(t, fns[0]); err != nil || len(got) != 1 {
		t.Errorf("after reopening: %d, %v", len(got), err)
	}
	if _, _, err := receive(t, fn); !errors.Is(err, net.ErrClosed) {
		t.Errorf("old function after reopening: %v", err)
	}
}

// Memory stays bounded while nobody receives, for small and large messages, for one peer
// and for many.
func TestDeliverIsBounded(t *testing.T) {
	b, fn := opened(t, Config{})
	src := b.NewSource()
	ep := endpoint(b, alice, addr)
	ep.Done(0, 0, mono.Now()+int64(time.Hour)) // progress, so the count is not corrected
	for range 10_000 {
		src.Deliver(alice, data(100, 0))
	}
	src.Flush()
	if n := ep.inFlight.Load(); n < MaxInFlight || n > MaxInFlight+8192 {
		t.Errorf("%d in flight", n)
	}
	for i := range 1000 { // handshakes are not counted in flight
		id := cert.NodeID{9, byte(i >> 8), byte(i)}
		endpoint(b, id, addr)
		for range 10 {
			src.Deliver(id, data(60000, 0))
		}
		src.Deliver(alice, make([]byte, 148))
	}
	src.Flush()
	if len(b.ready) != QueueChunks {
		t.Errorf("%d chunks", len(b.ready))
	}
	if b.Dropped() < 10_000 {
		t.Errorf("%d dropped", b.Dropped())
	}
	for len(b.ready) > 0 {
		receive(t, fn)
	}
	ep.Done(MaxInFlight/pageCost, 0, mono.Now())
	src.Deliver(alice, data(100, 0))
	src.Flush()
	if len(b.ready) != 1 {
		t.Error("not taken after Done")
	}
}

// Messages that WireGuard refuses never reach Done. The count corrects itself.
func TestInFlightCorrectsItself(t *testing.T) {
	b, _ := opened(t, Config{})
	src := b.NewSource()
	ep := endpoint(b, alice, addr)
	for ep.inFlight.Load() < MaxInFlight {
		src.Deliver(alice, data(100, 0))
	}
	ep.progress.Store(mono.Now() - int64(stalled))
	src.Deliver(alice, data(100, 0))
	if n := ep.inFlight.Load(); n == 0 || n > 8192 {
		t.Errorf("%d in flight", n)
	}
	ep.Done(50, 0, 0)
	if n := ep.inFlight.Load(); n != 0 {
		t.Errorf("%d in flight after too many Done", n)
	}
}

type recorder struct {
	to  []cert.NodeID
	err error
}

func (r *recorder) SendPackets(to cert.NodeID, bufs [][]byte) error {
	r.to = append(r.to, to)
	return r.err
}

func TestSend(t *testing.T) {
	b := New(Config{})
	ep := endpoint(b, alice, addr)
	if endpoint(b, alice, netip.Addr{}) != ep || b.Find(alice) != ep || b.Find(bob) != nil {
		t.Error("an endpoint is not the same again")
	}
	parsed, err := b.ParseEndpoint(alice.String())
	if err != nil || parsed != ep {
		t.Errorf("parse: %v, %v", parsed, err)
	}
	for _, s := range []string{"", "127.0.0.1:51820", bob.String(), alice.String() + "0"} {
		if _, err := b.ParseEndpoint(s); err == nil {
			t.Errorf("endpoint %q parsed", s)
		}
	}
	if ep.DstToString() != alice.String() || !bytes.Equal(ep.DstToBytes(), alice[:]) || ep.DstIP() != addr || ep.SrcToString() != "" || ep.SrcIP().IsValid() {
		t.Error("endpoint does not tell what it is")
	}
	bufs := [][]byte{data(40, 0), data(50, 0)}
	if err := b.Send(bufs, ep); err != nil || ep.Lost() != 2 {
		t.Errorf("without sender: %v, %d lost", err, ep.Lost())
	}
	r := &recorder{}
	ep.SetSender(r)
	if err := b.Send(bufs, ep); err != nil || len(r.to) != 1 || r.to[0] != alice || ep.Lost() != 2 {
		t.Errorf("with sender: %v, %v, %d lost", err, r.to, ep.Lost())
	}
	r.err = net.ErrClosed
	if err := b.Send(bufs, ep); err != nil || ep.Lost() != 4 {
		t.Errorf("with broken sender: %v, %d lost", err, ep.Lost())
	}
	if err := b.Send(bufs, &conn.StdNetEndpoint{}); !errors.Is(err, conn.ErrWrongEndpointType) {
		t.Errorf("foreign endpoint: %v", err)
	}
}

// Sources deliver while endpoints come and go and the bind is closed.
func TestConcurrentSources(t *testing.T) {
	b, fn := opened(t, Config{})
	endpoint(b, alice, addr)
	received := make(chan struct{})
	var readers, sources sync.WaitGroup
	readers.Go(func() {
		once := sync.OnceFunc(func() { close(received) })
		for {
			got, _, err := receive(t, fn)
			if err != nil {
				return
			}
			if len(got) > 0 {
				once()
			}
		}
	})
	for g := range 3 {
		sources.Go(func() {
			src := b.NewSource()
			for i := range 2000 {
				src.Deliver(alice, make([]byte, 148))
				src.Deliver(cert.NodeID{3, byte(g), byte(i)}, data(100, 1))
				if i%7 == 0 {
					src.Flush()
				}
			}
			src.Flush()
		})
	}
	sources.Go(func() {
		for i := range 500 {
			id := cert.NodeID{3, 1, byte(i)}
			endpoint(b, id, addr)
			b.Drop(id)
		}
	})
	sources.Wait()
	<-received // a busy machine may not have run the reader yet
	b.Close()
	readers.Wait()
}

// Receiving takes no lock of this package and allocates nothing.
func TestNoLockAndNoGarbage(t *testing.T) {
	b, fn := opened(t, Config{})
	ep := endpoint(b, alice, addr)
	ep.SetSender(&recorder{})
	src := b.NewSource()
	msg := data(1400, 1)
	bufs, sizes, eps := make([][]byte, BatchSize), make([]int, BatchSize), make([]conn.Endpoint, BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, MaxMessage)
	}
	r := &recorder{to: make([]cert.NodeID, 0, 4096)}
	ep.SetSender(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := testing.AllocsPerRun(1000, func() {
		for range BatchSize {
			src.Deliver(alice, msg)
		}
		src.Flush()
		n, _ := fn(bufs, sizes, eps)
		ep.Done(n, n*len(msg), 1)
		b.Send(bufs[:n], ep)
	}); n > 0 && !raceEnabled { // under the race detector a sync.Pool drops items at random
		t.Errorf("%v allocations per batch", n)
	}
}

func BenchmarkDeliverReceive(b *testing.B) {
	for name, size := range map[string]int{"1400": 1400, "60000": 60000} {
		b.Run(name, func(b *testing.B) {
			bd, fn := opened(b, Config{})
			ep := endpoint(bd, alice, addr)
			src := bd.NewSource()
			msg := data(size, 1)
			bufs, sizes, eps := make([][]byte, BatchSize), make([]int, BatchSize), make([]conn.Endpoint, BatchSize)
			for i := range bufs {
				bufs[i] = make([]byte, MaxMessage)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				src.Deliver(alice, msg)
				if i%BatchSize == BatchSize-1 {
					src.Flush()
					n := 0
					for n < BatchSize {
						k, _ := fn(bufs, sizes, eps)
						n += k
					}
					ep.Done(n, n*len(msg), 1)
				}
			}
		})
	}
}

// On a machine with little memory a peer has a sixteenth of it in flight, in whole
// buffers, and WireGuard's batches take half of it at most. With 1 GB and more, or if its
// size is unknown, all bounds are the normal ones.
func TestBoundsOfMemory(t *testing.T) {
	for _, c := range []struct {
		memory, most, page int64
		batch              int
	}{
		{0, MaxInFlight, pageCost, BatchSize},
		{16 << 20, 1 << 20, bufferCost, RelayBatchSize},
		{48 << 20, 3 << 20, bufferCost, 12},
		{64 << 20, 4 << 20, bufferCost, 16},
		{256 << 20, 16 << 20, bufferCost, 64},
		{512 << 20, 32 << 20, bufferCost, BatchSize},
		{1<<30 - 16, 64<<20 - 1, bufferCost, BatchSize},
		{1 << 30, MaxInFlight, pageCost, BatchSize},
		{24 << 30, MaxInFlight, pageCost, BatchSize},
	} {
		most, page := inFlightBounds(c.memory)
		if batch := batchSize(c.memory); most != c.most || page != c.page || batch != c.batch {
			t.Errorf("%d bytes of memory: %d in flight, %d a message, batches of %d; want %d, %d, %d", c.memory, most, page, batch, c.most, c.page, c.batch)
		}
	}
}
