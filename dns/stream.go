package dns

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// streamIdle is how long a connection to a resolver stays open after the last answer.
// streamSlow is how long a used connection may be silent before another one is tried,
// since it may have died unnoticed.
const (
	streamIdle = 15 * time.Second
	streamSlow = time.Second
)

// stream is a connection to a resolver that carries many questions at once (RFC 7766,
// 7858).
type stream struct {
	conn net.Conn
	idle *time.Timer
	stop func() bool // stops watching the upstream's life

	writing sync.Mutex // held while a message is written

	mu sync.Mutex
	// mu guards the following.
	waiting    map[uint16]*question
	used       bool // it has carried an answer
	lastAnswer time.Time
	err        error // why it ended
}

type question struct {
	q      dns.Question
	answer chan *dns.Msg // buffered; closed without an answer when the stream ends
}

// askTLS asks by DNS over TLS.
func (u *upstream) askTLS(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	st, fresh, err := u.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", u, err)
	}
	if !fresh {
		r, err := st.ask(ctx, m, true)
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("ask %s: no answer in time", u)
		}
		u.replace(st)
		if st, _, err = u.open(ctx); err != nil {
			return nil, fmt.Errorf("ask %s: %w", u, err)
		}
	}
	r, err := st.ask(ctx, m, false)
	if err != nil {
		if st.silent() {
			u.replace(st)
		}
		return nil, fmt.Errorf("ask %s: %w", u, err)
	}
	return r, nil
}

// open returns the connection and opens one if there is none.
func (u *upstream) open(ctx context.Context) (st *stream, fresh bool, err error) {
	// Others that need the connection wait for the same handshake.
	select {
	case u.opening <- struct{}{}:
		defer func() { <-u.opening }()
	case <-ctx.Done():
		return nil, false, errors.New("no connection in time")
	}
	u.mu.Lock()
	st = u.stream
	u.mu.Unlock()
	if st != nil && st.alive() {
		return st, !st.hasAnswered(), nil
	}
	raw, err := u.f.dialHost(ctx, &u.addr)
	if err != nil {
		return nil, false, err
	}
	c := tls.Client(raw, u.f.tlsConfig(u.addr.host))
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, false, err
	}
	st = &stream{conn: c, waiting: map[uint16]*question{}}
	st.mu.Lock()
	st.idle = time.AfterFunc(streamIdle, func() { st.close(errIdle) })
	st.stop = context.AfterFunc(u.life, func() { st.close(errors.New("the network has changed")) })
	st.mu.Unlock()
	if !u.f.s.serve(st.read, st.close) {
		st.close(net.ErrClosed)
		return nil, false, net.ErrClosed
	}
	u.mu.Lock()
	u.stream = st
	u.mu.Unlock()
	return st, true, nil
}

var errIdle = errors.New("idle")

// replace makes the next question open another connection. Questions in progress on
// this one may still be answered; it ends when it is idle.
func (u *upstream) replace(st *stream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stream == st {
		u.stream = nil
	}
}

// silent reports whether nothing has come for streamSlow.
func (st *stream) silent() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return time.Since(st.lastAnswer) >= streamSlow
}

func (st *stream) alive() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err == nil
}

func (st *stream) hasAnswered() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.used
}

// maxAsked bounds the questions in progress on one connection.
const maxAsked = 256

// ask sends a question with a fresh id and waits for its answer. With doubt it gives up
// early if the connection carries nothing at all.
func (st *stream) ask(ctx context.Context, m *dns.Msg, doubt bool) (*dns.Msg, error) {
	a := &question{q: m.Question[0], answer: make(chan *dns.Msg, 1)}
	st.mu.Lock()
	if st.err != nil || len(st.waiting) >= maxAsked {
		err := st.err
		st.mu.Unlock()
		if err == nil {
			err = errors.New("too many questions at once")
		}
		return nil, err
	}
	id := newID()
	for st.waiting[id] != nil {
		id = newID()
	}
	st.waiting[id] = a
	st.idle.Stop()
	st.mu.Unlock()
	defer st.done(id)

	out, err := packWith(m, id)
	if err != nil {
		return nil, err
	}
	st.writing.Lock()
	st.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	_, err = st.conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	st.writing.Unlock()
	if err != nil {
		st.close(err)
		return nil, err
	}
	timer := time.NewTimer(streamSlow)
	defer timer.Stop()
	for {
		select {
		case r, ok := <-a.answer:
			if !ok {
				return nil, io.ErrUnexpectedEOF
			}
			return r, nil
		case <-timer.C:
			if doubt && st.silent() {
				return nil, errors.New("the resolver stopped answering")
			}
			timer.Reset(streamSlow)
		case <-ctx.Done():
			return nil, errors.New("no answer in time")
		}
	}
}

// done ends a question; the last one starts the idle timer.
func (st *stream) done(id uint16) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.waiting, id)
	if len(st.waiting) == 0 && st.err == nil {
		st.idle.Reset(streamIdle)
	}
}

// read delivers answers to their questions until the connection ends.
func (st *stream) read() {
	c := dns.Conn{Conn: st.conn}
	for {
		b, err := c.ReadMsgHeader(nil)
		if err != nil {
			st.close(err)
			return
		}
		id := binary.BigEndian.Uint16(b)
		st.mu.Lock()
		a := st.waiting[id]
		r := new(dns.Msg)
		if a != nil && matches(b, id, a.q, r) {
			st.used, st.lastAnswer = true, time.Now()
			select {
			case a.answer <- r:
			default: // a duplicate answer
			}
		}
		st.mu.Unlock()
	}
}

// close ends the connection and fails its questions with err.
func (st *stream) close(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return
	}
	st.err = err
	st.stop()
	st.idle.Stop()
	st.conn.Close()
	for _, a := range st.waiting {
		close(a.answer)
	}
	st.waiting = map[uint16]*question{}
}
