// Package wg runs WireGuard: it is the only importer of wireguard-go's device
// package, and makes it a data plane of introduced peers (package dataplane).
//
// # The way of a packet
//
//	dataplane.Forwarder.Read -> inner.Read -> wireguard-go: encryption
//	  -> outer.Send: handshakes watched -> dataplane.Entry.Send -> bind.Bind
//
//	bind.Bind -> wireguard-go: decryption, source belongs to key
//	  -> inner.Write -> dataplane.Forwarder.Write
//
// # Peers
//
// A peer is made by SetPeer when it has been introduced and ends with
// RemovePeer. A WireGuard key and an overlay address belong to one NodeID only;
// of two that name the same key the one has it that holds it (see
// dataplane.Claim). SetPeer with the key that the peer has replaces the preshared
// key in place, which is the secret of the introduction; with another key the new
// tunnel is made first, and takes over the addresses in the moment in which its
// handshake succeeds. Until then what arrives through the old tunnel is accepted,
// and what is sent is held. When the handshake does not succeed in about 4 s the
// old tunnel stays.
//
// WireGuard tries a handshake every 5 s. At the start of a tunnel this package
// tries faster (about 0.5 and 1.5 s after the first), and only one side begins: of two
// initiations that cross, both are lost. The side with Initiate unset waits for
// the other, 1 s at most, and holds what it wants to send. Where answers are
// known to take long (dataplane.Peer.Trip) it waits longer: another initiation before
// the answer to the last one makes that worthless.
//
// # Goroutines
//
// Those of wireguard-go (three for each processor, two for each peer, a few
// more). They sleep while nothing happens: no timer runs for an idle peer. The
// packet path of this package takes no lock and makes no garbage.
package wg

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
)

// Config configures New.
type Config struct {
	// Forwarder is where packets of the host come from and go to. The Device
	// reads from it, and closes it.
	Forwarder *dataplane.Forwarder

	// Bind carries the messages.
	Bind *bind.Bind

	// MTU of the inner network in bytes, for WireGuard's padding; 0 asks its Net.
	MTU int

	// SetBack is called when a handshake initiation went out that peers may
	// ignore, because the machine's clock was set back (see Device.SetBack). It
	// is called like dataplane.Config.Stir, again with each further one, and may be nil.
	SetBack func()

	// Wall is the clock that WireGuard stamps initiations with: time.Now, which
	// nil stands for, but in tests.
	Wall func() time.Time

	// Log receives what WireGuard reports; nil discards.
	Log *slog.Logger
}

// Device is a WireGuard device: a dataplane.Plane, with its Keys.
type Device struct {
	// Constant after New.
	fwd     *dataplane.Forwarder
	framing dataplane.Framing
	back    func()
	wall    func() time.Time
	log     *slog.Logger
	dev     *device.Device
	bind    *bind.Bind

	key   atomic.Pointer[keyPair] // replaced under mu, never changed
	ahead atomic.Int64            // see SetBack; never when there was no initiation

	// spawn guards closing and the counting up of wg. It is taken last.
	spawn   sync.Mutex
	closing bool
	wg      sync.WaitGroup // timers that are armed, goroutines that promote

	// mu guards the following and all that is said to be guarded by it in
	// peer and tunnel. It is taken before the locks of package dataplane and
	// wireguard-go's, and never on the packet path.
	mu      sync.Mutex
	closed  bool
	peers   map[cert.NodeID]*peer
	byKey   map[[32]byte]*peer
	parsing *tunnel // what ParseEndpoint returns during IpcSet
}

// New makes a device with a new key pair and starts it. The caller must Close
// it.
func New(cfg Config) (*Device, error) {
	d := &Device{
		fwd:  cfg.Forwarder,
		back: cfg.SetBack,
		wall: cfg.Wall,
		log:  cfg.Log,
		bind: cfg.Bind,

		peers: make(map[cert.NodeID]*peer),
		byKey: make(map[[32]byte]*peer),
	}
	if d.back == nil {
		d.back = func() {}
	}
	if d.wall == nil {
		d.wall = time.Now
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	mtu := cfg.MTU
	if mtu == 0 {
		var err error
		if mtu, err = d.fwd.Net().MTU(); err != nil {
			return nil, fmt.Errorf("ask MTU: %w", err)
		}
	}
	d.framing = dataplane.Framing{Overhead: messageHeader, Unit: paddingUnit, MTU: mtu}
	d.dev = device.NewDevice(inner{d.fwd, mtu}, outer{d.bind, d}, logger(d.log))
	d.dev.DisableSomeRoamingForBrokenMobileSemantics()
	if err := d.NewKey(); err != nil {
		d.Close()
		return nil, err
	}
	if err := d.dev.Up(); err != nil {
		d.Close()
		return nil, fmt.Errorf("start WireGuard: %w", err)
	}
	return d, nil
}

// keyPair is a key with its secret. It is never changed.
type keyPair struct {
	dataplane.Key
	private *ecdh.PrivateKey
}

// Key implements dataplane.Keys.
func (d *Device) Key() dataplane.Key { return d.key.Load().Key }

// PublicKey returns the device's WireGuard public key. It is new with each
// device, each NewKey and each Rekey.
func (d *Device) PublicKey() [32]byte { return d.Key().Public }

// NewKey implements dataplane.Keys.
func (d *Device) NewKey() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return dataplane.ErrClosed
	}
	for _, p := range d.peers {
		d.removeLocked(p)
	}
	return d.newKeyLocked()
}

// Rekey gives the device another key pair and keeps its peers, without what was
// agreed upon under the old one. They have to be told the key, and then SetPeer has
// to be called; what is sent to them until then waits, as far as WireGuard has room.
func (d *Device) Rekey() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return dataplane.ErrClosed
	}
	// WireGuard's peers are made anew: with some there, it can lock up for ever
	// when it changes its key in the middle of a handshake.
	for _, p := range d.peers {
		if p.next != nil {
			d.endTunnel(p.next)
			p.next = nil
		}
		d.endTunnel(p.cur)
		p.ResetBacklog()
	}
	err := d.newKeyLocked()
	for _, p := range d.peers {
		again := dataplane.Peer{Key: p.cur.key}
		rand.Read(again.Secret[:]) // until SetPeer says which
		if p.cur.firm() {
			again.Claim = dataplane.Proven
		}
		t, terr := d.makeTunnel(p, again, p.Addrs())
		if terr != nil {
			err = errors.Join(err, terr)
			d.removeLocked(p)
			continue
		}
		p.cur = t
		if p.Gated() {
			p.Release() // to wait with the others
		}
	}
	return err
}

func (d *Device) newKeyLocked() error {
	priv, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make WireGuard key: %w", err)
	}
	var boot [8]byte
	rand.Read(boot[:])
	if err := d.ipcSet("private_key=" + hex.EncodeToString(priv.Bytes()) + "\n"); err != nil {
		return err
	}
	d.ahead.Store(never)
	d.key.Store(&keyPair{dataplane.Key{Public: [32]byte(priv.PublicKey().Bytes()), Boot: binary.BigEndian.Uint64(boot[:])}, priv})
	return nil
}

// Close ends all tunnels, closes the Forwarder and returns when no goroutine of
// the device is left. A SendPackets that blocks delays it: close relay
// connections first. Further calls return at once.
func (d *Device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	for _, p := range d.peers {
		p.cur.stopTimer()
		if p.next != nil {
			p.next.stopTimer()
		}
	}
	d.mu.Unlock()

	d.spawn.Lock()
	d.closing = true
	d.spawn.Unlock()
	d.dev.Close()
	d.wg.Wait()
	return nil
}

// hire counts one more goroutine or timer, unless the device is closing.
func (d *Device) hire() bool {
	d.spawn.Lock()
	defer d.spawn.Unlock()
	if d.closing {
		return false
	}
	d.wg.Add(1)
	return true
}

// logger passes wireguard-go's two levels to slog. A line is formatted only
// when somebody listens.
func logger(log *slog.Logger) *device.Logger {
	return &device.Logger{
		Verbosef: func(format string, args ...any) {
			if log.Enabled(context.Background(), slog.LevelDebug) {
				log.Debug(fmt.Sprintf(format, args...))
			}
		},
		Errorf: func(format string, args ...any) {
			if log.Enabled(context.Background(), slog.LevelWarn) {
				log.Warn(fmt.Sprintf(format, args...))
			}
		},
	}
}

var (
	_ conn.Bind       = outer{}
	_ tun.Device      = inner{}
	_ dataplane.Plane = (*Device)(nil)
	_ dataplane.Keys  = (*Device)(nil)
)
