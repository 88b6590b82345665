package relay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay/lane"
	"weft/overlay/rtt"
)

const (
	// maxPending bounds the bytes that wait for the writer; as many again may
	// be in its hands.
	maxPending = 256 << 10
	maxControl = 32 << 10
	// unsentLimit is how much waits in the kernel before it is sent.
	unsentLimit = 128 << 10

	// unanswered is how long a node that sends waits for any sign of life
	// before it asks for one.
	unanswered = 5 * time.Second
	// answerMost is the most that the relay's answer to anything is waited for,
	// where answers are known to take long: an uplink that is full of uploads
	// delays them by seconds, and by as much again when it loses one.
	answerMost = 15 * time.Second
	// quiet is after how much silence a node asks by itself. A relay asks
	// after 120 s; this is for when it cannot.
	quiet = 150 * time.Second
	// quietWebSocket is short enough for reverse proxies, which close what is
	// silent for a minute.
	quietWebSocket = 45 * time.Second
	// quietAnswer is how long the answer to that may take.
	quietAnswer = 10 * time.Second
)

// pendingPool holds what SendPackets fills and the writer empties.
var pendingPool = sync.Pool{New: func() any { b := make([]byte, 0, maxPending+MaxFrame); return &b }}

// ErrDead is returned by Run when the relay stopped answering.
var ErrDead = errors.New("the relay does not answer")

// Handler takes what the relay sends. All methods are called from the
// goroutine that is in Run, one at a time; slices are borrowed until the
// method returns. A method that waits holds up everything behind it.
type Handler interface {
	// Packet is one WireGuard message of at most 65,535 bytes.
	Packet(from cert.NodeID, payload []byte)
	// Drained says that no more input can be had without waiting: whatever
	// was batched should go on now.
	Drained()
	// Session is one introduction frame of at most 16 KB.
	Session(from cert.NodeID, frame []byte)
	// Gone and Busy are hints about what was sent to peer.
	Gone(peer cert.NodeID, reason GoneReason)
	Busy(peer cert.NodeID)
	Welcome(Welcome)
	Nudge(Nudge)
	// CRL is a CRL whose signature nobody has checked.
	CRL(der []byte)
	// Replaced says that another connection of this NodeID took this one's
	// place; Run is about to return.
	Replaced()
	Draining(Draining)
	// Lane is this node's side of a lane with peer: asked for here or there,
	// new or once more. It takes the place of an older one with that peer.
	// Package lane says what to do with it.
	Lane(peer cert.NodeID, info lane.Info)
	// LaneGone says that there is no lane with peer at this relay, or no
	// more. All lanes of a connection end with it, without a word.
	LaneGone(peer cert.NodeID, reason LaneReason)
	// LaneRebind is a hint, at most once a second: datagrams for the lane
	// with peer come from an address that this node did not bind. Bind again.
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
	process string // of Holds; set before Run

	welcomed bool   // read's: a relay welcomes once
	recent   recent // write's

	lanes    atomic.Bool  // the welcome offered them
	lastRx   atomic.Int64 // since started
	lastTx   atomic.Int64 // since started
	awaiting atomic.Int64 // when something was first sent after the last sign of life; 0: nothing
	deadline atomic.Int64 // when an answer to a ping is due; 0: none
	asked    atomic.Int64 // when the last ping of watch was sent
	dozing   atomic.Bool  // watch sleeps for long
	rouse    chan struct{}

	mu sync.Mutex
	// mu guards the following.
	work    sync.Cond // there is something to write, or the end
	room    sync.Cond // pending has room, or the end
	control []byte
	pending *[]byte // pooled; nil when nothing waits
	expect  bool    // control holds something that somebody may answer
	closed  bool
	cause   error
	pings   map[uint64]chan struct{}
	trip    rtt.Estimate // of pings, and of the link's handshake
}

// NewConn makes a connection out of a link that is through its handshake (or
// any stream, in tests). Nothing happens until Run.
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

// Run reads until the connection ends, ctx ends or Close is called, and says
// why. All goroutines of the connection are gone when it returns. Before it
// is called, sends only gather.
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

// Close ends the connection at once; what was not written yet is lost. It
// does not wait for Run.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	return nil
}

// fail ends the connection; the first cause counts.
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

// SendPackets queues WireGuard messages for a node. The bytes are copied. It
// waits while more than 256 KB are queued already, so that whoever makes
// packets is slowed down rather than the packets lost.
func (c *Conn) SendPackets(to cert.NodeID, bufs [][]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range bufs {
		if len(b) == 0 || len(b) > MaxPacket {
			continue // not a WireGuard message; the relay would close on it
		}
		for c.pending != nil && len(*c.pending)+len(b) > maxPending && !c.closed {
			c.room.Wait()
		}
		if c.closed {
			return c.endedLocked()
		}
		if c.pending == nil {
			c.pending = pendingPool.Get().(*[]byte)
			c.work.Signal()
		}
		*c.pending = AppendPeerFrame(*c.pending, TypePacket, to, b)
	}
	return nil
}

// SendSession queues an introduction frame of 1 to 16,384 bytes, before all
// packets. The bytes are copied. It never waits.
func (c *Conn) SendSession(to cert.NodeID, frame []byte) error {
	if len(frame) == 0 || len(frame) > MaxSession {
		return fmt.Errorf("introduction frame of %d bytes: %w", len(frame), ErrFrame)
	}
	return c.sendControl(maxPending, func(b []byte) []byte {
		c.expect = true // mu is held
		return AppendPeerFrame(b, TypeSession, to, frame)
	})
}

// SendVersions tells the relay which versions this node holds. A connection
// that does so is the node's home; a guest does not.
func (c *Conn) SendVersions(v api.Versions) error {
	body, err := json.Marshal(Holds{v, c.process})
	if err != nil {
		return err
	}
	return c.sendControl(maxControl, func(b []byte) []byte { return AppendFrame(b, TypeVersions, body) })
}

// ErrNoLanes is returned by RequestLane at a relay that makes none.
var ErrNoLanes = errors.New("the relay offers no UDP lanes")

// Certificates returns the chain that the relay showed in its handshake, leaf
// first; nil when c is not a link.
func (c *Conn) Certificates() []*x509.Certificate {
	if tc, ok := c.c.(*tls.Conn); ok {
		return tc.ConnectionState().PeerCertificates
	}
	return nil
}

// Lanes reports whether the relay makes UDP lanes; false before its welcome.
func (c *Conn) Lanes() bool { return c.lanes.Load() }

// RequestLane asks for a UDP lane with a node that is connected to this relay.
// The answer is Handler.Lane or LaneGone; when the relay limits how many new
// nodes this one may reach, Busy. The peer's Handler.Lane is called too. To ask
// for a lane that exists brings the same one, to both nodes as long as not both
// have bound it. It never waits.
func (c *Conn) RequestLane(peer cert.NodeID) error {
	if !c.Lanes() {
		return ErrNoLanes
	}
	return c.sendControl(maxControl, func(b []byte) []byte { return AppendPeerFrame(b, TypeLane, peer, nil) })
}

// Ping waits for the relay to answer and returns how long that took.
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

// Answer returns how long the relay's answer may take: least, or longer where
// answers are known to.
func (c *Conn) Answer(least time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trip.Wait(least, answerMost)
}

// Trip returns how long the relay's answers take, 0 if that is not known.
func (c *Conn) Trip() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trip.Trip()
}

// Check ends the connection if the relay does not answer in time: the machine may
// have slept, or be in another network.
func (c *Conn) Check(ctx context.Context) {
	ping, cancel := context.WithTimeout(ctx, c.Answer(wakeAnswer))
	defer cancel()
	if _, err := c.Ping(ping); err != nil {
		c.fail(ErrDead)
	}
}

// silent returns for how long nothing was sent or received.
func (c *Conn) silent() time.Duration {
	return time.Duration(c.now() - max(c.lastRx.Load(), c.lastTx.Load()))
}

func pingKey(b []byte) (k uint64) {
	for _, x := range b {
		k = k<<8 | uint64(x)
	}
	return k
}

func (c *Conn) sendControl(limit int, appendTo func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.endedLocked()
	}
	if len(c.control) > limit {
		return fmt.Errorf("send to relay: %d bytes wait already", len(c.control))
	}
	c.control = appendTo(c.control)
	c.work.Signal()
	return nil
}

func (c *Conn) endedLocked() error { return fmt.Errorf("relay connection: %w", c.cause) }

// write sends everything that waits in one go, again and again.
func (c *Conn) write() {
	for {
		c.mu.Lock()
		for len(c.control) == 0 && c.pending == nil && !c.closed {
			c.work.Wait()
		}
		if c.closed {
			c.mu.Unlock()
			return
		}
		control, pending, expect := c.control, c.pending, c.expect || c.pending != nil
		c.control, c.pending, c.expect = nil, nil, false
		c.room.Broadcast()
		c.mu.Unlock()

		if expect && c.awaiting.CompareAndSwap(0, c.now()) && c.dozing.Load() {
			select {
			case c.rouse <- struct{}{}:
			default:
			}
		}
		var packets []byte
		if pending != nil {
			packets = *pending
		}
		if len(packets) > 0 && len(packets) <= recentFlush {
			c.recent.note(packets, c.now())
		}
		err := link.WriteAll(c.c, c.lc, control, packets)
		c.lastTx.Store(c.now())
		if pending != nil {
			*pending = (*pending)[:0]
			pendingPool.Put(pending)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// read takes frames until the end.
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

// ErrReplaced is returned by Run when a newer connection of the same NodeID
// took this one's place.
var ErrReplaced = errors.New("replaced by a newer connection of this device")

func decode[T any](body []byte, to func(T)) error {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	to(v)
	return nil
}

// watch notices a relay that stopped answering: while something that was sent
// is unanswered it looks every 5 s, otherwise once in c.quiet.
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
			if c.awaiting.Load() != 0 { // set just before dozing was
				timer.Reset(unanswered)
			}
		}
	}
}

// check decides at now when to look again.
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
	var nonce [8]byte // nobody waits for this one
	c.sendControl(maxControl, func(b []byte) []byte { return AppendFrame(b, TypePing, nonce[:]) })
	return within
}

func (c *Conn) now() int64 { return int64(time.Since(c.started)) + 1 }
