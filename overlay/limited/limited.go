// Package limited bounds what clients can do to a process, so that they cannot take all
// of its files and memory: the connections of a listener (Listener), the places that
// clients share (Budget), how long a slow reader can hold up a response (Writer), how
// much memory of a small machine they get (Memory, GetBuffer), and what a panic in one
// request ends (Survive).
//
// Not for embedders: the listeners of nodes and servers share it.
package limited

import (
	"net"
	"sync"
)

// Listener accepts at most n connections of l at a time. Further ones are closed at
// once, so that the client gets an error and does not hang.
func Listener(l net.Listener, n int) net.Listener {
	return &listener{Listener: l, slots: make(chan struct{}, n)}
}

type listener struct {
	net.Listener
	slots chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &conn{Conn: c, slots: l.slots}, nil
		default:
			c.Close()
		}
	}
}

// Bare returns the connection inside a connection of a Listener, which has the methods
// of its own type; any other connection is returned unchanged. Close c, not the result.
func Bare(c net.Conn) net.Conn {
	if l, ok := c.(*conn); ok {
		return l.Conn
	}
	return c
}

// conn releases its slot when it is closed.
type conn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}
