package limited

import (
	"io"
	"net"
	"testing"
	"time"
)

func TestListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listener(inner, 2)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	dial()
	first := <-accepted
	dial()
	second := <-accepted
	// The third connection is closed, not kept waiting.
	if _, err := dial().Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the third connection: %v", err)
	}
	// Closing one twice frees one slot.
	first.Close()
	first.Close()
	c := dial()
	third := <-accepted
	if _, ok := Bare(third).(*net.TCPConn); !ok || Bare(c) != c {
		t.Errorf("bare: %T, %T", Bare(third), Bare(c))
	}
	third.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if _, err := dial().Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("one more: %v", err)
	}
	second.Close()
	third.Close()
	l.Close()
	if c, ok := <-accepted; ok {
		t.Errorf("accepted %v after Close", c.RemoteAddr())
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
