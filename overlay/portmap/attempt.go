package portmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"
)

// sends are the times of the requests by UDP. giveUp ends the wait for the last reply.
// After preferUPnP a UPnP mapping is used even if PCP and NAT-PMP, which are simpler
// and faster, have not been refused yet.
var sends = [...]time.Duration{0, 250 * time.Millisecond, 750 * time.Millisecond, 1500 * time.Millisecond}

const (
	giveUp     = 2500 * time.Millisecond
	preferUPnP = 700 * time.Millisecond
	// maxLocations bounds the UPnP descriptions that are fetched.
	maxLocations = 3
)

var errSilent = errors.New("the gateway answers neither PCP, NAT-PMP nor UPnP")

// attempt is one attempt to get, renew or remove a mapping. It blocks; ctx bounds it.
type attempt struct {
	cfg     *Config
	log     *slog.Logger
	gateway netip.Addr
	self    netip.Addr
	port    uint16

	conn   net.PacketConn
	buf    [1536]byte
	nonce  [12]byte
	wanted netip.AddrPort // external address and port to ask for again
}

// run returns a mapping. It renews old, if not nil, where possible, and replaces it
// otherwise.
func (a *attempt) run(ctx context.Context, old *mapping) (*mapping, error) {
	if err := a.open(ctx); err != nil {
		return nil, err
	}
	defer a.conn.Close()
	a.nonce = newNonce()
	if old != nil {
		a.nonce, a.wanted = old.nonce, old.external
	}
	if old != nil && old.kind == KindUPnP {
		if m, err := a.mapUPnP(ctx, old.service); err == nil {
			return m, nil
		}
	}
	return a.find(ctx, old)
}

func (a *attempt) open(ctx context.Context) error {
	conn, err := a.cfg.Listen(a.self)
	if err != nil {
		return fmt.Errorf("open a socket to the gateway: %w", err)
	}
	a.conn = conn
	context.AfterFunc(ctx, func() { conn.Close() })
	return nil
}

// find asks with all three protocols and returns the best mapping.
func (a *attempt) find(ctx context.Context, old *mapping) (*mapping, error) {
	var (
		start     = time.Now()
		sent      int
		noPCP     bool // refused, or an unsupported version
		noNATPMP  bool
		addr      netip.Addr // NAT-PMP sends it separately from the port
		mapped    answer
		locations []string
		refused   error
	)
	if old != nil { // do not ask with protocols that failed before
		noPCP, noNATPMP = old.kind == KindNATPMP, old.kind == KindPCP
	}
	for {
		since := time.Since(start)
		// Ask with the other one of PCP and NAT-PMP after the first was silent once.
		if sent < len(sends) && since >= sends[sent] {
			a.ask(!noPCP, !noNATPMP && (noPCP || sent > 0), sent)
			sent++
			continue
		}
		pmpOver := noPCP && noNATPMP
		if since >= giveUp || len(locations) > 0 && (pmpOver || since >= preferUPnP) {
			break
		}
		until := giveUp
		if sent < len(sends) {
			until = sends[sent]
		}
		if len(locations) > 0 {
			until = min(until, preferUPnP)
		}
		pkt, from, ok := a.read(ctx, start.Add(until))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !ok {
			continue
		}
		if from.Port() != pmpPort {
			if l, ok := parseSSDP(pkt); ok && len(locations) < maxLocations && !slices.Contains(locations, l) {
				if _, err := a.url(l); err == nil {
					locations = append(locations, l)
				}
			}
			continue
		}
		if w, err := parsePCPMap(pkt, a.nonce, a.port); err == nil {
			if w.err == nil {
				var m *mapping
				if m, w.err = a.made(w.kind, w.external, w.life); w.err == nil {
					return m, nil
				}
			}
			noPCP, refused = true, w.err
			continue
		} else if errors.Is(err, errVersion) && !noPCP && !noNATPMP {
			noPCP = true
			a.ask(false, true, sent)
		}
		w, err := parseNATPMP(pkt, a.port)
		switch {
		case errors.Is(err, errVersion):
			// A NAT-PMP gateway was asked with PCP; or the reverse, and PCP sends a
			// reply of its own.
		case err != nil || noNATPMP:
		case w.err != nil:
			noPCP, noNATPMP, refused = true, true, w.err
		case w.addr:
			addr = w.external.Addr()
		default:
			mapped = w
		}
		if addr.IsValid() && mapped.life > 0 {
			m, err := a.made(KindNATPMP, netip.AddrPortFrom(addr, mapped.external.Port()), mapped.life)
			if err == nil {
				return m, nil
			}
			noPCP, noNATPMP, refused = true, true, err
			mapped = answer{}
		}
	}
	for _, l := range locations {
		m, err := a.viaUPnP(ctx, l)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		refused = err
	}
	if refused == nil {
		refused = errSilent
	}
	return nil, refused
}

// ask sends one round of requests. A failed send counts as no reply.
func (a *attempt) ask(pcp, natpmp bool, nth int) {
	var b [pcpMapLen]byte
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.gateway, pmpPort))
	if pcp {
		want := a.wanted
		if !want.IsValid() {
			want = netip.AddrPortFrom(netip.IPv4Unspecified(), a.port)
		}
		a.conn.WriteTo(appendPCPMap(b[:0], a.self, a.nonce, a.port, want, lifetime), to)
	}
	if natpmp {
		port := a.wanted.Port()
		if port == 0 {
			port = a.port
		}
		a.conn.WriteTo(appendNATPMPAddr(b[:0]), to)
		a.conn.WriteTo(appendNATPMPMap(b[:0], a.port, port, lifetime), to)
	}
	if nth > 2 {
		return
	}
	for _, q := range searches {
		a.conn.WriteTo(q, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.gateway, ssdpPort)))
		if nth > 0 { // some gateways answer only this one
			a.conn.WriteTo(q, net.UDPAddrFromAddrPort(ssdpGroup))
		}
	}
}

// read returns the gateway's next datagram, until the given time.
func (a *attempt) read(ctx context.Context, until time.Time) (pkt []byte, from netip.AddrPort, ok bool) {
	a.conn.SetReadDeadline(until)
	for ctx.Err() == nil {
		n, addr, err := a.conn.ReadFrom(a.buf[:])
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || errors.Is(err, net.ErrClosed) || !time.Now().Before(until) {
				return nil, from, false
			}
			continue // for example an ICMP error about a request
		}
		u, isUDP := addr.(*net.UDPAddr)
		if !isUDP || u.AddrPort().Addr().Unmap() != a.gateway {
			continue
		}
		return a.buf[:n], u.AddrPort(), true
	}
	return nil, from, false
}

// made checks the mapping that a gateway reports.
func (a *attempt) made(kind Kind, external netip.AddrPort, life time.Duration) (*mapping, error) {
	ip := external.Addr().Unmap()
	if !ip.Is4() || !ip.IsGlobalUnicast() || external.Port() == 0 || life <= 0 {
		return nil, fmt.Errorf("the gateway gave no usable external address (%s, %s)", kind, external)
	}
	return &mapping{
		kind: kind, gateway: a.gateway, self: a.self, port: a.port, nonce: a.nonce,
		external: netip.AddrPortFrom(ip, external.Port()), life: clampLife(life),
	}, nil
}

// remove tells the gateway that the mapping is no longer needed.
func (a *attempt) remove(ctx context.Context, m *mapping) error {
	if m.kind == KindUPnP {
		return a.deleteUPnP(ctx, m.service, m.external.Port())
	}
	if err := a.open(ctx); err != nil {
		return err
	}
	defer a.conn.Close()
	var b []byte
	if m.kind == KindPCP {
		b = appendPCPMap(nil, m.self, m.nonce, m.port, netip.AddrPort{}, 0)
	} else {
		b = appendNATPMPMap(nil, m.port, 0, 0)
	}
	for range 3 {
		if _, err := a.conn.WriteTo(b, net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.gateway, pmpPort))); err != nil {
			return err
		}
		until := time.Now().Add(maxRemove / 3)
		for time.Now().Before(until) {
			pkt, from, ok := a.read(ctx, until)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !ok || from.Port() != pmpPort {
				continue
			}
			w, err := parsePCPMap(pkt, m.nonce, m.port)
			if m.kind == KindNATPMP {
				w, err = parseNATPMP(pkt, m.port)
			}
			if err == nil && !w.addr && w.life == 0 {
				return w.err
			}
		}
	}
	return errSilent
}
