package proxy

// Answers to connections beyond a bound, and the health message about them.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"weft/overlay/status"
)

const (
	// maxRefusing bounds the connections that are being refused, refuseTime the time of
	// one refusal.
	maxRefusing = 64
	refuseTime  = 2 * time.Second

	// maxAsked bounds how much of a request is read before it is refused, in bytes.
	maxAsked = 64 << 10
)

// use counts the connections to one destination.
type use struct{ waiting, open int }

// errBusy is the error of a dial to a destination with too many waiting dials.
var errBusy = &status.Error{Kind: status.KindFailed, Message: "too many connections already wait for this destination; does its program hang?"}

// errFull is the error for clients beyond Config.MaxConns.
func (p *Proxy) errFull() string {
	return fmt.Sprintf("too many connections: this proxy serves %d at a time; close some, or try again later", p.cfg.MaxConns)
}

// wait counts a dial to a destination until done is called, or refuses it.
func (p *Proxy) wait(to string) (done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := p.uses[to]; u != nil && u.waiting >= max(p.cfg.MaxConns/3, 1) {
		p.refusals.Raise()
		return nil, errBusy
	}
	p.countLocked(to, 1, 0)
	return func() { p.count(to, -1, 0) }, nil
}

func (p *Proxy) count(to string, waiting, open int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countLocked(to, waiting, open)
}

func (p *Proxy) countLocked(to string, waiting, open int) {
	u := p.uses[to]
	if u == nil {
		u = &use{}
		p.uses[to] = u
	}
	u.waiting += waiting
	u.open += open
	if *u == (use{}) {
		delete(p.uses, to)
	}
}

// describeRefusals is the health message when a bound was reached.
func (p *Proxy) describeRefusals(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	most, top := "", use{}
	for to, u := range p.uses {
		if sum, best := u.open+u.waiting, top.open+top.waiting; sum > best || sum == best && to < most {
			most, top = to, *u
		}
	}
	text := fmt.Sprintf("too many connections to the proxy: %d refused; it serves %d at a time, of which a third may wait for one destination", n, p.cfg.MaxConns)
	if most != "" {
		text += fmt.Sprintf("; now most are to %s: %d open, %d waiting", most, top.open, top.waiting)
	}
	return text
}

// refuse tells a client in its protocol that there are too many connections.
func (p *Proxy) refuse(c net.Conn) {
	c.SetDeadline(time.Now().Add(refuseTime))
	var first [1]byte
	if _, err := c.Read(first[:]); err != nil {
		return
	}
	switch b := first[0]; {
	case b == socksVersion:
		_, err := readSOCKS(c, c)
		var re *replyError
		switch {
		case errors.As(err, &re):
			writeReply(c, re.code, nil)
		case err == nil:
			writeReply(c, socksFailed, nil)
		}
	case b == 4:
		c.Write([]byte{0, 91, 0, 0, 0, 0, 0, 0})
	case b >= 'A' && b <= 'Z':
		readHead(c)
		body := "weft: " + p.errFull() + "\n"
		fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nRetry-After: 10\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
			http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable), len(body), body)
	}
	// Unread data would turn the answer into a reset.
	if cw, ok := c.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
		io.CopyN(io.Discard, c, maxAsked)
	}
}

// readHead reads up to the end of a request's head.
func readHead(r io.Reader) {
	buf := make([]byte, 0, 4<<10)
	for n := 0; n < maxAsked; {
		m, err := r.Read(buf[len(buf):cap(buf)])
		n += m
		buf = buf[:len(buf)+m]
		if err != nil || strings.Contains(string(buf), "\r\n\r\n") {
			return
		}
		if len(buf) == cap(buf) { // keep the last bytes: they may be part of the end
			buf = append(buf[:0], buf[len(buf)-3:]...)
		}
	}
}
