package tunnels

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sort"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/gather"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/path"
	"weft/overlay/internal/probe"
	"weft/overlay/portmap"
	"weft/overlay/status"
)

// UDP says how direct paths are made.
type UDP struct {
	Off        bool                        // not at all: everything goes through relays
	Endpoints  []netip.AddrPort            // where else the node can be reached, by its owner's word; at most 4
	NoPortMap  bool                        // never ask the gateway for a port mapping
	Interfaces func() ([]Interface, error) // the machine's addresses with their networks; nil asks the system
}

// Interface is an address of the machine.
type Interface struct {
	Name string
	Net  netip.Prefix // the address with its network's length
	MTU  int
}

type netsOf struct {
	list []netip.Prefix
	mtu  int
}

func newPaths(t *Table) *paths {
	ps := &paths{t: t, claims: map[bind.Way]cert.NodeID{}, tags: map[probe.Tag]*prober{}, buf: make([]byte, 0, maxProbe)}
	ps.byTag.Store(&proberMap{})
	u := t.cfg.UDP
	if u.Off || t.bind.Port() == 0 {
		if err := t.bind.ListenError(); err != nil && !u.Off {
			t.cfg.Health.Set(status.CodeUDPPortTaken, "no UDP socket ("+err.Error()+"): everything goes through relays")
		}
		return ps
	}
	cfg := gather.Config{
		Send: func(b []byte, to netip.AddrPort) error {
			return t.bind.SendTo(b, bind.Way{Kind: bind.Direct, Addr: to})
		},
		Ports:   func() (v4, v6 uint16) { return t.bind.Port(), t.bind.Port() },
		Changed: func(*gather.Snapshot) { t.do(func() { t.pathsChanged(false) }) },
		Refuse:  t.isOverlay,
		Manual:  u.Endpoints,
		Log:     t.log,
	}
	if !u.NoPortMap {
		cfg.PortMap = &portmap.Config{}
	}
	if u.Interfaces != nil {
		cfg.Interfaces = func() ([]gather.Local, error) {
			list, err := u.Interfaces()
			out := make([]gather.Local, 0, len(list))
			for _, i := range list {
				out = append(out, gather.Local{Name: i.Name, Addr: i.Net.Addr()})
			}
			return out, err
		}
	}
	ps.gatherer = gather.New(cfg)
	ps.nets = t.networks()
	return ps
}

// start begins gathering, close ends it and takes the port mapping back.
func (ps *paths) start() {
	if ps.gatherer != nil {
		ps.gatherer.Start()
	}
}

func (ps *paths) close() {
	if ps.gatherer != nil {
		ps.gatherer.Close()
	}
}

// Gather looks where this node can be reached, over its own sockets, and waits for
// that. It is an error where there are none.
func (t *Table) Gather(ctx context.Context) (*gather.Snapshot, error) {
	if t.paths.gatherer == nil {
		return nil, errors.New("this node has no UDP socket now")
	}
	t.paths.servers()
	return t.paths.gatherer.Check(ctx)
}

// servers has the relays of the configuration asked by STUN, the home first.
func (ps *paths) servers() {
	s, ok := ps.t.cfg.Held.Get()
	if ps.gatherer == nil || !ok {
		return
	}
	home := ps.t.home.Relay().ID
	var list []string
	for _, first := range []bool{true, false} {
		for _, rl := range s.Config.Relays {
			if (rl.ID == home) == first {
				list = append(list, rl.STUN...)
			}
		}
	}
	ps.gatherer.SetServers(list)
}

// local is what agents are told about this node.
func (ps *paths) local() path.Local {
	snap := ps.gatherer.Snapshot()
	return path.Local{Candidates: snap.Candidates, NAT: snap.NAT(), Nets: ps.nets.list, MTU: ps.nets.mtu}
}

// message is what peers are told.
func (ps *paths) message(callMe bool) intro.Message {
	snap := ps.gatherer.Snapshot()
	m := intro.Message{Type: intro.TypeCandidates, NAT4: string(snap.IPv4.Mapping), NAT6: string(snap.IPv6.Mapping)}
	if callMe {
		m.Type = intro.TypeCallMe
	}
	for _, c := range snap.Candidates {
		m.Candidates = append(m.Candidates, intro.Candidate{Addr: c.Addr, Kind: string(c.Type)})
	}
	return m
}

// isOverlay reports whether an address belongs to the overlay: it cannot be
// where a packet goes underneath.
func (t *Table) isOverlay(a netip.Addr) bool {
	s, ok := t.cfg.Held.Get()
	return ok && s.Contains(a)
}

// networks lists the networks of this machine, and the largest MTU.
func (t *Table) networks() (out netsOf) {
	list := t.cfg.UDP.Interfaces
	if list == nil {
		list = interfaces
	}
	all, err := list()
	if err != nil {
		t.log.Warn("list interfaces", "err", err)
	}
	for _, i := range all {
		if a := i.Net.Addr(); a.IsGlobalUnicast() && !t.isOverlay(a) {
			out.list = append(out.list, i.Net)
			out.mtu = max(out.mtu, i.MTU)
		}
	}
	sort.Slice(out.list, func(i, j int) bool { return out.list[i].Addr().Less(out.list[j].Addr()) })
	return out
}

func interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []Interface
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, Interface{Name: i.Name, Net: netip.PrefixFrom(p.Addr().Unmap(), p.Bits()), MTU: i.MTU})
			}
		}
	}
	return out, nil
}

// pathsWake looks whether the machine's addresses are other ones. A router may
// be, in any case.
func (t *Table) pathsWake() {
	ps := t.paths
	if ps.gatherer == nil {
		return
	}
	nets := t.networks()
	t.do(func() {
		moved := !slices.Equal(nets.list, ps.nets.list)
		ps.nets = nets
		ps.gatherer.Wake()
		if moved {
			t.pathsChanged(true)
			return
		}
		t.stirPaths(time.Now())
	})
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}
