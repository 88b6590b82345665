package paths

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

// netsOf are the networks of this machine, and the largest MTU.
type netsOf struct {
	list []netip.Prefix
	mtu  int
}

// New makes the ways of all tunnels. Without a UDP socket there are none but the relay;
// if that was not asked for, the health says so.
func New(cfg Config) *Paths {
	ps := &Paths{
		cfg: cfg, peers: map[cert.NodeID]*peer{}, claims: map[bind.Way]cert.NodeID{}, tags: map[probe.Tag]*prober{}, buf: make([]byte, 0, probe.MaxLen),
	}
	ps.byTag.Store(&proberMap{})
	switch err := cfg.Bind.ListenError(); {
	case cfg.UDP.Off:
	case cfg.Bind.Port() != 0:
		ps.gatherer = ps.newGatherer()
		ps.nets = ps.networks()
	case err != nil:
		cfg.Health.Set(status.CodeUDPPortTaken, "no UDP socket ("+err.Error()+"): everything goes through relays")
	}
	return ps
}

// newGatherer makes what finds out where this node can be reached.
func (ps *Paths) newGatherer() *gather.Gatherer {
	u, b := ps.cfg.UDP, ps.cfg.Bind
	cfg := gather.Config{
		Send: func(pkt []byte, to netip.AddrPort) error {
			return b.SendTo(pkt, bind.Way{Kind: bind.Direct, Addr: to})
		},
		Ports:   func() (v4, v6 uint16) { return b.Port(), b.Port() },
		Changed: func(*gather.Snapshot) { ps.cfg.Do(func() { ps.changed(false) }) },
		Refuse:  ps.isOverlay,
		Manual:  u.Endpoints,
		Log:     ps.cfg.Log,
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
	return gather.New(cfg)
}

// Gather looks where this node can be reached, over its own sockets, and waits for
// that. It is an error where there are none. Any goroutine may call it.
func (ps *Paths) Gather(ctx context.Context) (*gather.Snapshot, error) {
	if ps.gatherer == nil {
		return nil, errors.New("this node has no UDP socket now")
	}
	ps.servers()
	return ps.gatherer.Check(ctx)
}

// servers has the relays of the configuration asked by STUN, the home first.
func (ps *Paths) servers() {
	if s, ok := ps.cfg.Held.Get(); ok && ps.gatherer != nil {
		ps.gatherer.SetServers(s.STUN(ps.cfg.Home.Relay().ID))
	}
}

// AskServers has other STUN servers asked when a path is next wanted, and at once if
// there is a lane whose relay was not among those of before. Any goroutine may call it.
func (ps *Paths) AskServers(stun []string) {
	if ps.gatherer == nil {
		return
	}
	ps.gatherer.SetServers(stun)
	ps.cfg.Do(func() {
		for _, o := range ps.peers {
			if o.lane.unheard {
				ps.gatherer.Want()
			}
		}
	})
}

// local is what agents are told about this node.
func (ps *Paths) local() path.Local {
	snap := ps.gatherer.Snapshot()
	return path.Local{Candidates: snap.Candidates, NAT: snap.NAT(), Nets: ps.nets.list, MTU: ps.nets.mtu}
}

// isOverlay reports whether an address belongs to the overlay: it cannot be
// where a packet goes underneath.
func (ps *Paths) isOverlay(a netip.Addr) bool {
	s, ok := ps.cfg.Held.Get()
	return ok && s.Contains(a)
}

// networks lists the machine's networks.
func (ps *Paths) networks() (out netsOf) {
	list := ps.cfg.UDP.Interfaces
	if list == nil {
		list = interfaces
	}
	all, err := list()
	if err != nil {
		ps.cfg.Log.Warn("list interfaces", "err", err)
	}
	for _, i := range all {
		if a := i.Net.Addr(); a.IsGlobalUnicast() && !ps.isOverlay(a) {
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

// WorldChanged looks whether the machine's addresses are other ones. A router may
// be, in any case. Any goroutine may call it.
func (ps *Paths) WorldChanged() {
	if ps.gatherer == nil {
		return
	}
	nets := ps.networks()
	ps.cfg.Do(func() {
		moved := !slices.Equal(nets.list, ps.nets.list)
		ps.nets = nets
		ps.gatherer.Wake()
		if moved {
			ps.changed(true)
			return
		}
		ps.Stir(time.Now())
	})
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}
