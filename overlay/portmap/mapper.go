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
	// lifetime is what is asked for; a gateway may give more or less.
	lifetime = time.Hour
	// minLife and maxLife bound what a gateway can make of it.
	minLife = 10 * time.Second
	maxLife = 24 * time.Hour
	// inUse is how long a Want counts.
	inUse = 10 * time.Minute
	// lookAfter is the age at which a Want has the mapping confirmed: a
	// gateway that restarted has forgotten it.
	lookAfter = 5 * time.Minute
	// retryAfter is when a gateway that gave no mapping is asked again, and
	// lostAfter one that gave one before: it may be starting up.
	retryAfter = 10 * time.Minute
	lostAfter  = time.Minute
	// maxAttempt bounds finding a mapping, maxRemove removing it.
	maxAttempt = 8 * time.Second
	maxRemove  = time.Second
)

// Mapper keeps one mapping. Its methods may be called from any goroutine.
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
	port    uint16    // wanted, 0: none
	wanted  time.Time // when last
	retry   time.Time // not asked again before, unless the network changes
	look    bool      // an attempt is to be made: a Want said so, or a Wake

	// Owned by the goroutine.
	mapping *mapping // nil: none
}

// mapping is what a gateway gave.
type mapping struct {
	kind     Kind
	gateway  netip.Addr
	self     netip.Addr
	port     uint16 // of this node
	external netip.AddrPort
	nonce    [12]byte // PCP: whose mapping it is
	service  *service // UPnP
	life     time.Duration
	made     time.Time // or renewed
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

// Want says that a mapping of this node's UDP port is of use for the next ten
// minutes. It returns at once; the answer comes by Changed. With port 0, no
// IPv4 socket, there is nothing to map.
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
	m.lookLocked()
}

// Wake says that the network may have changed: the gateway is looked up
// again, and a mapping made anew if one was wanted in the last ten minutes.
func (m *Mapper) Wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wanted.IsZero() {
		return
	}
	m.status.Tried = time.Time{} // so that the next Want asks
	m.lookLocked()
}

func (m *Mapper) lookLocked() {
	m.look = true
	m.status.Trying = m.started && m.port != 0 && time.Since(m.wanted) < inUse
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Status returns what is known.
func (m *Mapper) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Close removes the mapping and waits for that, at most a second. It may be
// called more than once.
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
			m.look = true
			m.mu.Unlock()
		}
		m.mu.Lock()
		look, port := m.look, m.port
		if time.Since(m.wanted) >= inUse {
			port = 0
		}
		m.look = false
		m.mu.Unlock()
		if look {
			m.lookAgain(port)
		}
	}
}

// lookAgain makes, confirms, moves or removes the mapping.
func (m *Mapper) lookAgain(port uint16) {
	if port == 0 {
		m.remove(m.ctx)
		m.mu.Lock()
		m.status.Trying, m.status.External, m.status.Useless, m.status.Expires = false, netip.AddrPort{}, false, time.Time{}
		if m.port != 0 {
			m.status.Tried = time.Time{} // the next Want asks at once
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
		old, m.mapping = nil, nil // of a network that is gone; nobody there to tell
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
			return // Close; a mapping there was is removed by the loop's end
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
		retry = lookAfter
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
	s.Trying = m.look && m.port != 0 // asked again meanwhile
	m.status, m.retry = s, now.Add(retry)
	m.mu.Unlock()
	m.changed()
}

// remove ends the mapping, within maxRemove.
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
