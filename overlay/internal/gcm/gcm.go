package gcm

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/mono"
)

// Config configures New.
type Config struct {
	// Forwarder connects the Device to the host's network. Another plane calls its Read.
	Forwarder *dataplane.Forwarder

	// Bind carries the datagrams. Another plane opens it.
	Bind *bind.Bind

	// Alone says that there is no other plane: the Device calls Read and opens the Bind
	// itself, and its Close closes both.
	Alone bool

	// Jumped is called when the keys for sending were dropped because the machine has
	// slept, or its clock was set (see CheckClock). Every peer must be introduced anew. It
	// runs on a goroutine of its own. May be nil.
	Jumped func()

	// Wall is the wall clock; nil is time.Now. Tests set it.
	Wall func() time.Time

	// Log gets events; nil discards them.
	Log *slog.Logger
}

// Device is a dataplane.Plane.
type Device struct {
	// Constant after New.
	fwd    *dataplane.Forwarder
	bind   *bind.Bind
	ends   bool // Close closes fwd and bind
	jumped func()
	wall   func() time.Time // nil: time.Now
	log    *slog.Logger

	alone sync.WaitGroup // goroutines of run

	out [][]byte // of Carry; owned by the goroutine of Forwarder.Read

	running sync.WaitGroup // what a timer has started; Add with mu held and closed unset

	// mu guards the following and the fields of peer that say so. It is taken before the
	// locks of package dataplane and of sessions, and never on the packet path.
	mu     sync.Mutex
	closed bool
	peers  map[cert.NodeID]*peer
}

var _ dataplane.Plane = (*Device)(nil)

// New makes a Device without peers. The caller must Close it.
func New(cfg Config) (*Device, error) {
	d := &Device{
		fwd: cfg.Forwarder, bind: cfg.Bind, jumped: cfg.Jumped, wall: cfg.Wall, log: cfg.Log,
		peers: make(map[cert.NodeID]*peer), out: make([][]byte, 0, bind.BatchSize),
	}
	if d.jumped == nil {
		d.jumped = func() {}
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Alone {
		if err := d.run(); err != nil {
			return nil, err
		}
		d.ends = true
	}
	return d, nil
}

// framing: a packet is not padded. A random nonce needs more.
func framing() dataplane.Framing {
	f := dataplane.Framing{Overhead: overhead, Unit: 1}
	if enforced {
		f.Overhead = overheadRandom
	}
	return f
}

// SetPeer implements dataplane.Plane. It needs no Key: the Secret belongs to the pair. A
// Tentative claim is what the caller of an introduction makes before the peer has accepted:
// datagrams under the new keys are taken, but not sent. See the package documentation for
// when two sides change to new keys.
func (d *Device) SetPeer(cfg dataplane.Peer) error {
	ips, err := cfg.Check()
	if err != nil {
		return fmt.Errorf("set peer %s: %w", cfg.ID, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.setPeerLocked(cfg, ips); err != nil {
		return fmt.Errorf("set peer %s: %w", cfg.ID, err)
	}
	return nil
}

func (d *Device) setPeerLocked(cfg dataplane.Peer, ips []netip.Addr) error {
	if d.closed {
		return dataplane.ErrClosed
	}
	if err := d.fwd.Free(cfg.ID, ips); err != nil {
		return err
	}
	p := d.peers[cfg.ID]
	if p != nil && p.Endpoint() != cfg.Endpoint {
		d.removeLocked(p)
		p = nil
	}
	now := mono.Now()
	if p == nil {
		p = newPeer(d, cfg, now)
		d.peers[cfg.ID] = p
		p.Hold(&p.gate)
		p.SetAddrs(ips)
		cfg.Endpoint.SetTaker(p)
	} else {
		p.SetFilter(cfg.Filter)
		p.SetAddrs(ips)
		if cfg.Restarted {
			p.Hold(&p.gate) // what is sent under earlier keys is lost
		}
		p.offerLocked(cfg, now)
	}
	switch {
	case cfg.Claim == dataplane.Tentative:
	case cfg.Initiate:
		// The peer has accepted, so it takes the new keys.
		p.adoptLocked(now)
		p.confirmLocked()
	case p.cur.Load().sender.cur.Load() == nil || p.Gated():
		// There is nothing that the peer could still open under earlier keys.
		p.adoptLocked(now)
	default:
		p.adoptSoonLocked()
	}
	return nil
}

// Prove implements dataplane.Plane. A node proves nothing here besides its introduction.
func (d *Device) Prove(id cert.NodeID, _ [32]byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers[id] != nil
}

// RemovePeer implements dataplane.Plane. Packets held for a peer that has not accepted yet
// stay, so that the owner of tunnels can answer them (dataplane.Forwarder.Fail).
func (d *Device) RemovePeer(id cert.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	if p == nil || d.closed {
		return
	}
	d.removeLocked(p)
	if !p.fresh.Load() {
		p.DropHeld()
	}
}

// Clear removes all peers: this node gets another identity.
func (d *Device) Clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.peers {
		d.removeLocked(p)
		p.DropHeld()
	}
}

func (d *Device) removeLocked(p *peer) {
	delete(d.peers, p.ID())
	p.Endpoint().SetTaker(nil)
	p.Remove()
	p.stopLocked()
}

// Begins implements dataplane.Plane. No node sends before its peer takes the keys, so no
// message is early.
func (d *Device) Begins([]byte) bool { return false }

// Close implements dataplane.Plane.
func (d *Device) Close() error {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		for _, p := range d.peers {
			p.Endpoint().SetTaker(nil)
			p.stopLocked()
		}
	}
	d.mu.Unlock()
	if d.ends {
		d.bind.Close()
		d.fwd.Close()
	}
	d.alone.Wait()
	d.running.Wait()
	return nil
}

// after calls f with mu held, unless the peer was removed by then.
func (d *Device) after(p *peer, wait time.Duration, f func()) *time.Timer {
	return time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.closed && d.peers[p.ID()] == p {
			f()
		}
	})
}

// hireLocked counts one more goroutine. The caller holds mu.
func (d *Device) hireLocked() bool {
	if d.closed {
		return false
	}
	d.running.Add(1)
	return true
}

// Keys returns the state of a peer's keys.
func (d *Device) Keys(id cert.NodeID) (k dataplane.KeyState, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	if p == nil {
		return k, false
	}
	if e := p.cur.Load().sender.cur.Load(); e != nil {
		k = dataplane.KeyState{Since: mono.Time(e.begun), Packets: min(e.counter.Load(), epochPackets)}
	}
	return k, true
}
