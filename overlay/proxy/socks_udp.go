package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"weft/overlay/limited"
	"weft/overlay/status"
)

// Bounds of one UDP association.
const (
	maxFlows  = 256              // destinations at once; the longest idle one is evicted
	flowIdle  = 60 * time.Second // a flow without a datagram in either direction
	flowQueue = 16               // datagrams waiting for a destination's dial
	maxUDP    = 65535
)

// association is one UDP ASSOCIATE: a UDP socket on loopback for one client, which
// lives as long as the TCP connection that requested it.
type association struct {
	p      *Proxy
	ctx    context.Context
	conn   *net.UDPConn
	client netip.Addr // the only address that may send
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the following
	from  netip.AddrPort
	flows map[string]*flow // by host:port as the client wrote it
	// By other addresses from which a flow received datagrams: what the client sends
	// there leaves from the flow's own port, as from one socket of the client.
	others map[netip.AddrPort]*flow
}

// flow is one destination.
type flow struct {
	key  string
	send chan datagram // owned by the flow after the send
	last time.Time     // guarded by association.mu
	end  context.CancelFunc
}

// datagram is from the client; it goes to the flow's destination if to is zero.
type datagram struct {
	to      netip.AddrPort
	payload []byte
}

// anyPort is a connection over the overlay that can receive from all ports of its
// remote address (package netstack). A kernel socket cannot.
type anyPort interface {
	AcceptAllPorts()
	ReadFromAddrPort([]byte) (int, netip.AddrPort, error)
	WriteToAddrPort([]byte, netip.AddrPort) (int, error)
}

// associate serves c until it is closed.
func (p *Proxy) associate(c net.Conn, req socksRequest) {
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		writeReply(c, socksFailed, nil)
		return
	}
	remote, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		writeReply(c, socksFailed, nil)
		return
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr().Unmap(), 0)))
	if err != nil {
		writeReply(c, socksFailed, nil)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &association{p: p, ctx: ctx, conn: conn, client: remote.Addr().Unmap(), flows: map[string]*flow{}, others: map[netip.AddrPort]*flow{}}
	// A client that knows its port names it; for others the first datagram decides.
	if ip, err := netip.ParseAddr(req.host); err == nil && req.port != 0 && (ip.IsUnspecified() || ip == a.client) {
		a.from = netip.AddrPortFrom(a.client, req.port)
	}
	if writeReply(c, socksOK, conn.LocalAddr()) == nil {
		a.wg.Go(func() {
			defer c.Close() // the association needs the connection
			defer limited.Survive(p.cfg.Log, "proxy", nil)
			a.read()
		})
		a.wg.Go(a.expire)
		io.Copy(io.Discard, c) // until the client closes it
	}
	cancel()
	conn.Close()
	a.wg.Wait()
}

// read passes the client's datagrams to their flows.
func (a *association) read() {
	buf := make([]byte, maxUDP)
	for {
		n, from, err := a.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error about a datagram to the client
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if from.Addr() != a.client {
			continue
		}
		host, port, payload, ok := parseUDP(buf[:n])
		if !ok {
			continue
		}
		a.mu.Lock()
		if !a.from.IsValid() {
			a.from = from
		}
		mine := a.from == from
		a.mu.Unlock()
		if mine {
			a.deliver(host, port, bytes.Clone(payload))
		}
	}
}

// parseUDP parses the header of RFC 1928 section 7. Fragments are refused.
func parseUDP(b []byte) (host string, port uint16, payload []byte, ok bool) {
	if len(b) < 4 || b[0] != 0 || b[1] != 0 || b[2] != 0 {
		return "", 0, nil, false
	}
	r := bytes.NewReader(b[4:])
	host, port, err := readSOCKSAddr(r, b[3])
	if err != nil {
		return "", 0, nil, false
	}
	return host, port, b[len(b)-r.Len():], true
}

// deliver queues a datagram for its destination and makes the flow if there is none.
func (a *association) deliver(host string, port uint16, payload []byte) {
	key := host + "\x00" + string([]byte{byte(port >> 8), byte(port)})
	a.mu.Lock()
	defer a.mu.Unlock()
	f, out := a.flows[key], datagram{payload: payload}
	if ip, err := netip.ParseAddr(host); f == nil && err == nil {
		to := netip.AddrPortFrom(ip.Unmap(), port)
		if f = a.others[to]; f != nil {
			out.to = to
		}
	}
	if f == nil {
		if len(a.flows) >= maxFlows {
			a.dropOldestLocked()
		}
		ctx, end := context.WithCancel(a.ctx)
		f = &flow{key: key, send: make(chan datagram, flowQueue), end: end}
		a.flows[key] = f
		a.wg.Go(func() {
			defer a.drop(f)
			defer limited.Survive(a.p.cfg.Log, "proxy", nil)
			a.run(ctx, f, host, port)
		})
	}
	f.last = time.Now()
	select {
	case f.send <- out:
	default: // the destination is slower than the client: drop it
	}
}

func (a *association) dropOldestLocked() {
	var oldest *flow
	for _, f := range a.flows {
		if oldest == nil || f.last.Before(oldest.last) {
			oldest = f
		}
	}
	a.forgetLocked(oldest)
}

// forgetLocked ends a flow.
func (a *association) forgetLocked(f *flow) {
	f.end()
	if a.flows[f.key] == f {
		delete(a.flows, f.key)
	}
	for from, of := range a.others {
		if of == f {
			delete(a.others, from)
		}
	}
}

// received records the source of a flow's datagram and returns the client's address.
func (a *association) received(f *flow, from netip.AddrPort) (client netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f.last = time.Now()
	if from.IsValid() && a.flows[f.key] == f && len(a.others) < maxFlows {
		a.others[from] = f
	}
	return a.from
}

func (a *association) drop(f *flow) {
	a.mu.Lock()
	a.forgetLocked(f)
	a.mu.Unlock()
}

// run dials the destination and copies both ways until the flow ends.
func (a *association) run(ctx context.Context, f *flow, host string, port uint16) {
	remote, err := a.p.dial(ctx, "udp", host, port)
	if err != nil {
		a.p.cfg.Log.Debug("proxy: udp", "host", host, "port", port, "err", err)
		return
	}
	defer remote.Close()
	stop := context.AfterFunc(ctx, func() { remote.Close() })
	defer stop()

	asked, _ := netip.ParseAddrPort(remote.RemoteAddr().String())
	all, _ := remote.(anyPort)
	if all != nil {
		all.AcceptAllPorts()
	}
	wait := limited.Go(func() {
		defer f.end()
		// The header contains the datagram's source.
		buf := appendSOCKSAddr([]byte{0, 0, 0}, remote.RemoteAddr())
		head := len(buf)
		buf = append(buf, make([]byte, maxUDP)...)
		for {
			var n int
			var err error
			from := asked
			if all != nil {
				n, from, err = all.ReadFromAddrPort(buf[head:])
			} else {
				n, err = remote.Read(buf[head:])
			}
			if err != nil {
				if kindOf(err) == status.KindRefused && ctx.Err() == nil {
					continue
				}
				return
			}
			other := netip.AddrPort{}
			if from != asked {
				other = from
			}
			// The address is the same, so only the last two bytes of the header differ.
			binary.BigEndian.PutUint16(buf[head-2:], from.Port())
			a.conn.WriteToUDPAddrPort(buf[:head+n], a.received(f, other))
		}
	})
	for {
		select {
		case d := <-f.send:
			if d.to.IsValid() && all != nil {
				all.WriteToAddrPort(d.payload, d.to)
			} else {
				remote.Write(d.payload)
			}
		case <-ctx.Done():
			remote.Close()
			wait()
			return
		}
	}
}

// expire ends idle flows.
func (a *association) expire() {
	t := time.NewTicker(flowIdle / 4)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			a.mu.Lock()
			for _, f := range a.flows {
				if now.Sub(f.last) >= flowIdle {
					a.forgetLocked(f)
				}
			}
			a.mu.Unlock()
		case <-a.ctx.Done():
			return
		}
	}
}
