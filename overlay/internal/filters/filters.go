// Package filters keeps the packet filters of all peers of a node. That of a peer
// outlives its tunnel, however that ends: a flow that pauses for longer still belongs
// to who began it when the tunnel is back. The filters of peers without a tunnel are
// bounded. Of one that has to go stays what was open to the peer (filter.Past), so that
// the one that comes after it takes no answer of a service for something that this node
// began. Past is kept by the peer's addresses, as flows are, and bounded too: what has
// no room is remembered as if it had been open to everybody.
//
// In user space connections end with the process. Those of the kernel go on, so
// what was open is on disk there before it opens, and the next daemon knows
// which connections are not its own.
//
// Nobody waits for the disk for longer than a moment (disk.go). The package knows no
// tunnels: it is told when one begins and ends.
package filters

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/state"
)

const (
	maxKept    = 256              // filters without a tunnel
	maxPasts   = 128              // peers in filters.json, and without a filter in memory
	useSpacing = 10 * time.Second // between writes because of a port that a peer has begun to use
)

// Table has the packet filters of all peers, from the first tunnel to the end
// of the process. Methods may be called from any goroutine.
type Table struct {
	log *slog.Logger

	mu sync.Mutex
	// mu guards the following.
	peers map[cert.NodeID]*keptFilter
	pasts []savedPast // of peers without a filter, the oldest first
	all   filter.Past // of those for whom there was no room
	turns int         // releases so far

	// Of a Net whose connections outlive the process; zero otherwise.
	outlives    bool
	epoch       string
	first, last uint16
	adoptUntil  int64 // on the clock of the filters
	disk        *disk
	written     []byte    // what is there; nil if it cannot be relied on
	nextUse     time.Time // no write before because of a port that a peer has begun to use
}

// keptFilter is a filter with what it was made from.
type keptFilter struct {
	*filter.Peer
	local, remote []netip.Addr
	released      int    // at which turn; 0: in use
	noted         uint32 // Used of what is on disk
}

// savedFilters is filters.json.
type savedFilters struct {
	Epoch string      `json:"epoch"`
	All   filter.Past `json:"all"`
	Peers []savedPast `json:"peers"`
}

// savedPast is what was open to the node that has, or had, these addresses.
type savedPast struct {
	IPv4 netip.Addr  `json:"ipv4"`
	IPv6 netip.Addr  `json:"ipv6"`
	Past filter.Past `json:"past"`
}

// share reports whether two nodes have an address in common.
func share(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(ip netip.Addr) bool { return ip.IsValid() && slices.Contains(b, ip) })
}

func New(log *slog.Logger) *Table {
	return &Table{log: log, peers: map[cert.NodeID]*keptFilter{}}
}

// Open reads what the daemon before this one has left, if its connections may
// still be there: they are while epoch is the same. first to last are the ports that
// the host gives to programs that ask for none; last is 0 where connections end with
// the process. now is the filters' time. Open comes before the first tunnel.
func (f *Table) Open(dir *state.Dir, epoch string, first, last uint16, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last == 0 {
		return
	}
	f.outlives = true
	if f.disk == nil { // a test may have another
		f.disk = newDisk(dir)
	}
	f.epoch, f.first, f.last = epoch, first, last
	var saved savedFilters
	if dir.LoadCache(state.FiltersFile, &saved) && saved.Epoch == f.epoch && f.epoch != "" {
		f.all, f.pasts = saved.All, saved.Peers
		f.adoptUntil = now + filter.ConnLife
	}
	if f.saveLocked(); f.written == nil {
		f.adoptUntil = 0 // the daemon before could neither write what it opened later, nor remove this
	}
}

// Of returns the filter of a peer for a tunnel between these addresses, with
// ports open to it, until Release.
func (f *Table) Of(id cert.NodeID, local, remote []netip.Addr, ports *filter.Ports) *filter.Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.peers[id]
	if k != nil && (!slices.Equal(k.local, local) || !slices.Equal(k.remote, remote)) {
		f.endLocked(id)
		k = nil
	}
	if k == nil {
		k = &keptFilter{Peer: filter.NewPeer(local, remote, nil), local: local, remote: remote}
		if f.outlives {
			k.Adopt(f.first, f.last, f.adoptUntil)
		}
		k.Recall(f.pastLocked(remote))
		f.peers[id] = k
	}
	k.released = 0
	f.setLocked([]Opening{{k.Peer, ports}})
	return k.Peer
}

// Opening is what is to be open to a peer.
type Opening struct {
	Filter *filter.Peer
	Ports  *filter.Ports
}

// Set opens to peers that have a tunnel what is said, and closes all else.
func (f *Table) Set(list []Opening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setLocked(list)
}

func (f *Table) setLocked(list []Opening) {
	var news []Opening
	for _, o := range list {
		if o.Filter.Remember(o.Ports) && f.outlives && !f.all.Covers(o.Filter.Past()) {
			news = append(news, o)
		} else {
			o.Filter.SetPorts(o.Ports)
		}
	}
	if len(news) > 0 {
		f.saveLocked() // before it is open
	}
	for _, o := range news {
		o.Filter.SetPorts(o.Ports)
	}
}

// Began reports whether a flow with a peer that this node began is alive, also
// when the tunnel in which it was has ended.
func (f *Table) Began(id cert.NodeID, now int64) bool {
	f.mu.Lock()
	k := f.peers[id]
	f.mu.Unlock()
	return k != nil && k.Began(now)
}

// Release says that the tunnel of a peer has ended.
func (f *Table) Release(id cert.NodeID, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.peers[id]
	if k == nil || k.released > 0 {
		return
	}
	f.turns++
	k.released = f.turns
	k.SetPorts(nil)
	released, oldest, idlest := 0, cert.NodeID{}, cert.NodeID{}
	for id, k := range f.peers {
		if k.released == 0 {
			continue
		}
		released++
		if o := f.peers[oldest]; o == nil || k.released < o.released {
			oldest = id
		}
	}
	if released <= maxKept {
		return
	}
	// Who has no flow of ours going loses nothing.
	for id, k := range f.peers {
		if o := f.peers[idlest]; k.released > 0 && (o == nil || k.released < o.released) && !k.Began(now) {
			idlest = id
		}
	}
	if f.peers[idlest] != nil {
		oldest = idlest
	}
	f.endLocked(oldest)
}

// endLocked gives up a filter but for what was open. No filter made after that
// adopts anything: it may come after this one.
func (f *Table) endLocked(id cert.NodeID) {
	k := f.peers[id]
	delete(f.peers, id)
	f.adoptUntil = 0
	past := pastOf(k)
	if f.all.Covers(past.Past) {
		return
	}
	for i := range f.pasts {
		if s := &f.pasts[i]; s.IPv4 == past.IPv4 && s.IPv6 == past.IPv6 {
			s.Past = s.Past.With(past.Past)
			return
		}
	}
	f.pasts = append(f.pasts, past)
	if len(f.pasts) > maxPasts {
		f.all = f.all.With(f.pasts[0].Past)
		f.pasts = slices.DeleteFunc(f.pasts, func(s savedPast) bool { return f.all.Covers(s.Past) })
	}
}

func pastOf(k *keptFilter) savedPast {
	s := savedPast{Past: k.Past()}
	for _, ip := range k.remote {
		if ip.Is4() {
			s.IPv4 = ip
		} else {
			s.IPv6 = ip
		}
	}
	return s
}

// pastLocked is what was open to whoever had one of these addresses.
func (f *Table) pastLocked(addrs []netip.Addr) filter.Past {
	past := f.all
	for i := range f.pasts {
		if s := &f.pasts[i]; share(addrs, []netip.Addr{s.IPv4, s.IPv6}) {
			past = past.With(s.Past)
		}
	}
	for _, k := range f.peers {
		if share(addrs, k.remote) {
			past = past.With(k.Past())
		}
	}
	return past
}

// Note writes what peers have begun to use, and what could not be written before,
// if there is such and it is time. It returns when to ask again, the zero time
// for any time.
func (f *Table) Note(now time.Time) (again time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.outlives {
		return time.Time{}
	}
	news := f.written == nil // it did not work the last time
	for _, k := range f.peers {
		news = news || k.Used() != k.noted
	}
	if news && now.Before(f.nextUse) {
		return f.nextUse
	}
	if news {
		f.nextUse = now.Add(useSpacing)
		f.saveLocked()
	}
	return time.Time{}
}

// Save writes what has changed.
func (f *Table) Save() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saveLocked()
}

// saveLocked writes what was open so far, if that is not what is on disk. What
// nobody may rely on is removed: the next daemon adopts nothing then.
func (f *Table) saveLocked() {
	if !f.outlives {
		return
	}
	list := slices.Clone(f.pasts)
	for _, k := range f.peers {
		k.noted = k.Used() // counted first: what comes meanwhile is news the next time
		list = append(list, pastOf(k))
	}
	list = slices.DeleteFunc(list, func(s savedPast) bool { return f.all.Covers(s.Past) })
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		if c := a.IPv4.Compare(b.IPv4); c != 0 {
			return c < 0
		}
		return a.IPv6.Less(b.IPv6)
	})
	for len(list) > maxPasts {
		f.all = f.all.With(list[0].Past)
		list = slices.DeleteFunc(list, func(s savedPast) bool { return f.all.Covers(s.Past) })
	}
	b, err := json.Marshal(savedFilters{f.epoch, f.all, list})
	if err == nil && bytes.Equal(b, f.written) {
		return
	}
	f.written = nil
	if err == nil {
		err = f.disk.put(b)
	}
	if err != nil {
		f.log.Warn("what is open to peers cannot be noted, connections will not outlive this daemon", "err", err)
		return
	}
	f.written = b
}

// Forgotten is told that the state directory was wiped.
func (f *Table) Forgotten() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written = nil
}
