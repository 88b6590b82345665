package bind

import (
	"net"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// TestLaneControl: control datagrams about a lane are passed on, whatever their source
// and content; data of a lane that is not verified are dropped.
func TestLaneControl(t *testing.T) {
	got := make(chan string, 8)
	b := New(Config{Listen: Listen, LaneControl: func(pkt []byte, from Path) {
		if from.Kind != Direct || from.Socket != nil || !from.Addr.IsValid() {
			t.Errorf("from %+v", from)
		}
		got <- string(pkt)
	}})
	fns, _, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, len(fns))
	for _, f := range fns {
		go func() {
			bufs, sizes, eps := make([][]byte, BatchSize), make([]int, BatchSize), make([]conn.Endpoint, BatchSize)
			for i := range bufs {
				bufs[i] = make([]byte, MaxMessage)
			}
			for {
				if _, err := f(bufs, sizes, eps); err != nil {
					done <- struct{}{}
					return
				}
			}
		}()
	}
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(b.Port())})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	message := func(kind byte) []byte { return append([]byte{0xF6, kind, 0, 0}, make([]byte, 56)...) }
	for _, kind := range []byte{0, 4, 2, 255, 3} {
		c.Write(message(kind))
	}
	for _, want := range []byte{2, 3} {
		select {
		case pkt := <-got:
			if pkt != string(message(want)) {
				t.Errorf("handed on %x, want kind %d", pkt, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("kind %d was not handed on", want)
		}
	}
	b.Close()
	for range fns {
		<-done
	}
}
