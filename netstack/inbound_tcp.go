package netstack

// TCP from peers: SYN -> handleSYN applies the bounds -> acceptTCP asks Inbound and
// dials the local program -> handshake with the peer -> splice copies both ways. The
// local dial comes first, so that a port where nothing listens answers with an RST, as
// if the peer had asked the program itself.

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"weft/netstack/loopback"
	"weft/overlay/limited"
)

type inboundTCP struct {
	// Constant after initInboundTCP.
	forwarder *tcp.Forwarder
	opening   *quota // handshakes in progress
	open      *quota // all connections

	dropped atomic.Uint64 // SYNs beyond a bound

	// mu guards the following.
	mu  sync.Mutex
	ids map[stack.TransportEndpointID]struct{} // handshakes in progress
}

func (n *Net) initInboundTCP() {
	in := &n.tcpIn
	in.opening = newQuota(maxOpening, perPort)
	in.open = newQuota(n.memory.most(limited.ToFiles(n.maxInbound)), 0)
	in.ids = make(map[stack.TransportEndpointID]struct{})
	// The forwarder's own bound does not distinguish peers, so it is set out of reach.
	n.refusals = limited.Alarm{Log: n.log, Code: "connections", Health: n.health, Describe: n.describeRefusals}
	receive := tcpReceiveBuffer
	if n.memory != nil {
		receive = leastReceive
	}
	in.forwarder = tcp.NewForwarder(n.stack, receive, 2*maxOpening, n.acceptTCP)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, n.handleSYN)
}

// handleSYN is called within Write for each TCP segment that belongs to no
// endpoint. Returning false makes the stack answer with an RST.
func (n *Net) handleSYN(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	hdr := header.TCP(pkt.TransportHeader().Slice())
	if len(hdr) < header.TCPMinimumSize || hdr.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	if in := n.inbound.Load(); in == nil || in.TCP == nil || !n.addrs.Load().has(fromAddress(id.LocalAddress)) {
		return false
	}
	in, peer := &n.tcpIn, fromAddress(id.RemoteAddress)
	in.mu.Lock()
	_, again := in.ids[id]
	if again {
		in.mu.Unlock()
		return true
	}
	if !in.opening.acquire(peer, id.LocalPort) {
		in.mu.Unlock()
		in.dropped.Add(1)
		n.refusals.Raise()
		return true // like a full backlog: the client retries
	}
	in.ids[id] = struct{}{}
	in.mu.Unlock()
	if !in.forwarder.HandlePacket(id, pkt) {
		in.opened(id, peer)
		return false
	}
	return true
}

// opened ends the accounting of a handshake, successful or not.
func (in *inboundTCP) opened(id stack.TransportEndpointID, peer netip.Addr) {
	in.mu.Lock()
	delete(in.ids, id)
	in.mu.Unlock()
	in.opening.release(peer, id.LocalPort)
}

// acceptTCP runs in a goroutine that the forwarder started for a SYN.
func (n *Net) acceptTCP(req *tcp.ForwarderRequest) {
	// Close has to wait for this goroutine; if Close has begun, do not answer.
	if !n.adopt() {
		req.Complete(false)
		return
	}
	defer n.wg.Done()

	id := req.ID()
	src := netip.AddrPortFrom(fromAddress(id.RemoteAddress), id.RemotePort)
	dst := netip.AddrPortFrom(fromAddress(id.LocalAddress), id.LocalPort)
	peer, local := n.openTCP(req, id, src, dst)
	n.tcpIn.opened(id, src.Addr())
	if peer == nil {
		return
	}
	defer n.tcpIn.open.release(src.Addr(), dst.Port())
	n.splice(peer, local)
}

// adopt is start for the running goroutine.
func (n *Net) adopt() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Add(1)
	return true
}

// openTCP opens both halves of a forwarded connection, or answers the request with an
// RST and returns nil.
func (n *Net) openTCP(req *tcp.ForwarderRequest, id stack.TransportEndpointID, src, dst netip.AddrPort) (*TCPConn, net.Conn) {
	policy := n.inbound.Load()
	if policy.TCP == nil { // replaced since the SYN
		req.Complete(true)
		return nil, nil
	}
	target, ok := policy.TCP(src, dst)
	if !ok {
		req.Complete(true)
		return nil, nil
	}
	if !n.tcpIn.open.acquire(src.Addr(), dst.Port()) {
		n.refusals.Raise()
		req.Complete(true)
		return nil, nil
	}
	share, err := n.memory.take()
	var local net.Conn
	if err == nil {
		local, err = n.dialLocalTCP(policy, target, src, dst)
	}
	if err != nil {
		n.log.Debug("connection refused", "peer", src, "port", dst.Port(), "err", err)
		req.Complete(true)
		share.give()
		n.tcpIn.open.release(src.Addr(), dst.Port())
		return nil, nil
	}
	// A peer that never answers the SYN-ACK would otherwise occupy the slot for the
	// two minutes of gVisor's retransmissions.
	timeout := time.AfterFunc(openTimeout, func() {
		if ep := n.stack.FindTransportEndpoint(protocolOf(src.Addr()), tcp.ProtocolNumber, id, nicID); ep != nil {
			ep.Abort()
		}
	})
	var wq waiter.Queue
	ep, terr := req.CreateEndpoint(&wq)
	early := timeout.Stop()
	req.Complete(false)
	if terr != nil || !early {
		if ep != nil {
			ep.Close() // nothing was sent yet
		}
		share.give()
		local.Close()
		n.tcpIn.open.release(src.Addr(), dst.Port())
		return nil, nil
	}
	return newTCPConn(&wq, ep, share, &n.orphans), local
}

func (n *Net) dialLocalTCP(policy *Inbound, target string, src, dst netip.AddrPort) (net.Conn, error) {
	c, err := loopback.Dial(n.ctx, "tcp", target, dst.Port(), src.Addr(), localTimeout)
	switch {
	case err == nil:
		policy.Watch.Reached(dst.Port())
	case errors.Is(err, syscall.ECONNREFUSED):
		policy.Watch.Refused("tcp", target, dst.Port())
	}
	return c, err
}
