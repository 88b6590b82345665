package portmap

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// lifetime is the requested one; a gateway may grant more or less.
	lifetime = time.Hour
	// minLife and maxLife bound the granted lifetime.
	minLife = 10 * time.Second
	maxLife = 24 * time.Hour
	// inUse is how long a Want is valid.
	inUse = 10 * time.Minute
	// confirmAfter is the age at which a Want confirms the mapping: a gateway that
	// restarted has lost it.
	confirmAfter = 5 * time.Minute
	// retryAfter is the delay before asking a gateway again that gave no mapping;
	// lostAfter is the delay for one that gave one before, since it may be restarting.
	retryAfter = 10 * time.Minute
	lostAfter  = time.Minute
	// maxAttempt bounds an attempt to get a mapping, maxRemove its removal.
	maxAttempt = 8 * time.Second
	maxRemove  = time.Second
)

// Mapper maintains one mapping. Its methods may be called from any goroutine.
type Mapper struct {
	cfg  Config
	log  *slog.Logger
	kick chan struct{} // capacity 1

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu sync.Mutex
	// mu guards the following. It is never held while calling out.
	started bool
	status  Status
	port    uint16    // wanted port, 0: none
	wanted  time.Time // time of the last Want
	retry   time.Time // no attempt before that, unless the network changes
	due     bool      // an attempt is due, after a Want or a Wake

	// Owned by the goroutine.
	mapping *mapping // nil: none
}

// mapping is a mapping that a gateway granted.
type mapping struct {
	kind     Kind
	gateway  netip.Addr
	self     netip.Addr
	port     uint16 // this node's port
	external netip.AddrPort
	nonce    [12]byte // PCP: identifies the owner of the mapping
	service  *service // UPnP
	life     time.Duration
	made     time.Time // when it was made or renewed
}

// New makes a Mapper. It starts nothing.
func New(cfg Config) *Mapper {
	if cfg.Gateway == nil {
		cfg.Gateway = DefaultGateway
	}
	if cfg.Listen == nil {
		cfg.Listen = func(self netip.Addr) (net.PacketConn, error) {
			return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(self, 0)))
		}
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp4", addr.String())
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mapper{cfg: cfg, log: cfg.Log, kick: make(chan struct{}, 1)}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// Start starts the goroutine, which sleeps until Want.
func (m *Mapper) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started && m.ctx.Err() == nil {
		m.started = true
		m.wg.Go(m.loop)
	}
}

// Want says that a mapping of this node's UDP port is needed for the next ten minutes.
// It returns at once; Changed reports the result. Port 0 means that there is no IPv4
// socket, so nothing is mapped.
func (m *Mapper) Want(port uint16) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	other := m.port != port
	m.port, m.wanted = port, now
	switch {
	case m.status.Trying && !other:
		return
	case port == 0:
		m.status.Tried, m.status.Err = now, "this node has no IPv4 socket"
		if !other {
			return
		}
	case m.status.Tried.IsZero() || other:
	case now.After(m.retry):
	default:
		return
	}
	m.dueLocked()
}

// Wake says that the network may have changed: the gateway is looked up again, and a
// new mapping is made if one was wanted in the last ten minutes.
func (m *Mapper) Wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wanted.IsZero() {
		return
	}
	m.status.Tried = time.Time{} // so that the next Want makes an attempt
	m.dueLocked()
}

func (m *Mapper) dueLocked() {
	m.due = true
	m.status.Trying = m.started && m.port != 0 && time.Since(m.wanted) < inUse
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Status returns the current status.
func (m *Mapper) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Close removes the mapping and waits for that, at most a second. It may be called more
// than once.
func (m *Mapper) Close() error {
	m.mu.Lock()
	m.stop()
	m.mu.Unlock()
	m.wg.Wait()
	return nil
}

func (m *Mapper) loop() {
	defer m.remove(context.Background())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var fire <-chan time.Time
		if m.mapping != nil {
			timer.Reset(time.Until(m.mapping.made.Add(m.mapping.life / 2)))
			fire = timer.C
		}
		select {
		case <-m.ctx.Done():
			return
		case <-m.kick:
		case <-fire:
			m.mu.Lock()
			m.due = true
			m.mu.Unlock()
		}
		m.mu.Lock()
		look, port := m.due, m.port
		if time.Since(m.wanted) >= inUse {
			port = 0
		}
		m.due = false
		m.mu.Unlock()
		if look {
			m.update(port)
		}
	}
}

// update makes, confirms, moves or removes the mapping.
func (m *Mapper) update(port uint16) {
	if port == 0 {
		m.remove(m.ctx)
		m.mu.Lock()
		m.status.Trying, m.status.External, m.status.Useless, m.status.Expires = false, netip.AddrPort{}, false, time.Time{}
		if m.port != 0 {
			m.status.Tried = time.Time{} // the next Want makes an attempt at once
		}
		m.mu.Unlock()
		m.changed()
		return
	}
	gw, self, err := m.cfg.Gateway()
	if err == nil {
		gw, self = gw.Unmap(), self.Unmap()
		err = askable(gw, self)
	}
	old := m.mapping
	if old != nil && (err != nil || old.gateway != gw || old.self != self) {
		old, m.mapping = nil, nil // it belongs to a network that is gone
	}
	if old != nil && old.port != port {
		m.remove(m.ctx)
		old = nil
	}
	var got *mapping
	if err == nil {
		ctx, cancel := context.WithTimeout(m.ctx, maxAttempt)
		a := attempt{cfg: &m.cfg, log: m.log, gateway: gw, self: self, port: port}
		got, err = a.run(ctx, old)
		cancel()
		if m.ctx.Err() != nil && got == nil {
			return // closed: the end of loop removes an existing mapping
		}
	}
	now := time.Now()
	s, retry := Status{Gateway: gw, Tried: now}, retryAfter
	if old != nil {
		retry = lostAfter
	}
	switch {
	case got != nil:
		got.made = now
		retry = confirmAfter
		s.Kind, s.External, s.Useless, s.Expires = got.kind, got.external, !public(got.external.Addr()), now.Add(got.life)
		if old == nil || old.external != got.external {
			m.log.Info("port mapping", "by", got.kind, "external", got.external, "behind_another_nat", s.Useless)
		}
	default:
		s.Err = err.Error()
		m.log.Debug("no port mapping", "gateway", gw, "err", err)
	}
	m.mapping = got
	m.mu.Lock()
	s.Trying = m.due && m.port != 0 // due again meanwhile
	m.status, m.retry = s, now.Add(retry)
	m.mu.Unlock()
	m.changed()
}

// remove deletes the mapping, within maxRemove.
func (m *Mapper) remove(ctx context.Context) {
	old := m.mapping
	if old == nil {
		return
	}
	m.mapping = nil
	ctx, cancel := context.WithTimeout(ctx, maxRemove)
	defer cancel()
	a := attempt{cfg: &m.cfg, log: m.log, gateway: old.gateway, self: old.self, port: old.port}
	if err := a.remove(ctx, old); err != nil {
		m.log.Debug("remove port mapping", "external", old.external, "err", err)
	}
}

func (m *Mapper) changed() {
	if m.cfg.Changed != nil {
		m.cfg.Changed(m.Status())
	}
}

func newNonce() (n [12]byte) {
	rand.Read(n[:])
	return n
}

func clampLife(d time.Duration) time.Duration { return min(max(d, minLife), maxLife) }
