// Package limited bounds what strangers can do to a process, so that they cannot
// take all of its files and memory: how many connections a listener has
// (Listener), who may have a place among many (Budget), for how long somebody who
// does not read holds up a response (Writer), how much of a small machine's memory
// there is for them (Memory, GetBuffer), and what a request that meets a mistake of
// ours takes along (Survive).
//
// Not for embedders: what listens in nodes and servers shares it.
package limited

import (
	"net"
	"sync"
)

// Listener accepts at most n connections of l at a time. Those beyond are closed
// at once, so that a client is told instead of left hanging.
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

// Bare is the connection beneath one of a Listener's, which has the methods of its
// own type; another connection it returns as it is. To close is c still.
func Bare(c net.Conn) net.Conn {
	if l, ok := c.(*conn); ok {
		return l.Conn
	}
	return c
}

// conn gives its slot back when closed.
type conn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}
