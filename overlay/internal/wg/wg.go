// Package wg runs WireGuard: it is the only importer of wireguard-go's device
// package, and puts on top of it what an overlay of introductions needs.
//
// # Outwards
//
//	Config.Net -> inner.Read: destination -> peer, by an immutable table
//	    no peer: hold queue, Config.Miss; returned by a later Read (SetPeer)
//	    or answered with an ICMP unreachable (Fail)
//	    TCP is split by Config.Net to what the way to the peer carries
//	  -> flow noted (package filter), backlog bounded
//	  -> wireguard-go: encryption
//	  -> outer.Send: handshakes watched -> bind.Bind
//
// # Inwards
//
//	bind.Bind -> wireguard-go: decryption, source belongs to key
//	  -> inner.Write: source -> peer, package filter judges
//	  -> Config.Net
//
// # Peers
//
// A peer is made by SetPeer when it has been introduced and ends with
// RemovePeer. A WireGuard key and an overlay address belong to one NodeID only;
// of two that name the same key the one has it that holds it (see Claim).
// SetPeer with the key that the peer has replaces the preshared key in place;
// with another key the new tunnel is made first, and takes over the addresses
// in the moment in which its handshake succeeds. Until then what arrives through
// the old tunnel is accepted, and what is sent is held. When the handshake does
// not succeed in about 4 s the old tunnel stays.
//
// WireGuard tries a handshake every 5 s. At the start of a tunnel this package
// tries faster (about 0.5 and 1.5 s after the first), and only one side begins: of two
// initiations that cross, both are lost. The side with Initiate unset waits for
// the other, 1 s at most, and holds what it wants to send.
//
// # Bounds
//
// Hold queue: 32 packets or 64 KB for each of 256 destinations, 5 s. Backlog
// between Read and Send: 1 MB a peer by relay, 4 MB by UDP; when it is full Read
// waits up to 50 ms, or 500 ms, which is felt as backpressure by Config.Net, and
// then drops. Inwards see
// package bind. An inner packet is at most dataplane.MaxPacket bytes long.
//
// # Packet sizes
//
// How long a message may be depends on the peer's way out at the moment (package
// bind) and changes with it. Large TCP packets are split to what it carries by a
// Config.Net. Whatever else is longer goes by the relay, and
// once the way has been the same for 3 s it is answered, every 10 s at most, with
// "packet too big", so that its sender learns what would go directly.
//
// # Goroutines
//
// Those of wireguard-go (three for each processor, two for each peer, a few
// more). They sleep while nothing happens: no timer runs for an idle peer. The packet path of this package takes
// no lock and makes no garbage.
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
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/filter"

	"weft/overlay/limited"
)

// Pause is how long nothing goes out to a peer before Config.Stir is called
// again for it.
const Pause = time.Second

var (
	// ErrTaken refuses a WireGuard key or an overlay address that belongs to
	// another node.
	ErrTaken = errors.New("held by another node")

	// ErrKeyGone is returned by PairKey for a key pair that NewKey has replaced.
	ErrKeyGone = errors.New("this node has another WireGuard key by now")

	// ErrClosed is returned after Close.
	ErrClosed = errors.New("wireguard device is closed")
)

// Config configures New.
type Config struct {
	// Net is the inner network, a netstack.Net or a kernel interface. The
	// Device closes it.
	Net dataplane.Net

	// Bind carries the messages.
	Bind *bind.Bind

	// MTU of the inner network in bytes, for WireGuard's padding; 0 asks Net.
	MTU int

	// Miss is called once when the first packet for an address without a peer
	// is held, and again every 5 s while packets for it keep coming. It has
	// to end in SetPeer or Fail. It runs on the packet path: it must not
	// block and not call the Device.
	Miss func(dst netip.Addr)

	// Stir is called when a packet goes out to a peer after nothing did for
	// Pause: whoever looks after tunnels need not look at quiet ones. It runs
	// on the packet path, like Miss. May be nil.
	Stir func()

	// SetBack is called when a handshake initiation went out that peers may
	// ignore, because the machine's clock was set back (see Device.SetBack). It
	// is called like Stir, again with each further one, and may be nil.
	SetBack func()

	// Wall is the clock that WireGuard stamps initiations with: time.Now, which
	// nil stands for, but in tests.
	Wall func() time.Time

	// Log receives what WireGuard reports; nil discards.
	Log *slog.Logger
}

// Device is a WireGuard device. Its methods may be called from any goroutine,
// but not from Config.Miss and not from a Sender of the Bind.
type Device struct {
	// Constant after New.
	net   dataplane.Net
	mtu   int
	miss  func(netip.Addr)
	stir  func()
	back  func()
	wall  func() time.Time
	log   *slog.Logger
	dev   *device.Device
	bind  *bind.Bind
	epoch time.Time // zero of the filters' clock
	done  chan struct{}

	maxBacklog, maxBacklogUDP, packetCost int64

	table    atomic.Pointer[table]   // replaced under mu, never changed
	key      atomic.Pointer[keyPair] // the same
	ahead    atomic.Int64            // see SetBack; never when there was no initiation
	verdicts [filter.NumVerdicts]atomic.Uint64
	hold     hold

	// spawn guards closing and the counting up of wg. It is taken last.
	spawn   sync.Mutex
	closing bool
	wg      sync.WaitGroup // timers that are armed, goroutines that promote

	// mu guards the following and all that is said to be guarded by it in
	// peer and tunnel. It is taken before hold.mu and wireguard-go's locks,
	// and never on the packet path.
	mu      sync.Mutex
	closed  bool
	peers   map[cert.NodeID]*peer
	byKey   map[[32]byte]*peer
	byIP    map[netip.Addr]*peer
	parsing *tunnel // what ParseEndpoint returns during IpcSet
}

// New makes a device with a new key pair and starts it. The caller must Close
// it.
func New(cfg Config) (*Device, error) {
	d := &Device{
		net:   cfg.Net,
		mtu:   cfg.MTU,
		miss:  cfg.Miss,
		stir:  cfg.Stir,
		back:  cfg.SetBack,
		wall:  cfg.Wall,
		log:   cfg.Log,
		bind:  cfg.Bind,
		epoch: time.Now(),
		done:  make(chan struct{}),

		peers: make(map[cert.NodeID]*peer),
		byKey: make(map[[32]byte]*peer),
		byIP:  make(map[netip.Addr]*peer),
	}
	d.maxBacklog, d.maxBacklogUDP, d.packetCost = backlogBounds(limited.Memory())
	if d.miss == nil {
		d.miss = func(netip.Addr) {}
	}
	if d.stir == nil {
		d.stir = func() {}
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
	if d.mtu == 0 {
		mtu, err := cfg.Net.MTU()
		if err != nil {
			return nil, fmt.Errorf("ask MTU: %w", err)
		}
		d.mtu = mtu
	}
	d.table.Store(new(table))
	d.hold.init(d)
	cfg.Net.SetLimit(d.limit)
	d.dev = device.NewDevice(inner{d}, outer{d.bind, d}, logger(d.log))
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

// Key is what others know a device by.
type Key struct {
	Public [32]byte // of WireGuard
	Boot   uint64   // random for each key pair: a peer that is told another makes a new tunnel
}

// keyPair is a Key with its secret. It is never changed.
type keyPair struct {
	Key
	private *ecdh.PrivateKey
}

// Key returns the device's present key.
func (d *Device) Key() Key { return d.key.Load().Key }

// PublicKey returns the device's WireGuard public key. It is new with each
// device, each NewKey and each Rekey.
func (d *Device) PublicKey() [32]byte { return d.Key().Public }

// NewKey ends all tunnels and gives the device another key pair, for when it is
// to be another node: nobody takes a key from two.
func (d *Device) NewKey() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
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
		return ErrClosed
	}
	// WireGuard's peers are made anew: with some there, it can lock up for ever
	// when it changes its key in the middle of a handshake.
	for _, p := range d.peers {
		if p.next != nil {
			d.endTunnel(p.next)
			p.next = nil
		}
		d.endTunnel(p.cur)
		p.backlog.reset()
	}
	err := d.newKeyLocked()
	for _, p := range d.peers {
		again := Peer{Key: p.cur.key}
		rand.Read(again.PSK[:]) // until SetPeer says which
		if p.cur.firm() {
			again.Claim = Proven
		}
		t, terr := d.makeTunnel(p, again, p.ips)
		if terr != nil {
			err = errors.Join(err, terr)
			d.removeLocked(p)
			continue
		}
		p.cur = t
		if p.gated() {
			d.hold.release(p) // to wait with the others
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
	d.key.Store(&keyPair{Key{Public: [32]byte(priv.PublicKey().Bytes()), Boot: binary.BigEndian.Uint64(boot[:])}, priv})
	return nil
}

// Close ends all tunnels, closes Config.Net and returns when no goroutine of
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
	close(d.done)
	d.hold.close()
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

// now is the time of the filters: nanoseconds since New.
func (d *Device) now() int64 { return int64(time.Since(d.epoch)) }

// Now is the time to ask a filter.Peer about that was given to SetPeer.
func (d *Device) Now() int64 { return d.now() }

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

var _ conn.Bind = outer{}
var _ tun.Device = inner{}
