package wg

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/mono"
)

// Peer is what an introduction yields.
type Peer struct {
	ID    cert.NodeID
	Key   [32]byte     // the node's WireGuard public key
	Claim              // how far it is known that it is the node's
	PSK   [32]byte     // preshared key of the pair, not zero
	IPs   []netip.Addr // certified overlay addresses

	Endpoint *bind.Endpoint
	Filter   *filter.Peer // may be kept over RemovePeer, with its flows

	// Initiate says that this node begins the handshake. It is set on the
	// side that called.
	Initiate bool
}

// peer is one node.
type peer struct {
	// Constant.
	id cert.NodeID
	ep *bind.Endpoint

	filter atomic.Pointer[filter.Peer]
	gate   atomic.Pointer[tunnel] // what is sent waits for this; changes under hold.mu

	backlog backlog
	sending atomic.Int32 // calls of Bind.Send that run

	rxBytes, txBytes     atomic.Uint64
	rxPackets, txPackets atomic.Uint64
	refused              atomic.Uint64 // packets that the filter dropped
	lastRx, lastTx       atomic.Int64  // by mono.Now; 0: never
	lastIn, stirred      atomic.Int64
	lastHandshake        atomic.Int64 // wall clock, unix nanoseconds: for people
	tooLongAt            atomic.Int64 // when a packet was last answered for being too long

	// Device.mu guards the following.
	ips  []netip.Addr // sorted
	cur  *tunnel      // has the addresses
	next *tunnel      // is to replace cur once its handshake succeeds, or nil
}

func (p *peer) gated() bool { return p.gate.Load() != nil }

// The pace of the first handshake, until wireguard-go's own 5 s take over. The
// side that does not begin waits firstTurn in case the other's initiation was
// lost.
const (
	firstRetry    = 500 * time.Millisecond
	firstTurn     = time.Second
	overtakenTurn = 100 * time.Millisecond
	nextRetry     = time.Second
	probeWait     = 200 * time.Millisecond
	maxTries      = 3
	giveUp        = 4 * time.Second // of a pending tunnel; what is held for it lives longer
)

// SetPeer makes a node a peer, or brings a peer up to date; see the package
// comment for a new key. It returns a *TakenError if the key or an address is
// held by another node, plain ErrTaken if the key is this device's own, and then
// changes nothing.
func (d *Device) SetPeer(cfg Peer) error {
	ips, err := check(&cfg)
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

// check validates a Peer and returns its addresses, sorted.
func check(cfg *Peer) ([]netip.Addr, error) {
	switch {
	case cfg.Endpoint == nil || cfg.Filter == nil:
		return nil, errors.New("endpoint or filter is missing")
	case cfg.Endpoint.ID() != cfg.ID:
		return nil, errors.New("endpoint belongs to another node")
	case cfg.Key == [32]byte{}:
		return nil, errors.New("WireGuard key is zero")
	case cfg.PSK == [32]byte{}:
		return nil, errors.New("preshared key is zero")
	case len(cfg.IPs) == 0:
		return nil, errors.New("no overlay address")
	}
	ips := slices.Clone(cfg.IPs)
	for _, ip := range ips {
		if !ip.IsValid() || ip.Zone() != "" || !isUnicast(ip) {
			return nil, fmt.Errorf("%v is not an overlay address", ip)
		}
	}
	sort.Slice(ips, func(i, j int) bool { return ips[i].Less(ips[j]) })
	return slices.Compact(ips), nil
}

func (d *Device) setPeerLocked(cfg Peer, ips []netip.Addr) error {
	if d.closed {
		return ErrClosed
	}
	p := d.peers[cfg.ID]
	if cfg.Key == d.PublicKey() {
		return fmt.Errorf("WireGuard key: it is this node's own: %w", ErrTaken)
	}
	for _, ip := range ips {
		if holder := d.byIP[ip]; holder != nil && holder != p {
			return &TakenError{What: "address " + ip.String(), Holder: holder.id}
		}
	}
	if holder := d.byKey[cfg.Key]; holder != nil && holder != p {
		return &TakenError{
			What: "WireGuard key", Holder: holder.id,
			Yields: cfg.Claim > Tentative && !holder.tunnelOf(cfg.Key).firm(),
		}
	}
	if p != nil && p.ep != cfg.Endpoint {
		d.removeLocked(p)
		p = nil
	}
	switch {
	case p == nil:
		return d.addLocked(cfg, ips)
	case p.cur.key == cfg.Key:
		return d.updateLocked(p, cfg, ips)
	default:
		return d.replaceLocked(p, cfg, ips)
	}
}

// addLocked makes a peer with its first tunnel.
func (d *Device) addLocked(cfg Peer, ips []netip.Addr) error {
	p := &peer{id: cfg.ID, ep: cfg.Endpoint, ips: ips}
	p.backlog.init()
	p.filter.Store(cfg.Filter)
	t, err := d.makeTunnel(p, cfg, ips)
	if err != nil {
		return err
	}
	p.cur = t
	p.gate.Store(t)
	d.peers[p.id] = p
	for _, ip := range ips {
		d.byIP[ip] = p
	}
	d.table.Store(newTable(d.byIP))
	d.begin(t, cfg.Initiate, firstTurn)
	if cfg.Initiate {
		// The handshake is on its way, so packets may wait in WireGuard.
		d.hold.release(p)
	}
	return nil
}

// updateLocked changes a peer whose tunnel stays.
func (d *Device) updateLocked(p *peer, cfg Peer, ips []netip.Addr) error {
	if p.next != nil {
		d.endTunnel(p.next)
		p.next = nil
		d.hold.release(p)
	}
	p.cur.proven = p.cur.proven || cfg.Claim == Proven
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%x\nupdate_only=true\npreshared_key=%x\n", cfg.Key, cfg.PSK)
	d.moveLocked(p, ips, &b)
	if err := d.ipcSet(b.String()); err != nil {
		return err
	}
	p.filter.Store(cfg.Filter)
	// The caller's initiation may have overtaken its introduction. Then it was
	// answered under the old preshared key, in vain. If no other comes soon it is
	// faster to begin from here than to wait for the caller to try again.
	// Data since then say that it was not in vain, and must not be cut off.
	answered := p.cur.answered.Load()
	overtaken := mono.Now()-answered < int64(time.Second) && p.lastRx.Load() < answered
	switch {
	case cfg.Initiate:
		d.begin(p.cur, true, 0)
	case overtaken:
		d.begin(p.cur, false, overtakenTurn)
	default:
		// The caller's initiations may be ignored here, when its clock was set
		// back since the last one.
		d.begin(p.cur, false, firstTurn)
	}
	return nil
}

// replaceLocked makes a tunnel for a new key. If the old one works it stays
// until the new one does.
func (d *Device) replaceLocked(p *peer, cfg Peer, ips []netip.Addr) error {
	p.filter.Store(cfg.Filter)
	if t := p.next; t != nil && t.key == cfg.Key {
		t.want = ips
		t.proven = t.proven || cfg.Claim == Proven
		if err := d.ipcSet(fmt.Sprintf("public_key=%x\nupdate_only=true\npreshared_key=%x\n", cfg.Key, cfg.PSK)); err != nil {
			return err
		}
		if cfg.Initiate {
			d.begin(t, true, 0)
		}
		return nil
	}
	if p.next != nil {
		d.endTunnel(p.next)
		p.next = nil
	}
	if p.cur.session.Load() == 0 {
		// Nothing ever went through the old tunnel: there is nothing to keep.
		d.removeLocked(p)
		return d.addLocked(cfg, ips)
	}
	t, err := d.makeTunnel(p, cfg, nil)
	if err != nil {
		d.hold.release(p)
		return err
	}
	t.pending.Store(true)
	t.want = ips
	p.next = t
	d.hold.gate(p, t)
	d.begin(t, cfg.Initiate, firstTurn)
	return nil
}

// takeOver moves a peer's addresses to its pending tunnel t, then sends the
// messages that were held back for it, and ends the old tunnel.
func (d *Device) takeOver(t *tunnel, held [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := t.peer
	if d.closed || p.next != t {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%x\nupdate_only=true\n", t.key)
	for _, ip := range t.want {
		fmt.Fprintf(&b, "allowed_ip=%s\n", netip.PrefixFrom(ip, ip.BitLen()))
	}
	if err := d.ipcSet(b.String()); err != nil {
		d.log.Warn("replace tunnel", "peer", p.id, "err", err)
		return
	}
	old := p.cur
	p.cur, p.next = t, nil
	p.backlog.reset()
	d.moveLocked(p, t.want, nil)
	if err := d.bind.Send(held, t.Endpoint); err != nil {
		d.log.Warn("replace tunnel", "peer", p.id, "err", err)
	}
	d.endTunnel(old)
	if held[0][0] == messageResponse {
		t.responded.Store(true)
	} else {
		t.waiting.Store(false)
	}
	d.hold.release(p)
}

// moveLocked gives a peer other addresses, and says so to WireGuard by lines of
// configuration added to b if it is not nil.
func (d *Device) moveLocked(p *peer, ips []netip.Addr, b *strings.Builder) {
	if slices.Equal(p.ips, ips) {
		return
	}
	for _, ip := range p.ips {
		if !slices.Contains(ips, ip) {
			delete(d.byIP, ip)
			if b != nil {
				fmt.Fprintf(b, "allowed_ip=-%s\n", netip.PrefixFrom(ip, ip.BitLen()))
			}
		}
	}
	for _, ip := range ips {
		d.byIP[ip] = p
		if b != nil {
			fmt.Fprintf(b, "allowed_ip=%s\n", netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	p.ips = ips
	d.table.Store(newTable(d.byIP))
	if !p.gated() {
		d.hold.release(p)
	}
}

// RemovePeer ends the tunnels of a node at once. Packets to its addresses miss
// from then on. It may wait for a SendPackets that blocks.
func (d *Device) RemovePeer(id cert.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	if p == nil || d.closed {
		return
	}
	d.removeLocked(p)
	if p.gated() {
		for _, ip := range p.ips {
			d.hold.drop(ip)
		}
	}
}

func (d *Device) removeLocked(p *peer) {
	delete(d.peers, p.id)
	for _, ip := range p.ips {
		delete(d.byIP, ip)
	}
	d.table.Store(newTable(d.byIP))
	if p.next != nil {
		d.endTunnel(p.next)
	}
	d.endTunnel(p.cur)
}

// makeTunnel makes a WireGuard peer. With endpoint= in the same operation
// wireguard-go never lets a packet change the endpoint.
func (d *Device) makeTunnel(p *peer, cfg Peer, ips []netip.Addr) (*tunnel, error) {
	t := &tunnel{Endpoint: p.ep, d: d, peer: p, key: cfg.Key, proven: cfg.Claim == Proven}
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%x\npreshared_key=%x\nendpoint=%s\n", cfg.Key, cfg.PSK, p.id)
	for _, ip := range ips {
		fmt.Fprintf(&b, "allowed_ip=%s\n", netip.PrefixFrom(ip, ip.BitLen()))
	}
	d.parsing = t
	err := d.ipcSet(b.String())
	d.parsing = nil
	if err != nil {
		d.dev.RemovePeer(device.NoisePublicKey(cfg.Key))
		return nil, err
	}
	d.byKey[t.key] = p
	return t, nil
}

func (d *Device) endTunnel(t *tunnel) {
	t.stopTimer()
	delete(d.byKey, t.key)
	d.dev.RemovePeer(device.NoisePublicKey(t.key))
}

// ipcSet configures wireguard-go. Its errors never hold key material.
func (d *Device) ipcSet(s string) error {
	if err := d.dev.IpcSet(s); err != nil {
		return fmt.Errorf("configure WireGuard: %w", err)
	}
	return nil
}

// begin asks for a handshake: by this side now, or by the other, with this side
// taking its turn later. The caller holds Device.mu.
func (d *Device) begin(t *tunnel, initiate bool, turn time.Duration) {
	t.stopTimer()
	t.tries, t.begun = 0, time.Now()
	t.probed = false
	t.responded.Store(false)
	t.waiting.Store(true)
	if initiate {
		d.initiate(t)
		t.startTimer(firstRetry)
	} else {
		t.startTimer(turn)
	}
}

// initiate sends a handshake initiation now. wireguard-go refuses a second one
// within 5 s unless the keys are expired, which holds back what is sent for the
// round trip of the handshake but receives on. The caller holds Device.mu.
func (d *Device) initiate(t *tunnel) {
	wp := d.dev.LookupPeer(device.NoisePublicKey(t.key))
	if wp == nil {
		return
	}
	t.tries++
	wp.ExpireCurrentKeypairs()
	wp.SendHandshakeInitiation(false)
}

// startTimer arms the timer of the handshake. The caller holds Device.mu.
func (t *tunnel) startTimer(wait time.Duration) {
	if !t.d.hire() {
		return
	}
	// Two sides that both wait for the other must not begin at the same time
	// again and again.
	wait = max(wait, time.Millisecond)
	wait += rand.N(wait / 3)
	t.armed++
	nth := t.armed
	t.timer = time.AfterFunc(wait, func() {
		defer t.d.wg.Done()
		t.d.tick(t, nth)
	})
}

// stopTimer disarms the timer. The caller holds Device.mu.
func (t *tunnel) stopTimer() {
	if t.timer != nil && t.timer.Stop() {
		t.d.wg.Done()
	}
	t.timer = nil
	t.armed++ // for one that has fired but waits for the lock
}

// tick runs while a tunnel waits for its handshake.
func (d *Device) tick(t *tunnel, nth uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := t.peer
	if d.closed || nth != t.armed || p.cur != t && p.next != t {
		return
	}
	t.timer = nil
	switch {
	case !t.waiting.Load():
	case t.responded.Load() && !t.probed:
		// Our answer may have brought up a session in which we had nothing to
		// say yet. If so, a keepalive goes out in it.
		t.probed = true
		if wp := d.dev.LookupPeer(device.NoisePublicKey(t.key)); wp != nil {
			wp.SendKeepalive()
		}
		t.startTimer(probeWait)
	case t.tries < maxTries:
		d.initiate(t)
		if p.next == nil && p.gated() {
			d.hold.release(p)
		}
		if t.tries < maxTries {
			t.startTimer(nextRetry)
		} else if p.next == t {
			t.startTimer(time.Until(t.begun.Add(giveUp)))
		}
	case p.next == t && t.pending.Load():
		d.log.Info("new tunnel does not answer, the old one stays", "peer", p.id)
		d.endTunnel(t)
		p.next = nil
		d.hold.release(p)
	}
}

// Stats are the counters of one peer. Bytes and packets are inner ones.
type Stats struct {
	ID                   cert.NodeID
	Key                  [32]byte
	IPs                  []netip.Addr
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
	Refused              uint64 // packets of the peer that the filter dropped

	// Zero if it never happened; see mono.Time. LastHandshake is when the first message
	// went out under new session keys, by the wall clock of then. LastIn is LastRx with what the filter
	// dropped. Stirred is when data began to go out that have not paused since, or
	// not for long and without an answer.
	LastHandshake, LastRx, LastTx, LastIn, Stirred time.Time
}

// Stats returns the counters of a peer; ok is false if there is none.
func (d *Device) Stats(id cert.NodeID) (s Stats, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	if p == nil {
		return Stats{}, false
	}
	return p.stats(), true
}

// Each returns the counters of all peers, ordered by NodeID.
func (d *Device) Each() []Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Stats, 0, len(d.peers))
	for p := range maps.Values(d.peers) {
		all = append(all, p.stats())
	}
	sort.Slice(all, func(i, j int) bool { return string(all[i].ID[:]) < string(all[j].ID[:]) })
	return all
}

// Verdicts returns how often each verdict refused a packet; Malformed also
// counts those whose source no peer holds.
func (d *Device) Verdicts() (n [filter.NumVerdicts]uint64) {
	for i := range n {
		n[i] = d.verdicts[i].Load()
	}
	return n
}

func (p *peer) stats() Stats {
	var handshake time.Time
	if ns := p.lastHandshake.Load(); ns != 0 {
		handshake = time.Unix(0, ns)
	}
	// lastTx is read before stirred, so that no burst looks older than it is.
	return Stats{
		ID: p.id, Key: p.cur.key, IPs: slices.Clone(p.ips),
		RxBytes: p.rxBytes.Load(), TxBytes: p.txBytes.Load(),
		RxPackets: p.rxPackets.Load(), TxPackets: p.txPackets.Load(),
		Refused:       p.refused.Load(),
		LastHandshake: handshake, LastRx: mono.Time(p.lastRx.Load()), LastTx: mono.Time(p.lastTx.Load()),
		LastIn: mono.Time(p.lastIn.Load()), Stirred: mono.Time(p.stirred.Load()),
	}
}
