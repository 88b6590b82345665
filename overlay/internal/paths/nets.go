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

// UDP configures direct paths.
type UDP struct {
	Off        bool                        // no direct paths: everything goes through relays
	Endpoints  []netip.AddrPort            // addresses that the owner gave, at which the node can be reached; at most 4
	NoPortMap  bool                        // never ask the gateway for a port mapping
	Interfaces func() ([]Interface, error) // the machine's addresses with their networks; nil asks the system
}

// Interface is an address of the machine.
type Interface struct {
	Name string
	Net  netip.Prefix // the address with its network's length
	MTU  int
}

// netsOf holds the networks of this machine and the largest MTU.
type netsOf struct {
	list []netip.Prefix
	mtu  int
}

// New makes Paths. Without a UDP socket there are only relay connections; if the user has
// not asked for that, health reports it.
func New(cfg Config) *Paths {
	ps := &Paths{
		cfg: cfg, peers: map[cert.NodeID]*peer{}, claims: map[bind.Path]cert.NodeID{}, tags: map[probe.Tag]*prober{}, buf: make([]byte, 0, probe.MaxLen),
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

// newGatherer makes the gatherer of this node's candidates.
func (ps *Paths) newGatherer() *gather.Gatherer {
	u, b := ps.cfg.UDP, ps.cfg.Bind
	cfg := gather.Config{
		Send: func(pkt []byte, to netip.AddrPort) error {
			return b.SendTo(pkt, bind.Path{Kind: bind.Direct, Addr: to})
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

// Gather gathers candidates over the node's own sockets, and waits for that. It is an
// error if there are no sockets. Any goroutine may call it.
func (ps *Paths) Gather(ctx context.Context) (*gather.Snapshot, error) {
	if ps.gatherer == nil {
		return nil, errors.New("this node has no UDP socket now")
	}
	ps.servers()
	return ps.gatherer.Check(ctx)
}

// servers makes the gatherer ask the relays of the configuration, the home relay first.
func (ps *Paths) servers() {
	if s, ok := ps.cfg.Held.Get(); ok && ps.gatherer != nil {
		ps.gatherer.SetServers(s.STUN(ps.cfg.Home.Relay().ID))
	}
}

// AskServers sets the STUN servers to ask when a path is next wanted, or at once if there
// is a lane of a relay that was not asked before. Any goroutine may call it.
func (ps *Paths) AskServers(stun []string) {
	if ps.gatherer == nil {
		return
	}
	ps.gatherer.SetServers(stun)
	ps.cfg.Do(func() {
		for _, o := range ps.peers {
			if o.lane.unconfirmed {
				ps.gatherer.Want()
			}
		}
	})
}

// local returns what agents need to know about this node.
func (ps *Paths) local() path.Local {
	snap := ps.gatherer.Snapshot()
	return path.Local{Candidates: snap.Candidates, NAT: snap.NAT(), Nets: ps.nets.list, MTU: ps.nets.mtu}
}

// isOverlay reports whether an address belongs to the overlay, and so cannot be the
// address of a path.
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
			continue // it was just removed
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, Interface{Name: i.Name, Net: netip.PrefixFrom(p.Addr().Unmap(), p.Bits()), MTU: i.MTU})
			}
		}
	}
	return out, nil
}

// NetworkChanged checks whether the machine's addresses have changed; its router may have
// in any case. Any goroutine may call it.
func (ps *Paths) NetworkChanged() {
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
		ps.Resume(time.Now())
	})
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}
