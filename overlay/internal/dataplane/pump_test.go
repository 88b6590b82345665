package dataplane

import (
	"errors"
	"os"
	"testing"

	"golang.zx2c4.com/wireguard/tun"
)

// source is a device that cannot be woken. Its packets come from a channel.
type source struct {
	tun.Device
	packets chan string
	closed  chan struct{}
}

func (s source) BatchSize() int { return 2 }
func (s source) Close() error   { close(s.closed); return nil }
func (s source) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-s.packets:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	case <-s.closed:
		return 0, os.ErrClosed
	}
}

func TestPump(t *testing.T) {
	s := source{packets: make(chan string), closed: make(chan struct{})}
	p := NewPump(s)
	bufs, sizes := [][]byte{make([]byte, 100), make([]byte, 100)}, make([]int, 2)
	read := func() (string, error) {
		n, err := p.Read(bufs, sizes, 4)
		if n == 0 {
			return "", err
		}
		return string(bufs[0][4 : 4+sizes[0]]), err
	}
	for _, want := range []string{"one", "two"} {
		s.packets <- want
		if got, err := read(); got != want || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	p.WakeRead()
	p.WakeRead() // two before a Read count as one
	if got, err := read(); got != "" || err != nil {
		t.Fatalf("woken: %q, %v", got, err)
	}
	// A wake loses no packet.
	go func() {
		p.WakeRead()
		s.packets <- "three"
	}()
	got, err := read()
	for got == "" && err == nil {
		got, err = read()
	}
	if got != "three" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	// Close ends a Read, and does not wait for one.
	blocked := make(chan error)
	go func() {
		_, err := read()
		for err == nil { // the wake may have come after the third
			_, err = read()
		}
		blocked <- err
	}()
	p.Close()
	if err := <-blocked; !errors.Is(err, os.ErrClosed) {
		t.Errorf("a Read during Close: %v", err)
	}
	if _, err := read(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a Read after Close: %v", err)
	}
}
