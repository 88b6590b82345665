package wg

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/mono"
)

// peer is one node.
type peer struct {
	*dataplane.Entry // constant

	// Device.mu guards the following.
	cur  *tunnel // has the addresses
	next *tunnel // replaces cur once its handshake succeeds; or nil
}

// The pace of the first handshake, until wireguard-go's own of 5 s. The side that does
// not begin waits firstTurn, and begins then because the other's initiation may be lost.
const (
	firstRetry    = 500 * time.Millisecond
	firstTurn     = time.Second
	overtakenTurn = 100 * time.Millisecond
	nextRetry     = time.Second
	probeWait     = 200 * time.Millisecond
	maxTries      = 3
	tripMost      = 4 * time.Second
	giveUp        = 4 * time.Second // for a pending tunnel, longer after a long round trip; packets held for it live longer
)

// slowly returns wait, or one and a half round trips if that is longer: a second
// initiation before the answer to the first makes that answer useless.
func (t *tunnel) slowly(wait time.Duration) time.Duration {
	return max(wait, min(t.trip*3/2, tripMost))
}

// SetPeer implements dataplane.Plane; see the package comment for a new key.
func (d *Device) SetPeer(cfg dataplane.Peer) error {
	ips, err := cfg.Check()
	if err == nil && cfg.Key == [32]byte{} {
		err = errors.New("WireGuard key is zero")
	}
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
	p := d.peers[cfg.ID]
	if cfg.Key == d.PublicKey() {
		return fmt.Errorf("WireGuard key: it is this node's own: %w", dataplane.ErrTaken)
	}
	if err := d.fwd.Free(cfg.ID, ips); err != nil {
		return err
	}
	if holder := d.byKey[cfg.Key]; holder != nil && holder != p {
		return &dataplane.TakenError{
			What: "WireGuard key", Holder: holder.ID(),
			Yields: cfg.Claim > dataplane.Tentative && !holder.tunnelOf(cfg.Key).firm(),
		}
	}
	if p != nil && p.Endpoint() != cfg.Endpoint {
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
func (d *Device) addLocked(cfg dataplane.Peer, ips []netip.Addr) error {
	p := &peer{Entry: d.fwd.NewEntry(cfg.Endpoint, cfg.Filter, d.framing, nil)}
	t, err := d.makeTunnel(p, cfg, ips)
	if err != nil {
		return err
	}
	p.cur = t
	d.peers[p.ID()] = p
	p.Hold(&t.gate)
	p.SetAddrs(ips)
	d.begin(t, cfg.Initiate, firstTurn)
	if cfg.Initiate {
		// The handshake has started, so packets may wait in WireGuard.
		p.Release()
	}
	return nil
}

// updateLocked changes a peer whose tunnel stays.
func (d *Device) updateLocked(p *peer, cfg dataplane.Peer, ips []netip.Addr) error {
	if p.next != nil {
		d.endTunnel(p.next)
		p.next = nil
		p.Release()
	}
	p.cur.proven = p.cur.proven || cfg.Claim == dataplane.Proven
	p.cur.trip = cfg.Trip
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%x\nupdate_only=true\npreshared_key=%x\n", cfg.Key, cfg.Secret)
	d.moveLocked(p, ips, &b)
	if err := d.ipcSet(b.String()); err != nil {
		return err
	}
	p.SetFilter(cfg.Filter)
	// The caller's initiation may have overtaken its introduction. Then it was answered
	// under the old preshared key, which is useless. If no other comes soon, it is faster
	// to begin here than to wait for the caller to try again. If data have arrived since,
	// the answer was right, and the session must not be cut off.
	answered := p.cur.answered.Load()
	overtaken := mono.Now()-answered < int64(time.Second) && p.LastRx() < answered
	switch {
	case cfg.Initiate:
		d.begin(p.cur, true, 0)
	case overtaken:
		d.begin(p.cur, false, overtakenTurn)
	default:
		// WireGuard may ignore the caller's initiations, if its clock was set back since
		// the last one.
		d.begin(p.cur, false, firstTurn)
	}
	return nil
}

// replaceLocked makes a tunnel for a new key. If the old tunnel works, it stays until the
// new one does.
func (d *Device) replaceLocked(p *peer, cfg dataplane.Peer, ips []netip.Addr) error {
	p.SetFilter(cfg.Filter)
	if t := p.next; t != nil && t.key == cfg.Key {
		t.want = ips
		t.proven = t.proven || cfg.Claim == dataplane.Proven
		if err := d.ipcSet(fmt.Sprintf("public_key=%x\nupdate_only=true\npreshared_key=%x\n", cfg.Key, cfg.Secret)); err != nil {
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
		// The old tunnel never carried anything: there is no flow to preserve.
		d.removeLocked(p)
		return d.addLocked(cfg, ips)
	}
	t, err := d.makeTunnel(p, cfg, nil)
	if err != nil {
		p.Release()
		return err
	}
	t.pending.Store(true)
	t.want = ips
	p.next = t
	p.Hold(&t.gate)
	d.begin(t, cfg.Initiate, firstTurn)
	return nil
}

// takeOver moves a peer's addresses to its pending tunnel t, then sends the messages that
// were held for it, and ends the old tunnel.
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
		d.log.Warn("replace tunnel", "peer", p.ID(), "err", err)
		return
	}
	old := p.cur
	p.cur, p.next = t, nil
	p.ResetBacklog()
	d.moveLocked(p, t.want, nil)
	if err := d.bind.Send(held, t.Endpoint); err != nil {
		d.log.Warn("replace tunnel", "peer", p.ID(), "err", err)
	}
	d.endTunnel(old)
	if held[0][0] == messageResponse {
		t.responded.Store(true)
	} else {
		t.waiting.Store(false)
	}
	p.Release()
}

// moveLocked gives a peer other addresses. If b is not nil, it adds the lines of
// configuration that tell WireGuard.
func (d *Device) moveLocked(p *peer, ips []netip.Addr, b *strings.Builder) {
	had := p.Addrs()
	if slices.Equal(had, ips) {
		return
	}
	if b != nil {
		for _, ip := range had {
			if !slices.Contains(ips, ip) {
				fmt.Fprintf(b, "allowed_ip=-%s\n", netip.PrefixFrom(ip, ip.BitLen()))
			}
		}
		for _, ip := range ips {
			fmt.Fprintf(b, "allowed_ip=%s\n", netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	p.SetAddrs(ips)
}

// RemovePeer implements dataplane.Plane.
func (d *Device) RemovePeer(id cert.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	if p == nil || d.closed {
		return
	}
	d.removeLocked(p)
	p.DropHeld()
}

func (d *Device) removeLocked(p *peer) {
	delete(d.peers, p.ID())
	p.Remove()
	if p.next != nil {
		d.endTunnel(p.next)
	}
	d.endTunnel(p.cur)
}

// makeTunnel makes a WireGuard peer. With endpoint= in the same operation, wireguard-go
// never lets a packet change the endpoint.
func (d *Device) makeTunnel(p *peer, cfg dataplane.Peer, ips []netip.Addr) (*tunnel, error) {
	t := &tunnel{Endpoint: p.Endpoint(), d: d, peer: p, key: cfg.Key, proven: cfg.Claim == dataplane.Proven, trip: cfg.Trip}
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%x\npreshared_key=%x\nendpoint=%s\n", cfg.Key, cfg.Secret, p.ID())
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

// ipcSet configures wireguard-go. Its errors never contain keys.
func (d *Device) ipcSet(s string) error {
	if err := d.dev.IpcSet(s); err != nil {
		return fmt.Errorf("configure WireGuard: %w", err)
	}
	return nil
}

// begin requests a handshake. This side sends an initiation now (initiate), or else after
// turn unless the other side has. The caller holds Device.mu.
func (d *Device) begin(t *tunnel, initiate bool, turn time.Duration) {
	t.stopTimer()
	t.tries, t.begun = 0, time.Now()
	t.probed = false
	t.responded.Store(false)
	t.waiting.Store(true)
	if initiate {
		d.initiate(t)
		t.startTimer(t.slowly(firstRetry))
	} else {
		t.startTimer(t.slowly(turn))
	}
}

// initiate sends a handshake initiation now. wireguard-go refuses a second one within 5 s
// unless the keys are expired, so initiate expires them: sending then waits for the round
// trip of the handshake, but receiving continues. The caller holds Device.mu.
func (d *Device) initiate(t *tunnel) {
	wp := d.dev.LookupPeer(device.NoisePublicKey(t.key))
	if wp == nil {
		return
	}
	t.tries++
	wp.ExpireCurrentKeypairs()
	wp.SendHandshakeInitiation(false)
}

// startTimer sets the timer of the handshake. The caller holds Device.mu.
func (t *tunnel) startTimer(wait time.Duration) {
	if !t.d.hire() {
		return
	}
	// Two sides that wait for each other must not keep beginning at the same time.
	wait = max(wait, time.Millisecond)
	wait += rand.N(wait / 3)
	t.armed++
	nth := t.armed
	t.timer = time.AfterFunc(wait, func() {
		defer t.d.wg.Done()
		t.d.tick(t, nth)
	})
}

// stopTimer stops the timer. The caller holds Device.mu.
func (t *tunnel) stopTimer() {
	if t.timer != nil && t.timer.Stop() {
		t.d.wg.Done()
	}
	t.timer = nil
	t.armed++ // so that one that has fired and waits for the lock does nothing
}

// tick is the timer's function while a tunnel waits for its handshake. nth is the number
// of the timer.
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
		// Our answer may have completed a session in which we have sent nothing yet. If
		// so, a keepalive is sent in it.
		t.probed = true
		if wp := d.dev.LookupPeer(device.NoisePublicKey(t.key)); wp != nil {
			wp.SendKeepalive()
		}
		t.startTimer(t.slowly(probeWait))
	case t.tries < maxTries:
		d.initiate(t)
		if p.next == nil && p.Gated() {
			p.Release()
		}
		if t.tries < maxTries {
			t.startTimer(t.slowly(nextRetry))
		} else if p.next == t {
			t.startTimer(max(time.Until(t.begun.Add(giveUp)), t.slowly(0)))
		}
	case p.next == t && t.pending.Load():
		d.log.Info("the new tunnel does not answer; the old one stays", "peer", p.ID())
		d.endTunnel(t)
		p.next = nil
		p.Release()
	}
}
