package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay/lane"
	"weft/overlay/rtt"
)

const (
	// maxPending bounds the bytes that wait for the writer, which may be sending as many
	// again.
	maxPending = 256 << 10
	maxControl = 32 << 10
	// unsentLimit is how many bytes may wait in the kernel before they are sent.
	unsentLimit = 128 << 10
)

// Handler takes what the relay sends. All methods are called from Run's goroutine, one at
// a time. Slices are valid until the method returns. A method that blocks delays
// everything after it.
type Handler interface {
	// Packet is one WireGuard message of at most 65,535 bytes.
	Packet(from cert.NodeID, payload []byte)
	// Drained says that no more input has arrived: whatever was batched should be
	// processed now.
	Drained()
	// Session is one introduction frame of at most 16 KB.
	Session(from cert.NodeID, frame []byte)
	// Gone says that frames to peer could not be delivered, Busy that some were dropped.
	// Both are hints.
	Gone(peer cert.NodeID, reason GoneReason)
	Busy(peer cert.NodeID)
	Welcome(Welcome)
	Nudge(Nudge)
	// CRL is a revocation list whose signature has not been checked.
	CRL(der []byte)
	// Replaced says that a newer connection of this NodeID has replaced this one. Run is
	// about to return.
	Replaced()
	Draining(Draining)
	// Lane is this node's side of a lane with peer, for which either node has asked. It
	// may be new, or the existing one again. It replaces an older one with that peer.
	// Package lane says what to do with it.
	Lane(peer cert.NodeID, info lane.Info)
	// LaneGone says that there is no lane with peer at this relay, or that it has ended.
	// When a connection ends, all its lanes end without a LaneGone.
	LaneGone(peer cert.NodeID, reason LaneReason)
	// LaneRebind is a hint, at most once a second: the relay gets datagrams for the lane
	// with peer from an address that this node has not bound. Bind again.
	LaneRebind(peer cert.NodeID)
}

// Conn is one live connection to a relay. Its sending methods may be called
// from any goroutine.
type Conn struct {
	// constant after NewConn
	c       net.Conn
	lc      *link.Conn // nil when c is not a link
	h       Handler
	quiet   time.Duration
	started time.Time
	process string // Holds.Process; set before Run

	welcomed bool   // used by read only: later welcomes are ignored
	recent   recent // used by write only

	lanes    atomic.Bool  // the welcome offered lanes
	lastRx   atomic.Int64 // since started
	lastTx   atomic.Int64 // since started
	awaiting atomic.Int64 // when something was first sent after the last input; 0: nothing was
	deadline atomic.Int64 // when an answer to a ping is due; 0: none
	asked    atomic.Int64 // when the last ping of watch was sent
	dozing   atomic.Bool  // watch sleeps for longer than unanswered
	rouse    chan struct{}

	mu sync.Mutex
	// mu guards the following.
	work    sync.Cond // signals that there is something to write, or the end
	room    sync.Cond // signals that pending has room, or the end
	control []byte
	pending *[]byte // pooled; nil when nothing waits
	expect  bool    // control holds a frame that may be answered
	closed  bool
	cause   error
	pings   map[uint64]chan struct{}
	trip    rtt.Estimate // of pings, and of the link's handshake
}

// NewConn makes a connection of a link whose handshake is complete (or of any stream, in
// tests). It does nothing until Run.
func NewConn(c net.Conn, h Handler) *Conn {
	rc := &Conn{c: c, h: h, quiet: quiet, started: time.Now(), rouse: make(chan struct{}, 1)}
	rc.work.L, rc.room.L = &rc.mu, &rc.mu
	if tc, ok := c.(*tls.Conn); ok {
		if rc.lc = link.Of(tc); rc.lc != nil {
			rc.lc.Tune(unsentLimit)
			rc.trip.Add(rc.lc.Trip())
			if rc.lc.WebSocket() {
				rc.quiet = quietWebSocket
			}
		}
	}
	return rc
}

// Run reads until the connection ends, ctx ends or Close is called, and returns why. All
// goroutines of the connection have ended when it returns. Frames sent before Run are
// queued.
func (c *Conn) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.fail(ctx.Err()) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(c.write)
	watch := make(chan struct{})
	wg.Go(func() { c.watch(watch) })
	c.fail(c.read())
	close(watch)
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// Close ends the connection at once; queued frames are lost. It does not wait for Run.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	return nil
}

// fail ends the connection. The first call sets the cause.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed, c.cause = true, cause
	c.work.Broadcast()
	c.room.Broadcast()
	pings := c.pings
	c.pings = nil
	c.mu.Unlock()
	for _, done := range pings {
		close(done)
	}
	link.CloseNow(c.c)
}

// Certificates returns the chain that the relay presented in its handshake, leaf first;
// nil when the connection is not a link.
func (c *Conn) Certificates() []*x509.Certificate {
	if tc, ok := c.c.(*tls.Conn); ok {
		return tc.ConnectionState().PeerCertificates
	}
	return nil
}

func (c *Conn) endedLocked() error { return fmt.Errorf("relay connection: %w", c.cause) }

// read handles frames until the connection ends.
func (c *Conn) read() error {
	r := NewReader(c.c, AtNode)
	defer r.Release()
	for {
		if err := r.Fill(); err != nil {
			return err
		}
		c.lastRx.Store(c.now())
		c.awaiting.Store(0)
		c.deadline.Store(0)
		for f := r.Next(); f != nil; f = r.Next() {
			if err := c.frame(f); err != nil {
				return err
			}
		}
		if !r.More() {
			c.h.Drained()
		}
	}
}

func (c *Conn) frame(f []byte) error {
	body := f[HeadLen:]
	switch Type(f[0]) {
	case TypePacket:
		c.h.Packet(Peer(f), body[PeerLen:])
	case TypeSession:
		c.h.Session(Peer(f), body[PeerLen:])
	case TypeGone:
		c.h.Gone(Peer(f), GoneReason(body[PeerLen]))
	case TypeBusy:
		c.h.Busy(Peer(f))
	case TypePing:
		c.sendControl(maxControl, func(b []byte) []byte { return AppendFrame(b, TypePong, body) })
	case TypePong:
		c.mu.Lock()
		if asked := c.asked.Swap(0); pingKey(body) == 0 && asked != 0 {
			c.trip.Add(time.Duration(c.now() - asked))
		}
		done := c.pings[pingKey(body)]
		delete(c.pings, pingKey(body))
		c.mu.Unlock()
		if done != nil {
			close(done)
		}
	case TypeNudge:
		return decode(body, c.h.Nudge)
	case TypeWelcome:
		if c.welcomed {
			return nil
		}
		c.welcomed = true
		return decode(body, func(w Welcome) {
			c.lanes.Store(w.Lanes)
			c.h.Welcome(w)
		})
	case TypeDraining:
		return decode(body, c.h.Draining)
	case TypeCRL:
		c.h.CRL(body)
	case TypeReplaced:
		c.h.Replaced()
		return ErrReplaced
	case TypeRefused:
		return &RefusedError{RefusedReason(body[0])}
	case TypeLane:
		if info, ok := lane.ParseInfo(body[PeerLen:]); ok {
			c.h.Lane(Peer(f), info)
		}
	case TypeLaneGone:
		c.h.LaneGone(Peer(f), LaneReason(body[PeerLen]))
	case TypeRebind:
		c.h.LaneRebind(Peer(f))
	}
	return nil
}

// ErrReplaced is returned by Run when a newer connection of the same NodeID has replaced
// this one.
var ErrReplaced = errors.New("replaced by a newer connection of this device")

func decode[T any](body []byte, to func(T)) error {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	to(v)
	return nil
}

func (c *Conn) now() int64 { return int64(time.Since(c.started)) + 1 }
