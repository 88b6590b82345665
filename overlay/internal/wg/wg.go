// Package wg runs WireGuard. It is the only importer of wireguard-go's device package,
// and makes it a data plane (package dataplane) for introduced peers.
//
// # How a packet travels
//
//	dataplane.Forwarder.Read -> inner.Read -> wireguard-go: encryption
//	  -> outer.Send: handshakes watched -> dataplane.Entry.Send -> bind.Bind
//
//	bind.Bind -> wireguard-go: decryption, source belongs to key
//	  -> inner.Write -> dataplane.Forwarder.Write
//
// # Peers
//
// SetPeer makes a peer after its introduction, and RemovePeer ends it. A WireGuard key
// and an overlay address belong to one NodeID only. If two nodes name the same key, the
// one that has proven it gets it (see dataplane.Claim). SetPeer with the peer's present
// key replaces the preshared key in place. With another key it first makes a new tunnel,
// which gets the addresses at the moment when its handshake succeeds. Until then packets
// from the old tunnel are accepted, and packets to the peer are held. If the handshake
// does not succeed within about 4 s, the old tunnel stays.
//
// WireGuard tries a handshake every 5 s. At the start of a tunnel this package tries more
// often (about 0.5 and 1.5 s after the first), and only one side begins, because two
// initiations that cross are both lost. The side with Initiate unset waits for the other,
// 1 s at most, and holds its packets. If answers are known to be slow
// (dataplane.Peer.Trip) it waits longer: a second initiation before the answer to the
// first makes that answer useless.
//
// # Goroutines
//
// The goroutines are wireguard-go's: three for each processor, two for each peer, and a
// few more. They sleep while nothing happens: an idle peer has no timer. The packet path
// of this package takes no lock and allocates nothing.
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
	// Forwarder connects the Device to the host's network. The Device reads from it and
	// closes it.
	Forwarder *dataplane.Forwarder

	// Bind carries the messages.
	Bind *bind.Bind

	// MTU of the inner network in bytes, for WireGuard's padding; 0: ask the Forwarder's
	// Net.
	MTU int

	// SetBack is called for each handshake initiation that peers may ignore because the
	// machine's clock was set back (see Device.SetBack). It runs on the packet path, like
	// dataplane.Config.Resumed. May be nil.
	SetBack func()

	// Wall is the clock of WireGuard's time stamps; nil is time.Now. Tests set it.
	Wall func() time.Time

	// Log gets the messages of WireGuard; nil discards them.
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

	key   atomic.Pointer[keyPair] // immutable; replaced with mu held
	ahead atomic.Int64            // aheadNow at the last initiation; never if there was none

	// spawn guards closing and calls of wg.Add. It is taken last.
	spawn   sync.Mutex
	closing bool
	wg      sync.WaitGroup // timers that are set, goroutines of promote

	// mu guards the following and the fields of peer and tunnel that say so. It is taken
	// before the locks of package dataplane and wireguard-go's, and never on the packet
	// path.
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

// keyPair is a public key with its private key. It is immutable.
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

// Rekey gives the device another key pair. It keeps its peers, but without sessions. The
// new key must be sent to each peer, and then SetPeer called for it. Until then packets
// to the peer wait, as far as WireGuard has room.
func (d *Device) Rekey() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return dataplane.ErrClosed
	}
	// All WireGuard peers are removed and made again, because wireguard-go can deadlock
	// when it has peers and changes its key in the middle of a handshake.
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
		rand.Read(again.Secret[:]) // until SetPeer sets it
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
			p.Release() // these wait in WireGuard, like later ones
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

// Close ends all tunnels, closes the Forwarder and waits for all goroutines of the
// device. A SendPackets that blocks delays it, so close relay connections first. Further
// calls return at once.
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

// hire counts one more goroutine or timer, and returns false if the device is closing.
func (d *Device) hire() bool {
	d.spawn.Lock()
	defer d.spawn.Unlock()
	if d.closing {
		return false
	}
	d.wg.Add(1)
	return true
}

// logger passes wireguard-go's two levels to slog. It formats a message only if its level
// is enabled.
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
