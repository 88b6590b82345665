package dataplane

import (
	"net/netip"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/filter"
	"weft/overlay/limited"
)

// Config configures New.
type Config struct {
	// Net is the host's network. The Forwarder closes it.
	Net Net

	// Miss is called when the first packet for an address without a peer is held, and
	// again every 5 s while packets for it keep coming. It must lead to Entry.SetAddrs or
	// Fail. It runs on the packet path: it must not block, or call the Forwarder or a
	// plane. May be nil.
	Miss func(dst netip.Addr)

	// Resumed is called when a packet is sent to a peer after a pause of at least Pause, so
	// that the owner of tunnels need not check quiet ones. It runs on the packet path,
	// like Miss. May be nil.
	Resumed func()

	// Opens says that other programs open connections through Net, with a TCP of their own.
	// Packets that do so are kept for a while, to be sent once more to a peer that has
	// restarted (Again).
	Opens bool

	// Lull is called, on a goroutine of its own, once traffic of at least 4 MB has
	// stopped for 10 s, so that memory can be given back. It is not called after Close.
	// May be nil.
	Lull func()
}

// Forwarder connects the planes of a node with the host's network. Its methods may be
// called from any goroutine, but not from Config.Miss.
type Forwarder struct {
	// Constant after New.
	net         Net
	miss        func(netip.Addr)
	resumedFunc func()
	epoch       time.Time // zero of the filters' clock
	done        chan struct{}

	maxBacklog, maxBacklogUDP, packetCost int64

	table    atomic.Pointer[table] // immutable; replaced with mu held
	verdicts [filter.NumVerdicts]atomic.Uint64
	hold     hold
	opened   opened
	lull     lull
	closing  sync.Once

	// mu guards the following and Entry.ips. It is taken after the locks of
	// planes and before hold.mu, and never on the packet path.
	mu    sync.Mutex
	peers map[cert.NodeID]*Entry
	byIP  map[netip.Addr]*Entry
}

// New makes a Forwarder without peers. A plane must call Read until Close.
func New(cfg Config) *Forwarder {
	f := &Forwarder{
		net:         cfg.Net,
		miss:        cfg.Miss,
		resumedFunc: cfg.Resumed,
		epoch:       time.Now(),
		done:        make(chan struct{}),

		peers: make(map[cert.NodeID]*Entry),
		byIP:  make(map[netip.Addr]*Entry),
	}
	f.maxBacklog, f.maxBacklogUDP, f.packetCost = backlogBounds(limited.Memory())
	if f.miss == nil {
		f.miss = func(netip.Addr) {}
	}
	if f.resumedFunc == nil {
		f.resumedFunc = func() {}
	}
	f.lull.tell = func() {
		if cfg.Lull != nil && !f.closed() {
			cfg.Lull()
		}
	}
	f.table.Store(new(table))
	f.hold.init(f)
	if cfg.Opens {
		f.opened.init()
	}
	f.net.SetLimit(f.limit)
	return f
}

// Net returns the host's network.
func (f *Forwarder) Net() Net { return f.net }

// Close closes the Net, which ends Read, and drops held packets. Close the planes before,
// or their Read fails. Further calls return nil.
func (f *Forwarder) Close() (err error) {
	f.closing.Do(func() {
		close(f.done)
		f.hold.close()
		err = f.net.Close()
	})
	return err
}

func (f *Forwarder) closed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// Now returns the time for filters: nanoseconds since New.
func (f *Forwarder) Now() int64 { return int64(time.Since(f.epoch)) }

// Free returns a *TakenError if one of the addresses belongs to another node.
func (f *Forwarder) Free(id cert.NodeID, ips []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ip := range ips {
		if e := f.byIP[ip]; e != nil && e.id != id {
			return &TakenError{What: "address " + ip.String(), Holder: e.id}
		}
	}
	return nil
}

// Stats returns the counters of a peer; ok is false if there is none.
func (f *Forwarder) Stats(id cert.NodeID) (s Stats, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.peers[id]
	if e == nil {
		return Stats{}, false
	}
	return e.statsLocked(), true
}

// Each returns the counters of all peers, ordered by NodeID.
func (f *Forwarder) Each() []Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]Stats, 0, len(f.peers))
	for _, e := range f.peers {
		all = append(all, e.statsLocked())
	}
	sort.Slice(all, func(i, j int) bool { return string(all[i].ID[:]) < string(all[j].ID[:]) })
	return all
}

// Verdicts returns how often each verdict refused a packet; Malformed also counts packets
// whose source belongs to no peer.
func (f *Forwarder) Verdicts() (n [filter.NumVerdicts]uint64) {
	for i := range n {
		n[i] = f.verdicts[i].Load()
	}
	return n
}
