package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// How a connection finds out that the relay has stopped answering.

const (
	// unanswered is how long a node that has sent something waits for any input before it
	// pings.
	unanswered = 5 * time.Second
	// answerMost bounds the wait for an answer of the relay where answers are known to be
	// slow: a full uplink delays them by seconds, and by as much again when a packet is
	// lost.
	answerMost = 15 * time.Second
	// quiet is the silence after which a node pings. The relay pings after 120 s; this is
	// for when the relay cannot.
	quiet = 150 * time.Second
	// quietWebSocket is short enough for reverse proxies that close a connection after a
	// silent minute.
	quietWebSocket = 45 * time.Second
	// quietAnswer is how long the answer to that ping may take.
	quietAnswer = 10 * time.Second
)

// ErrDead is returned by Run when the relay has stopped answering.
var ErrDead = errors.New("the relay does not answer")

// watch detects a relay that has stopped answering. It checks every 5 s while anything
// sent is unanswered, and otherwise once in c.quiet.
func (c *Conn) watch(end <-chan struct{}) {
	timer := time.NewTimer(unanswered)
	defer timer.Stop()
	for {
		select {
		case <-end:
			return
		case <-timer.C:
		case <-c.rouse:
		}
		c.dozing.Store(false)
		wait, dead := c.check(c.now())
		if dead {
			c.fail(ErrDead)
			return
		}
		timer.Reset(wait)
		if wait > unanswered {
			c.dozing.Store(true)
			if c.awaiting.Load() != 0 { // it was set just before dozing
				timer.Reset(unanswered)
			}
		}
	}
}

// check pings the relay if it is time to, and returns the time until the next check, or
// that the relay is dead.
func (c *Conn) check(now int64) (wait time.Duration, dead bool) {
	if due := c.deadline.Load(); due != 0 {
		if now >= due {
			return 0, true
		}
		return time.Duration(due - now), false
	}
	silent := time.Duration(now - c.lastRx.Load())
	since := c.awaiting.Load()
	waited := time.Duration(now - since)
	switch {
	case since != 0 && waited >= unanswered:
		return c.ask(now), false
	case silent >= c.quiet:
		return c.ask(now), false
	case since != 0:
		return unanswered - waited, false
	}
	return c.quiet - silent, false
}

func (c *Conn) ask(now int64) time.Duration {
	within := c.Answer(quietAnswer)
	c.deadline.Store(now + int64(within))
	c.asked.Store(now)
	var nonce [8]byte // zero: no call of Ping waits for the answer
	c.sendControl(maxControl, func(b []byte) []byte { return AppendFrame(b, TypePing, nonce[:]) })
	return within
}

// Ping pings the relay and returns the round trip. It waits until ctx ends.
func (c *Conn) Ping(ctx context.Context) (time.Duration, error) {
	var nonce [8]byte
	rand.Read(nonce[:])
	done := make(chan struct{})
	key := pingKey(nonce[:])
	c.mu.Lock()
	if c.closed {
		defer c.mu.Unlock()
		return 0, c.endedLocked()
	}
	if c.pings == nil {
		c.pings = map[uint64]chan struct{}{}
	}
	c.pings[key] = done
	c.mu.Unlock()
	start := time.Now()
	if err := c.sendControl(maxControl, func(b []byte) []byte { return AppendFrame(b, TypePing, nonce[:]) }); err != nil {
		return 0, err
	}
	select {
	case <-done:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closed {
			return 0, c.endedLocked()
		}
		took := time.Since(start)
		c.trip.Add(took)
		return took, nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pings, key)
		return 0, fmt.Errorf("ping relay: %w", ctx.Err())
	}
}

func pingKey(b []byte) (k uint64) {
	for _, x := range b {
		k = k<<8 | uint64(x)
	}
	return k
}

// Answer returns how long to wait for an answer of the relay: least, or longer if its
// answers are known to be slow.
func (c *Conn) Answer(least time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trip.Wait(least, answerMost)
}

// Trip returns how long the relay's answers take, 0 if unknown.
func (c *Conn) Trip() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trip.Trip()
}

// Check pings the relay and ends the connection if no answer comes in time. It is for
// when the machine may have slept or changed its network.
func (c *Conn) Check(ctx context.Context) {
	ping, cancel := context.WithTimeout(ctx, c.Answer(wakeAnswer))
	defer cancel()
	if _, err := c.Ping(ping); err != nil {
		c.fail(ErrDead)
	}
}

// silent returns how long ago anything was last sent or received.
func (c *Conn) silent() time.Duration {
	return time.Duration(c.now() - max(c.lastRx.Load(), c.lastTx.Load()))
}
